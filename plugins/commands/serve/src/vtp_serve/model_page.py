"""The page on a model, and what is shown of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import starmap

from vtp.page import heading, number, paragraph, table, text
from vtp_serve.page import whole

__all__ = ["compared", "described", "model_page", "ranked"]

_TAKES = {"video": ["a clip", "a picture"], "audio": ["a sound"]}


def model_page(name: str, can: Sequence[str], takes: Sequence[str], most: int) -> str:
    """The page.

    Args:
        name: of the model.
        can: what it is asked for: ``ask``, ``caption``, ``compare``.
        takes: modalities of the file.
        most: bytes of it.
    """
    *first, last = [one for modality in takes for one in _TAKES[modality]]
    what = f"{', '.join(first)} or {last}" if first else last
    kinds = ["video/*", "image/*"] * ("video" in takes) + ["audio/*"] * ("audio" in takes)
    parts = [
        f'<input type="file" name="file" accept="{",".join(kinds)}" aria-label="{text(what)}">',
        '<div id="preview"></div>',
    ]
    if "ask" in can:
        parts.append(
            '<fieldset><input type="text" name="ask" maxlength="1000" aria-label="a question" data-empty="Type a '
            'question first." placeholder="what colour is the ball"><button value="ask">Ask</button></fieldset>'
        )
    if "compare" in can:
        parts.append(
            '<fieldset><textarea name="compare" rows="4" maxlength="4000" aria-label="texts to compare it with, one a '
            'line" data-empty="Write texts first, one a line." placeholder="a dog runs&#10;a cat sleeps"></textarea>'
            '<button value="compare">Compare</button></fieldset>'
        )
    if "caption" in can:
        parts.append('<fieldset><button value="caption">Describe</button></fieldset>')
    larger = text(f"The file is larger than {most / 1e6:,.0f} MB.")
    form = f'<form id="try" data-most="{most}" data-larger="{larger}">{"".join(parts)}</form>'
    return whole(
        f"{name} - try",
        [
            heading("Try a model", 1),
            paragraph(f"{name}. Choose {what}.", "note"),
            form,
            '<p id="said" class="note" role="status"></p><main id="results"></main>',
        ],
    )


def _section(title: str, file: str, content: str) -> str:
    return f"<section>{heading(title)}{paragraph(file, 'note')}{content}</section>"


def ranked(question: str, file: str, answers: Sequence[tuple[str, float]]) -> str:
    """The likeliest answers to a question about a file, with their probabilities."""
    rows = [(text(answer), _meter(share), number(share, f"{100 * share:.1f} %")) for answer, share in answers]
    return _section(question, file, table(("answer", "", "probability"), rows, (2,)))


def described(sentence: str, file: str) -> str:
    """A sentence about a file."""
    return _section("Described", file, f'<p class="headline">{text(sentence) or "&mdash;"}</p>')


def compared(file: str, scores: Sequence[tuple[str, float]]) -> str:
    """Texts with their cosines, the most alike first."""

    def row(sentence: str, score: float) -> tuple[str, str, str]:
        return text(sentence), _meter(score), number(score, f"{score:.3f}")

    return _section("Compared", file, table(("text", "", "cosine"), [*starmap(row, scores)], (2,)))


def _meter(share: float) -> str:
    """A bar; its length is an attribute, for the page allows no styles but its own."""
    return f'<meter min="0" max="1" value="{min(max(share, 0.0), 1.0):.4f}"></meter>'
