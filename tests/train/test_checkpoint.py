"""Checkpoints: what is in them, which one is taken, and what happens when they are damaged."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from toy_training import ToyLoader, evaluate, toy_model

from vtp.errors import ConfigError, DataError, RunError
from vtp.model.weights import load_weights, save_weights
from vtp.storage import sha256_of, verify_directory
from vtp.train import TrainConfig, Trainer, checkpoint


def trainer(run_dir, *, steps=8, evaluating=True, **options) -> Trainer:
    model = {k: options.pop(k) for k in ("objectives", "poison", "dropout", "seed") if k in options}
    config = TrainConfig(
        **{"steps": steps, "lr": 0.01, "global_batch": 16, "tensorboard": False, "log_every": 1, **options}
    )
    return Trainer(
        toy_model(**model), ToyLoader(), config, run_dir,
        evaluate=evaluate if evaluating else None, monitor=("accuracy", "max") if evaluating else None, device="cpu",
    )  # fmt: skip


def steps(run_dir) -> list[int]:
    return sorted(int(p.name[5:]) for p in (Path(run_dir) / "checkpoints").glob("step_*") if p.suffix != ".broken")


def truncate(folder: Path) -> None:
    file = folder / "optimizer.safetensors"
    os.truncate(file, file.stat().st_size // 2)


def test_a_checkpoint_holds_everything_and_no_pickle(tmp_path):
    t = trainer(tmp_path, ema_decay=0.9)
    t.fit()
    last = tmp_path / "checkpoints" / "last"
    assert sorted(p.name for p in last.iterdir()) == [
        "config.json", "ema.safetensors", "manifest.json", "model.safetensors", "optimizer.safetensors",
        "provenance.json", "rng.json", "trainer.json",
    ]  # fmt: skip
    assert verify_directory(last) is None
    moments = load_file(last / "optimizer.safetensors")
    want = t._optimizer.state[t.model.objectives["qa"].head.weight]
    assert torch.equal(moments["objectives.qa.head.weight.exp_avg"], want["exp_avg"])
    assert moments["objectives.qa.head.weight.step"] == 8
    for file in last.iterdir():
        assert b"torch._utils" not in file.read_bytes() and file.read_bytes()[:2] not in (b"PK", b"\x80\x02")


def test_weights_and_average_load_on_their_own(tmp_path):
    t = trainer(tmp_path, ema_decay=0.9)
    t.fit()
    raw, averaged = toy_model(seed=1), toy_model(seed=1)
    load_weights(tmp_path / "checkpoints" / "last", raw)
    load_weights(tmp_path / "checkpoints" / "last" / "ema.safetensors", averaged)
    for name, parameter in t.model.named_parameters():
        assert torch.equal(raw.get_parameter(name), parameter)
        assert torch.equal(averaged.get_parameter(name), t._average.tensors[name])
    assert not torch.equal(raw.objectives["qa"].head.weight, averaged.objectives["qa"].head.weight)


def test_the_newest_and_the_best_are_kept(tmp_path, monkeypatch):
    values = iter([0.1, 0.9, 0.3, 0.4, 0.5])
    t = trainer(tmp_path, steps=10, eval_every=2, keep=2)
    t._evaluate = lambda model: {"accuracy": next(values)}
    result = t.fit()
    assert steps(tmp_path) == [4, 8, 10]
    assert result.best.name == "step_00000004"
    assert result.last.name == "step_00000010"
    assert os.readlink(tmp_path / "checkpoints" / "best") == "step_00000004"


def test_keep_null_keeps_all(tmp_path):
    trainer(tmp_path, steps=4, save_every=1, keep=None).fit()
    assert steps(tmp_path) == [1, 2, 3, 4]


def test_save_every_zero_writes_none(tmp_path):
    result = trainer(tmp_path, steps=2, save_every=0).fit()
    assert not (tmp_path / "checkpoints").exists()
    assert (result.best, result.last) == (None, None)
    assert len(result.evaluations) == 1


def test_without_links_pointers_are_files(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("not here")

    monkeypatch.setattr(os, "symlink", refuse)
    result = trainer(tmp_path, steps=2).fit()
    assert (tmp_path / "checkpoints" / "last").read_text() == "step_00000002\n"
    assert result.last.name == "step_00000002"
    assert checkpoint.locate(tmp_path / "checkpoints" / "last").name == "step_00000002"


def test_auto_without_checkpoints_starts_anew(tmp_path):
    assert trainer(tmp_path).resume("auto") is False


def test_a_damaged_newest_one_falls_back_with_a_message(tmp_path, caplog):
    trainer(tmp_path, steps=4, save_every=1, keep=3).fit()
    truncate(tmp_path / "checkpoints" / "step_00000004")
    t = trainer(tmp_path, steps=6, save_every=1, keep=3)
    with caplog.at_level(logging.WARNING):
        assert t.resume("auto") is True
    assert t.step == 3
    (message,) = [r.getMessage() for r in caplog.records if "damaged" in r.getMessage()]
    assert "step_00000004" in message and "optimizer.safetensors has" in message and "Falling back" in message
    t.fit()
    assert steps(tmp_path) == [4, 5, 6]
    assert (tmp_path / "checkpoints" / "step_00000004.broken").is_dir()
    assert checkpoint.newest(tmp_path / "checkpoints").name == "step_00000006"


def test_a_damaged_one_that_was_named_is_an_error(tmp_path):
    trainer(tmp_path, steps=2, save_every=1).fit()
    truncate(tmp_path / "checkpoints" / "step_00000002")
    with pytest.raises(DataError, match=r"damaged: optimizer.safetensors has .* instead of"):
        trainer(tmp_path).resume(tmp_path / "checkpoints" / "step_00000002")
    assert steps(tmp_path) == [1, 2]


@pytest.mark.parametrize("place", ["", "checkpoints", "checkpoints/last", "checkpoints/step_00000002"])
def test_a_checkpoint_is_found_by_any_of_its_names(tmp_path, place):
    trainer(tmp_path / "one", steps=2).fit()
    t = trainer(tmp_path / "two")
    assert t.resume(tmp_path / "one" / place) is True
    assert t.step == 2


def test_a_missing_one_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no such checkpoint"):
        trainer(tmp_path).resume(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objectives": ("qa",)}, "objectives.vtc.a.bias, objectives.vtc.a.weight, .* unknown here"),
        ({"poison": 99}, "objectives.poison.scale missing there"),
        ({"group_lr": {"encoders": 0.0}}, "was trained there and is not here"),
        ({"ema_decay": 0.9}, "ema.safetensors is missing"),
    ],
)
def test_another_model_is_an_error_that_names_the_difference(tmp_path, options, message):
    trainer(tmp_path, steps=2).fit()
    with pytest.raises(DataError, match=message):
        trainer(tmp_path, **options).resume("auto")


def test_weights_alone_cannot_be_resumed(tmp_path):
    trainer(tmp_path, steps=2).fit()
    last = tmp_path / "checkpoints" / "step_00000002"
    (last / "trainer.json").unlink()
    manifest = json.loads((last / "manifest.json").read_text())
    del manifest["files"]["trainer.json"]
    (last / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="init_from="):
        trainer(tmp_path).resume(last)


def test_changed_options_are_announced(tmp_path, caplog):
    trainer(tmp_path, steps=4).fit()
    with caplog.at_level(logging.WARNING):
        trainer(tmp_path, steps=9, keep=7).resume("auto")
    assert [r.getMessage() for r in caplog.records] == [
        "resume: train.steps was 4 and is 9 now; the run goes on with the new value."
    ]


def test_best_is_not_forgotten_by_a_resume(tmp_path):
    """LAVIS, VindLU, UMT and InternVideo2 start again from 0, and a worse checkpoint then overwrites the best."""
    values = iter([0.9, 0.1])
    first = trainer(tmp_path, steps=8, keep=1)
    first._evaluate = lambda model: {"accuracy": next(values)}
    first.fit()
    second = trainer(tmp_path, steps=12, keep=1)
    second._evaluate = lambda model: {"accuracy": 0.5}
    assert second.resume("auto")
    result = second.fit()
    assert result.best.name == "step_00000004"
    assert steps(tmp_path) == [4, 12]


def test_a_best_from_the_part_that_is_lost_is_forgotten(tmp_path):
    values = iter([0.1, 0.9])
    first = trainer(tmp_path, steps=8, keep=None)
    first._evaluate = lambda model: {"accuracy": next(values)}
    first.fit()
    truncate(tmp_path / "checkpoints" / "step_00000008")
    second = trainer(tmp_path, steps=8)
    second.resume("auto")
    assert os.readlink(tmp_path / "checkpoints" / "best") == "step_00000004"
    assert [e["step"] for e in second.evaluations.entries] == [4]


def test_a_new_run_does_not_mix_with_an_old_one(tmp_path):
    trainer(tmp_path, steps=2).fit()
    before = (tmp_path / "metrics.jsonl").read_text()
    with pytest.raises(ConfigError, match=r"already holds a run \(step_00000002\)"):
        trainer(tmp_path, steps=4).fit()
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_going_back_sets_later_checkpoints_aside(tmp_path, caplog):
    """Left there, they would count as the newest: the new ones would be deleted, and auto would take the old."""
    trainer(tmp_path, steps=6, save_every=1, keep=None).fit()
    t = trainer(tmp_path, steps=5, save_every=1, keep=1)
    t.resume(tmp_path / "checkpoints" / "step_00000003")
    assert sum("set aside" in r.getMessage() for r in caplog.records) == 3
    assert os.readlink(tmp_path / "checkpoints" / "last") == "step_00000003"
    t.fit()
    assert checkpoint.newest(tmp_path / "checkpoints").name == "step_00000005"
    assert (tmp_path / "checkpoints" / "step_00000006.abandoned").is_dir()


def test_a_run_continued_in_another_folder_still_knows_its_best(tmp_path):
    values = iter([0.9, 0.1, 0.5])
    first = trainer(tmp_path / "one", steps=8)
    first._evaluate = lambda model: {"accuracy": next(values)}
    first.fit()
    second = trainer(tmp_path / "two", steps=12)
    second._evaluate = lambda model: {"accuracy": next(values)}
    second.resume(tmp_path / "one" / "checkpoints" / "last")
    result = second.fit()
    assert result.best == tmp_path / "two" / "checkpoints" / "step_00000004"
    assert second.load_best() == result.best
    assert steps(tmp_path / "two") == [4, 12]
    assert steps(tmp_path / "one") == [4, 8]
    shutil.rmtree(tmp_path / "one")  # nothing of it is needed any more
    third = trainer(tmp_path / "two", steps=12)
    assert third.resume("auto") and third.load_best() == result.best
    assert verify_directory(result.best) is None


def test_where_links_are_not_possible_the_best_is_copied(tmp_path, monkeypatch):
    first = trainer(tmp_path / "one", steps=4)
    first.fit()

    def refuse(source, target):
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    second = trainer(tmp_path / "two", steps=4)
    second.resume(tmp_path / "one")
    assert verify_directory(tmp_path / "two" / "checkpoints" / "best") is None


def test_a_best_that_is_gone_is_told(tmp_path, caplog):
    values = iter([0.9, 0.1])
    first = trainer(tmp_path / "one", steps=8)
    first._evaluate = lambda model: {"accuracy": next(values)}
    first.fit()
    shutil.rmtree(tmp_path / "one" / "checkpoints" / "step_00000004")
    second = trainer(tmp_path / "two", steps=8)
    second.resume(tmp_path / "one")
    second.fit()
    assert second.load_best() is None
    told = "the best checkpoint, of step 4, is not there any more: step 8 is taken instead"
    assert second.warnings == [told] and told in caplog.text


@pytest.mark.parametrize("kind", ["cut", "empty", "no list", "deep", "odd entries", "folder", "no metrics"])
def test_evaluations_that_cannot_be_read_are_repeated(tmp_path, kind, caplog):
    trainer(tmp_path, steps=4).fit()
    file = tmp_path / "evaluations.json"
    text = {
        "cut": file.read_text()[:-9],
        "empty": "",
        "no list": "3",
        "deep": "[" * 100_000,
        "odd entries": "[3, {}]",
        "no metrics": '[{"step": 4}]',
    }
    if kind == "folder":
        file.unlink()
        file.mkdir()
    else:
        file.write_text(text[kind])
    t = trainer(tmp_path, steps=4)
    assert t.resume("auto") and t.evaluations.entries == []
    if kind != "folder":
        t.fit()
        assert [e["step"] for e in t.evaluations.entries] == [4]
        assert [e["step"] for e in json.loads(file.read_text())] == [4]


def test_a_copy_that_followed_the_links_goes_on(tmp_path):
    trainer(tmp_path / "one", steps=4).fit()
    shutil.copytree(tmp_path / "one", tmp_path / "two")  # follows links
    assert not (tmp_path / "two" / "checkpoints" / "best").is_symlink()
    t = trainer(tmp_path / "two", steps=8)
    assert t.resume("auto")
    assert t.fit().last.name == "step_00000008"
    assert os.readlink(tmp_path / "two" / "checkpoints" / "last") == "step_00000008"
    assert (tmp_path / "two" / "checkpoints" / "best.copied").is_dir()


@pytest.mark.parametrize("end", [b"\xff\xfe\x80", b"\0\0\0\0", b'{"step": 1, "loss"', b"[" * 50_000, b"3\n[1]\n"])
def test_any_bytes_at_the_end_of_the_metrics(tmp_path, end):
    trainer(tmp_path, steps=2).fit()
    before = (tmp_path / "metrics.jsonl").read_text()
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(end)
    t = trainer(tmp_path, steps=4)
    t.resume("auto")
    t.fit()
    after = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")
    assert after.startswith(before) and [json.loads(line)["step"] for line in after.splitlines()][-1] == 4


def test_a_run_whose_every_checkpoint_is_damaged_stops(tmp_path):
    trainer(tmp_path, steps=2, save_every=1).fit()
    for step in (1, 2):
        truncate(tmp_path / "checkpoints" / f"step_0000000{step}")
    for _ in range(2):  # they are set aside the first time
        with pytest.raises(DataError, match=r"no checkpoint in .* is whole \(step_00000001.broken, step_00000002"):
            trainer(tmp_path).resume("auto")
    for path in (tmp_path / "checkpoints").glob("*.broken"):
        shutil.rmtree(path)
    assert trainer(tmp_path).resume("auto") is False


@pytest.mark.parametrize("manifest", ['{"files": {}}', "[" * 100_000, '{"files": []}', "{}"])
def test_a_manifest_that_vouches_for_nothing_is_damage(tmp_path, manifest):
    trainer(tmp_path, steps=2, save_every=1).fit()
    (tmp_path / "checkpoints" / "step_00000002" / "manifest.json").write_text(manifest)
    t = trainer(tmp_path, steps=2)
    assert t.resume("auto") and t.step == 1


@pytest.mark.parametrize("part", ["optimizer.safetensors", "rng.json"])
def test_a_manifest_that_leaves_a_part_out_is_damage_too(tmp_path, part):
    trainer(tmp_path, steps=2, save_every=1).fit()
    folder = tmp_path / "checkpoints" / "step_00000002"
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"][part]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / part).unlink()
    assert checkpoint.newest(tmp_path / "checkpoints").name == "step_00000001"


@pytest.mark.parametrize("text", ["x" * 5000, "two\nlines", "\0", "", "nowhere", "a/b/c"])
def test_a_file_that_is_no_pointer_is_an_error(tmp_path, text):
    (tmp_path / "any.txt").write_text(text)
    with pytest.raises(DataError, match=r"any.txt is a file: neither a checkpoint, which is a folder, nor a pointer"):
        checkpoint.locate(tmp_path / "any.txt")


def test_a_file_of_weights_is_no_checkpoint(tmp_path):
    trainer(tmp_path, steps=2).fit()
    with pytest.raises(DataError, match="a file of weights alone. Give the folder"):
        trainer(tmp_path / "b").resume(tmp_path / "checkpoints" / "last" / "model.safetensors")


def test_equal_weights_are_equal_files(tmp_path):
    """safetensors writes several metadata keys in random order."""
    hashes = set()
    model = toy_model(seed=1)
    first, second = (layer[1] for layer in next(iter(model.encoders.values())).layers)
    second.weight = first.weight  # two names for one tensor
    for number in range(8):
        save_weights(tmp_path / str(number), model)
        hashes.add(sha256_of(tmp_path / str(number) / "model.safetensors"))
    assert len(hashes) == 1
    with safe_open(tmp_path / "0" / "model.safetensors", framework="pt") as file:
        assert list(file.metadata()) == ["aliases"]
    load_weights(tmp_path / "0", model)


def test_a_full_disk_keeps_the_earlier_checkpoint(tmp_path, monkeypatch):
    t = trainer(tmp_path, steps=4, save_every=2, keep=1, evaluating=False)
    real = checkpoint.save_file

    def full_later(tensors, path):
        if "step_00000004" in str(path):
            raise OSError(28, "No space left on device")
        real(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full_later)
    with pytest.raises(RunError, match=r"step_00000004: the disk is full: .* needed, .* free"):
        t.fit()
    assert steps(tmp_path) == [2]
    assert verify_directory(tmp_path / "checkpoints" / "last") is None
    assert [p.name for p in (tmp_path / "checkpoints").iterdir() if p.name.startswith(".")] == []


def test_a_really_full_disk_keeps_every_earlier_checkpoint(small_disk):
    with pytest.raises(RunError, match=r"the disk is full: .* needed, .* free") as caught:
        trainer(small_disk / "run", steps=500, save_every=1, keep=None, evaluating=False, tensorboard=True).fit()
    assert "resume=auto" in str(caught.value)
    kept = steps(small_disk / "run")
    assert len(kept) > 5 and kept == list(range(1, len(kept) + 1))
    folder = small_disk / "run" / "checkpoints"
    assert [verify_directory(folder / checkpoint.folder_name(step)) for step in kept] == [None] * len(kept)
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []


def test_nothing_is_deleted_before_the_new_one_reads_back(tmp_path, monkeypatch):
    monkeypatch.setattr(
        checkpoint, "verify_directory", lambda p: "a.bin is missing" if p.name == "step_00000004" else None
    )
    with pytest.raises(RunError, match=r"step_00000004 does not read back: a.bin is missing"):
        trainer(tmp_path, steps=4, save_every=2, keep=1, evaluating=False).fit()
    assert 2 in steps(tmp_path)
    assert os.readlink(tmp_path / "checkpoints" / "last") == "step_00000002"


def test_all_generators_come_back():
    def draw():
        return torch.rand(3).tolist(), random.random(), np.random.rand(3).tolist(), random.gauss(0, 1)

    random.gauss(0, 1)  # leaves a second value for the next call
    np.random.randn()
    state = json.loads(json.dumps(checkpoint.rng_state()))
    want = draw()
    checkpoint.restore_rng(state)
    assert draw() == want
