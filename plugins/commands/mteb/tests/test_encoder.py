"""MTEBModel: the same ranks in mteb as in vtp, the same embeddings, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from seven_clips import CAPTIONS

import vtp
from vtp.cli.main import main
from vtp.errors import ConfigError, DataError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def tasks() -> Any:
    """local_tasks, where mteb is installed."""
    pytest.importorskip("mteb", reason="the bridge to mteb needs it")
    import local_tasks

    return local_tasks


@pytest.fixture(scope="module")
def loaded(model: Path) -> vtp.Model:
    return vtp.load(model, device="cpu", workers=0)


@pytest.fixture(scope="module")
def bridge(loaded: vtp.Model) -> Any:
    from vtp_mteb.encoder import MTEBModel

    return MTEBModel(loaded, name="vtp/small")


def files(folder: Path, ending: str) -> list[Path]:
    return [folder / f"c{number}.{ending}" for number in range(len(CAPTIONS))]


def evaluated(bridge: Any, task: Any, folder: Path) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """mteb's scores, and its similarities by query and document."""
    import mteb

    result = mteb.evaluate(bridge, task, cache=None, prediction_folder=folder, show_progress_bar=False)
    (scores,) = result.task_results[0].scores["test"]
    (told,) = folder.glob("*predictions.json")
    return scores, json.loads(told.read_text())["default"]["test"]


def rank(similarities: dict[str, float], wanted: str) -> int:
    return 1 + sum(value > similarities[wanted] for value in similarities.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    "category, options",
    [("t2v", []), ("t2a", ["task.gallery=audio", "task.objective=atc"])],
)
def test_ranks_are_those_of_an_evaluation_of_vtp(tasks, bridge, model, clips, tmp_path, category, options):
    column, ending = ("video", "mp4") if category == "t2v" else ("audio", "wav")
    task = tasks.retrieval("Local", category, {"text": CAPTIONS}, {column: files(clips, ending)})
    scores, similarities = evaluated(bridge, task, tmp_path / "mteb")
    mine = ["run", "task=retrieval", "dataset=csv", f"dataset.file={clips / 'clips.csv'}", "mode=eval", *options]
    mine += [f"checkpoint={model}", f"run_dir={tmp_path / 'run'}", "device=cpu", "threads=1", "data.workers=0"]
    assert main([*mine, "media.isolate=false"]) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    ours = {line["query"]: line["rank"] for line in lines if line["direction"] == category}
    theirs = {text: rank(similarities[f"q{number}"], f"d{number}") for number, text in enumerate(CAPTIONS)}
    assert ours == theirs and len(set(theirs.values())) > 2
    for k in (1, 5):
        found = report["metrics"][f"{category}/r{k}"]
        assert found == pytest.approx(100 * scores[f"hit_rate_at_{k}"], abs=1e-2)  # mteb keeps five digits
    wanted = np.mean([1 / np.log2(1 + place) for place in theirs.values() if place <= 10])
    assert scores["ndcg_at_10"] == pytest.approx(wanted, abs=1e-4)


@pytest.mark.slow
def test_embeddings_are_those_of_the_model(tasks, bridge, loaded, clips, tmp_path):
    """Of files that lie in the table as paths and as bytes, of sounds and pictures, of texts twice."""
    from mteb._create_dataloaders import create_dataloader
    from mteb.types import PromptType

    videos = files(clips, "mp4")
    task = tasks.retrieval("Local", "t2v", {"text": CAPTIONS}, {"video": videos})
    task.load_data()
    corpus = task.dataset["default"]["test"]["corpus"]
    how = {"task_metadata": task.metadata, "prompt_type": PromptType.document}
    got = bridge.encode(create_dataloader(corpus, batch_size=3, **how), batch_size=3, **how)
    want = loaded.encode(videos=videos).videos
    np.testing.assert_allclose(got.numpy(), want, atol=1e-6)
    assert got.dtype == torch.float32
    import datasets

    held = [{"bytes": video.read_bytes(), "path": None} for video in videos]
    packed = datasets.Dataset.from_dict({"id": corpus["id"], "video": held}).cast_column("video", datasets.Video())
    again = bridge.encode(create_dataloader(packed, batch_size=3, **how), batch_size=3, **how)
    np.testing.assert_allclose(again.numpy(), want, atol=1e-6)


@pytest.mark.slow
def test_equal_texts_tie_to_the_last_bit(tasks, bridge):
    metadata = tasks.retrieval("Local", "t2v", {"text": CAPTIONS}, {"text": CAPTIONS}).metadata
    batches = [{"text": ["a star", "two red stars of which one is blue"]}, {"text": ["a star"]}]
    found = bridge.encode(batches, task_metadata=metadata)
    assert torch.equal(found[0], found[2]) and not torch.equal(found[0], found[1])


