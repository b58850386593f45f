"""The packages in ``packages``, written as strangers write them, and data for them. Not a test module."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vtp.plugins import host
from vtp_datasets.shapes import Shapes

OUTSIDE = Path(__file__).parent / "packages"


def add_to_site(site: Path, name: str) -> None:
    """Install a package into a folder, as pip would leave it."""
    shutil.copytree(OUTSIDE / name, site / name, ignore=shutil.ignore_patterns("__pycache__"))
    info = site / f"vtp_plugin_{name}-1.0.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: vtp-plugin-{name}\nVersion: 1.0\nRequires-Dist: vtp-core>=0.1,<0.2\n"
    (info / "METADATA").write_text(metadata)
    (info / "entry_points.txt").write_text(f"[vtp.plugins]\n{name} = {name}.plugin\n")


@contextmanager
def installed(site: Path, names: Sequence[str]) -> Iterator[None]:
    """The packages are in the folder and on the path of this process."""
    for name in names:
        add_to_site(site, name)
    sys.path.insert(0, str(site))
    host.cache_clear()
    try:
        yield
    finally:
        sys.path.remove(str(site))
        host.cache_clear()
        for name in [m for m in sys.modules if m.partition(".")[0] in names]:
            del sys.modules[name]


def lines_of(name: str) -> int:
    """Lines of code and options of a package that are not blank, its list of what it registers included."""
    files = [file for file in (OUTSIDE / name).rglob("*") if file.suffix in (".py", ".yaml")]
    return sum(bool(line.strip()) for file in files for line in file.read_text().splitlines())


def folder_of_shapes(root: Path) -> None:
    """The 24 clips of dataset=shapes in another layout: media/*.mp4 and index.jsonl."""
    shapes = Shapes(size="tiny", root=str(root / "shapes"))
    (root / "media").mkdir(parents=True, exist_ok=True)
    lines = []
    for split in ("train", "val", "test"):
        questions: dict[str, list[tuple[str, str]]] = {}
        for sample in shapes.samples("qa", split):
            questions.setdefault(sample.extra["video_id"], []).append((sample.texts[0], sample.labels["answer"]))
        for sample in shapes.samples("retrieval", split):
            clip = Path(str(sample.video.path)) if sample.video is not None else Path()
            shutil.copy(clip, root / "media")
            asked = questions.get(sample.extra["video_id"], [])
            colours = [word for word in ("red", "green", "blue", "purple") if word in " ".join(sample.texts)]
            line = {"clip": clip.name, "split": split, "captions": list(sample.texts), "questions": asked}
            lines.append(json.dumps(line | {"tags": colours}))
    (root / "index.jsonl").write_text("\n".join(lines) + "\n")
