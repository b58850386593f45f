"""``vtp search TABLE QUERY``: the windows that are most like a text, a clip or a sound."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from vtp.cli.arguments import Parser, a, place, words
from vtp.errors import ConfigError, DataError
from vtp.media.extensions import MEDIA
from vtp.ranges import Count
from vtp.shown import one_line

__all__ = ["main"]

ABOUT = """Search a table that `vtp embed` made, with a text or with a file of your own:

  vtp search index "a dog runs"
  vtp search index clip.mp4 -k 5
  vtp search index bark.wav --modality video

prints score (cosine), file, seconds and modality of the windows that are most alike, the best first."""


def main(arguments: list[str]) -> int:
    """Print what is found."""
    parsed = _parser().parse_args(arguments)
    from vtp.use.loading import load
    from vtp.use.search import Search
    from vtp.use.table import Table

    table = Table.open(parsed.table)
    modality = _modality(parsed.query, parsed.query_as, table.about)
    search = Search(parsed.table, table, load(parsed.model or table.about["model"], device=parsed.device, workers=0))
    for row in search.find(parsed.query, modality, parsed.k, parsed.modality, exact=parsed.exact):
        print(json.dumps(row, ensure_ascii=False) if parsed.json else _line(row))
    if not parsed.json:
        print(search.how(modality, parsed.exact))
    return 0


def _modality(query: str, given: str | None, about: dict[str, Any]) -> Any:
    """What the query is.

    Raises:
        DataError: it looks like a file and there is none.
        ConfigError: the table cannot be searched with it.
    """
    ending = Path(query).suffix.lower()
    if given is None and (ending in MEDIA or os.sep in query) and not os.path.isfile(query) and " " not in query:
        raise DataError(f"{query}: there is no such file. A text that looks like one is searched for with --as text.")
    there = about["modalities"]
    if given is None and not os.path.isfile(query):
        given = "text"
    elif given is None:
        from vtp.use.search import kind_of_file

        given = kind_of_file(query, there)
    if given != "text" and given not in there:
        raise ConfigError(f"this table has embeddings of {' and '.join(there)}, and cannot be searched with {given}.")
    return given


def _line(row: dict[str, Any]) -> str:
    from vtp.use.search import clock

    return one_line(f"{row['score']:.4f}  {row['file']}  {clock(row['start'])}-{clock(row['end'])}  {row['modality']}")


def _parser() -> Parser:
    parser = Parser(prog="vtp search", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", metavar="TABLE", type=place, help="what `vtp embed` wrote")
    parser.add_argument("query", metavar="QUERY", type=words, help="a text, or a file")
    parser.add_argument("-k", type=a(Count), default=10, help="how many (%(default)s)")
    parser.add_argument("--modality", choices=("video", "audio"), help="only windows of this one")
    parser.add_argument("--as", dest="query_as", choices=("text", "video", "audio"), help="what QUERY is")
    parser.add_argument("--model", type=place, help="where the model of the table lies now")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (%(default)s)")
    parser.add_argument("--exact", action="store_true", help="leave the index alone")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    return parser
