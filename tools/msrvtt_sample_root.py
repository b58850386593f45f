"""Put together an MSR-VTT root from two real clips: `python3 tools/msrvtt_sample_root.py SHARED_DATA OUT [--copy]`.

SHARED_DATA holds `videos/msrvtt/` (video9770.mp4 and video9771.mp4 with a few captions), `annotations/msrvtt/` and
`annotations/msrvtt_qa/`. OUT becomes a folder that `dataset.root=OUT` takes, in the official layout:

    videos/                     the two clips, as symbolic links (with --copy as files)
    MSRVTT_JSFUSION_test.csv    the official 1k-A test list, complete: 1,000 pairs, of which 2 have their clip here
    MSRVTT_test.full.csv        the official full test list, complete
    test.csv                    the official MSRVTT-QA test questions, complete: 48 of the 72,821 have their clip here
    MSRVTT_data.json            the real captions of the two clips, 3 and 2 of them
    MSRVTT_train.9k.csv         NOT the official list: the two clips, the only ones whose captions are here
    train_qa.json               the 48 real questions about the two clips

The real training annotations are not in SHARED_DATA, so this "training split" is part of the test split. vtp notices:
it refuses to evaluate, or stamps the report with LEAK under data.on_leak=stamp. Numbers from this root show that real
files are decoded, trained on and scored, and what share of the protocol is covered; they say nothing about a model.
There is no validation split, because no validation clip is here.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import sys
from pathlib import Path

CLIPS = {"video9770": 11.0, "video9771": 13.98}  # seconds
LISTS = ("msrvtt/MSRVTT_JSFUSION_test.csv", "msrvtt/MSRVTT_test.full.csv", "msrvtt_qa/test.csv")
NOT_A_CAPTION = "test keyframe format video"  # the caption file is a format example; this line describes no clip


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared_data", type=Path, metavar="SHARED_DATA")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--copy", action="store_true", help="copy the clips instead of linking to them")
    options = parser.parse_args(arguments)
    problem = build(options.shared_data, options.out, copy=options.copy)
    if problem:
        print(f"msrvtt_sample_root: {problem}", file=sys.stderr)
        return 2
    common = (
        f"dataset.root={options.out} data.on_leak=stamp train.steps=20 train.global_batch=8 data.allow_incomplete=true"
    )
    print(f"{options.out}: 2 clips, 48 of 72,821 test questions, 2 of 1,000 test pairs. Try:")
    for task in ("msrvtt_qa", "msrvtt_retrieval"):
        print(f"  vtp run task={task} {common}")
    return 0


def build(shared: Path, out: Path, *, copy: bool = False) -> str | None:
    """Make the folder ``out``; returns what is wrong, or None. Files of an earlier call are written again."""
    annotations, clips = shared / "annotations", shared / "videos" / "msrvtt"
    sources = [annotations / name for name in LISTS] + [clips / f"{name}.mp4" for name in CLIPS]
    sources += [clips / "msrvtt_train.jsonl", clips / "msrvtt_multi_choice_qa.jsonl"]
    if missing := [str(path) for path in sources if not path.is_file()]:
        return f"not in {shared}: {', '.join(missing)}"
    (out / "videos").mkdir(parents=True, exist_ok=True)
    for name in CLIPS:
        place(clips / f"{name}.mp4", out / "videos" / f"{name}.mp4", copy=copy)
    for name in LISTS:
        place(annotations / name, out / Path(name).name, copy=True)
    asked = questions(annotations / "msrvtt_qa" / "test.csv")
    write(out / "train_qa.json", json.dumps(asked))
    category = {item["video_id"]: item["category_id"] for item in asked}
    write(out / "MSRVTT_data.json", json.dumps(captions(clips, category), indent=1))
    write(out / "MSRVTT_train.9k.csv", "\n".join(["video_id", *CLIPS]) + "\n")
    return None


def questions(file: Path) -> list[dict[str, object]]:
    """The test questions about the two clips in the official JSON layout, word for word."""
    with open(file, encoding="utf-8", newline="") as lines:
        return [
            {
                "answer": row["answer"],
                "category_id": int(row["type"]),
                "id": int(row["qid"]),
                "question": row["question"],
                "video_id": int(row["video"]),
            }
            for row in csv.DictReader(lines)
            if f"video{row['video']}" in CLIPS
        ]


def captions(folder: Path, category: dict[object, object]) -> dict[str, object]:
    """The real captions: of the caption file, and the right options of the multiple-choice questions."""
    found = []
    for line in read_lines(folder / "msrvtt_train.jsonl"):
        if line["caption"] != NOT_A_CAPTION:
            found.append((Path(line["clip_name"]).name, line["caption"]))
    for line in read_lines(folder / "msrvtt_multi_choice_qa.jsonl"):
        found.append((line["clip_name"], line["options"][int(line["answer"])]))
    number = {name: int(name.removeprefix("video")) for name in CLIPS}
    return {
        "info": {"description": "two real MSR-VTT clips; see tools/msrvtt_sample_root.py"},
        "videos": [
            {"category": category[number[name]], "video_id": name, "url": "", "start time": 0.0, "end time": seconds}
            | {"split": "test", "id": number[name]}
            for name, seconds in CLIPS.items()
        ],
        "sentences": [{"caption": text, "video_id": name, "sen_id": i} for i, (name, text) in enumerate(sorted(found))],
    }


def read_lines(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def place(source: Path, target: Path, *, copy: bool) -> None:
    """Copy or link, in place of what an earlier call left."""
    target.unlink(missing_ok=True)
    if copy:
        shutil.copyfile(source, target)
    else:
        os.symlink(source.resolve(), target)


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
