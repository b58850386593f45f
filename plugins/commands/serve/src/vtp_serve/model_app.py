"""What the page on a model answers: a question about an upload, a sentence, how alike texts are to it.

Nothing on the disk is served: files come from the browser, are bounded like those that are searched with, and are
removed when they are answered.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse

from vtp.errors import ConfigError, DataError, VtpError
from vtp.types import Modality
from vtp.use.model import Model
from vtp.use.search import kind_of_file
from vtp_serve import model_page
from vtp_serve.access import Access
from vtp_serve.app import Route, Turns, assembled
from vtp_serve.uploads import Refused, Uploads

__all__ = ["model_application"]

_LONGEST = 1000  # characters of a text
_TEXTS = 50  # lines that are compared
_SHOWN = 10  # answers


class _Tried:
    """The model, and what answers need."""

    def __init__(self, name: str, model: Model, access: Access, most: int) -> None:
        """
        Raises:
            ConfigError: it can do nothing with a file.
        """
        self.name, self.model, self.access = name, model, access
        self.turns = Turns()
        compared = [found for found in model.compared().values() if "text" in found]
        self.beside_texts: list[Modality] = [m for m in ("video", "audio") if any(m in found for found in compared)]
        tasks = model.tasks
        self.can = ["ask"] * ("answer" in tasks) + ["compare"] * bool(self.beside_texts)
        self.can += ["caption"] * ("caption" in tasks)
        whole = "ask" in self.can or "caption" in self.can
        self.takes = [m for m in ("video", "audio") if m in self.beside_texts or (whole and m in model.modalities)]
        if not self.can:
            raise ConfigError(
                f"{name} answers no questions, writes no captions and compares nothing with texts, so there is nothing "
                "to try. Train it with objective=[vtc], objective=[caption] or task=qa."
            )
        self.uploads = Uploads(most)

    def close(self) -> None:
        self.uploads.close()

    def answered(self, what: str, path: str, called: str, words: str) -> str:
        """HTML of what the model says of a file."""
        if what not in self.can:
            raise Refused(404, f"This model cannot {what}.")
        texts = [line.strip() for line in words.splitlines() if line.strip()]
        if what != "caption" and not texts:
            raise Refused(400, "There are no words.")
        if len(texts) > _TEXTS or max(map(len, texts), default=0) > _LONGEST:
            raise Refused(400, f"Give at most {_TEXTS} texts of at most {_LONGEST:,} characters.")
        try:
            with self.turns.taken():
                if what == "ask":
                    question = " ".join(texts)
                    return model_page.ranked(question, called, self.model.answer(path, question, top=_SHOWN).ranking)
                if what == "caption":
                    return model_page.described(self.model.caption(path), called)
                return model_page.compared(called, self._compared(path, called, list(dict.fromkeys(texts))))
        except DataError as error:  # under the name that the file has in the browser
            raise DataError(str(error).replace(path, called)) from error

    def _compared(self, path: str, called: str, texts: list[str]) -> list[tuple[str, float]]:
        modality = kind_of_file(called, self.beside_texts)
        if modality not in self.beside_texts:
            raise Refused(400, f"This model compares {' and '.join(self.beside_texts)} with texts, no {modality}.")
        lists: dict[str, Any] = {f"{modality}s": [path]}
        space = self.model.space([modality, "text"])
        found = self.model.encode(**lists, texts=texts, objective=space, progress=False)
        seen = found.videos if modality == "video" else found.audios
        scores = self.model.similarity(found.texts, seen)[:, 0].tolist()
        return sorted(zip(texts, scores, strict=True), key=lambda pair: -pair[1])


def model_application(
    name: str, model: Model, *, token: str | None = None, hosts: tuple[str, ...] | None = (), most: int = 64_000_000
) -> Any:
    """The page on a model as ASGI; arguments as of :func:`vtp_serve.app.application`.

    Raises:
        ConfigError: the model can do nothing with a file.
    """
    access = Access(token)
    return assembled(_Tried(name, model, access, most), _ROUTES, access, hosts, chosen=True)


def _tried(request: Request) -> _Tried:
    tried: _Tried = request.app.state.served
    return tried


def _home(request: Request) -> Response:
    tried = _tried(request)
    return HTMLResponse(model_page.model_page(tried.name, tried.can, tried.takes, tried.uploads.most))


async def _answer(request: Request, what: str, name: str = "", words: str = "") -> Response:
    tried = _tried(request)
    called = name[-200:] or "The file"
    async with tried.uploads.taken(request, name) as path:
        try:
            made = await asyncio.to_thread(tried.answered, what, path, called, words)
        except VtpError as error:
            raise Refused(400, str(error)) from error
    return HTMLResponse(made)


_ROUTES: list[Route] = [
    ("/", _home, ["GET"]),
    ("/{what}", _answer, ["POST"]),
]
