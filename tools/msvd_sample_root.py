"""Put together an MSVD root from five real clips: `python3 tools/msvd_sample_root.py SHARED_DATA OUT [--copy]`.

SHARED_DATA holds `videos/msvd/` (five clips), `annotations/msvd/`, `annotations/msvd_qa/` and `annotations/msvd_cn/`.
OUT becomes a folder that `dataset.root=OUT` takes, in the layout of the releases, with the official annotations
complete:

    videos/                          the five clips, as symbolic links (with --copy as files)
    captions_msvd.json, *_list.txt   80,827 captions; 1,200, 100 and 670 clips, of which 3, 0 and 2 are here
    train_qa.json, val_, test_       30,933, 6,415 and 13,157 questions
    youtube_mapping.txt              the other names of the clips
    msvd_cn_captions_release_utf8.csv

Training leaves out what is not on the disk and says so; evaluation counts it as missed, and the ledger of a report
tells what share of the protocol was scored. Numbers from this root say nothing about a model.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

SPLITS = ("train", "val", "test")
FILES = (
    "msvd/captions_msvd.json",
    *(f"msvd/{split}_list.txt" for split in SPLITS),
    *(f"msvd_qa/{split}_qa.json" for split in SPLITS),
    "msvd_qa/youtube_mapping.txt",
    "msvd_cn/msvd_cn_captions_release_utf8.csv",
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared_data", type=Path, metavar="SHARED_DATA")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--copy", action="store_true", help="copy the clips instead of linking to them")
    options = parser.parse_args(arguments)
    problem = build(options.shared_data, options.out, copy=options.copy)
    if problem:
        print(f"msvd_sample_root: {problem}", file=sys.stderr)
        return 2
    print(f"{options.out}: {covered(options.out)}. Try:")
    common = f"dataset.root={options.out} data.allow_incomplete=true train.steps=20 train.global_batch=8"
    for task in ("msvd_qa", "msvd_retrieval", "msvd_cn_retrieval"):
        print(f"  vtp run task={task} {common}")
    return 0


def build(shared: Path, out: Path, *, copy: bool = False) -> str | None:
    """Make the folder ``out``; returns what is wrong, or None. Files of an earlier call are written again."""
    sources = [shared / "annotations" / name for name in FILES]
    clips = sorted((shared / "videos" / "msvd").glob("*.avi"))
    if missing := [str(path) for path in sources if not path.is_file()]:
        return f"not in {shared}: {', '.join(missing)}"
    if not clips:
        return f"not in {shared}: videos/msvd/*.avi"
    (out / "videos").mkdir(parents=True, exist_ok=True)
    for clip in clips:
        place(clip, out / "videos" / clip.name, copy=copy)
    for source in sources:
        place(source, out / source.name, copy=True)
    return None


def covered(out: Path) -> str:
    """How much of the annotations is about the clips that are here."""
    here = {clip.stem for clip in (out / "videos").iterdir()}
    lines = (out / "youtube_mapping.txt").read_text(encoding="utf-8").splitlines()
    numbers = {int(number.removeprefix("vid")) for name, number in map(str.split, lines) if name in here}
    parts = []
    for split in SPLITS:
        questions = json.loads((out / f"{split}_qa.json").read_text(encoding="utf-8"))
        asked = sum(item["video_id"] in numbers for item in questions)
        parts.append(f"{asked:,} of {len(questions):,} {split} questions")
    return f"{len(here)} clips, {', '.join(parts)}"


def place(source: Path, target: Path, *, copy: bool) -> None:
    """Copy or link, in place of what an earlier call left."""
    target.unlink(missing_ok=True)
    if copy:
        shutil.copyfile(source, target)
    else:
        os.symlink(source.resolve(), target)


if __name__ == "__main__":
    sys.exit(main())
