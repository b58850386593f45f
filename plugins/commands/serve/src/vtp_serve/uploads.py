"""What people send as a query: a file of bounded size, under a name that is ours."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from vtp.media.extensions import MEDIA

__all__ = ["Refused", "Uploads"]

_AT_ONCE = 4  # uploads; together with their size that bounds the disk
_SECONDS = 300.0  # for one


class Refused(Exception):
    """An upload that is not taken.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Uploads:
    """A folder of uploads, which are removed when they are answered.

    Args:
        most: bytes of one.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._folder = tempfile.TemporaryDirectory(prefix="vtp-serve-")
        self._under_way = 0

    def close(self) -> None:
        self._folder.cleanup()

    @asynccontextmanager
    async def taken(self, request: Any, name: str) -> AsyncIterator[str]:
        """The path of what a request sends, while it is needed.

        Args:
            name: of the file where it comes from; its ending alone is looked at.

        Raises:
            Refused: it is empty, too large or too slow, or there are too many.
        """
        said = request.headers.get("content-length", "")
        if said.isdecimal() and int(said[:19]) > self.most:
            raise Refused(413, self._too_large())
        if self._under_way >= _AT_ONCE:
            raise Refused(503, "Others are sending files. Try again in a moment.")
        self._under_way += 1
        path = ""
        try:
            ending = Path(name.replace("\0", "")).suffix.lower()
            number, path = tempfile.mkstemp(ending if ending in MEDIA else "", dir=self._folder.name)
            with os.fdopen(number, "wb") as file:
                try:
                    async with asyncio.timeout(_SECONDS):
                        await self._write(request, file)
                except TimeoutError:
                    raise Refused(408, "This took too long.") from None
            yield path
        finally:
            self._under_way -= 1
            if path:
                os.unlink(path)

    async def _write(self, request: Any, file: Any) -> None:
        size = 0
        async for piece in request.stream():
            size += len(piece)
            if size > self.most:
                raise Refused(413, self._too_large())
            await asyncio.to_thread(file.write, piece)
        if not size:
            raise Refused(400, "The file is empty.")

    def _too_large(self) -> str:
        return f"The file is larger than {self.most / 1e6:,.0f} MB, the most that is taken (--max-upload)."
