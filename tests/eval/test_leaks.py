from __future__ import annotations

import base64
import hashlib
import json
import zlib
from hashlib import blake2b
from pathlib import Path
from types import SimpleNamespace

import pytest

from vtp.errors import ConfigError, DataError
from vtp.eval.leaks import check_leaks, media_names, train_record
from vtp.types import MediaRef, Sample

MSRVTT = SimpleNamespace(name="msrvtt")


def clips(*numbers: int) -> list[Sample]:
    return [Sample(f"s{i}", texts=("x",), extra={"video_id": f"video{i}"}) for i in numbers]


def test_a_clean_history_passes():
    stages = [train_record("pretrain", clips(0, 1), MSRVTT), train_record("finetune", clips(2), MSRVTT, "train.7k")]
    report = check_leaks(stages, media_names(clips(3, 4), MSRVTT))
    assert not report.found and report.line() == "" and report.record()["leak"] is False


def test_an_overlap_of_any_stage_is_refused_with_number_and_first_clips():
    """The 9k retrieval list contains 1,990 of the 2,990 clips of the QA test set."""
    stages = [
        train_record("retrieval 9k", clips(*range(7010), *range(8010, 10000)), MSRVTT),
        train_record("qa", clips(5), MSRVTT),
    ]
    tested = media_names(clips(*range(7010, 10000)), MSRVTT)
    with pytest.raises(
        DataError, match=r"1,990 of 2,990 test clips .*retrieval 9k: 1,990, first msrvtt:video8010.*on_leak=stamp"
    ):
        check_leaks(stages, tested)


def test_stamping_reports_the_overlap_instead():
    stages = [
        train_record("a", clips(1, 2), MSRVTT),
        train_record("b", clips(2, 3), MSRVTT),
        train_record("c", clips(9), MSRVTT),
    ]
    report = check_leaks(stages, media_names(clips(2, 3, 4), MSRVTT), on_leak="stamp")
    assert report.line().startswith(
        "LEAK: 2 of 3 test clips were in training (stage a: 1, first msrvtt:video2; stage b: 2"
    )
    assert json.loads(json.dumps(report.record()))["stages"]["b"] == {
        "clips": 2, "first": ["msrvtt:video2", "msrvtt:video3"],
    }  # fmt: skip


def test_the_same_number_in_another_data_set_is_another_clip_unless_they_share_their_media():
    other = SimpleNamespace(name="msvd")
    assert not check_leaks([train_record("a", clips(1), other)], media_names(clips(1), MSRVTT)).found
    sibling = SimpleNamespace(name="msrvtt_qa_own", media_namespace="msrvtt")
    with pytest.raises(DataError):
        check_leaks([train_record("a", clips(1), sibling)], media_names(clips(1), MSRVTT))


def test_a_stage_without_a_list_is_neither_cleared_nor_accused():
    report = check_leaks([{"stage": "downloaded", "media": None}], ["msrvtt:video1"])
    assert report.unknown == ("downloaded",) and not report.found


def test_two_stages_of_one_name_are_told_apart():
    stages = [train_record("run", clips(1), MSRVTT), train_record("run", clips(2), MSRVTT)]
    assert list(check_leaks(stages, media_names(clips(1, 2), MSRVTT), on_leak="stamp").found) == ["run", "run (2)"]


def test_the_record_survives_json_and_counts_clips_not_captions():
    samples = [*clips(1, 2), Sample("again", texts=("y",), extra={"video_id": "video1"})]
    record = json.loads(json.dumps(train_record("s", samples, MSRVTT, "train.9k")))
    assert (record["samples"], record["clips"], record["list"]) == (3, 2, "train.9k")
    assert record["media"] == ["msrvtt:video1", "msrvtt:video2"]


def test_clips_without_an_id_are_known_by_their_file():
    samples = [Sample("a", MediaRef("/somewhere/clip.mp4")), Sample("b", MediaRef("else/clip.mp4", 1.0, 2.5))]
    expected = {"msrvtt:/somewhere/clip.mp4", f"msrvtt:{Path.cwd()}/else/clip.mp4[1-2.5]"}
    assert set(media_names(samples, MSRVTT)) == expected


def test_only_refuse_and_stamp_exist():
    with pytest.raises(ConfigError, match="refuse or stamp"):
        check_leaks([], [], on_leak="ignore")


# -- millions of clips -----------------------------------------------------------------------------------------------


class Bulk:
    """A table that gives names without samples, as those of millions of rows do."""

    def __init__(self, names):
        self.names = names

    def __len__(self):
        return len(self.names)

    def __iter__(self):
        raise AssertionError("samples were made")

    def video_ids(self):
        return iter(self.names)


def test_many_clips_are_remembered_as_hashes_and_still_found(monkeypatch):
    monkeypatch.setattr("vtp.eval.leaks.NAMED_CLIPS", 1000)
    monkeypatch.setattr("vtp.eval.identity.ROWS", 0)
    names = [f"video{n}" for n in range(5000)]
    record = json.loads(json.dumps(train_record("pretrain", Bulk(names * 2), MSRVTT)))
    assert (record["samples"], record["clips"]) == (10_000, 5000)
    kept = sorted(int.from_bytes(blake2b(f"msrvtt:{n}".encode(), digest_size=8).digest(), "big") for n in names)
    planes = zlib.decompress(base64.b64decode(record["media"]["data"]))
    assert [int.from_bytes(planes[i::5000], "big") for i in range(5000)] == kept
    assert record["sha256"] == hashlib.sha256(b"".join(k.to_bytes(8, "big") for k in kept)).hexdigest()
    report = check_leaks([record], media_names(clips(4999, 7, 5000, 9999), MSRVTT), on_leak="stamp")
    assert report.found == {"pretrain": ("msrvtt:video4999", "msrvtt:video7")} and report.tested == 4
    assert not check_leaks([record], media_names(clips(5000), MSRVTT)).found
    by_name = train_record("pretrain", Bulk(names[:1000]), MSRVTT)
    assert by_name["media"] == sorted(f"msrvtt:{n}" for n in names[:1000])


def test_hashes_of_another_version_are_refused():
    with pytest.raises(DataError, match="md5.*cannot read"):
        check_leaks([{"stage": "s", "media": {"hash": "md5", "data": ""}}], ["msrvtt:video1"])


@pytest.mark.parametrize("named", [0, 1000])
def test_a_span_is_a_part_of_its_clip(monkeypatch, named):
    monkeypatch.setattr("vtp.eval.leaks.NAMED_CLIPS", named)
    monkeypatch.setattr("vtp.eval.identity.ROWS", 0)
    stage = train_record("s", Bulk(["a[0-2.5]", "b", "c[1-2]"]), MSRVTT)
    report = check_leaks([stage], [f"msrvtt:{n}" for n in ("a", "b[3-]", "c[5-6]", "d")], on_leak="stamp")
    assert report.found == {"s": ("msrvtt:a", "msrvtt:b[3-]", "msrvtt:c[5-6]")}


def test_what_a_checkpoint_was_chosen_by_counts(monkeypatch):
    record = train_record("s", clips(1), MSRVTT, selected_on=clips(2))
    assert record["media"] == ["msrvtt:video1", "msrvtt:video2"] and record["samples"] == record["clips"] == 2
