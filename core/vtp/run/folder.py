"""The folder of a run: what was asked, how it ended, and where everything lies."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from vtp import __version__
from vtp.run.asked import Environment

__all__ = ["RunFolder", "find_unfinished", "fingerprint"]

log = logging.getLogger("vtp")

# These say where and how to go on, not what is computed; two configurations that differ only here are the same run.
_NOT_FINGERPRINTED = ("run_dir", "resume", "restart", "resume_other", "profile")

_FAILED = ".failed_rank_"

_CONTENT = {
    "report.json": "every number with what it takes to believe it",
    "predictions.jsonl": "one line per item",
    "report.png": "the picture",
    "report.html": "all of it to look at in a browser, with the worst and the best items",
    "checkpoints": "weights and training state",
    "metrics.jsonl": "losses by step",
    "tensorboard": "the same as curves: tensorboard --logdir",
    "bad_samples.jsonl": "files that could not be used, and why",
    "profile": "where the time of a step goes: tables and a trace",
}


def fingerprint(config: Mapping[str, Any]) -> str:
    """Hash of everything in the configuration that decides what is computed."""
    decisive = {key: value for key, value in config.items() if key not in _NOT_FINGERPRINTED}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()[:16]


def find_unfinished(wanted: str, root: Path = Path("outputs")) -> Path | None:
    """The newest run folder under ``root`` with this fingerprint that did not finish, or None. One that a process is
    writing into is passed over, with a warning."""
    from vtp.storage import is_locked

    candidates = []
    for file in root.glob("*/*/run.json"):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            unfinished = record.get("fingerprint") == wanted and record.get("status") != "finished"
        except (OSError, ValueError, AttributeError, RecursionError):
            continue  # a run that died while it was created has nothing to go on from
        if unfinished:
            candidates.append((_seconds(record.get("started")), file.parent))
    for _, folder in sorted(candidates, reverse=True):
        if not is_locked(folder):
            return folder
        log.warning("resume=auto: another process is writing into %s, so it is passed over", folder)
    return None


def _seconds(started: Any) -> float:
    """A time of run.json in seconds: as text, the hour after summer time would be before it. 0 for what is none."""
    try:
        return datetime.fromisoformat(started).timestamp()
    except (TypeError, ValueError, OverflowError, OSError):
        return 0.0


class RunFolder:
    """One run's folder.

    Attributes:
        path: of the folder.
        environment: what must not be written into it.
    """

    def __init__(self, path: Path, environment: Environment | None = None) -> None:
        self.path = path
        self.environment = environment or Environment()

    @contextmanager
    def recorded(self, config: Mapping[str, Any], processes: int) -> Iterator[None]:
        """Keep ``config.yaml`` and ``run.json``: what was asked, and how it ended. For the first process."""
        import yaml

        from vtp.storage import write_json_atomic, write_text_atomic

        record = {
            "status": "running",
            "fingerprint": fingerprint(config),
            "command": sys.argv,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "vtp": __version__,
            "processes": processes,
        }
        self.path.mkdir(parents=True, exist_ok=True)
        asked = yaml.safe_dump(self.environment.asked(config), sort_keys=False, allow_unicode=True)
        write_text_atomic(self.path / "config.yaml", asked)
        write_json_atomic(self.path / "run.json", record)
        try:
            yield
        except BaseException as error:
            record |= {"status": "failed", "error": self.environment.hide(f"{type(error).__name__}: {error}")}
            raise
        else:
            record["status"] = "finished"
        finally:
            record["ended"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            write_json_atomic(self.path / "run.json", record)

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint; None before the first."""
        path = self.path / "checkpoints" / "last"
        return path.resolve() if path.exists() else None

    def say_where(self) -> None:
        """Print the last lines of a run: where everything lies."""
        print(f"\nin {self.path}:")
        for name, text in _CONTENT.items():
            if (self.path / name).exists():
                print(f"  {name:<18} {text}")

    def keep_traceback(self, error: BaseException) -> None:
        """Append the traceback to run.log, where people look for it afterwards; the console gets one line."""
        try:
            with open(self.path / "run.log", "a", encoding="utf-8") as file:
                file.write(self.environment.hide("".join(traceback.format_exception(error))))
        except OSError:
            return  # a full disk must not hide the error that it caused

    def tell_failure(self, rank: int, error: BaseException) -> None:
        """Leave word of what ended process ``rank``: the first one only sees a connection that was closed."""
        with suppress(OSError):
            text = self.environment.hide(f"{type(error).__name__}: {error}")
            (self.path / f"{_FAILED}{rank}").write_text(text, encoding="utf-8")

    def failures(self) -> dict[int, str]:
        """Rank -> what it told of its end."""
        found = {}
        for file in sorted(self.path.glob(f"{_FAILED}*")):
            with suppress(OSError, ValueError):
                found[int(file.name.removeprefix(_FAILED))] = file.read_text(encoding="utf-8", errors="replace")
        return found

    def forget_failures(self) -> None:
        """Remove what the processes of an earlier start left."""
        for file in self.path.glob(f"{_FAILED}*"):
            file.unlink(missing_ok=True)

    def remove_if_empty(self) -> None:
        """A run that a mistake of the user ended before it did anything leaves no folder behind."""
        entries = self.path.iterdir() if self.path.is_dir() else ()
        left = {entry.name for entry in entries if not entry.name.startswith(_FAILED)}
        if left <= {".hydra", ".lock", ".evaluation", "run.log", "run.json", "config.yaml"}:
            logging.shutdown()
            shutil.rmtree(self.path, ignore_errors=True)
            if (
                self.path.parent.parent.name == "outputs"
            ):  # our own outputs/DATE/TIME; both go when nothing else is there
                with suppress(OSError):
                    self.path.parent.rmdir()
                    self.path.parent.parent.rmdir()
