"""Atomic files and folders."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vtp.errors import ConfigError, DataError, RunError
from vtp.storage import (
    MANIFEST,
    DirectoryTransaction,
    alone,
    append_line,
    clean_leftovers,
    replacing,
    verify_directory,
    write_json_atomic,
    write_text_atomic,
)


def fill(folder: Path, text: str = "hello") -> None:
    (folder / "deep").mkdir()
    (folder / "a.txt").write_text(text)
    (folder / "deep" / "b.bin").write_bytes(bytes(range(256)))


def test_a_folder_appears_whole_with_a_manifest(tmp_path):
    final = tmp_path / "runs" / "one"
    with DirectoryTransaction(final) as folder:
        fill(folder)
        assert not final.exists()
    assert sorted(p.name for p in final.parent.iterdir()) == ["one"]
    assert sorted(json.loads((final / MANIFEST).read_text())["files"]) == ["a.txt", "deep/b.bin"]
    assert verify_directory(final) is None


def test_files_get_the_mode_that_the_umask_allows(tmp_path):
    before = os.umask(0o022)
    try:
        with DirectoryTransaction(tmp_path / "one") as folder:
            save_file({"a": torch.zeros(3)}, folder / "a.safetensors")  # creates it with mode 600
    finally:
        os.umask(before)
    assert (tmp_path / "one" / "a.safetensors").stat().st_mode & 0o777 == 0o644


def test_a_failing_body_leaves_what_was_there(tmp_path):
    with DirectoryTransaction(tmp_path / "one") as folder:
        fill(folder)
    with pytest.raises(KeyError), DirectoryTransaction(tmp_path / "one") as folder:
        (folder / "a.txt").write_text("new")
        raise KeyError("boom")
    assert (tmp_path / "one" / "a.txt").read_text() == "hello"
    assert verify_directory(tmp_path / "one") is None
    assert [p.name for p in tmp_path.iterdir()] == ["one"]


def test_a_folder_is_replaced_at_the_end(tmp_path):
    for text in ("old", "new"):
        with DirectoryTransaction(tmp_path / "one") as folder:
            fill(folder, text)
    assert (tmp_path / "one" / "a.txt").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["one"]


def test_when_the_last_rename_fails_the_old_folder_comes_back(tmp_path, monkeypatch):
    with DirectoryTransaction(tmp_path / "one") as folder:
        fill(folder)
    real, calls = os.rename, []

    def rename(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.EIO, "I/O error")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError, match="I/O error"), DirectoryTransaction(tmp_path / "one") as folder:
        fill(folder, "new")
    assert (tmp_path / "one" / "a.txt").read_text() == "hello"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda d: (d / "deep" / "b.bin").unlink(), "deep/b.bin is missing"),
        (lambda d: (d / "deep" / "b.bin").write_bytes(bytes(100)), "deep/b.bin has 100 bytes instead of 256"),
        (lambda d: (d / "deep" / "b.bin").write_bytes(bytes(256)), "deep/b.bin has changed"),
        (lambda d: (d / MANIFEST).unlink(), "manifest.json is missing"),
        (lambda d: (d / MANIFEST).write_text('{"files": {"a'), "manifest.json cannot be read"),
        (lambda d: (d / MANIFEST).write_text("[]"), "manifest.json cannot be read"),
        (shutil.rmtree, "there is no such folder"),
    ],
)
def test_damage_is_found_and_named(tmp_path, damage, reason):
    with DirectoryTransaction(tmp_path / "one") as folder:
        fill(folder)
    damage(tmp_path / "one")
    assert verify_directory(tmp_path / "one").startswith(reason)


def test_leftovers_of_killed_writers_are_cleaned_and_nothing_else(tmp_path):
    transaction = DirectoryTransaction(tmp_path / "one")
    fill(transaction.__enter__())
    for name in ("step_1", ".hidden", "x.tmp"):
        (tmp_path / name).mkdir()
    clean_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hidden", "step_1", "x.tmp"]
    clean_leftovers(tmp_path / "nowhere")


def test_a_transaction_removes_what_a_killed_one_of_the_same_folder_left(tmp_path):
    program = (
        "import os, sys; from vtp.storage import DirectoryTransaction as D; D(sys.argv[1]).__enter__(); os.abort()"
    )
    for name in ("one", "two"):
        subprocess.run([sys.executable, "-c", program, str(tmp_path / name)], check=False)
    (killed, other) = sorted(tmp_path.iterdir())
    assert killed.name.startswith(".one.") and other.name.startswith(".two.")
    with DirectoryTransaction(tmp_path / "two"), DirectoryTransaction(tmp_path / "one") as first:
        assert not killed.exists() and not other.exists()
        with DirectoryTransaction(tmp_path / "one") as second:  # the first is at work, and stays
            assert first.is_dir() and second.is_dir()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]


@pytest.mark.parametrize("place", ["/proc/x", "{}/file/x", "{}/" + 300 * "x"])
def test_a_place_that_can_hold_no_folder_is_said_to_be_none(tmp_path, place):
    (tmp_path / "file").touch()
    with (
        pytest.raises(DataError, match=r"no folder can be made there \((No such|.*/file is a file|File name)"),
        DirectoryTransaction(place.format(tmp_path), 1000),
    ):
        pytest.fail("the body must not run")


def test_a_file_is_replaced_at_the_end_and_not_after_an_error(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    with pytest.raises(ValueError, match="half"), replacing(path) as file:
        file.write(b"half")
        raise ValueError("half")
    full = r"a.bin: the disk is full: 7.00 MB needed, .* free. Nothing .* was lost. Give it again.$"
    with pytest.raises(RunError, match=full), replacing(path, 7_000_000, then="Give it again.") as file:
        raise OSError(errno.EDQUOT, "no more")
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]
    write_text_atomic(path, "")
    assert path.read_bytes() == b""


def test_a_line_is_appended_after_half_a_line_of_a_killed_writer(tmp_path):
    path = tmp_path / "a.jsonl"
    append_line(path, "one")
    append_line(path, "zwei ä")
    with open(path, "a") as file:
        file.write("thr")
    append_line(path, "four")
    assert path.read_text(encoding="utf-8") == "one\nzwei ä\nthr\nfour\n"


def test_a_folder_has_one_writer(tmp_path):
    with alone(tmp_path), pytest.raises(ConfigError, match="another process is writing into"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass


def test_text_is_replaced_in_one_piece(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json_atomic(path, {"ä": 1})
    assert json.loads(path.read_text(encoding="utf-8")) == {"ä": 1}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json_atomic(path, float("nan"))

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="disk is full"):
        write_text_atomic(path, "new")
    assert json.loads(path.read_text(encoding="utf-8")) == {"ä": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_too_little_space_is_refused_before_anything_is_written(tmp_path):
    with (
        pytest.raises(RunError, match=r"1000000000\.00 GB needed, .* free"),
        DirectoryTransaction(tmp_path / "one", expected_bytes=10**18),
    ):
        pytest.fail("the body must not run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", ["python", "safetensors"])
def test_a_disk_that_runs_full_loses_nothing(small_disk, write):
    with DirectoryTransaction(small_disk / "old") as folder:
        (folder / "a.bin").write_bytes(bytes(400_000))
    with (
        pytest.raises(RunError, match=r"disk is full: .* MB needed, .* MB free"),
        DirectoryTransaction(small_disk / "new") as folder,
    ):  # noqa: E501
        if write == "python":
            (folder / "a.bin").write_bytes(bytes(3_000_000))
        else:
            save_file({"a": torch.zeros(750_000)}, folder / "a.safetensors")
    assert [p.name for p in small_disk.iterdir()] == ["old"]
    assert verify_directory(small_disk / "old") is None
