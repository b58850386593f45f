"""The list of bad media: shared, once per file, and readable after a crash."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest

from vtp.data import BadFiles
from vtp.media import MediaError
from vtp.types import MediaRef, Sample

REF = MediaRef("/v/a.mp4")


def test_what_one_process_finds_the_others_know(tmp_path: Path) -> None:
    one, two = (BadFiles(tmp_path / "bad.jsonl") for _ in range(2))
    assert two.find(REF) is None
    one.add(Sample("7"), REF, MediaError("the decoder crashed (SIGSEGV)", "crash", "pyav"))
    error = two.find(REF)
    assert error is not None and (error.reason, error.kind, error.backend, error.known) == (
        "the decoder crashed (SIGSEGV)",
        "crash",
        "pyav",
        True,
    )
    two.add(Sample("8"), REF, MediaError("again"))
    assert len(one.entries()) == 1 and one.entries()[0]["id"] == "7"
    assert BadFiles(tmp_path / "bad.jsonl").find(REF) is not None  # a resumed run


def test_a_span_outside_the_file_does_not_spoil_the_file() -> None:
    ledger = BadFiles()
    ledger.add(Sample("1"), MediaRef("/v/a.mp4", 50.0, 60.0), MediaError("the span lies outside", "span"))
    assert ledger.find(MediaRef("/v/a.mp4", 50.0, 60.0)) is not None
    assert ledger.find(REF) is None and ledger.find(MediaRef("/v/a.mp4", 0.0, 5.0)) is None
    ledger.add(Sample("1"), MediaRef("/v/a.mp4", 0.0, 5.0), MediaError("damaged"))
    assert ledger.find(REF) is not None


def test_bytes_are_known_by_their_content() -> None:
    ledger = BadFiles()
    ledger.add(Sample("1"), MediaRef(b"abc"), MediaError("damaged"))
    assert ledger.find(MediaRef(b"abc")) is not None and ledger.find(MediaRef(b"abd")) is None
    assert ledger.entries()[0]["path"].startswith("bytes:")


def test_a_torn_line_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    BadFiles(path).add(Sample("1"), REF, MediaError("damaged"))
    with open(path, "a") as file:
        file.write('{"id": "2", "path": "/v/b')  # killed here
    BadFiles(path).add(Sample("3"), MediaRef("/v/c.mp4"), MediaError("damaged"))
    assert [entry["id"] for entry in BadFiles(path).entries()] == ["1", "3"]


def _add_many(path: Path, start: Any) -> None:
    ledger = BadFiles(path)
    look = ledger._refresh
    ledger._refresh = lambda: (look(), time.sleep(0.002))  # time for the others to come in between
    for k in range(50):
        start.wait()
        ledger.add(Sample(str(k)), MediaRef(f"/v/{k}"), MediaError("damaged"))


def test_processes_that_write_at_once_write_each_file_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    context = multiprocessing.get_context("fork")
    start = context.Barrier(3)
    processes = [context.Process(target=_add_many, args=(path, start)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    ids = [json.loads(line)["id"] for line in path.read_text().splitlines()]
    assert sorted(ids, key=int) == [str(k) for k in range(50)]


def test_the_table_counts_reasons() -> None:
    ledger = BadFiles()
    for k in range(3):
        ledger.add(Sample(str(k)), MediaRef(f"/v/{k}"), MediaError("no such file"))
    ledger.add(Sample("x"), MediaRef("/v/x"), MediaError("the file is empty"))
    assert ledger.table().splitlines() == [
        "     3  no such file  (first: /v/0)",
        "     1  the file is empty  (first: /v/x)",
    ]
    with pytest.raises(ValueError, match="max_bad_fraction=2"):
        BadFiles(max_bad_fraction=2)
