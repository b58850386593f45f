"""One rendering process: ``python -m vtp_datasets.shapes.worker VIDEOS SIZE SEED SHARD SHARDS``.

Renders every SHARDS-th of the clips, if it is not there yet, under another name first, and prints one line per clip.
Ends by itself when nobody reads these lines any more, because the process that started it is gone.
"""

from __future__ import annotations

import os
import sys
from itertools import islice
from pathlib import Path

from vtp.data.keys import keyed_generator
from vtp_datasets.shapes.annotations import VERSION, Blueprint
from vtp_datasets.shapes.render import render_frames, render_sound, write_clip
from vtp_datasets.shapes.world import Scene

__all__ = ["main", "render"]


def render(path: Path, plan: Blueprint, split: str, index: int, scene: Scene) -> None:
    """Render one clip; the file is there as a whole or not at all."""
    rng = keyed_generator("shapes", VERSION, plan.seed, split, "clip", index)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write_clip(half, render_frames(scene, rng), render_sound(scene, rng))
        os.replace(half, path)
    finally:
        half.unlink(missing_ok=True)


def main(arguments: list[str]) -> int:
    """Render a share of the clips."""
    videos, plan = Path(arguments[0]), Blueprint(arguments[1], int(arguments[2]))
    shard, shards = int(arguments[3]), int(arguments[4])
    # By position among all clips, not among the missing ones: another process may already have made some of those.
    for name, split, index, scene in islice(plan.all_scenes(), shard, None, shards):
        if not (videos / f"{name}.mp4").exists():
            render(videos / f"{name}.mp4", plan, split, index, scene)
            print(name, flush=True)  # a broken pipe ends an orphan here
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
