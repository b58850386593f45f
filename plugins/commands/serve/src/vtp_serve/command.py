"""``vtp serve TABLE ...`` or ``vtp serve MODEL``: the page, on this machine alone unless it is told otherwise."""

from __future__ import annotations

import argparse
import logging
import re
import socket
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

from vtp.cli.arguments import Parser, a, place
from vtp.errors import ConfigError
from vtp.ranges import Count, Range
from vtp.shown import one_line
from vtp.use.places import is_path
from vtp_serve.access import is_loopback, token_of

__all__ = ["main"]

ABOUT = """A page to search tables that `vtp embed` made, or to try a model, in a browser:

  vtp serve index
  vtp serve seen heard --port 9000
  vtp serve index --host 0.0.0.0 --token-file token
  vtp serve outputs/DATE/TIME
  vtp serve model=clip

Tables: type what you look for, or give a clip, a picture or a sound; what is found plays from that second on. Several
tables, such as one of pictures and one of sounds of the same files, are searched with whatever each of them takes.

A model (whatever vtp.load takes): choose a clip, a picture or a sound, ask a question about it, have it described, or
compare it with texts, whichever of these the model can.

Only this machine can reach it, unless --host says otherwise: then a token is asked for, which is written into
--token-file and never shown. The connection is not encrypted: on a network that others use, go through ssh -L or a
proxy with TLS. Files of the tables are served to whoever is let in, others never."""

_Port = Annotated[int, Range(least=0, most=65535)]
_NEEDS = ("fastapi", "uvicorn")


def main(arguments: list[str]) -> int:
    """Serve until Ctrl-C."""
    parsed = _parser().parse_args(arguments)
    _libraries()
    token = _token(parsed.host, parsed.token_file)
    with _listening(parsed.host, parsed.port) as listening:
        how: dict[str, Any] = {"token": token, "most": parsed.max_upload * 1_000_000}
        how["hosts"] = (parsed.host,) if is_loopback(parsed.host) else None
        app, what = _page(parsed, how)
        shown = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
        print(one_line(f"{what} at http://{shown}:{listening.getsockname()[1]}/  (Ctrl-C ends it)"))
        if token is not None:
            print(one_line(f"the token is in {parsed.token_file}"))
        _serve(app, listening)
    return 0


def _page(parsed: argparse.Namespace, how: dict[str, Any]) -> tuple[Any, str]:
    """The page, and a word of what it is over.

    Raises:
        ConfigError: tables and models are mixed, or nothing is named.
    """
    models = [name for name in parsed.table if _is_model(name)]
    if not parsed.table:
        raise ConfigError("expected TABLE ..., what `vtp embed` wrote, or MODEL. `vtp serve --help` explains.")
    if models and (len(parsed.table) > 1 or parsed.model):
        raise ConfigError(f"{models[0]} is a model, which has a page of its own: vtp serve {models[0]}")
    if models:
        from vtp.use.loading import load
        from vtp_serve.model_app import model_application

        return model_application(models[0], load(models[0], device=parsed.device, workers=0), **how), models[0]
    searches = _searches(parsed.table, parsed.model, parsed.device)
    from vtp_serve.app import application

    return application(searches, **how), f"{sum(len(search.table) for search in searches):,} windows"


def _is_model(name: str) -> bool:
    """Whether a name is of a model: options, a run or a saved model, or a name on the hub."""
    path = Path(name).expanduser()
    if not path.exists():
        return "=" in name or (not is_path(name) and re.fullmatch(r"[\w.-]*\w/[\w.-]*\w", name) is not None)
    return any((path / file).exists() for file in ("config.json", "checkpoints", "model.safetensors", "config.yaml"))


def _serve(app: Any, listening: socket.socket) -> None:
    uvicorn = import_module("uvicorn")
    config = uvicorn.Config(
        app,
        access_log=False,  # queries are nobody's business
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=100,
        timeout_graceful_shutdown=2,
        ws="none",
    )
    server = uvicorn.Server(config)
    # At the end requests that are still answered are cancelled, and uvicorn would print a traceback for each.
    logging.getLogger("uvicorn.error").addFilter(lambda record: not server.should_exit)
    sys.stdout.flush()
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:  # that is how it ends
        return


def _libraries() -> None:
    """
    Raises:
        ConfigError: one is missing.
    """
    for name in _NEEDS:
        try:
            import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"the page needs {' and '.join(_NEEDS)}, and {name} cannot be imported ({error}). "
                f"Get them with: pip install {' '.join(_NEEDS)} lancedb"
            ) from error


def _token(host: str, file: str | None) -> str | None:
    if file is None and not is_loopback(host):
        raise ConfigError(
            f"--host {host} can be reached from other machines, and whoever reaches it sees your files. Add "
            "--token-file FILE: a new token is written there, and the page asks for it."
        )
    return None if file is None else token_of(Path(file).expanduser())


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"--host {host} --port {port} cannot be listened at: {reason}. --port 0 takes any free one."
        ) from None


def _searches(tables: list[str], given: str | None, device: str) -> list[Any]:
    from vtp.use.loading import load
    from vtp.use.search import Search
    from vtp.use.table import Table

    opened = [(name, Table.open(name)) for name in tables]
    models: dict[str, Any] = {}
    searches = []
    for name, table in opened:
        source = given or table.about["model"]
        if source not in models:
            models[source] = load(source, device=device, workers=0)
        searches.append(Search(name, table, models[source]))
    return searches


def _parser() -> Parser:
    parser = Parser(prog="vtp serve", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "table", metavar="TABLE|MODEL", nargs="*", type=place, help="what `vtp embed` wrote, or a model"
    )
    parser.add_argument("--host", type=place, default="127.0.0.1", help="address to listen at (%(default)s)")
    parser.add_argument("--port", type=a(_Port), default=8000, help="0 takes any free one (%(default)s)")
    parser.add_argument("--token-file", type=place, metavar="FILE", help="where the token is, or is made")
    parser.add_argument("--model", type=place, help="where the model of the tables lies now")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (%(default)s)")
    parser.add_argument(
        "--max-upload", type=a(Count), default=64, metavar="MB", help="largest file that is taken (%(default)s)"
    )
    return parser
