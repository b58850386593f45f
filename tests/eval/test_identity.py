"""One file is one clip, whatever tables call it and wherever they lie."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from vtp.errors import DataError
from vtp.eval.identity import clip_files, content_key
from vtp.eval.leaks import check_leaks, media_names, train_record
from vtp.run.stages import recorded
from vtp.types import MediaRef, Sample
from vtp_datasets.own import OwnData


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """videos/ with a.mp4, its copy under another name, and b.mp4 that is as long; one/ and two/ for tables."""
    for folder in ("videos", "one", "two"):
        (tmp_path / folder).mkdir()
    (tmp_path / "videos/a.mp4").write_bytes(b"A" * 200_000)
    (tmp_path / "videos/b.mp4").write_bytes(b"A" * 199_999 + b"B")
    shutil.copy(tmp_path / "videos/a.mp4", tmp_path / "two/copied.mp4")
    (tmp_path / "two/linked.mp4").symlink_to("../videos/a.mp4")
    return tmp_path


def table(path: Path, clip: str, split: str) -> OwnData:
    path.write_text(f"video,caption,split\n{clip},a dog,{split}\n")
    return OwnData(file=path)


def check(train: OwnData, test: OwnData, **options):
    stage = json.loads(json.dumps(train_record("mine", train.samples("retrieval", "train"), train)))
    samples = test.samples("retrieval", "test")
    return check_leaks([stage], media_names(samples, test), files=clip_files([(samples, test)]), **options)


@pytest.mark.parametrize("clip", ["../videos/a.mp4", "../videos/a", "copied.mp4", "linked", "../two/../videos/a.mp4"])
def test_the_same_file_through_two_tables_in_two_folders_is_a_leak(data, clip):
    train = table(data / "one/train.csv", "../videos/a.mp4", "train")
    with pytest.raises(DataError, match="LEAK: 1 of 1 test clips were in training .stage mine: 1, first csv:two:"):
        check(train, table(data / "two/test.csv", clip, "test"))
    absolute = table(data / "two/absolute.csv", str(data / "videos/a.mp4"), "test")
    assert check(train, absolute, on_leak="stamp").found


def test_another_file_of_the_same_size_is_another_clip(data):
    train = table(data / "one/train.csv", "../videos/a.mp4", "train")
    assert not check(train, table(data / "two/test.csv", "../videos/b.mp4", "test")).found


def test_a_copy_within_one_published_list_is_a_warning_and_elsewhere_a_leak(data):
    published = SimpleNamespace(name="msrvtt")
    samples = [
        Sample(name, MediaRef(str(data / path)), None, ("x",), {}, {"video_id": name})
        for name, path in (("video1", "videos/a.mp4"), ("video2", "two/copied.mp4"))
    ]
    stage = train_record("s", samples[:1], published)
    files = clip_files([(samples[1:], published)])
    report = check_leaks([stage], media_names(samples[1:], published), files=files)
    assert not report.found and report.copies == {"s": ("msrvtt:video2",)}
    assert report.copies_line().endswith("byte for byte (stage s: 1, first msrvtt:video2)")
    with pytest.raises(DataError, match="LEAK"):
        own = table(data / "two/test.csv", "copied.mp4", "test")
        tested = own.samples("retrieval", "test")
        check_leaks([stage], media_names(tested, own), files=clip_files([(tested, own)]))


def test_what_is_not_there_or_empty_has_no_content(data):
    (data / "empty.mp4").touch()
    assert content_key(str(data / "empty.mp4")) is None is content_key(str(data / "gone.mp4"))
    assert content_key(str(data / "videos/a.mp4")) == content_key(str(data / "two/copied.mp4"))
    lost = Sample("a", MediaRef(str(data / "gone.mp4")))
    (known,) = clip_files([([lost], SimpleNamespace(name="x"))]).values()
    assert len(known.paths) == 1 and known.contents == set()


def test_of_many_files_only_the_paths_are_looked_at(data, monkeypatch):
    monkeypatch.setattr("vtp.eval.identity.FILES", 1)
    samples = [Sample(n, MediaRef(os.path.join(data, "videos", f"{n}.mp4"))) for n in "ab"]
    found = clip_files([(samples, SimpleNamespace(name="x"))])
    assert len(found) == 2 and all(one.paths and not one.contents for one in found.values())


@pytest.mark.parametrize("files", [{"paths": 5}, {"paths": {"hash": 1, "data": ""}, "contents": None}, "x"])
def test_files_in_other_words_are_passed_over(tmp_path, files):
    stages = [{"stage": "s", "media": ["a:b"], "files": files}]
    (tmp_path / "provenance.json").write_text(json.dumps({"stages": stages}))
    assert recorded(tmp_path) == [{"stage": "s", "media": ["a:b"], "files": None}]
