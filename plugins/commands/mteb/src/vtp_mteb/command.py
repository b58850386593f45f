"""``vtp mteb MODEL TASK ...``: what mteb measures of a checkpoint."""

from __future__ import annotations

import argparse
import re
from importlib import import_module
from typing import Any

from vtp.cli.arguments import Parser, a, place
from vtp.errors import ConfigError, RunError, VtpError
from vtp.ranges import Count
from vtp.shown import one_line

__all__ = ["main"]

ABOUT = """Evaluate a model on tasks of mteb (https://github.com/embeddings-benchmark/mteb), by their names:

  vtp mteb outputs/DATE/TIME MSRVTTT2V MSRVTTV2T
  vtp mteb model=clip UCF101ZeroShot --out results

Data sets come from the hub, as mteb says; results lie in --out as mteb writes them, beside the predictions. What mteb
counts differently than `vtp run task=retrieval` does stands in docs/use.md.

exit code: 0 done, 1 a task failed, 2 a mistake."""


def main(arguments: list[str]) -> int:
    """Evaluate, and print a line per task and split."""
    parsed = _parser().parse_args(arguments)
    mteb = _library()
    tasks = [_task(mteb, name) for name in dict.fromkeys(parsed.task)]
    from vtp_mteb.encoder import MTEBModel

    model = MTEBModel(
        parsed.model,
        device=parsed.device,
        objective=parsed.objective,
        prefer=parsed.prefer,
        name=parsed.name,
        workers=0,
    )
    cache = mteb.ResultCache(cache_path=parsed.out)
    failed = 0
    for task in tasks:
        name = task.metadata.name
        try:
            found = mteb.evaluate(
                model,
                task,
                cache=cache,
                encode_kwargs={"batch_size": parsed.batch or (8 if model.model.device.type == "cpu" else 32)},
                prediction_folder=f"{parsed.out}/predictions",
                show_progress_bar=False,
                overwrite_strategy="always" if parsed.again else "only-missing",
            )
        except VtpError:
            raise
        except Exception as error:  # of mteb, its data sets and the hub: said in a line, and the others go on
            print(one_line(f"{name:<24}  failed: {_reason(error)}"))
            failed += 1
            continue
        for result in found.task_results:
            for split, subsets in result.scores.items():
                for scores in subsets:
                    subset = "" if scores["hf_subset"] == "default" else f"  {scores['hf_subset']}"
                    print(
                        one_line(f"{name:<24}  {task.metadata.main_score} {scores['main_score']:.4f}  {split}{subset}")
                    )
    print(one_line(f"results of mteb in {parsed.out}"))
    if failed == len(tasks):
        raise RunError("no task could be evaluated; the lines above say why.")
    return 1 if failed else 0


def _library() -> Any:
    """
    Raises:
        ConfigError: mteb cannot be imported.
    """
    try:
        return import_module("mteb")
    except ImportError as error:
        raise ConfigError(
            f"this needs mteb, which cannot be imported ({error}). Get it with: pip install mteb"
        ) from error


def _task(mteb: Any, name: str) -> Any:
    """A task by its name.

    Raises:
        ConfigError: mteb has none of that name.
    """
    try:
        return mteb.get_task(name)
    except KeyError as error:
        meant = re.search(r"Did you mean: '(.*?)'", str(error.args[0]))
        hint = f" Did you mean {meant[1]}?" if meant else ""
        raise ConfigError(
            f"mteb {mteb.__version__} has no task {name!r}.{hint} mteb.get_tasks(modalities=['video']) lists those of "
            "videos."
        ) from error


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


def _parser() -> Parser:
    parser = Parser(prog="vtp mteb", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", type=place, help="what vtp.load takes: a run, a folder, a name")
    parser.add_argument("task", metavar="TASK", nargs="+", help="a name of mteb, such as MSRVTTT2V")
    parser.add_argument("--out", type=place, default="outputs/mteb", help="folder of results (%(default)s)")
    parser.add_argument("--objective", default=None, help="in whose space, where several objectives embed")
    parser.add_argument("--prefer", choices=("video", "audio"), help="what is looked at in rows that have both")
    parser.add_argument("--name", default=None, help="organisation/name that results are kept under")
    parser.add_argument("--batch", type=a(Count), default=None, help="rows in a forward pass (32; 8 on a CPU)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (%(default)s)")
    parser.add_argument("--again", action="store_true", help="evaluate again what has results")
    return parser
