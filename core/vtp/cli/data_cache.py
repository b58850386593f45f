"""``vtp data cache TARGET OUT``: decode once, so that training does not have to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtp.cli.arguments import PIXELS, Seconds, a, refuse_file, sample_rate
from vtp.cli.data import ArgumentParser, decoder, exit_code, point_at, split_options
from vtp.errors import DataError
from vtp.machine import cores
from vtp.progress import line
from vtp.ranges import Count, Natural, Processes
from vtp.shown import one_line

if TYPE_CHECKING:
    from vtp.prepare.cache import Outcome

__all__ = ["main"]

ABOUT = """Decode media once and keep the result in the folder OUT, for `vtp run ... data.cache=OUT`.

  jpeg       every frame as a JPEG of quality 90; reading is about ten times faster than decoding (the default)
  raw        every frame as it is; the fastest and by far the largest
  transcode  H.264 with a key frame every eight frames; two to three times faster, about twice the size of the original

The sound is kept too. Give the same command again after an interruption, or when files were added or changed: what is
there and fits is kept. The size should be what training asks for: the encoder's (224), or 8/7 of it (256) with the
random crops of data.augment=true.

exit code: 0 everything is in it, 1 files failed or rows are malformed (--accept N allows so many), 2 a mistake."""


def main(arguments: list[str]) -> int:
    """Make or complete a cache, and report its size and speed."""
    from vtp.media.cache import ClipCache, Settings
    from vtp.prepare.cache import FAILURES, build
    from vtp.prepare.cache_report import report
    from vtp.storage import write_json_atomic

    parser = _parser()
    rest, options = split_options(arguments, parser)
    parsed = parser.parse_args(rest)
    settings = Settings(
        parsed.kind,
        parsed.size,
        parsed.frames,
        parsed.every,
        parsed.audio,
        parsed.backend,
    )
    refuse_file(Path(parsed.out))
    target = point_at(parsed.target, options)
    sources = target.media_paths()
    if not sources:
        raise DataError(
            f"{parsed.target} names no media files. (Media in tar shards are not cached: `vtp data pack --frames` "
            "makes shards of decoded frames.)"
        )
    cache = ClipCache.create(parsed.out, settings)
    print(f"{len(sources):,} files into {parsed.out} ({settings.text})", flush=True)
    outcome = build(
        cache,
        sources,
        workers=parsed.workers or cores(),
        timeout_s=parsed.timeout,
        check=parsed.check,
        retry=parsed.retry,
        progress=_progress(len(sources)),
    )
    made = report(cache, sources, outcome)
    write_json_atomic(Path(parsed.out) / "report.json", made)
    for text in _lines(made, Path(parsed.out), FAILURES):
        print(one_line(text))
    if malformed := target.malformed():
        print(f"{malformed:,} malformed rows of {parsed.target} are left out")
    return 1 if len(outcome.failed) == len(sources) else exit_code(len(outcome.failed) + malformed, parsed.accept)


def _parser() -> ArgumentParser:
    parser = ArgumentParser("cache", ABOUT, "folder of the cache: a new one, or one to complete")
    parser.add_argument("--kind", default="jpeg", help="jpeg, raw or transcode (default %(default)s)")
    parser.add_argument("--size", type=a(PIXELS), default=256, help="short side in pixels (default %(default)s)")
    parser.add_argument(
        "--frames", type=a(Natural), default=0, help="jpeg, raw: keep so many evenly spread frames of a clip"
    )
    parser.add_argument("--every", type=a(Count), default=1, help="jpeg, raw: keep every so many frames")
    parser.add_argument("--audio", type=sample_rate, default=16000, help="sample rate of the kept sound in Hz, or none")
    parser.add_argument("--backend", type=decoder, default="auto", help="decoder of the originals, as media.backend")
    parser.add_argument("--workers", type=a(Processes), default=0, help="files at a time (default: one per core)")
    parser.add_argument("--timeout", type=a(Seconds), default=120.0, help="seconds for a part of a file (%(default)g)")
    parser.add_argument("--check", action="store_true", help="read what is there and make damaged clips again")
    parser.add_accept()
    parser.add_argument("--retry", action="store_true", help="try files again that failed before")
    return parser


def _progress(total: int) -> Callable[[Outcome], None]:
    say = line(every_s=10)

    def show(outcome: Outcome) -> None:
        done = outcome.made + outcome.kept + len(outcome.failed)
        rate = outcome.made / max(outcome.seconds, 1e-9)
        say(f"{done:,} of {total:,} done, {len(outcome.failed):,} failed, {rate:.1f} clips/s", done == total)

    return show


def _lines(report: dict[str, Any], out: Path, failures: str) -> list[str]:
    lines = [f"{report['made']:,} made, {report['kept']:,} were there, {len(report['failed']):,} failed"]
    for path, reason in list(report["failed"].items())[:5]:
        lines.append(f"  failed: {path}: {reason}")
    if report["failed"]:
        lines.append(f"  all of them with their reasons: {out / failures}; --retry tries them again")
    good = report["files"] - len(report["failed"])
    if good:
        share = report["bytes"] / max(1, report["bytes_of_originals"])
        lines.append(
            f"size   {report['bytes'] / 1e6:,.1f} MB, {report['bytes'] / good / 1e3:,.0f} KB a clip, "
            f"{share:.1f} times the originals"
        )
    if report["clips_per_s"]:
        lines.append(f"made   {report['clips_per_s']:.2f} clips/s")
    if report["reading"]:
        rates = report["reading"]["clips_per_core_second"]
        lines.append(
            f"reads  {rates['cache']:,.0f} clips/s per core instead of {rates['original']:,.0f}: "
            f"{report['reading']['times_faster']:.1f} times faster "
            f"({report['reading']['frames']} frames at {report['reading']['size']} pixels)"
        )
    if good:
        lines.append(f"use it: vtp run ... data.cache={out}")
    return lines
