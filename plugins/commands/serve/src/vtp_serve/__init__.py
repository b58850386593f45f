"""A page over what ``vtp embed`` wrote: search with a text, a clip or a sound, and play what is found; and a page to
try a model on a file.

    command.py   vtp serve: arguments, address, token
    app.py       what is answered
    page.py      HTML
    model_app.py, model_page.py   the same of the page on a model
    access.py    who is let in
    media.py     bytes and pictures of indexed files
    uploads.py   files as queries

Nothing heavy is imported here.
"""

__version__ = "0.1.0"
