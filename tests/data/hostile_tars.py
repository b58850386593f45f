"""A seeded fuzzer: shards as careless or broken programs leave them, with captions of real annotations and tiny stills.

Every still ends with the name of its sample, and so does every text: whoever reads them can see which belong together.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["HostileTar", "make_hostile_tar", "real_texts"]

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
FOREIGN = ("README", ".DS_Store", "._x.png", "__MACOSX/._y.txt", "notes.xyz", "LICENSE.md", "Makefile", "list.pth")
MARK = "@"


@dataclass
class HostileTar:
    """What was written.

    Attributes:
        path: the file.
        faults: what is wrong with it.
        samples: how many samples are in it.
        whole: sample -> its texts, of those that nothing is wrong with; empty where the file itself is damaged.
        texts: all texts that were written and may be read.
        refused: whether the whole file may be refused.
    """

    path: Path
    faults: list[str]
    samples: int = 0
    whole: dict[str, tuple[str, ...]] = field(default_factory=dict)
    texts: set[str] = field(default_factory=set)
    refused: bool = False


@dataclass
class _Sample:
    """Members of one sample: (extension, content), and what must come of them."""

    name: str
    key: str
    members: list[tuple[str, bytes]]
    texts: tuple[str, ...]
    count: int = 1
    whole: bool = True


def real_texts(shared_data: Path) -> list[str]:
    """Captions and questions in several languages, with the marks that people write."""
    annotations = shared_data / "annotations"
    found: list[str] = []
    for file in sorted(annotations.rglob("*")):
        if file.suffix in (".csv", ".json", ".txt") and file.stat().st_size < 20_000_000:
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines()[1:40]:
                found += [line.strip()[:200]] if line.strip() else []
    return found


def make_hostile_tar(path: Path, texts: Sequence[str], seed: int) -> HostileTar:
    """Write one shard; its faults follow from ``seed``."""
    draw = np.random.default_rng(seed)
    made = HostileTar(path, [])
    samples = [_sample(draw, texts, number) for number in range(int(draw.integers(4, 9)))]
    content = list(CONTENT.values())[seed % len(CONTENT)]
    made.faults.append(list(CONTENT)[seed % len(CONTENT)])
    content(samples, draw)
    members = [(sample, f"{sample.key}.{ending}", data) for sample in samples for ending, data in sample.members]
    order = ("as it is", "shuffled", "by extension", "reversed")[int(draw.integers(4))]
    doubled = len({sample.key for sample in samples}) < len(samples)
    if doubled or made.faults == ["doubled member"]:
        order = "as it is"  # else nobody can tell what was made
    if order == "shuffled":
        members = [members[place] for place in draw.permutation(len(members))]
    elif order == "by extension":
        members.sort(key=lambda member: member[1].rpartition(".")[2])
    elif order == "reversed":
        members.reverse()
    made.faults.append(order)
    with tarfile.open(path, "w", format=FORMATS[int(draw.integers(3))]) as tar:
        for _, name, data in members:
            if draw.random() < 0.2:
                _add(tar, FOREIGN[int(draw.integers(len(FOREIGN)))], b"foreign")
            _add(tar, ("./" if seed % 7 == 0 else "") + name, data)
    with tarfile.open(path) as tar:
        infos = [info for info in tar if info.name.removeprefix("./") in {name for _, name, _ in members}]
    there = [True] * len(members)
    damage = ("none", "none", "cut", "header", "size", "joined", "rubbish", "packed")[seed // len(CONTENT) % 8]
    made.faults.append(damage)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        at = int(draw.integers(600, infos[-1].offset_data + infos[-1].size))
        there = [info.offset_data <= at for info in infos]
        data = data[:at]
    elif damage in ("header", "size"):
        victim = int(draw.integers(1, len(infos)))
        at = infos[victim].offset_data - 512
        there[victim] = damage == "size"
        if damage == "header":
            data[at + 100] ^= 0xFF
        else:
            data[at + 124 : at + 136] = b"\x80" + bytes(3) + b"\x7f" * 8
            data[at + 148 : at + 156] = b"%06o\0 " % tarfile.calc_chksums(bytes(data[at : at + 512]))[0]
    elif damage == "joined":
        buffer = io.BytesIO()
        more = _sample(draw, texts, 99)
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for ending, piece in more.members:
                _add(tar, f"{more.key}.{ending}", piece)
        data += buffer.getvalue()
        samples.append(more)
    elif damage == "rubbish":
        data += bytes(draw.integers(0, 256, 3000, dtype=np.uint8))
    elif damage == "packed":
        data = bytearray(gzip.compress(bytes(data)))
    path.write_bytes(data)
    made.refused = damage in ("cut", "packed")
    # A sample is there when one of its members is; of several members of one name each is a sample.
    seen = Counter((sample.key, name) for (sample, name, _), here in zip(members, there, strict=True) if here)
    per_key: Counter[str] = Counter()
    for (key, _), count in seen.items():
        per_key[key] = max(per_key[key], count)
    several = {
        sample.key: sample.count if seen[sample.key, f"{sample.key}.json"] else 1 for sample in samples
    }  # fmt: skip
    made.samples = sum(count * several[key] for key, count in per_key.items()) + (damage == "joined")
    made.texts = {text for sample in samples for text in sample.texts}
    if damage in ("none", "joined", "rubbish"):
        made.whole = {sample.name: sample.texts for sample in samples if sample.whole}
    return made


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _still(name: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(buffer, "png")
    return buffer.getvalue() + f"{MARK}{name}".encode()


def _sample(draw: np.random.Generator, texts: Sequence[str], number: int) -> _Sample:
    """One of the forms that shards have: a txt, a caption in json, both, records of ``vtp data pack``."""
    name = f"{number:06d}"
    text = f"{texts[int(draw.integers(len(texts)))]} {MARK}{name}"
    record: dict[str, Any] = {"key": name, "caption": text, "url": "https://example.org/a.b"}
    members = [("png", _still(name))]
    form = int(draw.integers(4))
    if form in (0, 2):
        members.append(("txt", text.encode()))
    if form in (1, 2):
        members.append(("json", json.dumps(record, ensure_ascii=form == 1).encode()))
    if form == 3:
        record["samples"] = [{"id": name, "texts": [text], "extra": {"video_id": name}}]
        members.append(("json", json.dumps(record).encode()))
    return _Sample(name, name, members, (text,))


def _pick(samples: list[_Sample], draw: np.random.Generator) -> _Sample:
    return samples[int(draw.integers(len(samples)))]


def _spoil(sample: _Sample, ending: str, data: bytes) -> None:
    """Its texts become ``data``, which cannot be read."""
    sample.members = [sample.members[0], (ending, data)]
    sample.texts, sample.whole = (), False


def _nothing(samples: list[_Sample], draw: np.random.Generator) -> None:
    pass


def _again(samples: list[_Sample], draw: np.random.Generator) -> None:
    """The key of another sample; both have the same extensions."""
    first = samples[0]
    texts = [f"again {MARK}{first.name}-2"]
    twin = [(ending, _still(f"{first.name}-2") if ending == "png" else texts[0].encode()) for ending in ("png", "txt")]
    first.members = [first.members[0], ("txt", first.texts[0].encode())]
    samples.insert(int(draw.integers(1, len(samples))), _Sample(f"{first.name}-2", first.key, twin, tuple(texts)))


def _doubled_member(samples: list[_Sample], draw: np.random.Generator) -> None:
    victim = _pick(samples, draw)
    victim.members.insert(1, ("png", _still("nobody")))
    victim.texts, victim.whole = (), False


def _dots(samples: list[_Sample], draw: np.random.Generator) -> None:
    for number, sample in enumerate(samples):
        if draw.random() < 0.6:
            sample.key = ("vid.v{}", "NUs_{}.0_360.0", "a.b.c.{}")[number % 3].format(number)


def _upper(samples: list[_Sample], draw: np.random.Generator) -> None:
    for sample in samples:
        sample.members = [(ending.upper() if draw.random() < 0.5 else ending, data) for ending, data in sample.members]


def _names(samples: list[_Sample], draw: np.random.Generator) -> None:
    for number, sample in enumerate(samples):
        pool = ("folder/sub/{}", "ünïcödé {}", "视频{}", "x" * 90 + "{}", "a b'c\"{}", "-{}", "{}!0+5", "line\n{}")
        sample.key = pool[int(draw.integers(len(pool)))].format(number)
        if sample.key.startswith("xxx"):
            sample.key = "y" * 60 + "/" + sample.key


def _bytes_in_names(samples: list[_Sample], draw: np.random.Generator) -> None:
    _pick(samples, draw).key = "caf\udce9"


def _no_media(samples: list[_Sample], draw: np.random.Generator) -> None:
    victim = _pick(samples, draw)
    victim.members = [("txt", b"words alone")]
    victim.texts, victim.whole = (), False


def _no_text(samples: list[_Sample], draw: np.random.Generator) -> None:
    victim = _pick(samples, draw)
    victim.members, victim.texts = victim.members[:1], ()


def _empty(samples: list[_Sample], draw: np.random.Generator) -> None:
    victim, other = samples[0], samples[1]
    victim.members, victim.texts = [victim.members[0], ("txt", b" \n")], ()
    other.members[0] = ("png", b"")
    other.whole = False  # it is read, and its picture is a bad one


def _encoding(samples: list[_Sample], draw: np.random.Generator) -> None:
    way = int(draw.integers(5))
    data = (
        "café".encode("latin-1"), "a dog".encode("utf-16"), "a dog".encode("utf-16-le"), b"\xff\xfe\xfd", b"a\0b"
    )[way]  # fmt: skip
    _spoil(_pick(samples, draw), "txt", data)
    marked = next(sample for sample in samples if sample.whole)
    marked.members = [marked.members[0], ("txt", b"\xef\xbb\xbf" + marked.texts[0].encode())]


def _json(samples: list[_Sample], draw: np.random.Generator) -> None:
    pool = (
        b'{"caption": "a', b"[1, 2]", b"nothing", b"", b"[" * 50_000, b'{"caption": "a dog \\ud83d"}',
        b'{"caption": {"en": "x"}}', b'{"n": ' + b"9" * 5000 + b"}", b'{"caption": "a", }', b"\xff{}", b'"text"',
        b'{"caption": true}', b"null",
        b'{"samples": [{"id": "b", "texts": "a dog"}]}', b'{"caption": [["x"]]}', b'{"caption": Infinity}',
    )  # fmt: skip
    for victim in (samples[0], samples[-1]):
        _spoil(victim, "json", pool[int(draw.integers(len(pool)))])


def _records(samples: list[_Sample], draw: np.random.Generator) -> None:
    """Several samples about one clip, some of wrong types."""
    pool: tuple[Any, ...] = (
        {"texts": "letters"}, {"texts": [1]}, {"start": "now"}, {"end": -1}, {"start": 3, "end": 2}, {"labels": 5},
        {"labels": {"answer_index": 1 << 40}}, {"extra": []}, {"id": {}}, {"id": None}, {"kinds": 5}, {"split": 1},
        {"extra": {"video_id": {}}}, {"labels": {"answer_index": "b"}}, {"held_out": "never"}, 5, None, "x", [],
    )  # fmt: skip
    for victim in samples[:2]:
        good = {"id": victim.name, "texts": list(victim.texts), "extra": {"video_id": victim.name}}
        records: list[Any] = [good]
        for number in range(int(draw.integers(1, 5))):
            change = pool[int(draw.integers(len(pool)))]
            records.append(good | {"id": f"{victim.name}-{number}"} | change if isinstance(change, dict) else change)
        victim.members = [victim.members[0], ("json", json.dumps({"samples": records}).encode())]
        victim.count = len(records)


def _equal_ids(samples: list[_Sample], draw: np.random.Generator) -> None:
    for sample in samples:
        record = {"samples": [{"id": "1", "texts": list(sample.texts), "extra": {"video_id": sample.name}}]}
        sample.members = [sample.members[0], ("json", json.dumps(record).encode())]


CONTENT = {
    "nothing": _nothing,
    "key again": _again,
    "doubled member": _doubled_member,
    "dots": _dots,
    "upper case": _upper,
    "names": _names,
    "bytes in names": _bytes_in_names,
    "no media": _no_media,
    "no text": _no_text,
    "empty": _empty,
    "encoding": _encoding,
    "json": _json,
    "records": _records,
    "equal ids": _equal_ids,
}
