from __future__ import annotations

import pytest

from vtp.errors import ConfigError, DataError, RunError
from vtp.eval.ledger import Ledger, count_or_share

IDS = tuple(f"video{i}" for i in range(2990))


def test_the_line_says_how_many_of_how_many():
    assert Ledger(IDS, {}, "videos").line() == "2,990 of 2,990 videos evaluated"
    one = Ledger(IDS, {"video7": "no video stream"}, "videos")
    assert one.line() == "2,989 of 2,990 videos evaluated (99.97 %), 1 missing counted as miss"
    assert not one.complete and one.evaluated == 2989 and one.mask().sum() == 2989 and not one.mask()[7]


def test_an_incomplete_share_is_never_rounded_to_all():
    ids = tuple(map(str, range(72821)))
    assert "(99.9986 %)" in Ledger(ids, {"5": "x"}).line()
    assert "(0.0027 %)" in Ledger(ids, dict.fromkeys(ids[2:], "x")).line()


def test_ids_must_be_unique_and_missing_ones_expected():
    with pytest.raises(RunError, match="occur more than once .first: 'a'"):
        Ledger(("a", "b", "a"))
    with pytest.raises(RunError, match="never expected .first: 'c'"):
        Ledger(("a", "b"), {"c": "x"})


@pytest.mark.parametrize(("allowed", "missing"), [(None, 5), (5, 5), (5.0, 5), (0.5, 5), (0, 0), (0.0, 0), (0.3, 3)])
def test_as_many_as_allowed_may_be_missing(allowed, missing):
    Ledger(IDS[:10], dict.fromkeys(IDS[:missing], "broken"), "videos").check(allowed)


@pytest.mark.parametrize(("allowed", "missing"), [(4, 5), (0.4, 5), (0, 1), (0.0, 1), (0.09, 1)])
def test_one_more_is_an_error_that_names_the_first(allowed, missing):
    ledger = Ledger(IDS[:10], dict.fromkeys(IDS[:missing], "no video stream"), "videos")
    with pytest.raises(DataError, match=rf"{missing} of 10 videos .*video0: no video stream.*max_missing={missing}\."):
        ledger.check(allowed)


@pytest.mark.parametrize("value", [-1, 1.5, True])
def test_a_limit_that_is_neither_count_nor_share_is_refused(value):
    with pytest.raises(ConfigError, match=r"whole number of items from 1 up, or a share below 1"):
        Ledger(("a",), {"a": "x"}).check(value)


def test_a_limit_is_a_count_from_one_up_and_a_share_below():
    assert [count_or_share(v, 10, "k") for v in (1, 3.0, 0.3, 0.5)] == [1, 3, 3, 5]
    with pytest.raises(ConfigError):
        count_or_share(0, 10, "k")


def test_the_record_counts_reasons_and_modalities():
    ledger = Ledger(("a", "b", "c", "d"), {"b": "timeout", "c": "timeout"}, "clips", {"video": 2, "audio": 1})
    record = ledger.record()
    assert record["reasons"] == {"timeout": 2} and record["missing_items"] == {"b": "timeout", "c": "timeout"}
    assert record["modality_coverage"] == {"video": 1.0, "audio": 0.5} and record["coverage"] == 0.5
    assert Ledger(("a",), {"a": "x"}, present={"audio": 0}).modality_coverage() == {"audio": 0.0}
