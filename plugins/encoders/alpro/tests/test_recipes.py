"""Experiments: every one composes, is accepted, and holds the published recipe; what they print beside a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vtp_alpro
from vtp.cli.main import main
from vtp.cli.run import compose
from vtp.model.build import BuildContext, build_model, lookup_in
from vtp.plugins import host
from vtp.run.check import check, model_spec

CONF = Path(vtp_alpro.__file__).parent / "conf" / "experiment" / "alpro"
NAMES = sorted(file.stem for file in CONF.glob("*.yaml") if not file.stem.startswith("tiny_"))

# frames, tokens, protocol, published headline: the README of the released code
PUBLISHED = {
    "didemo_ret": (8, 50, "didemo", ("t2v/r1", 35.9)),
    "msrvtt_qa": (16, 40, "msrvtt_qa", ("accuracy", 42.12)),
    "msrvtt_ret": (8, 40, "msrvtt_1ka", ("t2v/r1", 33.9)),
    "msvd_qa": (16, 40, "msvd_qa", ("accuracy", 45.91)),
}
SHARES = {"what": 68.48, "who": 27.99, "how": 2.25, "where": 0.34, "when": 0.93}  # of MSRVTT-QA, same table


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_is_accepted_and_builds(name, tmp_path):
    found = compose([f"experiment=alpro/{name}", f"run_dir={tmp_path / 'run'}"])
    (published,) = found["task"]["references"].values()
    encoder, headline = found["encoder"], PUBLISHED[name][3][0]
    held = (encoder["video"]["frames"], encoder["text"]["max_length"], found["task"]["protocol"])
    assert (*held, (headline, published[headline])) == PUBLISHED[name]
    assert (found["mode"], found["data"]["eval_resize"]) == ("eval", 256)
    found["checkpoint"] = str(tmp_path)
    check(found, tmp_path / "run")
    small = {"preset": "tiny", "heads": 1, "width": 16, "depth": 1}
    found["encoder"]["text"] |= {**small, "tokenizer": "texts"}
    found["encoder"]["video"] |= {**small, "size": 32}
    found["encoder"]["fusion"] |= small
    context = BuildContext(texts=lambda: ["a red square"], answers=("red", "blue"))
    build_model(model_spec(found), lookup_in(host().registry), context)


def test_the_toy_size_is_accepted_and_has_every_part(tmp_path):
    found = compose(["experiment=alpro/tiny_ret", f"run_dir={tmp_path / 'run'}"])
    check(found, tmp_path / "run")
    assert {part["name"] for part in found["encoder"].values() if part} == {"timesformer", "alpro"}
    assert {part["preset"] for part in found["encoder"].values() if part} == {"tiny"}
    assert set(found["objectives"]) == {"vtc", "vtm"} and found["task"]["rerank"] == 50


def test_the_published_types_of_msrvtt_qa_add_up_to_its_accuracy():
    task = compose(["experiment=alpro/msrvtt_qa"])["task"]
    (published,) = task["references"].values()
    mean = sum(SHARES[kind] * published[f"accuracy/{kind}"] for kind in SHARES) / sum(SHARES.values())
    assert mean == pytest.approx(published["accuracy"], abs=0.02)


@pytest.mark.parametrize("name, padded", [("msrvtt_qa", 72824), ("msvd_qa", 13160)])
def test_as_released_questions_are_padded_to_eight_processes(name, padded):
    from vtp.eval.protocol import Protocol

    assert compose([f"experiment=alpro/{name}"])["task"]["padded"] is None
    processes = compose([f"experiment=alpro/{name}", "variant=released"])["task"]["padded"]
    questions = Protocol.find(PUBLISHED[name][2]).counts["questions"]
    assert -(-questions // processes) * processes == padded


SMALL = ["dataset=shapes", "dataset.size=tiny", "train.steps=1", "train.epochs=null", "train.global_batch=8"]
SMALL += ["threads=1", "data.workers=0", "train.tensorboard=false", "train.eval_every=0"]


@pytest.mark.slow
def test_the_published_table_stands_beside_a_run_on_generated_clips(tmp_path, capsys):
    run = ["run", "experiment=alpro/msrvtt_qa", "mode=train+eval", "variant=released", f"run_dir={tmp_path / 'run'}"]
    assert main([*run, *SMALL, "data.eval_resize=80", "encoder.video.frames=6"]) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["references"]["published: ALPRO, its README"]["accuracy/what"] == 36.05
    assert report["facts"]["resize"] == 80
    assert "published" in capsys.readouterr().out
