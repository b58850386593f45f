"""The page on a model: answers, descriptions, comparisons, and the bounds of what is sent."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from small_models import DUAL, FUSED, write_clips, write_model

import vtp
from vtp.cli.main import main
from vtp.config import MediaConfig
from vtp.errors import ConfigError


@pytest.fixture(scope="module", autouse=True)
def in_process() -> Iterator[None]:
    """Decode in this process: starting another one costs a second, and test_app.py tries that."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("vtp.use.model.MediaConfig", partial(MediaConfig, isolate=False))
        yield


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("media"))


@pytest.fixture(scope="module")
def loaded(able: Path) -> vtp.Model:
    return vtp.load(able, device="cpu", workers=0)


@pytest.fixture(scope="module")
def page(tried: Any) -> Iterator[Any]:
    with tried() as site:
        yield site


def sent(site: Any, what: str, file: Path, words: str = "") -> tuple[int, str]:
    answer, said = site.ask(f"/{what}?name={quote(file.name)}&words={quote(words)}", "POST", file.read_bytes())
    return answer.status, said


def rows(said: str) -> list[tuple[str, float]]:
    found = re.findall(r'<tr><td>(.*?)</td><td><meter .*?</td><td class="number" data-value="([^"]*)">', said)
    return [(html.unescape(words), float(value)) for words, value in found]


def test_the_page_asks_for_what_the_model_can(page):
    answer, said = page.ask("/")
    assert answer.status == 200 and "able &lt;b&gt;" in said and "<b>" not in said
    assert all(f'value="{what}"' in said for what in ("ask", "compare", "caption"))
    assert 'accept="video/*,image/*,audio/*"' in said and 'data-most="200000"' in said
    policy = answer.getheader("content-security-policy") or ""
    assert "default-src 'none'" in policy and "media-src 'self' blob:" in policy and "http" not in policy
    assert "style=" not in said and "//" not in said.replace("</", "")  # which the policy would not show


def test_a_question_is_answered_as_by_the_model(page, media, loaded):
    status, said = sent(page, "ask", media / "a.mp4", "what colour is the ball")
    want = loaded.answer(media / "a.mp4", "what colour is the ball", top=10).ranking
    assert status == 200 and [text for text, _ in rows(said)] == [text for text, _ in want]
    assert [value for _, value in rows(said)] == pytest.approx([value for _, value in want])
    assert "<h2>what colour is the ball</h2>" in said and "a.mp4" in said


@pytest.mark.slow
def test_a_description_is_the_models(page, media, loaded):
    status, said = sent(page, "caption", media / "a.mp4")
    assert status == 200 and html.escape(loaded.caption(media / "a.mp4")) in said


def test_texts_are_compared_the_most_alike_first(page, media, loaded):
    texts = ["two blue stars", "a red ball", "two"]
    for name, kind in (("a.mp4", "videos"), ("tone.wav", "audios")):
        status, said = sent(page, "compare", media / name, "\n".join([*texts, "", "two"]))
        lists: dict[str, Any] = {kind: [media / name], "texts": texts}
        found = loaded.encode(**lists, objective="vtc" if kind == "videos" else "atc")
        scores = loaded.similarity(found.texts, found.videos if kind == "videos" else found.audios)[:, 0]
        want = sorted(zip(texts, scores.tolist(), strict=True), key=lambda pair: -pair[1])
        assert status == 200 and [text for text, _ in rows(said)] == [text for text, _ in want]
        assert [value for _, value in rows(said)] == pytest.approx([value for _, value in want], abs=1e-6)


def test_what_comes_from_elsewhere_stays_text(page, media):
    odd = "<img src=x onerror=alert(1)>"
    assert "<img" not in sent(page, "compare", media / "a.mp4", odd)[1]
    answer, said = page.ask(f"/ask?name={quote(odd)}.mp4&words={quote(odd)}", "POST", (media / "a.mp4").read_bytes())
    assert answer.status == 200 and "<img" not in said and html.escape(odd) in said


def test_bounds_and_mistakes_are_a_line(page, media):
    assert sent(page, "ask", media / "a.mp4")[0] == 400
    assert sent(page, "compare", media / "a.mp4", "\n".join(map(str, range(60))))[0] == 400
    assert sent(page, "ask", media / "a.mp4", "x" * 2000)[0] == 400
    assert sent(page, "embed", media / "a.mp4", "x")[0] == 404
    status, said = sent(page, "ask", media / "broken.mp4", "what")
    assert status == 400 and "broken.mp4: not a media file" in said and "/tmp" not in said
    answer, said = page.ask("/ask?name=a.mp4&words=what", "POST", b"\0" * 300_000)
    assert answer.status == 413 and "--max-upload" in said
    assert page.ask("/ask?name=a.mp4&words=what", "POST", b"")[0].status == 400
    assert page.ask("/media/0/0")[0].status in (404, 405)
    assert page.ask("/ask?name=a.mp4&words=what", "POST", b"x", Origin="http://elsewhere")[0].status == 403
    assert page.ask("/", Host="elsewhere")[0].status == 421


def test_the_token_is_asked_for(tried):
    with tried(token="a-token-of-tests-0123456789", hosts=None) as site:
        assert site.ask("/")[0].status == 303 and site.ask("/ask?words=x", "POST", b"x")[0].status == 401
        assert site.ask("/", Authorization="Bearer a-token-of-tests-0123456789")[0].status == 200


def test_a_model_that_can_only_compare(tried, tmp_path, media):
    model = vtp.load(write_model(tmp_path / "dual", DUAL), device="cpu", workers=0)
    with tried(model) as site:
        said = site.ask("/")[1]
        assert 'value="compare"' in said and 'value="ask"' not in said and 'value="caption"' not in said
        assert sent(site, "ask", media / "a.mp4", "what")[0] == 404


def test_a_model_with_nothing_to_try_is_refused(tried, tmp_path):
    words = {
        "encoders": {"text": FUSED["encoders"]["text"]},
        "objectives": {"mlm": {"name": "mlm", "tokens": "text", "weight": 1.0}},
    }
    model = vtp.load(write_model(tmp_path / "words", words), device="cpu", workers=0)
    with pytest.raises(ConfigError, match="nothing to try"):
        tried(model)


def test_mistakes_of_the_command(able, tmp_path, monkeypatch, capsys):
    for library in ("lancedb", "fastapi", "uvicorn"):
        pytest.importorskip(library, reason=f"vtp serve needs {library}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "index").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    for arguments, said in (
        ([str(able), "index"], "is a model, which has a page of its own"),
        ([str(able), "--model", str(able)], "is a model, which has a page of its own"),
        (["model=nothing"], "nothing"),
        (["empty"], "empty"),
        (["nobody/nothing"], "there is no folder nobody/nothing"),
        (["outputs/indx"], "outputs/indx: there is no table of embeddings. Did you mean 'index'?"),
    ):
        assert main(["serve", *arguments, "--port", "0"]) == 2
        err = capsys.readouterr().err
        assert err.startswith("vtp serve: ") and said in err and err.count("\n") == 1
