"""A name of a file that would do harm in a page that does not escape it."""

HTML_NAME = "<img src=x onerror=alert(1)> & b.mp4"