@pytest.mark.slow
def test_ties_count_differently(tasks, bridge, clips, tmp_path):
    """A clip that is there twice: vtp says the expected rank over all orders, mteb takes the order of the names."""
    videos = files(clips, "mp4")
    both = tasks.retrieval("Local", "t2v", {"text": CAPTIONS[:2]}, {"video": [videos[0], videos[0]]})
    scores, similarities = evaluated(bridge, both, tmp_path)
    assert similarities["q0"]["d0"] == similarities["q0"]["d1"]
    assert scores["hit_rate_at_1"] == 0.5  # one of two, whichever they are; 0.5 each in vtp
    assert {scores["hit_rate_at_3"], scores["recall_at_3"]} == {1.0}


@pytest.mark.slow
def test_what_mteb_is_told_of_the_model(tasks, bridge, loaded):
    from mteb.models import EncoderProtocol

    meta = bridge.mteb_model_meta
    assert isinstance(bridge, EncoderProtocol)
    assert meta.name == "vtp/small" and meta.revision == loaded.fingerprint[:16]
    assert set(meta.modalities) == {"text", "image", "audio", "video"} and meta.max_tokens == 32


@pytest.mark.slow
def test_rows_of_a_video_and_a_sound(tasks, model, clips, tmp_path):
    from vtp_mteb.encoder import MTEBModel

    videos, sounds = files(clips, "mp4"), files(clips, "wav")
    task = tasks.retrieval("Local", "t2va", {"text": CAPTIONS}, {"video": videos, "audio": sounds})
    with pytest.raises(ConfigError):
        evaluated(MTEBModel(model, device="cpu", workers=0), task, tmp_path)
    seen = tasks.retrieval("Local", "t2v", {"text": CAPTIONS}, {"video": videos})
    one = MTEBModel(model, device="cpu", workers=0, prefer="video", objective="vtc")
    assert evaluated(one, task, tmp_path / "a")[1] == evaluated(one, seen, tmp_path / "b")[1]


@pytest.mark.slow
def test_a_file_that_cannot_be_used_is_named(tasks, bridge, clips, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\0" * 1000)
    task = tasks.retrieval("Local", "t2v", {"text": CAPTIONS[:2]}, {"video": [broken, files(clips, "mp4")[0]]})
    with pytest.raises(DataError, match="broken.mp4: not a media file"):
        evaluated(bridge, task, tmp_path / "out")


def test_similarities_are_those_of_the_model(bridge):
    rows = torch.nn.functional.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    torch.testing.assert_close(bridge.similarity(rows, rows[:3]), rows @ rows[:3].T)
    torch.testing.assert_close(bridge.similarity(rows[0], rows), rows[:1] @ rows.T)
    torch.testing.assert_close(bridge.similarity_pairwise(rows, rows.flip(0)), (rows * rows.flip(0)).sum(1))


def test_what_is_refused(loaded):
    from vtp_mteb.encoder import MTEBModel

    with pytest.raises(ConfigError, match="objective='vtx' is not one"):
        MTEBModel(loaded, objective="vtx")
    with pytest.raises(ConfigError, match="organisation/name"):
        MTEBModel(loaded, name="mine")
    bridge = MTEBModel(loaded)
    with pytest.raises(ConfigError, match="video and audio, and vtp embeds one of them"):
        bridge._column({"id": ["d0"], "video": [0], "audio": [0]})
    assert MTEBModel(loaded, prefer="audio")._column({"video": [0], "audio": [0]}) == "audio"


def test_rows_as_items():
    from vtp_mteb.rows import item

    frames = np.zeros((2, 3, 4, 6), np.uint8)
    assert item("video", torch.from_numpy(frames)).shape == (2, 4, 6, 3)
    decoder = SimpleNamespace(_hf_encoded={"path": "a.mp4", "bytes": None})
    assert item("video", decoder) == "a.mp4" and item("video", {"path": None, "bytes": b"x"}) == b"x"
    picture = SimpleNamespace(convert=lambda mode: np.zeros((4, 6, 3), np.uint8))
    assert item("image", picture).shape == (1, 4, 6, 3)
    sound, rate = item("audio", {"array": np.zeros(5, np.float64), "sampling_rate": 8000, "path": "no such file"})
    assert sound.dtype == np.float32 and rate == 8000
    for column, value in (("video", 3), ("audio", None), ("video", {"path": "hf://data/a.mp4", "bytes": None})):
        with pytest.raises(DataError):
            item(column, value)
