"""How Sphinx builds the site: `make docs`. tools/docs/build.py lays the sources out first; read its docstring."""

import os
import re
from typing import Any

from pygments.lexers.special import TextLexer

project = "vtp"
author = "the vtp authors"
project_copyright = "the vtp authors, Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["conf.py", "theme"]
source_suffix = {".md": "markdown"}
root_doc = "index"

# A block without a language holds commands, files or formulas: it is shown as it is.
highlight_language = "text"
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
python_maximum_signature_line_length = 100
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
# Docstrings name things that stand in several modules, such as Tokens: both are meant.
suppress_warnings = ["ref.python"]

html_theme = "pydata_sphinx_theme"
html_title = "vtp"
html_static_path = ["theme"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_last_updated_fmt = None  # the same sources give the same site
html_theme_options = {
    "logo": {"text": "vtp"},
    "header_links_before_dropdown": 7,
    "navigation_depth": 2,
    "show_nav_level": 1,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "navbar_align": "left",
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "search_bar_text": "Search",
    "back_to_top_button": False,
}
html_sidebars = {"index": []}
if base := os.environ.get("VTP_DOCS_URL"):  # where it will be published, for canonical addresses
    html_baseurl = base


def setup(app: Any) -> None:
    """Tables of data have no lexer of their own; a default that is no Python (<factory>) is shown as ``...``."""
    app.add_lexer("csv", TextLexer)
    app.connect("autodoc-process-signature", _plain_defaults)


def _plain_defaults(app: Any, what: str, name: str, item: Any, options: Any, signature: str, result: str) -> Any:
    return (re.sub(r"<[^<>]*>", "...", signature), result) if signature else None  # a module has none
