"""What every test of this package sees: one thread per process, no network, and a page over a small table."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from vtp.testing.environment import prepare, seeded  # noqa: F401 (a fixture)

prepare()  # before torch or tokenizers are imported

ROOT = Path(__file__).resolve().parents[4]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "tests" / "use")]  # odd_names.py, small_models.py


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """``media`` with clips, one of them with a name that is HTML; ``seen`` and ``heard``, tables of them; ``model``."""
    for library in ("lancedb", "fastapi", "uvicorn"):
        pytest.importorskip(library, reason=f"vtp serve needs {library}")
    from odd_names import HTML_NAME
    from small_models import DUAL, write_clips, write_model

    import vtp
    from vtp.types import MediaRef, Sample
    from vtp.use.embed import embed_into

    folder = tmp_path_factory.mktemp("served")
    media, model = folder / "media", write_model(folder / "model", DUAL)
    media.mkdir()
    write_clips(media)
    (media / "b.mp4").rename(media / HTML_NAME)
    (media / "secret.txt").write_text("not indexed")
    loaded = vtp.load(model, device="cpu", workers=0)
    for name, objective, window in (("seen", "vtc", 2.0), ("heard", "atc", 1.0)):
        refs = [MediaRef(str(media / file)) for file in ("a.mp4", HTML_NAME, "tone.wav", "broken.mp4")]
        samples = [Sample(str(number), ref, ref) for number, ref in enumerate(refs)]
        how: dict[str, Any] = {"objective": objective, "window": window, "stride": window}
        embed_into(str(folder / name), samples, loaded, source=str(model), **how)
    return {"media": media, "model": model, "seen": folder / "seen", "heard": folder / "heard"}


@pytest.fixture(scope="session")
def searches(tables: dict[str, Path]) -> list[Any]:
    """What the page searches: ``seen`` and ``heard``."""
    import vtp
    from vtp.use.search import Search
    from vtp.use.table import Table

    model = vtp.load(tables["model"], device="cpu", workers=0)
    return [Search(name, Table.open(str(tables[name])), model) for name in ("seen", "heard")]


class Site:
    """A page that is served, and what it is asked.

    Attributes:
        port: of 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(
        self, target: str, method: str = "GET", body: Any = None, **headers: str
    ) -> tuple[HTTPResponse, str | bytes]:
        """An answer with its content, a string where it is text. ``target`` goes over the wire as it is."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, target, body, named)
            answer = connection.getresponse()
            content = answer.read()
            is_text = (answer.getheader("content-type") or "text/").startswith("text/")
            return answer, content.decode() if is_text else content
        finally:
            connection.close()


@contextmanager
def _served(searches: list[Any], **how: Any) -> Iterator[Site]:
    from vtp_serve.app import application

    with _running(application(searches, **how)) as site:
        yield site


@contextmanager
def _running(app: Any) -> Iterator[Site]:
    import uvicorn

    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", access_log=False, ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield Site(listening.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


@pytest.fixture(scope="session")
def serve() -> Callable[..., Any]:
    """``with serve(searches, token=...) as site``."""
    return _served


@pytest.fixture(scope="session")
def able(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that compares clips and sounds with texts, answers questions and writes."""
    from small_models import DUAL, FUSED, write_model

    encoders = {**FUSED["encoders"], "audio": DUAL["encoders"]["audio"]}
    spec = {**FUSED, "encoders": encoders, "objectives": {**DUAL["objectives"], **FUSED["objectives"]}}
    return write_model(tmp_path_factory.mktemp("able") / "model", spec)


@pytest.fixture(scope="session")
def tried(able: Path) -> Callable[..., Any]:
    """``with tried(token=...) as site``: the page on that model, or on ``model=``."""
    for library in ("fastapi", "uvicorn"):
        pytest.importorskip(library, reason=f"vtp serve needs {library}")
    import vtp
    from vtp_serve.model_app import model_application

    whole = vtp.load(able, device="cpu", workers=0)

    def open_page(model: Any = None, **how: Any) -> Any:
        return _running(model_application("able <b>", model or whole, **{"most": 200_000, **how}))

    return open_page


@pytest.fixture(scope="module")
def site(searches: list[Any]) -> Iterator[Site]:
    with _served(searches, most=200_000) as served:
        yield served
