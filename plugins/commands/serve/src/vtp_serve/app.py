"""What is answered: the page, files of the table by the numbers of their rows, pictures of them, and uploads.

Nothing is served by a path: ``/media/0/17`` is the file of row 17 of the first table, and what is in no row cannot be
asked for.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from starlette.requests import ClientDisconnect

from vtp.errors import VtpError
from vtp.page import paragraph
from vtp.shown import one_line
from vtp.types import MODALITIES, Modality
from vtp.use.search import Search, kind_of_file
from vtp_serve import page
from vtp_serve.access import Access, Guard
from vtp_serve.media import Bytes, Pictures, Unsatisfiable, is_as_embedded, media_type, span_of
from vtp_serve.uploads import Refused, Uploads

__all__ = ["Route", "Turns", "application", "assembled"]

Route = tuple[str, Callable[..., Any], list[str]]

_SHOWN = 24  # results
_LONGEST = 1000  # characters of a query
_WAITING = 16  # requests that may wait for each other


class Turns:
    """A model computes one thing at a time; some may wait for it."""

    def __init__(self) -> None:
        self._one = threading.Lock()
        self._places = threading.BoundedSemaphore(_WAITING)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """
        Raises:
            Refused: too many are waiting.
        """
        if not self._places.acquire(blocking=False):
            raise Refused(503, "Too many are asking. Try again in a moment.")
        try:
            with self._one:
                yield
        finally:
            self._places.release()


class _Served:
    """The tables, and what answers need."""

    def __init__(self, searches: Sequence[Search], access: Access, uploads: Uploads, pictures: Pictures) -> None:
        self.searches, self.access, self.uploads, self.pictures = searches, access, uploads, pictures
        there = {modality for search in searches for modality in search.modalities}
        self.modalities = [modality for modality in MODALITIES if modality in there]
        self.takes = {modality for search in searches for modality in search.takes}
        self.turns = Turns()

    def close(self) -> None:
        self.uploads.close()
        self.pictures.close()

    def found(self, query: str, modality: Modality, of: str, called: str) -> str:
        """HTML of what all tables that take this query have."""
        asked = [
            (number, search)
            for number, search in enumerate(self.searches)
            if modality in search.takes and (not of or of in search.modalities)
        ]
        if not asked:
            raise Refused(400, f"Nothing here can be searched with {modality} for what is {_PAST.get(of, 'there')}.")
        results = []
        with self.turns.taken():
            for number, search in asked:
                rows = search.find(query, modality, _SHOWN, of or None, numbered=True, called=called)
                results.append((number, search.modalities, rows, search.how(modality).split("; --")[0]))
        return page.hits(results)

    def row(self, number: int, row: int) -> dict[str, Any] | None:
        """A row of a table; None where there is none, or its file is another one by now."""
        found = self.searches[number].table.row(row) if 0 <= number < len(self.searches) else None
        return found if found is not None and is_as_embedded(found) else None


_PAST = {"video": "seen", "audio": "heard"}


def application(
    searches: Sequence[Search], *, token: str | None = None, hosts: tuple[str, ...] | None = (), most: int = 64_000_000
) -> Any:
    """The page as ASGI.

    Args:
        searches: tables with their models.
        token: that is asked for; None = none.
        hosts: names that the page is called by besides those of loopback; None = any.
        most: bytes of an upload.
    """
    access = Access(token)
    served = _Served(searches, access, Uploads(most), Pictures(searches[0].model.reader()))
    return assembled(served, _ROUTES, access, hosts)


def assembled(
    served: Any, routes: Sequence[Route], access: Access, hosts: tuple[str, ...] | None, *, chosen: bool = False
) -> Any:
    """A page as ASGI, behind its guard.

    Args:
        served: what answers need, with ``close``.
        routes: besides that of the token.
        access, hosts: as :class:`Guard` takes them.
        chosen: whether it shows files that were chosen in the browser.
    """

    @asynccontextmanager
    async def life(app: Any) -> AsyncIterator[None]:
        yield
        served.close()

    # Without its pages of documentation, which load scripts from elsewhere.
    app = FastAPI(title="vtp", docs_url=None, redoc_url=None, openapi_url=None, lifespan=life)
    app.state.served = served
    for path, endpoint, methods in (*_SHARED, *routes):
        app.add_api_route(path, endpoint, methods=methods, response_model=None)
    for error in (Refused, VtpError):
        app.add_exception_handler(error, _failed)
    app.add_exception_handler(ClientDisconnect, _gone)
    return Guard(app, access, hosts, page.policy(chosen))


def _served(request: Request) -> _Served:
    served: _Served = request.app.state.served
    return served


def _failed(request: Request, error: Exception) -> Response:
    """A line, not a traceback."""
    status = error.status if isinstance(error, Refused) else 400
    return HTMLResponse(
        paragraph(one_line(str(error)), "bad"), status, {"connection": "close"} if status == 413 else {}
    )


def _gone(request: Request, error: Exception) -> Response:
    """Somebody went away while they were sending, and nobody reads this."""
    return Response(status_code=400)


def _home(request: Request, q: str = "", of: str = "") -> Response:
    served = _served(request)
    query, status, results = q.strip(), 200, ""
    of = of if of in served.modalities else ""
    if query:
        try:
            if len(query) > _LONGEST:
                raise Refused(400, f"A text of {len(query):,} characters: give at most {_LONGEST:,}.")
            results = served.found(query, "text", of, "The text")
        except (Refused, VtpError) as error:
            status = error.status if isinstance(error, Refused) else 400
            results = paragraph(one_line(str(error)), "bad")
    windows = sum(len(search.table) for search in served.searches)
    about = f"{windows:,} windows, of what is {' and '.join(_PAST[m] for m in served.modalities)}."
    texts = "text" in served.takes
    made = page.search_page(served.modalities, texts, query[:_LONGEST], of, served.uploads.most, about, results)
    return HTMLResponse(made, status)


async def _query(request: Request, name: str = "", of: str = "") -> Response:
    served = _served(request)
    given = request.query_params.get("as", "")
    modality: Modality = given if given in served.modalities else kind_of_file(name, served.modalities)
    called = name[-200:] or "The file"
    async with served.uploads.taken(request, name) as path:
        made = await asyncio.to_thread(served.found, path, modality, of if of in served.modalities else "", called)
    return HTMLResponse(made)


def _media(request: Request, table: int, row: int) -> Response:
    found = _served(request).row(table, row)
    if found is None:
        return _absent()
    try:
        content = Bytes(found["file"])
    except (OSError, ValueError):
        return _absent()
    kind = media_type(found["file"])
    headers = {"accept-ranges": "bytes", "etag": content.tag}
    asked = request.headers.get("range")
    if request.headers.get("if-range", content.tag) != content.tag:
        asked = None
    try:
        span = span_of(asked, content.size)
    except Unsatisfiable:
        content.close()
        return Response(status_code=416, headers={**headers, "content-range": f"bytes */{content.size}"})
    first, last = span or (0, content.size - 1)
    if span:
        headers["content-range"] = f"bytes {first}-{last}/{content.size}"
    headers["content-length"] = str(last + 1 - first)
    status = 206 if span else 200
    if request.method == "HEAD":
        content.close()
        return Response(status_code=status, headers=headers, media_type=kind)
    return StreamingResponse(content.pieces(first, last), status, headers, kind)


def _picture(request: Request, table: int, row: int) -> Response:
    served = _served(request)
    found = served.row(table, row)
    made = b"" if found is None else served.pictures.of((table, row), found)
    return Response(made, media_type="image/jpeg") if made else _absent()


def _absent() -> Response:
    return Response("There is no such row.", 404, media_type="text/plain")


def _icon(request: Request) -> Response:
    return Response(status_code=204)  # browsers ask for one


def _login(request: Request) -> Response:
    return HTMLResponse(page.login(False)) if request.app.state.served.access.asks else RedirectResponse(".", 303)


async def _enter(request: Request) -> Response:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > 8192:
            raise Refused(413, "A token is shorter than this.")
    access: Access = request.app.state.served.access
    (given, *_) = parse_qs(body.decode("utf-8", "replace")).get("token", [""])
    if not access.fits(given.strip()):
        await asyncio.sleep(0.5)  # guessing takes time
        return HTMLResponse(page.login(True), 401)
    return RedirectResponse(".", 303, {"set-cookie": access.cookie()} if access.asks else None)


_ROUTES: list[Route] = [
    ("/", _home, ["GET"]),
    ("/query", _query, ["POST"]),
    ("/media/{table:int}/{row:int}", _media, ["GET", "HEAD"]),
    ("/picture/{table:int}/{row:int}", _picture, ["GET"]),
]
_SHARED: list[Route] = [
    ("/favicon.ico", _icon, ["GET"]),
    ("/login", _login, ["GET"]),
    ("/login", _enter, ["POST"]),
]
