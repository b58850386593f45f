"""Glue generated clips together, so that there are moments to look for: `python3 tools/shapes_moments.py SHAPES OUT`.

SHAPES is a folder of `dataset=shapes` (`vtp data check` names it). OUT gets

    videos/long0.mp4 ...   each of `--clips` (5) test clips of SHAPES, one after the other, pictures and no sound
    moments.csv            id,video,start,end,caption: where each of them is

    vtp run task=msrvtt_retrieval dataset=shapes run_dir=RUN
    python3 tools/shapes_moments.py ~/.cache/vtp/shapes/small-0-v1 OUT
    vtp run task=moment_retrieval mode=eval checkpoint=RUN dataset.test_file=OUT/moments.csv task.windows=[1,2,4]

Clips that tell of the same thing stand in different videos of OUT as they come: a sentence may be true of two of them.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path


def glue(clips: Sequence[Path], out: Path) -> list[tuple[float, float]]:
    """Write the pictures of ``clips`` one after the other; gives start and end of each in seconds."""
    import av

    spans, count = [], 0
    with av.open(str(out), "w") as container:
        stream = None
        for clip in clips:
            first = count
            with av.open(str(clip)) as source:
                rate = Fraction(source.streams.video[0].average_rate or 9)
                for frame in source.decode(video=0):
                    if stream is None:
                        stream = container.add_stream("libx264", rate=rate, options={"crf": "20", "bf": "0"})
                        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
                    frame.pts, frame.time_base, frame.pict_type = count, 1 / rate, 0
                    container.mux(stream.encode(frame))
                    count += 1
            spans.append((float(first / rate), float(count / rate)))
        if stream is not None:
            container.mux(stream.encode())
    return spans


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clips", type=int, default=5, help="clips in a video")
    asked = parser.parse_args()
    with open(asked.shapes / "MSRVTT_JSFUSION_test.csv", newline="", encoding="utf-8") as file:
        told = {row["video_id"]: row["sentence"] for row in csv.DictReader(file)}
    names = list(told)
    (asked.out / "videos").mkdir(parents=True, exist_ok=True)
    with open(asked.out / "moments.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("id", "video", "start", "end", "caption"))
        for number in range(len(names) // asked.clips):
            some = names[number :: len(names) // asked.clips][: asked.clips]
            video = f"videos/long{number}.mp4"
            spans = glue([asked.shapes / "videos" / f"{name}.mp4" for name in some], asked.out / video)
            for name, (start, end) in zip(some, spans, strict=True):
                rows.writerow((name, video, f"{start:.3f}", f"{end:.3f}", told[name]))


if __name__ == "__main__":
    main()
