"""Hostile shards through ``dataset=shards``: no traceback, no hang, and samples that are read and samples that are
named are together those of the file."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest
from hostile_tars import CONTENT, MARK, make_hostile_tar, real_texts

from vtp.errors import DataError
from vtp.media import MediaError, MediaReader, Wanted
from vtp.media.member import fetch
from vtp.media.sampling import uniform
from vtp.prepare.check import look_at
from vtp.prepare.survey import survey_dataset
from vtp_datasets.shards import Shards

READER = MediaReader(isolate=False)
LIMIT_S = 20.0
ALL = 8 * len(CONTENT)  # every fault of the content with every damage of the file


@pytest.fixture(scope="module")
def texts(shared_data: Path) -> list[str]:
    found = real_texts(shared_data)
    assert len(found) > 300
    return found


def survives(folder: Path, texts: list[str], seed: int) -> None:
    made = make_hostile_tar(folder / "00000.tar", texts, seed)
    context = (seed, made.faults)
    started = time.monotonic()
    data = Shards(urls=folder)
    try:
        table = data.samples("retrieval", "train")
    except DataError as error:
        assert made.refused or not made.whole, (*context, str(error))
        assert str(made.path) in str(error) or str(folder) in str(error), (*context, str(error))
        return
    (record,) = data.origin()["files"]
    assert record["rows"] == len(table), context
    assert len(table) + record["malformed"] == made.samples, (*context, record, made.samples)
    assert len(record["malformed_first"]) == min(record["malformed"], 20), context
    found = {}
    for sample in table:
        assert set(sample.texts) <= made.texts, (*context, sample)  # nothing is invented
        content = fetch(sample.video).path
        name = content.rpartition(MARK.encode())[2].decode()
        name = name or sample.texts[0].rpartition(MARK)[2]  # of a picture without a byte
        assert all(text.rpartition(MARK)[2] == name for text in sample.texts), (*context, sample)  # and nothing mixed
        found[name] = sample.texts
        try:
            clip = READER.read(sample.video, Wanted(times=partial(uniform, frames=2)))
            assert clip.frames.shape[1:] == (8, 8, 3) and content, context
        except MediaError:
            assert not content, (*context, sample)
    assert len({sample.id for sample in table}) == len(table), context
    assert made.whole.items() <= found.items(), (*context, made.whole.keys() - found.keys(), record)
    survey = survey_dataset(data)
    assert sum(facts.samples for facts in survey.tables) == len(table), context
    look_at(survey, reader=lambda: READER, settings="", workers=1, frames=1, decode=False)
    again = Shards(urls=folder).samples("retrieval", "train")  # by the index that was kept
    assert list(again) == list(table), context
    assert time.monotonic() - started < LIMIT_S, context


@pytest.mark.data
@pytest.mark.parametrize("seed", range(len(CONTENT) + 2))
def test_hostile_shards(tmp_path: Path, texts: list[str], seed: int) -> None:
    survives(tmp_path, texts, seed % len(CONTENT) + seed * len(CONTENT))  # another damage with every fault


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("seed", range(ALL))
def test_many_hostile_shards(tmp_path: Path, texts: list[str], seed: int) -> None:
    survives(tmp_path, texts, seed)
