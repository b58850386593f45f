"""Tar files as people have them: which members make a sample, and that nothing else is lost without a word.

Media are texts that say which clip they are, so that every test can see whose bytes a sample names.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from vtp.data import shards as shards_module
from vtp.data.shards import find_shards, shard_index
from vtp.data.table import media_id
from vtp.errors import ConfigError, DataError
from vtp.media.member import fetch
from vtp_datasets.shards import Shards

Members = Iterable[tuple[str, bytes | tarfile.TarInfo]]


def write(path: Path, members: Members, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def clip(name: str, ending: str = "mp4") -> list[tuple[str, bytes]]:
    return [(f"{name}.{ending}", f"film {name}".encode()), (f"{name}.txt", f"text {name}".encode())]


def link(kind: bytes, to: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, to
    return info


def read(*shards: Path, **options: Any) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Sample -> (content of its media, its texts)."""
    table = Shards(urls=list(shards), **options).samples("retrieval", "train")
    found = {s.id: (fetch(s.video or s.audio).path.decode(), s.texts) for s in table}
    assert len(found) == len(table)  # ids are unique
    return found


def plain(*names: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {f"00000/{name}": (f"film {name}", (f"text {name}",)) for name in names}


def left_out(shard: Path) -> dict[str, str]:
    return dict(shard_index(shard).malformed)


A, B, C = clip("a"), clip("b"), clip("c")


@pytest.mark.parametrize(
    "members",
    [
        [*A, *B, *C],
        [A[0], B[0], C[0], A[1], B[1], C[1]],  # tar cf x.tar *.mp4 *.txt
        [A[1], B[1], *C, B[0], A[0]],
        [(f"./{name}", content) for name, content in [*A, *B, *C]],  # tar cf x.tar .
        [(name.upper() if name.endswith("mp4") else name, content) for name, content in [*A, *B, *C]][::-1],
    ],
)  # fmt: skip
def test_members_of_a_key_belong_together_wherever_they_stand(tmp_path, members):
    if members[-1][0] == "A.MP4":
        members = [(name.replace("A.", "a.").replace("B.", "b.").replace("C.", "c."), data) for name, data in members]
    shard = write(tmp_path / "00000.tar", members)
    assert read(shard) == plain("a", "b", "c") and left_out(shard) == {}


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_folders_are_whole(tmp_path, format):
    names = ["x" * 70 + "/" + "y" * 40, "folder.v1/a", "b"]
    if format != tarfile.USTAR_FORMAT:
        names += ["z" * 200, "ünïcödé 视频"]
    shard = write(tmp_path / "00000.tar", [m for name in names for m in clip(name)], format=format)
    assert read(shard) == plain(*names)


def test_a_key_that_comes_again_whole_is_another_sample(tmp_path):
    again = [("a.mp4", b"film 2"), ("a.txt", b"text 2")]
    shard = write(tmp_path / "00000.tar", [*A, *B, *again])
    assert read(shard) == plain("a", "b") | {"00000/a#2": ("film 2", ("text 2",))}
    table = Shards(urls=shard).samples("retrieval", "train")
    assert len({media_id(sample) for sample in table}) == 3
    shard = write(tmp_path / "next" / "00000.tar", [*A, *again])  # also next to each other
    assert read(shard) == plain("a") | {"00000/a#2": ("film 2", ("text 2",))}


@pytest.mark.parametrize(
    "members", [[A[0], ("a.mp4", b"film 2"), A[1], *B], [A[0], B[0], ("a.mp4", b"other"), B[1], A[1]]]
)
def test_doubled_members_that_cannot_be_told_apart_are_named(tmp_path, members):
    shard = write(tmp_path / "00000.tar", members)
    assert read(shard) == plain("b")
    assert [key for key, _ in shard_index(shard).malformed] == ["a", "a"]  # there are two of them
    assert "2 mp4" in left_out(shard)["a"]


def test_what_has_no_media_or_no_readable_text_is_named(tmp_path):
    wrong = {
        "no_media": [("no_media.txt", b"words")],
        "json_alone": [("json_alone.json", b"{}"), ("json_alone.cls", b"3")],
        "latin": [("latin.mp4", b"f"), ("latin.txt", "é".encode("latin-1"))],
        "utf16": [("utf16.mp4", b"f"), ("utf16.txt", "a dog".encode("utf-16-le"))],
        "cut_json": [("cut_json.mp4", b"f"), ("cut_json.json", b'{"caption": "a')],
        "list": [("list.mp4", b"f"), ("list.json", b"[1, 2]")],
        "deep": [("deep.mp4", b"f"), ("deep.json", b"[" * 100_000)],
        "nested": [("nested.mp4", b"f"), ("nested.json", b'{"a":' * 400 + b"1" + b"}" * 400)],
        "half": [("half.mp4", b"f"), ("half.json", b'{"caption": "a dog \\ud83d"}')],
        "digits": [("digits.mp4", b"f"), ("digits.json", b'{"n": ' + b"9" * 5000 + b"}")],
    }
    shard = write(tmp_path / "00000.tar", [*A, *(m for members in wrong.values() for m in members), *B])
    assert read(shard) == plain("a", "b")
    why = left_out(shard)
    assert why.keys() == wrong.keys()
    words = {"no_media": "neither video", "latin": "not UTF-8", "utf16": "null", "cut_json": "damaged", "half": "half"}
    assert all(word in why[key] for key, word in words.items())
    assert "too deep" in why["deep"] and "too deep" in why["nested"] and "no object" in why["list"]
    record = _record(shard)
    assert (record["rows"], record["malformed"]) == (2, len(wrong)) and len(record["malformed_first"]) == len(wrong)


def _record(shard: Path) -> dict[str, Any]:
    data = Shards(urls=shard)
    data.samples("retrieval", "train")
    return data.origin()["files"][0]


@pytest.mark.parametrize(
    ("record", "texts"),
    [
        ({"caption": " a dog "}, ("a dog",)),
        ({"caption": ["a dog", " ", "a cat"]}, ("a dog", "a cat")),
        ({"caption": 7}, ("7",)),
        ({"caption": None}, ()),
        ({"caption": ""}, ()),
        ({}, ()),
        ({"caption": float("nan")}, ()),  # pandas' word for none
        ({"caption": float("inf")}, None),
        ({"caption": True}, None),
        ({"caption": {"en": "a dog"}}, None),
        ({"caption": ["a dog", None]}, ("a dog",)),
        ({"caption": ["a dog", ["a cat"]]}, None),
        ({"caption": "a dog", "samples": 16000}, ("a dog",)),  # somebody else's word
        ({"caption": "a dog", "silent": "no"}, ("a dog",)),
        ({"caption": "a dog 🐕"}, ("a dog 🐕",)),  # both halves
    ],
)
def test_captions_are_texts(tmp_path, record, texts):
    shard = write(tmp_path / "00000.tar", [*A, ("x.mp4", b"film x"), ("x.json", json.dumps(record).encode())])
    want = {} if texts is None else {"00000/x": ("film x", texts)}
    assert read(shard) == plain("a") | want
    assert _record(shard)["malformed"] == (texts is None)


def test_names_with_dots(tmp_path):
    """The WebDataset rule for whoever follows it, the last dot where it leaves nothing."""
    spans = ["NUsG9BgSes0_210.0_360.0", "vid.v1", "vid.v2"]
    shard = write(tmp_path / "00000.tar", [*A, *(m for name in spans for m in clip(name))])
    assert read(shard) == plain("a", *spans) and left_out(shard) == {}
    shard = write(tmp_path / "b" / "00000.tar", [*A, *clip("a.v1"), ("a.mask.png", b"mask"), ("a.cls", b"3")])
    assert read(shard) == plain("a", "a.v1")
    assert shard_index(shard).unread == {"mask.png": 1, "cls": 1}
    shard = write(tmp_path / "c" / "00000.tar", [*A, ("b.0.jpg", b"1"), ("b.1.jpg", b"2"), ("b.txt", b"two pictures")])
    assert read(shard) == plain("a")
    assert "neither video" in left_out(shard)["b"] and "0.jpg, 1.jpg" in left_out(shard)["b"]


def test_foreign_members_are_counted_and_named(tmp_path, caplog):
    foreign = ["README", ".DS_Store", "._a.mp4", "__MACOSX/._a.txt", "LICENSE.md", "notes/list.xyz"]
    folder = tarfile.TarInfo()
    folder.type = tarfile.DIRTYPE
    shard = write(tmp_path / "00000.tar", [("clips", folder), *A, *((name, b"x") for name in foreign), *B])
    assert read(shard) == plain("a", "b") and left_out(shard) == {}
    index = shard_index(shard)
    assert index.foreign == len(foreign) and sorted(index.foreign_first) == sorted(foreign)
    assert "members of no sample: 6" in caplog.text
    assert "6 (first: README" in _record(shard)["members_of_no_sample"]


def test_of_several_media_a_film_comes_before_its_picture(tmp_path):
    members = [("a.jpg", b"picture"), ("a.npy", b"features"), *A, ("b.mp3", b"sound"), ("b.jpg", b"still")]
    shard = write(tmp_path / "00000.tar", members)
    first, second = Shards(urls=shard).samples("retrieval", "train")
    assert fetch(first.video).path == b"film a" and first.audio == first.video
    assert fetch(second.video).path == b"still" and fetch(second.audio).path == b"sound" and second.texts == ()
    assert shard_index(shard).unread == {"jpg": 1, "npy": 1}


def test_links_have_the_content_of_what_they_name(tmp_path):
    members = [
        *clip("f/a"),
        ("f/b.mp4", link(tarfile.LNKTYPE, "f/a.mp4")),
        ("f/b.txt", b"text b"),
        ("c.mp4", link(tarfile.SYMTYPE, "./f/b.mp4")),
        ("gone.mp4", link(tarfile.SYMTYPE, "/data/clip.mp4")),
        ("gone.txt", b"text"),
        ("self.mp4", link(tarfile.SYMTYPE, "self.mp4")),
        ("dev.mp4", link(tarfile.CHRTYPE, "")),
        ("dev.txt", b"text"),
    ]
    shard = write(tmp_path / "00000.tar", members)
    film = "film f/a"
    assert read(shard) == {
        "00000/f/a": (film, ("text f/a",)), "00000/f/b": (film, ("text b",)), "00000/c": (film, ())
    }  # fmt: skip
    why = left_out(shard)
    assert why.keys() == {"gone", "self", "dev"}
    assert "/data/clip.mp4, which is not in the shard" in why["gone"] and "device" in why["dev"]


def test_members_with_holes_are_named(tmp_path):
    shard = write(tmp_path / "00000.tar", [*A, *B], format=tarfile.GNU_FORMAT)
    data = bytearray(shard.read_bytes())
    data[156:157] = tarfile.GNUTYPE_SPARSE
    data[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(data[:512]))[0]
    shard.write_bytes(data)
    assert read(shard) == plain("b") and "holes" in left_out(shard)["a"]
    write(tmp_path / "p" / "00000.tar", B)
    with tarfile.open(tmp_path / "p" / "00000.tar", "a") as tar:
        info = tarfile.TarInfo("GNUSparseFile.1/a.mp4")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a.mp4"}
        tar.addfile(info)
    assert read(tmp_path / "p" / "00000.tar") == plain("b")
    assert "holes" in left_out(tmp_path / "p" / "00000.tar")["a"]


def headers(shard: Path) -> dict[str, int]:
    with tarfile.open(shard) as tar:
        return {info.name: info.offset for info in tar}


@pytest.mark.parametrize("kind", ["checksum", "zeros", "size", "negative"])
def test_behind_a_damaged_header_reading_goes_on(tmp_path, kind):
    names = [f"k{n}" for n in range(6)]
    for member in ("k2.mp4", "k2.txt", "k5.txt"):
        shard = write(tmp_path / f"{kind}-{member}" / "00000.tar", [m for name in names for m in clip(name)])
        at = headers(shard)[member]
        data = bytearray(shard.read_bytes())
        if kind in ("size", "negative"):
            data[at + 124 : at + 136] = (b"\x80" if kind == "size" else b"\xff") + b"\0\0\0" + b"\x70" * 8
            data[at + 148 : at + 156] = b"%06o\0 " % tarfile.calc_chksums(bytes(data[at : at + 512]))[0]
        else:
            data[at : at + 512] = (
                bytes(512) if kind == "zeros" else data[at : at + 300] + b"\x55" + data[at + 301 : at + 512]
            )
        shard.write_bytes(data)
        lost = member.partition(".")[0]
        assert read(shard) == plain(*(name for name in names if name != lost))
        index = shard_index(shard)
        assert [key for key, _ in index.malformed] == [lost] and index.damage
        assert "damaged" in _record(shard)


def test_archives_one_behind_the_other_are_all_read(tmp_path, caplog):
    first, second = (
        write(tmp_path / name / "00000.tar", members) for name, members in (("a", [*A, *B]), ("b", [*A, *C]))
    )
    shard = tmp_path / "00000.tar"
    shard.write_bytes(first.read_bytes() + second.read_bytes())  # cat a.tar b.tar
    assert read(shard) == plain("a", "b", "c") | {"00000/a#2": ("film a", ("text a",))}
    assert "another archive at byte" in caplog.text
    shard.write_bytes(first.read_bytes() + b"rubbish" * 99)
    assert read(shard) == plain("a", "b") and "no archive" in shard_index(shard).damage[0]


def test_a_cut_through_scattered_members_leaves_out_what_lacks_them(tmp_path):
    """Films first, then texts; the cut goes through the texts: clips without them must not become clips without
    captions."""
    names = [f"k{n}" for n in range(6)]
    members = [clip(name)[0] for name in names] + [clip(name)[1] for name in names]
    shard = write(tmp_path / "00000.tar", members)
    data = shard.read_bytes()
    shard.write_bytes(data[: headers(shard)["k4.txt"] + 515])
    assert read(shard) == plain("k0", "k1", "k2", "k3") and left_out(shard).keys() == {"k4", "k5"}


def test_shards_that_are_no_plain_files_are_refused_in_words(tmp_path, caplog):
    good = write(tmp_path / "good" / "00000.tar", A)
    packed = tmp_path / "00000.tar"
    packed.write_bytes(gzip.compress(good.read_bytes()))
    with pytest.raises(DataError, match=r"is compressed \(gzip\)"):
        shard_index(packed)
    (tmp_path / "c").mkdir()
    packed.rename(tmp_path / "c" / "00000.tar.gz")
    with pytest.raises(DataError, match="are compressed .first"):
        find_shards(tmp_path / "c")
    with pytest.raises(DataError, match="no plain tar file. Unpack"):
        find_shards(tmp_path / "c" / "00000.tar.gz")
    write(tmp_path / "c" / "00001.tar", A)
    assert len(find_shards(tmp_path / "c")) == 1 and "1 compressed tar files are not read" in caplog.text
    (tmp_path / "clips.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"end in \.tar"):
        find_shards(tmp_path / "clips.zip")
    os.mkfifo(tmp_path / "pipe.tar")
    (tmp_path / "empty.tar").write_bytes(b"")
    (tmp_path / "folder.tar").mkdir()
    for name, words in (("pipe", "is no file"), ("empty", "is no tar file"), ("folder", "is no file")):
        with pytest.raises(DataError, match=words):
            shard_index(tmp_path / f"{name}.tar")
    write(tmp_path / "nothing.tar", [])
    with pytest.raises(DataError, match="no samples with media"):
        Shards(urls=tmp_path / "nothing.tar").samples("retrieval", "train")
    for wrong in (
        {"urls": 5},
        {"urls": []},
        {"urls": [5]},
        {"urls": "x", "buffer": True},
        {"urls": "x", "namespace": 5},
    ):
        with pytest.raises(ConfigError):
            Shards(**wrong)


@pytest.mark.parametrize("damage", [
    lambda kept: kept["groups"][0].__setitem__(0, 5),
    lambda kept: kept["groups"][0][1].__setitem__("mp4", [0, 10**15]),
    lambda kept: kept["groups"][0][1].__setitem__("mp4", ["0", 5]),
    lambda kept: kept["groups"][0].__setitem__(2, "webm"),
    lambda kept: kept["groups"][0].__setitem__(4, ["text"]),
    lambda kept: kept["groups"][0].__setitem__(5, None),
    lambda kept: kept["groups"].append(7),
    lambda kept: kept.__setitem__("groups", None),
    lambda kept: kept.__setitem__("malformed", [[1, 2]]),
    lambda kept: kept.__setitem__("unread", [1]),
    lambda kept: kept.pop("foreign"),
])  # fmt: skip
def test_an_index_file_with_wrong_types_is_made_again(tmp_path, damage, monkeypatch):
    shard = write(tmp_path / "00000.tar", [*A, *B])
    index = shard_index(shard)
    place = tmp_path / "00000.index.json"
    kept = json.loads(place.read_text())
    damage(kept)
    place.write_text(json.dumps(kept))
    assert shard_index(shard) == index
    monkeypatch.setattr(shards_module, "scan", lambda shard: pytest.fail("it was written again"))
    assert shard_index(shard) == index


# -- identity --------------------------------------------------------------------------------------------------------


def test_keys_that_begin_anew_are_other_clips(tmp_path):
    shards = []
    for number in range(2):
        members = [(f"{n:06d}.{e}", f"{number} {n} {e}".encode()) for n in range(3) for e in ("mp4", "txt")]
        shards.append(write(tmp_path / f"{number:05d}.tar", members))
    table = Shards(urls=tmp_path).samples("retrieval", "train")
    assert len({sample.id for sample in table}) == len({media_id(sample) for sample in table}) == 6
    assert list(table.video_ids()) == [media_id(sample) for sample in table]
    data = Shards(urls=shards[0], test_urls=shards[1])
    names = [
        {f"{data.media_namespace}:{media_id(s)}" for s in data.samples("retrieval", split)}
        for split in ("train", "test")
    ]
    assert len(names[0] | names[1]) == 6


def test_shards_of_one_name_in_two_folders_hold_other_clips(tmp_path):
    for folder in ("x/train", "y/train", "test"):
        write(tmp_path / folder / "00000.tar", clip("a"))
    data = Shards(urls=[tmp_path / "x" / "train", tmp_path / "y" / "train"], test_urls=tmp_path / "test")
    train = data.samples("retrieval", "train")
    assert [sample.id for sample in train] == ["x/train/00000/a", "y/train/00000/a"]
    assert data.media_namespace == ""
    clips = [media_id(sample) for sample in [*train, *data.samples("retrieval", "test")]]
    assert clips == ["shards:x/train:x/train/00000/a", "shards:y/train:y/train/00000/a", "shards:test:00000/a"]
    alone = Shards(test_urls=tmp_path / "test")  # the same clip keeps its name
    assert f"{alone.media_namespace}:{media_id(alone.samples('retrieval', 'test')[0])}" == clips[2]


def test_with_a_namespace_keys_are_names_of_clips(tmp_path):
    shard = write(tmp_path / "00000.tar", [*clip("video0"), *clip("video1")])
    data = Shards(urls=shard, namespace="msrvtt")
    assert data.media_namespace == "msrvtt"
    assert [media_id(sample) for sample in data.samples("retrieval", "train")] == ["video0", "video1"]
    write(tmp_path / "00001.tar", clip("video0"))
    twice = Shards(urls=tmp_path, namespace="msrvtt").samples("retrieval", "train")
    assert [media_id(sample) for sample in twice] == ["video0", "video1", "00001/video0"]


def test_names_that_are_no_utf_8_are_read_and_shown(tmp_path):
    members = [(os.fsdecode(name), b"film" if name.endswith(b"4") else b"text") for name in (b"\xff.mp4", b"\xff.txt")]
    shard = write(tmp_path / "00000.tar", members, format=tarfile.GNU_FORMAT)
    assert read(shard) == {"00000/\\udcff": ("film", ("text",))}
    folder = tmp_path / os.fsdecode(b"folder \xfe")
    folder.mkdir()
    shard.rename(folder / "00000.tar")
    assert read(folder / "00000.tar") == {"00000/\\udcff": ("film", ("text",))}
