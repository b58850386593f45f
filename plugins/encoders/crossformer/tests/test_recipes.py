"""Experiments: every one composes, is accepted and builds at small size; and data in the form of the original run."""

from __future__ import annotations

import csv
import json
import math
import struct
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vtp_crossformer
from vtp.cli.main import main
from vtp.cli.run import compose
from vtp.model.build import BuildContext, build_model, lookup_in
from vtp.plugins import host
from vtp.run.check import check
from vtp.train.config import TrainConfig

CONF = Path(vtp_crossformer.__file__).parent / "conf" / "experiment" / "crossformer"
NAMES = sorted(file.stem for file in CONF.glob("*.yaml"))
CLIPS = Path(__file__).resolve().parents[5] / "shared" / "data" / "videos" / "vggsound"


def small(encoders: dict[str, Any]) -> dict[str, Any]:
    """Hub names as presets from scratch."""
    made = {slot: dict(node) for slot, node in encoders.items() if node and node.get("name")}
    if made["text"]["name"] == "transformers":
        made["text"] = {"name": "tiny", "width": 48}
        made["video"] |= {"model": None, "preset": "tiny"}
        made["audio"] = {"name": "ast", "preset": "tiny"}
    return made


LARGE = ("small", "valor32k")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in LARGE else ()) for n in NAMES])
def test_every_recipe_is_accepted_and_builds(name: str, tmp_path: Path) -> None:
    found = compose([f"experiment=crossformer/{name}", f"run_dir={tmp_path / 'run'}"])
    assert TrainConfig(**found["train"]).validate() == []
    check(found, tmp_path / "run")
    spec = {"encoders": small(found["encoder"]), "objectives": found["objectives"], "masks": found["masks"]}
    context = BuildContext(texts=lambda: ["a red square moves to the left"], answers=("red", "blue"))
    model = build_model(spec, lookup_in(host().registry), context)
    assert {"text", "video", "audio", "fusion"} == set(model.encoders)
    scored = found["task"].get("zero_shot") or found["task"]
    assert scored.get("objective") in {None, *model.objectives}


SOUND = [
    ["task=music_avqa", "model=crossformer", "task.subsets=all"],
    ["task=classification", "dataset=vat", "model=crossformer", "task.subsets=all"],
    ["task=audiocaps_retrieval"],
    ["task=clotho_retrieval"],
]


@pytest.mark.parametrize("options", SOUND, ids=" ".join)
def test_tasks_that_need_sound_are_accepted(options: list[str], tmp_path: Path) -> None:
    """The commands of docs/crossformer.md."""
    page = Path(__file__).resolve().parents[4] / "docs" / "crossformer.md"
    assert all(option in page.read_text(encoding="utf-8") for option in options)
    check(compose([*options, f"run_dir={tmp_path / 'run'}"]), tmp_path / "run")


def test_binding_trains_projections_and_temperatures_alone(tmp_path: Path) -> None:
    found = compose(["experiment=bind", f"run_dir={tmp_path / 'run'}"])
    check(found, tmp_path / "run")
    spec = {"encoders": {s: n for s, n in found["encoder"].items() if n}, "objectives": found["objectives"]}
    context = BuildContext(texts=lambda: ["a red square moves to the left"])
    model = build_model(spec | {"masks": found["masks"]}, lookup_in(host().registry), context)
    pairs = {"vt": ("video", "text"), "at": ("audio", "text"), "av": ("video", "audio")}
    want = {f"objectives.{name}.proj.{m}.weight" for name, pair in pairs.items() for m in pair}
    want |= {f"objectives.{name}.logit_scale" for name in pairs}
    assert {name for name, p in model.named_parameters() if p.requires_grad} == want


def test_the_published_command() -> None:
    """Numbers of the README of simple-multimodal, and defaults of its parser."""
    found = compose(["experiment=crossformer/vat"])
    train, masks = found["train"], found["masks"]
    assert (train["lr"], train["epochs"], train["warmup"], train["schedule"]) == (2e-5, 50, 0.1, "cosine")
    assert (masks["text"]["probability"], masks["video"]["ratio"], masks["audio"]["ratio"]) == (0.3, 0.8, 0.3)
    assert found["encoder"]["text"]["model"] == "microsoft/deberta-v2-xlarge"
    assert found["encoder"]["video"]["model"] == "MCG-NJU/videomae-base"
    assert found["encoder"]["audio"]["model"] == "facebook/vit-mae-base"
    assert found["objectives"]["match"]["groups"] == [["video"], ["text", "audio"]]
    assert found["objectives"]["vt"]["width"] == 768
    assert all(node["weight"] == 1.0 for node in found["objectives"].values())


def sound(seconds: float, rate: int = 8000) -> bytes:
    """A tone, as 16-bit samples."""
    count = round(seconds * rate)
    return struct.pack(f"<{count}h", *(int(8000 * math.sin(i / 7)) for i in range(count)))


def write_wav(file: Path, seconds: float) -> None:
    with wave.open(str(file), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(sound(seconds))


def write_m4a(file: Path, source: Path) -> None:
    """The sound of a clip, as it is, in a container of its own."""
    import av

    with av.open(str(source)) as clip, av.open(str(file), "w", format="ipod") as out:
        stream = clip.streams.audio[0]
        copy = out.add_stream_from_template(stream)
        for packet in clip.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)


