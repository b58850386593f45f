"""Compute the counts and hashes of all protocol files anew: `python3 tools/protocol_hashes.py ANNOTATIONS [--write]`.

ANNOTATIONS is a folder with the official annotation files of the data sets, each in a folder of its own (msvd, msvd_qa,
msvd_cn, msrvtt, msrvtt_qa, didemo, vatex, activitynet, audiocaps). The files are read here with a few lines per data
set, not with the readers of vtp, so that the readers are checked against the protocols and not against themselves.

Prints one line per part of a protocol and exits with 1 where a committed file says something else. `--write` puts
what was computed into the protocol files. Parts whose annotation files are absent are left alone.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

PROTOCOLS = Path(__file__).parents[1] / "plugins" / "tasks" / "builtin" / "vtp_tasks" / "protocols"
Parts = dict[str, list[str]]  # videos, queries, questions -> lines


def text_of(value: str) -> str:
    """The canonical form of a text, as docs/evaluation.md defines it."""
    return re.sub(r"\s+", " ", value.lower()).strip().rstrip("?").rstrip()


def digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in sorted(lines)).encode()).hexdigest()


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def names(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split()


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def pairs(found: Iterable[tuple[str, str]]) -> Parts:
    """Clips and queries from (clip, text)."""
    found = list(found)
    return {"videos": sorted({clip for clip, _ in found}), "queries": [f"{c}\t{text_of(t)}" for c, t in found]}


def questions(found: Iterable[tuple[str, str, str]]) -> Parts:
    """Clips and questions from (clip, question, answer)."""
    found = list(found)
    lines = [f"{clip}\t{text_of(question)}\t{text_of(answer)}" for clip, question, answer in found]
    return {"videos": sorted({clip for clip, *_ in found}), "questions": lines}


def msvd_names(root: Path) -> dict[str, str]:
    """``vid1451`` -> name of the clip."""
    lines = (root / "msvd_qa/youtube_mapping.txt").read_text(encoding="utf-8").splitlines()
    return {number: name for name, number in (line.split() for line in lines if line.strip())}


def msvd(root: Path, split: str = "test") -> Parts:
    captions = load(root / "msvd/captions_msvd.json")
    return pairs((clip, text) for clip in names(root / f"msvd/{split}_list.txt") for text in captions[clip])


def msvd_captions(root: Path) -> Parts:
    found = msvd(root)
    return {"videos": found["videos"], "captions": found["queries"]}


def msvd_cn(root: Path) -> Parts:
    clips = msvd_names(root)
    chosen = set(names(root / "msvd/test_list.txt"))
    found = rows(root / "msvd_cn/msvd_cn_captions_release_utf8.csv")
    named = ((clips[row["video_id"].removesuffix(".mp4")], row["sentence"]) for row in found)
    return pairs((clip, text) for clip, text in named if clip in chosen)


def msvd_qa(root: Path, split: str = "test") -> Parts:
    clips = msvd_names(root)
    found = load(root / f"msvd_qa/{split}_qa.json")
    return questions((clips[f"vid{q['video_id']}"], q["question"], q["answer"]) for q in found)


def msrvtt_1ka(root: Path) -> Parts:
    return pairs((row["video_id"], row["sentence"]) for row in rows(root / "msrvtt/MSRVTT_JSFUSION_test.csv"))


def msrvtt_list(root: Path, name: str) -> Parts:
    return {"videos": sorted({row["video_id"] for row in rows(root / f"msrvtt/MSRVTT_{name}.csv")})}


def msrvtt_qa(root: Path) -> Parts:
    found = rows(root / "msrvtt_qa/test.csv")
    return questions((f"video{row['video']}", row["question"], row["answer"]) for row in found)


def didemo(root: Path, split: str) -> Parts:
    texts: dict[str, list[str]] = {}
    for item in load(root / f"didemo/{split}_data.json"):
        texts.setdefault(item["video"].rpartition(".")[0], []).append(item["description"])
    listed = [name.rpartition(".")[0] for name in names(root / f"didemo/{split}_list.txt")]
    return pairs((clip, " ".join(texts[clip])) for clip in listed)


def activitynet(root: Path) -> Parts:
    found = load(root / "activitynet/val_1.json")
    return pairs((clip, " ".join(one.strip() for one in item["sentences"])) for clip, item in found.items())


def audiocaps(root: Path, split: str) -> Parts:
    found = rows(root / f"audiocaps/{split}.csv")
    return pairs((f"{row['youtube_id']}_{row['start_time']}", row["caption"]) for row in found)


def vatex(root: Path, split: str) -> Parts:
    return {"videos": sorted(names(root / f"vatex/{split}_list.txt"))}


# protocol -> what its parts are computed from
SOURCES: dict[str, Callable[[Path], Parts]] = {
    "msrvtt_1ka": msrvtt_1ka,
    "msrvtt_full": lambda root: msrvtt_list(root, "test.full"),
    "msrvtt_qa": msrvtt_qa,
    "msrvtt_captioning": lambda root: msrvtt_list(root, "test.full"),
    "msrvtt_mc": lambda root: msrvtt_list(root, "test.full"),
    "msvd": msvd,
    "msvd_captioning": msvd_captions,
    "msvd_cn": msvd_cn,
    "msvd_qa": msvd_qa,
    "didemo": lambda root: didemo(root, "test"),
    "didemo_val": lambda root: didemo(root, "val"),
    "activitynet": activitynet,
    "audiocaps": lambda root: audiocaps(root, "test"),
    "audiocaps_val": lambda root: audiocaps(root, "val"),
    "vatex": lambda root: vatex(root, "test"),
}
# name of a known training list -> its clips
TRAIN_LISTS: dict[str, Callable[[Path], Parts]] = {
    "msrvtt train.9k": lambda root: msrvtt_list(root, "train.9k"),
    "msrvtt train.7k": lambda root: msrvtt_list(root, "train.7k"),
    "msrvtt train.full": lambda root: msrvtt_list(root, "train.full"),
    "msvd train": lambda root: msvd(root, "train"),
    "msvd_cn train": lambda root: msvd(root, "train"),
    "msvd train_qa": lambda root: msvd_qa(root, "train"),
    "didemo train": lambda root: {"videos": [n.rpartition(".")[0] for n in names(root / "didemo/train_list.txt")]},
    "activitynet train": lambda root: {"videos": sorted(load(root / "activitynet/train.json"))},
    "audiocaps train": lambda root: audiocaps(root, "train"),
    "vatex train": lambda root: vatex(root, "train"),
}


def computed(root: Path, name: str, content: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], int, str]]:
    """(place in the protocol file, count, sha256) of every part of a protocol that can be computed from ``root``."""
    try:
        parts = SOURCES[name](root) if name in SOURCES else {}
    except FileNotFoundError:
        parts = {}
    for what, lines in parts.items():
        yield (what,), len(lines), digest(lines)
    for cut, facts in (content.get("cuts") or {}).items():
        for what, lines in cut_of(facts, parts).items():
            yield ("cuts", cut, what), len(lines), digest(lines)
    for train_list in content.get("train_lists") or {}:
        try:
            clips = TRAIN_LISTS[f"{content['dataset']} {train_list}"](root)["videos"]
        except FileNotFoundError:
            continue
        yield ("train_lists", train_list), len(set(clips)), digest(set(clips))


def cut_of(facts: dict[str, Any], parts: Parts) -> Parts:
    """The parts of a cut whose rule needs no media; nothing for the others."""
    if "queries" not in parts:
        return {}
    if facts.get("rule") == "without":
        gone = set(facts["without"])
        kept = [line for line in parts["queries"] if line.partition("\t")[0] not in gone]
        return {"videos": [clip for clip in parts["videos"] if clip not in gone], "queries": kept}
    if facts.get("rule") == "first_caption":
        first: dict[str, str] = {}
        for line in parts["queries"]:
            first.setdefault(line.partition("\t")[0], line)
        return {"videos": parts["videos"], "queries": list(first.values())}
    return {}


def committed(content: dict[str, Any], place: tuple[str, ...]) -> tuple[int | None, str | None]:
    """What the protocol file says about a part."""
    if place[0] == "train_lists":
        facts = content["train_lists"][place[1]]
        return facts.get("videos"), facts.get("sha256")
    if place[0] == "cuts":
        facts = content["cuts"][place[1]]
        return (facts.get("counts") or {}).get(place[2]), (facts.get("sha256") or {}).get(place[2])
    return (content.get("counts") or {}).get(place[0]), (content.get("sha256") or {}).get(place[0])


def put(text: str, content: dict[str, Any], place: tuple[str, ...], count: int, sha256: str) -> str:
    """The protocol file with one part replaced; comments and order stay."""
    if place[0] == "train_lists":
        line = f"  {place[1]}: {{videos: {count}, sha256: {sha256}}}"
        return re.sub(rf"^  {re.escape(place[1])}: .*$", line, text, flags=re.MULTILINE)
    if place[0] == "cuts":
        _, cut, what = place

        def corrected(block: re.Match[str]) -> str:
            found = re.sub(rf"(^    counts: .*?\b{what}: )\d+", rf"\g<1>{count}", block[0], flags=re.M)
            return re.sub(rf"(^    sha256: .*?\b{what}: )[0-9a-f]+", rf"\g<1>{sha256}", found, flags=re.M)

        return re.sub(rf"^  {re.escape(cut)}:\n(?:    .*\n)*", corrected, text, flags=re.MULTILINE)
    counts = dict(content.get("counts") or {}) | {place[0]: count}
    text = re.sub(r"^counts: .*$", f"counts: {{{', '.join(f'{k}: {v}' for k, v in counts.items())}}}", text, flags=re.M)
    content["counts"] = counts
    content["sha256"] = dict(content.get("sha256") or {}) | {place[0]: sha256}
    block = "sha256:\n" + "".join(f"  {what}: {value}\n" for what, value in content["sha256"].items())
    return re.sub(r"^sha256:.*\n(?:  .*\n)*", block, text, flags=re.MULTILINE)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path, metavar="ANNOTATIONS")
    parser.add_argument("--write", action="store_true", help="put what was computed into the protocol files")
    options = parser.parse_args(arguments)
    wrong = 0
    for path in sorted(PROTOCOLS.glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
        for place, count, sha256 in computed(options.annotations, path.stem, content):
            same = committed(content, place) == (count, sha256)
            wrong += not same
            print(f"{path.stem:<14} {' '.join(place):<22} {count:>7,}  {sha256}  {'ok' if same else 'DIFFERENT'}")
            if options.write and not same:
                text = put(text, content, place, count, sha256)
        if options.write:
            path.write_text(text, encoding="utf-8")
    if wrong and not options.write:
        print(f"{wrong} parts differ from the committed protocol files", file=sys.stderr)
    return 1 if wrong and not options.write else 0


if __name__ == "__main__":
    sys.exit(main())
