"""Reading files row by row gives what reading them whole gives, and names what is wrong where it is."""

from __future__ import annotations

import hashlib
import json
import random

import pytest

from vtp.catalogue import annotations
from vtp.catalogue.annotations import AnnotationFile, clip_list
from vtp.catalogue.texts import Seen
from vtp.errors import DataError


def file_of(tmp_path, content, name="file.json"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return AnnotationFile(path)


VALUES = [
    [], {}, [1], [1, 2.5, -3e10, "x", None, True, [], {}, [[1], {"a": [2]}]],
    {"a": 1, "b": [1, {"c": "}]\",\\"}], "二": "三\n", "": None},
    [{"k": "é" * 50, "n": [i] * (i % 7)} for i in range(40)],
    {f"key {i}": list(range(i)) for i in range(40)},
    [12345678, 1], [0.125, 17],
]  # fmt: skip


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
@pytest.mark.parametrize("indent", [None, 1])
def test_items_of_big_json_are_those_of_json(tmp_path, monkeypatch, block, value, indent):
    monkeypatch.setattr(annotations, "_BLOCK", block)
    file = file_of(tmp_path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")
    found = list(file.items())
    expected = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    assert [(key, item) for _, key, item in found] == expected
    assert [position for position, *_ in found] == list(range(len(expected)))
    assert file.sha256 == hashlib.sha256(file.path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "text", ["", "3", '"x"', "[1, 2", '{"a": 1', '{"a" 1}', "[1 2]", "[1,]", "[1]]", "{1: 2}", "[1] x", "[tru]"]
)
@pytest.mark.parametrize("block", [1, 1 << 20])
def test_broken_json_is_named(tmp_path, monkeypatch, text, block):
    monkeypatch.setattr(annotations, "_BLOCK", block)
    with pytest.raises(DataError, match=r"file.json: not JSON: .*cut off"):
        list(file_of(tmp_path, text).items())


def test_cut_json_gives_no_wrong_number(tmp_path, monkeypatch):
    """``[12`` of ``[123]`` must not be read as 12."""
    monkeypatch.setattr(annotations, "_BLOCK", 2)
    with pytest.raises(DataError):
        list(file_of(tmp_path, "[12").items())
    assert [v for *_, v in file_of(tmp_path, "[123456]").items()] == [123456]


def test_bytes_that_are_no_utf8_are_found_anywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(annotations, "_BLOCK", 16)
    content = ("video,caption\n" + "a.mp4,二二二\n" * 20).encode()
    for place in (0, 14, 150, len(content)):
        file = file_of(tmp_path, content[:place] + b"\xff" + content[place:], "x.csv")
        while place < len(content) and content[place] & 0xC0 == 0x80:
            place += 1
        with pytest.raises(DataError, match="not UTF-8 at byte"):
            list(file.csv(lambda cells: True))
    with pytest.raises(DataError, match="not UTF-8 at byte 14"):
        list(file_of(tmp_path, content[:14] + b"\xff" + content[14:], "x.csv").csv(lambda cells: True))


def test_pointers_are_refused_by_every_way_of_reading(tmp_path):
    file = file_of(tmp_path, "version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 5\n")
    for way in (file.items, file.jsonl, file.lines, lambda: file.csv(lambda cells: True), lambda: [file.json()]):
        with pytest.raises(DataError, match="Git LFS pointer"):
            list(way())


def test_lines_of_json(tmp_path):
    file = file_of(tmp_path, '{"a": 1}\r\n\n[1]\nnonsense\n{"a": "二"}', "x.jsonl")
    assert list(file.jsonl()) == [(1, {"a": 1}), (5, {"a": "二"})]
    assert file.malformed_count == 2 and file.malformed[0] == "line 3: not an object"
    assert file.malformed[1].startswith("line 4: not JSON")


def test_repeated_clips_of_a_list_are_named(tmp_path):
    file = file_of(tmp_path, "a\n b \n\na\nc", "list.txt")
    assert list(clip_list(file)) == [(1, "a"), (2, "b"), (5, "c")]
    assert file.malformed == ["line 4: a is there already"]


def test_texts_that_were_seen():
    seen, true = Seen(), set()
    generator = random.Random(0)
    for _ in range(20_000):
        text = str(generator.randrange(8000))
        assert seen.add(text) == (text not in true)
        true.add(text)