def write_silent(file: Path, source: Path) -> None:
    """The pictures of a clip, as they are, without its audio stream."""
    import av

    with av.open(str(source)) as clip, av.open(str(file), "w", format="mp4") as out:
        stream = clip.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in clip.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """ROOT/train.csv over the sample clips: sounds as mp4, wav and m4a; 0.1 s, ten minutes, absent."""
    if not CLIPS.is_dir():
        pytest.skip("the sample clips are not there (../shared/data/videos/vggsound)")
    clips = sorted(CLIPS.glob("*.mp4"))[:4]
    for name in ("audio", "text", "video"):
        (tmp_path / name).mkdir()
    write_wav(tmp_path / "audio" / "short.wav", 0.1)
    write_wav(tmp_path / "audio" / "long.wav", 600)
    write_m4a(tmp_path / "audio" / "own.m4a", clips[0])
    for i, clip in enumerate(clips):
        (tmp_path / "video" / f"clip{i}.mp4").symlink_to(clip)
        (tmp_path / "text" / f"clip{i}.txt").write_text(f"clip number {i} with a sound #tag")
    sounds = ["own.m4a", "short.wav", "long.wav", str(tmp_path / "video" / "clip3.mp4"), "own.m4a", ""]
    rows = [(audio, f"clip{i % 4}.txt", f"clip{i % 4}.mp4", f"class {i % 3}") for i, audio in enumerate(sounds)]
    for split, taken in {"train": rows, "val": rows[:2], "test": rows[2:]}.items():
        with (tmp_path / f"{split}.csv").open("w", newline="") as out:
            csv.writer(out).writerows([("audio", "text", "video", "label"), *taken])
    yield tmp_path


@pytest.mark.slow
@pytest.mark.data
def test_clips_with_sound_are_trained_on_evaluated_and_predicted(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = ["train.global_batch=4", "train.tensorboard=false", "data.workers=0", "threads=1", "data.on_leak=stamp"]
    small += [f"dataset.root={folder}"]
    training = ["experiment=crossformer/tiny", "train.steps=2", f"run_dir={run}", *small]
    assert main(["run", *training]) == 0
    report = json.loads((run / "report.json").read_text())
    assert report["ledger"]["missing"] == 0
    searching = [
        "task=retrieval",
        "dataset=vat",
        f"checkpoint={run}",
        "task.objective=joint",
        "task.subsets=all",
        *small,
    ]
    assert main(["run", "mode=eval+predict", *searching, f"run_dir={tmp_path / 'eval'}"]) == 0
    report = json.loads((tmp_path / "eval" / "report.json").read_text())
    assert report["rows"].keys() >= {"only video+text", "only audio+text"}
    assert len((tmp_path / "eval" / "predictions.jsonl").read_text().splitlines()) > 0


@pytest.mark.slow
@pytest.mark.data
def test_clips_with_sound_are_classified(folder: Path, tmp_path: Path) -> None:
    """Classes from train.csv, with every subset of the modalities."""
    options = ["task=classification", "dataset=vat", "model=crossformer", "task.subsets=all", f"dataset.root={folder}"]
    options += ["train.steps=2", "train.epochs=null", "train.global_batch=4", "train.tensorboard=false"]
    options += ["data.workers=0", "threads=1", "data.on_leak=stamp", f"run_dir={tmp_path / 'run'}"]
    assert main(["run", *options]) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["ledger"]["missing"] == 0 and report["ledger"]["evaluated"] == 4
    shown = {"video", "audio", "text", "video+audio", "video+text", "audio+text"}
    assert {name.removeprefix("only ") for name in report["rows"] if name.startswith("only ")} == shown
    lines = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 4 and {*lines[0]["classes"]} <= {f"class {i}" for i in range(3)}
    assert report["metrics"]["top1"] == 100 * sum(x["top"][0][0] in x["classes"] for x in lines) / 4


@pytest.mark.slow
@pytest.mark.data
def test_a_clip_whose_audio_stream_is_removed_is_a_clip_without_sound(folder: Path, tmp_path: Path) -> None:
    """Alone, and in a batch with clips that have sound: the scores of the clip with its sound withheld."""
    small = ["task=classification", "dataset=vat", "data.workers=0", "threads=1", "data.on_leak=stamp"]
    training = ["model=crossformer", "train.steps=2", "train.epochs=null", "train.global_batch=4"]
    training += ["train.tensorboard=false", f"dataset.root={folder}", f"run_dir={tmp_path / 'run'}"]
    assert main(["run", *small, *training]) == 0
    write_silent(folder / "video" / "silent.mp4", folder / "video" / "clip1.mp4")

    def scores(name: str, clips: list[str], *options: str) -> list[dict[str, float]]:
        with (folder / "test.csv").open("w", newline="") as out:
            rows = [("", f"clip{i}.txt", f"{clip}.mp4", "class 0") for i, clip in enumerate(clips)]
            csv.writer(out).writerows([("audio", "text", "video", "label"), *rows])
        given = ["mode=predict", f"checkpoint={tmp_path / 'run'}", f"dataset.root={folder}", *options]
        assert main(["run", *small, *given, f"run_dir={tmp_path / name}"]) == 0
        lines = (tmp_path / name / "predictions.jsonl").read_text().splitlines()
        return [dict(json.loads(line)["top"]) for line in lines]

    loud = ["clip0", "clip1", "clip2", "clip3"]
    withheld = scores("withheld", loud, "data.drop=[audio]")
    beside = scores("beside", ["clip0", "silent", "clip2", "clip3"])
    assert beside[1] == pytest.approx(withheld[1], abs=1e-5)
    assert scores("alone", ["clip0", "silent"])[1] == pytest.approx(withheld[1], abs=1e-5)
    heard = scores("heard", loud)
    assert heard[1] != pytest.approx(withheld[1], abs=1e-5)  # its sound is listened to
    assert beside[0] == pytest.approx(heard[0], abs=1e-5)
