"""``vtp embed INPUT OUT --model RUN``: embeddings of windows of videos and sounds, in a LanceDB table."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated, Any

from vtp.cli.arguments import a, place
from vtp.cli.data import ArgumentParser, exit_code, point_at, split_options
from vtp.progress import line
from vtp.ranges import Count, Range
from vtp.shown import one_line

__all__ = ["main"]

ABOUT = """Embed a folder of media, a table of your own (csv, jsonl), shards or a data set into a LanceDB table: one row
per window and modality with its file, start and end, to be searched with `vtp search OUT "a dog runs"`.

  vtp embed clips index --model outputs/DATE/TIME --window 10 --stride 5
  vtp embed shards index urls=shards --model outputs/DATE/TIME
  torchrun --nproc-per-node 4 -m vtp embed clips s3://bucket/index --model outputs/DATE/TIME

OUT is a folder or a place in object storage. Under torchrun each process takes a share of the files. Give the same
command again after an interruption, or when files were added or changed: what is done is kept. Files that cannot be
used are named and counted every time, and noted in the table.

exit code: 0 everything is embedded, 1 files or windows could not be used (--accept N allows so many, of all processes
together), 2 a mistake."""

_NAMED = 5  # files that are named on the screen
_Window = Annotated[float, Range(least=0, most=86400)]
_Stride = Annotated[float, Range(above=0, most=86400)]


def main(arguments: list[str]) -> int:
    """Embed, and say what was done."""
    parser = _parser()
    rest, options = split_options(arguments, parser)
    parsed = parser.parse_args(rest)
    target = point_at(parsed.target, options)
    from vtp.machine import keep_memory
    from vtp.use.embed import embed_into
    from vtp.use.loading import load

    keep_memory(1 << 30, 2 << 30)  # every batch needs the same megabytes, which cost the system a fault per page
    model = load(parsed.model, device=parsed.device, precision=parsed.precision, workers=0)
    number, count = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    say = line(every_s=10)

    def progress(done: Any, files: int) -> None:
        say(f"{done.windows:,} windows embedded, {done.noted:,} of {files:,} files", done.noted == files)

    table, done = embed_into(
        parsed.out,
        target.samples(prefer=("media", "retrieval", "caption")),
        model,
        source=_absolute(parsed.model),
        objective=parsed.objective,
        window=parsed.window,
        stride=parsed.stride,
        # On a CPU a larger one is no faster, and the first has to wait for more files.
        batch_size=parsed.batch or (4 if model.device.type == "cpu" else 32),
        share=(number, count),
        retry=parsed.retry,
        progress=progress,
    )
    mine = f"{done.files:,} files" if count == 1 else f"{done.files:,} files (share {number + 1} of {count})"
    print(f"{mine}: {done.kept:,} were done, {done.windows:,} windows added; {len(table):,} windows in {parsed.out}")
    shown = max(_NAMED, done.unnamed)  # what no table holds is told here or nowhere
    for name, reason in list(done.bad.items())[:shown]:
        print(one_line(f"  bad: {name}: {reason}"))
    if len(done.bad) > shown:
        print(f"  and {len(done.bad) - shown:,} more; the column `bad` of the table `files` has all of them")
    together = count > 1 and "MASTER_ADDR" in os.environ  # else they were started one by one, and cannot meet
    with _others(together) as total:
        bad = total(len(done.bad))
        if number == 0 and (together or count == 1) and table.grown() >= parsed.index_from:
            _index(table)
        total(0)  # torchrun ends all where one leaves with 1
    if together and number:
        return 0
    print(f'search it: vtp search {parsed.out} "a dog runs"')
    return exit_code(bad, parsed.accept)


@contextmanager
def _others(together: bool) -> Iterator[Callable[[int], int]]:
    """Adds up a number over the processes of torchrun, and so waits for them. They meet at the end alone: whoever is in
    a group computes its share of a batch."""
    if not together:
        yield int
        return
    import torch

    from vtp import distributed

    distributed.setup("cpu", timedelta(days=1))
    try:
        yield lambda number: int(distributed.sum_scalars(torch.tensor(number)))
    finally:
        distributed.shutdown()


def _index(table: Any) -> None:
    """Build an index where there is none, or where the table has grown by a fifth."""
    known = table.index()
    if known is None or len(table) > 1.2 * known["rows"]:
        known = table.build_index()
    print(
        f"index: {known['rows']:,} windows, {known['probes']:,} of {known['partitions']:,} partitions are looked at; "
        f"recall@10 {known['recall']:.3f}, measured with {known['queries']:,} of its own windows"
    )


def _absolute(model: str) -> str:
    """A folder by its whole path: the table may be searched from elsewhere."""
    return os.path.abspath(model) if os.path.isdir(model) else model


def _parser() -> ArgumentParser:
    parser = ArgumentParser("embed", ABOUT, "the table: a folder or object storage, new or to go on with")
    parser.prog, parser.usage = "vtp embed", "vtp embed INPUT OUT --model RUN [KEY=VALUE ...] [OPTIONS]"
    parser.add_argument("--model", type=place, required=True, help="what vtp.load takes: a run, a folder, a name")
    parser.add_argument("--window", type=a(_Window), default=10.0, help="seconds (%(default)g); 0: whole files")
    parser.add_argument("--stride", type=a(_Stride), default=None, help="seconds between windows (half a window)")
    parser.add_argument("--objective", default=None, help="in whose space, where several objectives embed")
    parser.add_argument("--batch", type=a(Count), default=None, help="windows in a forward pass (32; 4 on a CPU)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (%(default)s)")
    parser.add_argument("--precision", default="fp32", help="fp32, bf16, fp16 (%(default)s)")
    parser.add_argument("--retry", action="store_true", help="try files again of which something could not be used")
    parser.add_argument(
        "--index-from", type=a(Count), default=100_000, help="windows from which an index is built (%(default)s)"
    )
    parser.add_accept()
    return parser
