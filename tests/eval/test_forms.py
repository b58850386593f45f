from __future__ import annotations

import hashlib

import pytest

from vtp import plugins
from vtp.cli.main import main
from vtp.errors import PluginError
from vtp.eval.forms import Form, canonical_text, sha256_lines
from vtp.eval.protocol import Protocol
from vtp.registry import Entry
from vtp.types import Sample


def test_the_canonical_form_is_what_the_documentation_says():
    assert canonical_text("  What is\tHE doing ? ") == "what is he doing"
    samples = [
        Sample("2", texts=("Who?",), labels={"answer": "Man", "answer_index": 0}, extra={"video_id": "video9"}),
        Sample("1", texts=("a", "B"), labels={"answer": "x", "answer_index": 1}, extra={"video_id": "video10"}),
    ]
    videos = ["video10", "video9"]
    assert Form.find("retrieval").lines(samples) == {
        "videos": videos,
        "queries": ["video9\twho", "video10\ta", "video10\tb"],
    }
    assert Form.find("qa").lines(samples) == {"videos": videos, "questions": ["video9\twho\tman", "video10\ta\tx"]}
    assert Form.find("mc").lines(samples) == {"videos": videos, "choices": ["video9\t0\twho", "video10\t1\ta\tb"]}
    assert sha256_lines(["b", "a"]) == hashlib.sha256(b"a\nb\n").hexdigest()


def spans(sample: Sample) -> list[str]:
    return [f"{sample.id}\t{start:g}\t{end:g}" for start, end in sample.labels["spans"]]


@pytest.fixture
def a_form():
    """What a plugin would offer, for this test."""
    plugins.host.cache_clear()
    plugins.host().registry.add(Entry("form", "spans", f"{__name__}:spans", "mine", "vtp-mine", {"counted": "spans"}))
    yield
    plugins.host.cache_clear()


def test_a_form_of_a_plugin_counts_and_recognises_its_items(a_form, tmp_path, capsys):
    lines = ["a\t0\t2", "a\t3\t4.5", "b\t1\t2"]
    digest = hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
    file = tmp_path / "mine.yaml"
    stated = "{name: mine, title: t, dataset: d, kind: spans, split: test, counts: {spans: 3}, sha256: {spans: DIGEST}}"
    file.write_text(stated.replace("DIGEST", digest))
    protocol = Protocol.load(file)
    samples = [Sample("a", labels={"spans": [(0, 2), (3, 4.5)]}), Sample("b", labels={"spans": [(1, 2)]})]
    match = protocol.match(samples, "d", "test")
    assert match.official and match.counts == {"videos": 2, "spans": 3} and match.sha256["spans"] == digest
    assert "2 spans instead of 3" in protocol.match(samples[:1], "d", "test").line()
    own = Protocol.own("d", "spans").match(samples, "d", "test")
    assert "(d test: 2 videos, 3 spans, sha256 " in own.line()
    assert main(["protocols", "show", str(file)]) == 0
    assert f"spans      3           sha256 {digest}" in capsys.readouterr().out


def test_an_unknown_form_lists_the_known_ones():
    with pytest.raises(
        PluginError,
        match="no plugin offers form 'retrival'. Did you mean 'retrieval'.* Known: caption, classification, mc, ",
    ):
        Form.find("retrival")
