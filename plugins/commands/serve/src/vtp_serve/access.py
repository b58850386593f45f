"""Who is let in, and what every answer says to the browser.

On loopback everybody who works on the machine is let in, but no page of another site: the name that the browser was
pointed at (``Host``) must be one of this machine's, or a site could let its own name stand for 127.0.0.1. On other
addresses a token is asked for. It comes by the form of ``/login`` or as ``Authorization: Bearer``, never in an
address, where histories and logs of proxies would keep it; the cookie holds a hash of it.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import stat
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vtp.errors import ConfigError

__all__ = ["Access", "Guard", "is_loopback", "token_of"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

COOKIE = "vtp-serve"
_OPEN = ("/login", "/favicon.ico")  # without a token
_SHORTEST = 16  # characters of a token
_LOCAL = ("localhost", "127.0.0.1", "::1")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address. A name other than localhost may be anybody's."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def token_of(file: Path) -> str:
    """The token in a file, which is made with a new one if it is not there, readable by its owner alone.

    Raises:
        ConfigError: others may read it, it cannot be read, or the token is short or no plain text.
    """
    try:
        try:
            made = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            pass
        else:
            with os.fdopen(made, "w", encoding="ascii") as new:
                new.write(secrets.token_urlsafe(32) + "\n")
        with open(file, encoding="ascii") as opened:
            status = os.fstat(opened.fileno())
            token = opened.read(4096).strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no plain text"
        raise ConfigError(f"--token-file {file} cannot be used: {reason}.") from None
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigError(f"--token-file {file} can be read by others on this machine. Do: chmod 600 {file}")
    if len(token) < _SHORTEST or not token.isprintable():
        raise ConfigError(
            f"--token-file {file}: a token must be a line of at least {_SHORTEST} characters. Remove the file, and a "
            "new one is made."
        )
    return token


class Access:
    """The token, where there is one."""

    def __init__(self, token: str | None) -> None:
        self._token = None if token is None else token.encode()
        self._session = None if token is None else hmac.new(token.encode(), b"vtp serve", hashlib.sha256).hexdigest()

    @property
    def asks(self) -> bool:
        """Whether a token is needed."""
        return self._token is not None

    def fits(self, given: str) -> bool:
        """Whether this is the token; takes as long for every wrong one."""
        return self._token is None or hmac.compare_digest(given.encode("utf-8", "replace"), self._token)

    def cookie(self) -> str:
        """What the browser is to keep once the token was right."""
        return f"{COOKIE}={self._session}; Path=/; HttpOnly; SameSite=Strict"

    def admits(self, headers: dict[str, str]) -> bool:
        """Whether a request may go on."""
        if self._session is None:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.fits(given.strip())
        try:
            kept = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return kept is not None and hmac.compare_digest(kept.value.encode("utf-8", "replace"), self._session.encode())


class Guard:
    """Stands before the application: refuses requests, and adds headers to every answer.

    Args:
        app: what answers, as ASGI.
        access: the token.
        hosts: names that ``Host`` may have, besides those of loopback; None = any (a token is asked for then).
        policy: the ``Content-Security-Policy``.
    """

    def __init__(self, app: Any, access: Access, hosts: tuple[str, ...] | None, policy: str) -> None:
        self.app, self.access, self.policy = app, access, policy
        self.hosts = None if hosts is None else frozenset((*_LOCAL, *(host.lower() for host in hosts)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no sockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = _host(headers.get("host", ""))
        answer = self._dressed(send)
        if self.hosts is not None and host not in self.hosts:
            await _refuse(answer, 421, "This page is for the machine it runs on, by the name localhost.")
        elif scope["method"] not in ("GET", "HEAD") and not _own(headers):
            await _refuse(answer, 403, "This comes from another site.")
        elif scope["path"] not in _OPEN and not self.access.admits(headers):
            if scope["path"] == "/" and scope["method"] == "GET":
                await _refuse(answer, 303, "A token is needed.", (b"location", b"/login"))
            else:
                await _refuse(answer, 401, "A token is needed.", (b"www-authenticate", b"Bearer"))
        else:
            await self.app(scope, receive, answer)

    def _dressed(self, send: Send) -> Send:
        more = {
            "content-security-policy": self.policy,
            "x-content-type-options": "nosniff",
            "referrer-policy": "same-origin",  # with no-referrer a form of our own comes from Origin: null
            "cross-origin-resource-policy": "same-origin",  # no page of another site shows what is here
            "cross-origin-opener-policy": "same-origin",
        }

        async def dressed(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                known = {name.lower() for name, _ in message["headers"]}
                added = [(n.encode(), v.encode()) for n, v in more.items()]
                if b"cache-control" not in known:
                    added.append((b"cache-control", b"no-store"))
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        return dressed


def _host(value: str) -> str:
    """The name in ``Host``, without the port: ``[::1]:80`` is ``::1``."""
    match = re.fullmatch(r"\[([0-9a-fA-F:.]+)\](?::\d+)?|([^:\s/@]+)(?::\d+)?", value)
    return "" if match is None else (match[1] or match[2]).lower()


def _own(headers: dict[str, str]) -> bool:
    """Whether something was sent by a page of this server, or by no page."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()


async def _refuse(send: Send, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
    about = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(text)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": about})
    await send({"type": "http.response.body", "body": text.encode()})
