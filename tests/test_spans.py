"""Names of clips that are spans of a longer one."""

from vtp.spans import span_name, whole_clip


def test_what_is_a_span():
    spans = {"a[0-2.5]": "a", "a[3-]": "a", "a[1e+06-2e+06]": "a", "a[x]": "a[x]", "[1-2]b": "[1-2]b"}
    for name, clip in spans.items():
        assert whole_clip(name) == clip
    for start, end in ((0, 2.5), (3, None), (None, 1e6), (1e-7, 1e7)):
        assert whole_clip(span_name("a[x]", start, end)) == "a[x]" != span_name("a[x]", start, end)
    assert span_name("a", None, None) == "a" and span_name("a", None, 2.5) == "a[0-2.5]"
