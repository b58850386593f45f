"""``vtp data pack TARGET OUT``: WebDataset tar shards from a folder, a table or a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from vtp.cli.arguments import PIXELS, Seconds, a, refuse_file, sample_rate
from vtp.cli.data import ArgumentParser, decoder, exit_code, point_at, split_options
from vtp.errors import DataError
from vtp.machine import cores
from vtp.progress import line
from vtp.ranges import Natural, Processes, Range
from vtp.shown import one_line

__all__ = ["main"]

ABOUT = """Pack media and texts into tar shards in video2dataset's layout (00000.tar with KEY.mp4, KEY.txt, KEY.json),
to train from with `vtp run ... dataset=shards dataset.urls=OUT`, here or with the webdataset library.

Of a data set the training split is packed; kind=qa (caption, retrieval, mc) and split=val choose another table. Of a
table of your own all kinds and splits are packed, and dataset=shards gives them again as dataset=csv does.

With --frames, N evenly spread frames are decoded and scaled once and stored as KEY.npy, with the sound as KEY.wav:
nothing is left to decode. Give the same command again after an interruption: whole shards are kept.

exit code: 0 everything is packed, 1 clips failed or rows are malformed (--accept N allows so many), 2 a mistake."""


def main(arguments: list[str]) -> int:
    """Write shards and say what they hold."""
    from vtp.prepare.pack import MANIFEST, Packing, pack

    parser = _parser()
    rest, options = split_options(arguments, parser)
    parsed = parser.parse_args(rest)
    packing = Packing(
        parsed.frames,
        parsed.size,
        parsed.audio,
        parsed.per_shard,
        parsed.backend,
    )
    refuse_file(Path(parsed.out))
    target = point_at(parsed.target, options, default_split="train", hold_out=True)
    samples = list(target.kept(prefer=("caption", "retrieval")))
    if not samples:
        raise DataError(f"{parsed.target} has no samples to pack.")
    say = line()
    manifest = pack(
        samples,
        parsed.out,
        packing,
        namespace=target.namespace,
        workers=parsed.workers or cores(),
        timeout_s=parsed.timeout,
        progress=lambda done, total: say(f"{done:,} of {total:,} shards", done == total),
    )
    failures = manifest["failures"]
    print(
        f"{manifest['keys']:,} clips, {manifest['samples']:,} samples in {len(manifest['shards']):,} shards, "
        f"{manifest['bytes'] / 1e6:,.1f} MB; {len(failures):,} clips with "
        f"{sum(failure['samples'] for failure in failures):,} samples failed"
    )
    if manifest["without_media"]:
        print(f"  {manifest['without_media']:,} samples have no media and are left out")
    for failure in failures[:5]:
        print(one_line(f"  failed: {failure['path']}: {failure['reason']}"))
    if failures:
        print(f"  all of them with their reasons: {Path(parsed.out) / MANIFEST}")
    print(f"use it: vtp run ... dataset=shards dataset.urls={parsed.out}")
    if malformed := target.malformed():
        print(f"{malformed:,} malformed rows of {parsed.target} are left out")
    left_out = len(failures) + manifest["without_media"] + malformed
    return exit_code(left_out, parsed.accept) if manifest["keys"] else 1


def _parser() -> ArgumentParser:
    parser = ArgumentParser("pack", ABOUT, "folder of the shards: a new one, or one to complete")
    parser.add_argument(
        "--frames", type=a(Natural), default=0, help="decode so many evenly spread frames (0: the files)"
    )
    parser.add_argument("--size", type=a(PIXELS), default=256, help="short side of the frames in pixels (%(default)s)")
    parser.add_argument(
        "--audio", type=sample_rate, default=16000, help="with --frames: sample rate of the sound in Hz, or none"
    )
    parser.add_argument(
        "--per-shard",
        type=a(Annotated[int, Range(least=1, most=9999)]),
        default=1000,
        help="clips in a shard (default %(default)s)",
    )
    parser.add_argument("--backend", type=decoder, default="auto", help="decoder, as media.backend")
    parser.add_argument("--workers", type=a(Processes), default=0, help="shards at a time (default: one per core)")
    parser.add_accept()
    parser.add_argument("--timeout", type=a(Seconds), default=120.0, help="seconds for a file (%(default)g)")
    return parser
