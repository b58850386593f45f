"""Hostile annotation files through the readers: no exception but an error of ours, no end of waiting, and every row is
one that was read or one that was named."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from vtp.errors import VtpError

sys.path.insert(0, str(Path(__file__).parent))
from hostile_tables import FORMS, hostile_table, real_rows

LIMIT_S = 60.0  # of the processor, for one file of a few kB and the imports of the first


def survives(folder: Path, rows: Sequence[Mapping[str, Any]], number: int) -> str:
    folder.mkdir()
    made = hostile_table(folder, rows, number)
    started = time.process_time()
    case = f"file {number}: {made.form.name} of {made.form.kind}, {', '.join(made.what)}"
    try:
        dataset = made.form.make(folder)
        table = dataset.samples(made.form.kind, made.form.split)
        samples = list(table)
    except VtpError as error:
        assert str(error).strip() and "Traceback" not in str(error), case
        return "refused"
    except Exception as error:
        raise AssertionError(f"{case}: {type(error).__name__}: {error}") from error
    assert time.process_time() - started < LIMIT_S, case
    for sample in samples:
        assert sample.id and all(text.strip() for text in sample.texts), (case, sample)
        "\0".join((sample.id, *sample.texts)).encode()  # no half surrogates
    assert len({sample.id for sample in samples}) == len(samples), case
    file = next(record for record in dataset.origin()["files"] if record["path"].endswith(made.form.name))
    assert file["malformed"] == 0 or file["malformed_first"], case
    if made.form.counted and made.rows is not None:
        told = (case, file["rows"], file["malformed"], file["malformed_first"])
        assert file["rows"] + file["malformed"] == made.rows, told
    return "read"


@pytest.mark.parametrize("number", range(0, 2 * len(FORMS)))
def test_a_few_hostile_tables(tmp_path: Path, number: int) -> None:
    survives(tmp_path / "files", real_rows(None), number)


@pytest.mark.slow
@pytest.mark.data
def test_six_hundred_hostile_tables(tmp_path: Path, shared_data: Path) -> None:
    rows = real_rows(shared_data)
    outcomes = [survives(tmp_path / str(number), rows, number) for number in range(1000, 1600)]
    assert outcomes.count("read") > 300 and outcomes.count("refused") > 50
