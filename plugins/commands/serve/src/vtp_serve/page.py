"""The page, in the looks of the other pages of vtp. Every text from elsewhere passes :func:`vtp.page.text`."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from vtp.page import document, heading, paragraph, text
from vtp.use.search import clock
from vtp_serve.media import tag

__all__ = ["policy", "hits", "login", "search_page", "whole"]

STYLE = """
form { display: flex; flex-wrap: wrap; gap: .6em; margin: .8em 0; align-items: center; }
input, select, button { font: inherit; padding: .4em .6em; border: 1px solid #8c959f; border-radius: 5px;
  background: inherit; color: inherit; min-width: 0; }
input[type=search], input[type=file], input[type=password] { flex: 1 1 14em; max-width: 100%; box-sizing: border-box; }
option { background: #fff; color: #1b1f24; }
button { background: #1f6feb; border-color: #1f6feb; color: #fff; cursor: pointer; }
#results ol { list-style: none; padding: 0; display: grid; gap: 1.2em;
  grid-template-columns: repeat(auto-fill, minmax(min(15em, 100%), 1fr)); }
#results video, #results img { width: 100%; max-width: none; max-height: none; aspect-ratio: 16 / 9; border-radius: 5px;
  object-fit: contain; background: #000; }
#results audio { width: 100%; }
#results li p { margin: .3em 0; overflow-wrap: anywhere; line-height: 1.35; }
fieldset { flex: 1 1 100%; display: flex; flex-wrap: wrap; gap: .6em; align-items: center; border: 0; padding: 0;
  margin: 0; min-width: 0; }
textarea { font: inherit; padding: .4em .6em; border: 1px solid #8c959f; border-radius: 5px; background: inherit;
  color: inherit; flex: 1 1 14em; max-width: 100%; box-sizing: border-box; }
input[type=text] { flex: 1 1 14em; max-width: 100%; box-sizing: border-box; }
#preview { flex: 1 1 100%; overflow: hidden; }
#preview video, #preview img { display: block; height: 14em; max-width: 100%; max-height: none; object-fit: contain;
  border-radius: 5px; background: #000; }
#preview audio { width: min(100%, 32em); }
#results section { margin: 1.2em 0; } #results section h2 { margin: 0 0 .3em; overflow-wrap: anywhere; }
#results section td { overflow-wrap: anywhere; } #results meter { width: min(20em, 24vw); }
"""

SCRIPT = """
const upload = document.querySelector("#upload"), said = document.querySelector("#said");
if (upload) upload.onsubmit = async event => {
  event.preventDefault();
  const file = upload.elements.file.files[0];
  if (!file) { said.textContent = "Choose a file first."; return; }
  if (file.size > Number(upload.dataset.most)) { said.textContent = upload.dataset.larger; return; }
  const asked = new URLSearchParams({ name: file.name, as: upload.elements.as.value, of: upload.elements.of.value });
  said.textContent = "searching\\u2026";
  try {
    const answer = await fetch("query?" + asked, { method: "POST", body: file });
    if (answer.status === 401) { location.href = "login"; return; }
    document.querySelector("#results").innerHTML = await answer.text();
    said.textContent = "";
  } catch { said.textContent = "The connection ended before there was an answer."; }
};
const tried = document.querySelector("#try");
if (tried) {
  const preview = document.querySelector("#preview"), results = document.querySelector("#results");
  tried.elements.file.onchange = () => {
    const file = tried.elements.file.files[0], kind = file ? file.type.split("/")[0] : "";
    const shown = { video: "video", audio: "audio", image: "img" }[kind];
    results.replaceChildren();
    said.textContent = "";
    for (const old of preview.children) URL.revokeObjectURL(old.src);
    preview.replaceChildren();
    if (!shown) return;
    const player = document.createElement(shown);
    player.src = URL.createObjectURL(file);
    if (shown === "img") player.alt = ""; else player.controls = true;
    preview.append(player);
  };
  tried.onsubmit = async event => {
    event.preventDefault();
    const file = tried.elements.file.files[0], what = event.submitter?.value ?? tried.querySelector("button").value;
    const field = tried.elements[what];  /* a description needs none */
    const words = field && field.tagName !== "BUTTON" ? field.value.trim() : "";
    if (!file) { said.textContent = "Choose a file first."; return; }
    if (field && !words) { said.textContent = field.dataset.empty; field.focus(); return; }
    if (file.size > Number(tried.dataset.most)) { said.textContent = tried.dataset.larger; return; }
    said.textContent = "working\\u2026";
    try {
      const asked = new URLSearchParams({ name: file.name, words });
      const answer = await fetch(what + "?" + asked, { method: "POST", body: file });
      if (answer.status === 401) { location.href = "login"; return; }
      results.insertAdjacentHTML("afterbegin", await answer.text());
      said.textContent = "";
    } catch { said.textContent = "The connection ended before there was an answer."; }
  };
}
"""

_TITLES = {"video": "seen", "audio": "heard"}


def whole(title: str, parts: Iterable[str]) -> str:
    """A page: ``title`` is a text, ``parts`` are HTML."""
    return document(title, parts, STYLE, SCRIPT)


def policy(chosen: bool = False) -> str:
    """The ``Content-Security-Policy`` of the page: its own style and script, pictures and sounds of this server, and
    nothing from elsewhere.

    Args:
        chosen: the page shows files that were chosen in the browser, before they are sent.
    """
    page = whole("", [])

    def own(element: str) -> str:
        found = re.findall(f"<{element}>(.*?)</{element}>", page, re.DOTALL)
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(f.encode()).digest()).decode()}'" for f in found)

    media = "'self' blob:" if chosen else "'self'"
    return (
        f"default-src 'none'; style-src {own('style')}; script-src {own('script')}; img-src {media}; "
        f"media-src {media}; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def search_page(
    modalities: Sequence[str], texts: bool, query: str, of: str, most: int, about: str, results: str
) -> str:
    """The page.

    Args:
        modalities: of the windows of the tables.
        texts: whether they can be searched with words.
        query, of: what is in the form: a text, and the modality that is chosen.
        most: bytes of an upload.
        about: a line of what is searched.
        results: HTML.
    """
    parts = [heading("Search", 1), paragraph(about, "note")]
    shown = _choice("of", "where", [("", "everything"), *((m, _TITLES[m]) for m in modalities)], of)
    if texts:
        parts.append(
            f'<form id="search" role="search" action="." method="get"><input type="search" name="q" maxlength="1000" '
            f'aria-label="what to search for" placeholder="a dog runs" value="{text(query)}" autofocus>'
            f"{shown}<button>Search</button></form>"
        )
    kinds = [("", "by its name")] + [(m, {"video": "as a picture", "audio": "as a sound"}[m]) for m in modalities]
    larger = f"The file is larger than {most / 1e6:,.0f} MB."
    parts.append(
        f'<form id="upload" data-most="{most}" data-larger="{text(larger)}"><input type="file" name="file" '
        f'accept="video/*,audio/*,image/*" aria-label="a clip, a picture or a sound to search with">'
        f"{_choice('as', 'what the file counts as', kinds, '')}{shown}<button>Search with a file</button>"
        '<span id="said" class="note" role="status"></span></form>'
    )
    return whole(f"{query} - search" if query else "Search", [*parts, f'<main id="results">{results}</main>'])


def _choice(name: str, label: str, options: Sequence[tuple[str, str]], chosen: str) -> str:
    listed = "".join(
        f'<option value="{text(value)}"{" selected" if value == chosen else ""}>{text(shown)}</option>'
        for value, shown in options
    )
    return f'<select name="{name}" aria-label="{text(label)}">{listed}</select>'


def hits(found: Sequence[tuple[int, Sequence[str], Sequence[Mapping[str, Any]], str]]) -> str:
    """What was found, best first.

    Args:
        found: of each table its number, its modalities, the rows, and how it was searched.
    """
    parts = []
    for number, modalities, rows, how in found:
        if len(found) > 1:
            parts.append(heading(" and ".join(_TITLES[m] for m in modalities).capitalize()))
        parts.append(f"<ol>{''.join(_hit(number, row) for row in rows)}</ol>" if rows else paragraph("Nothing."))
        parts.append(paragraph(how, "note"))
    return "\n".join(parts)


def _hit(number: int, row: Mapping[str, Any]) -> str:
    path, at = str(row["file"]), f"{number}/{row['row']}"
    source, kind = f"media/{at}", tag(path)
    if kind == "img":
        player = f'<a href="{source}"><img alt="" loading="lazy" src="picture/{at}"></a>'
    else:
        poster = f' poster="picture/{at}"' if kind == "video" else ""
        player = (
            f'<{kind} controls preload="none"{poster} src="{source}#t={row["start"]:.3f},{row["end"]:.3f}"></{kind}>'
        )
    seconds = f"{clock(row['start'])} to {clock(row['end'])}, {_TITLES[row['modality']]}"
    return (
        f'<li>{player}<p><b>{row["score"]:.3f}</b> <span title="{text(path)}">{text(PurePath(path).name)}</span><br>'
        f'<span class="note">{text(seconds)}</span></p></li>'
    )


def login(wrong: bool) -> str:
    """The page that asks for the token."""
    parts = [heading("Token", 1), paragraph("It is in the file that vtp serve names when it starts.", "note")]
    if wrong:
        parts.append(paragraph("This is not the token.", "bad"))
    parts.append(
        '<form action="login" method="post"><input type="password" name="token" aria-label="token" '
        'autocomplete="current-password" autofocus><button>Enter</button></form>'
    )
    return whole("Token", parts)
