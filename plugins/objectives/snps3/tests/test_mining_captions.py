"""Captions in files of every form, and what is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vtp.errors import ConfigError, DataError
from vtp_snps3.mining.captions import CaptionFile, captions_of


def read(path: Path, content: str | bytes, column: str | None = None) -> tuple[list[str], dict[str, Any]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    captions = CaptionFile(path, column)
    found = list(captions)
    assert list(captions) == found  # again
    return found, captions.left_out()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "video,caption\n1.mp4,a dog\n2.mp4,a cat\n"),
        ("a.tsv", "caption\tvideo\na dog\t1.mp4\na cat\t2.mp4\n"),
        ("a.csv", "Sentence\na dog\na cat\n"),
        ("a.jsonl", '{"caption": "a dog"}\n\n{"caption": ["a cat"]}\n'),
        ("a.json", '{"caption": "a dog"}\n{"caption": "a cat"}\n'),
        ("a.json", '[{"caption": "a dog"}, {"caption": "a cat"}]'),
        ("a.json", '["a dog", "a cat"]'),
        ("a.json", '{"1.mp4": "a dog", "2.mp4": "a cat"}'),
        ("a.json", '{"1.mp4": ["a dog", "a cat"]}'),
        ("a.json", '{"sentences": [{"caption": "a dog"}, {"caption": "a cat"}]}'),
        ("a.csv", "\ufeffcaption,split\r\na dog,train\r\na bird,test\r\na cat,training\r\n"),
    ],
)
def test_forms_of_files(name: str, content: str, tmp_path: Path) -> None:
    found, left_out = read(tmp_path / name, content)
    assert found == ["a dog", "a cat"]
    assert left_out["rows"] == 0
    assert left_out.get("rows_of_other_splits", 0) == ("split" in content)


def test_what_is_no_caption_is_counted_and_named(tmp_path: Path) -> None:
    rows = [
        {"caption": "a dog"},
        {"caption": ""},
        {"caption": None},
        {"text_": "x"},
        {"caption": {"en": "x"}},
        {"caption": True},
    ]
    lines = [*map(json.dumps, rows), "[1]", "no json", '{"caption": "a cat"}']
    found, left_out = read(tmp_path / "a.jsonl", "\n".join(lines))
    assert found == ["a dog", "a cat"]
    assert left_out["rows"] == 7
    assert left_out["first"][:4] == [
        "line 2: no caption", "line 3: no caption", "line 4: no caption",
        "line 5: caption is an object instead of a text",
    ]  # fmt: skip


def test_another_column(tmp_path: Path) -> None:
    content = "caption,asr\na dog,hello\na cat,there\n"
    assert read(tmp_path / "a.csv", content, "asr")[0] == ["hello", "there"]
    with pytest.raises(DataError, match="no column nope; its first row is asr, caption.*column=NAME"):
        read(tmp_path / "a.csv", content, "nope")
    with pytest.raises(DataError, match="no captions .first: line 1: no nope"):
        read(tmp_path / "a.jsonl", '{"caption": "a dog"}\n', "nope")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("caption\nein Käfer\n".encode("latin-1"), "not UTF-8 at byte"),
        ("caption\na dog\n".encode("utf-16"), "UTF-16"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"", "no captions"),
        (b"caption\n", "no captions"),
    ],
)
def test_what_is_no_file_of_captions(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.csv", content)


def test_the_training_captions_of_a_data_set(tmp_path: Path) -> None:
    captions = {f"clip{n}": [f"a dog number {n}", "a cat"] for n in range(3)}
    (tmp_path / "captions_msvd.json").write_text(json.dumps(captions))
    for split, clips in (("train", "clip0\nclip1\n"), ("val", "clip2\n"), ("test", "clip2\n")):
        (tmp_path / f"{split}_list.txt").write_text(clips)
    found = captions_of("msvd", {"root": str(tmp_path)})
    assert list(found) == ["a dog number 0", "a cat", "a dog number 1", "a cat"] == list(found)
    assert (found.name, found.total(), found.left_out()["rows"]) == ("msvd", 4, 0)


def test_a_data_set_without_captions_says_what_it_has() -> None:
    with pytest.raises(ConfigError, match="music_avqa has no captions; it has qa.*kind=qa"):
        captions_of("music_avqa", {})
