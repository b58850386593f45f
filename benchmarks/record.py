"""How a result is written down, and what ran where: shared by all benchmarks."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def save(file: Path, what: str, **measured: Any) -> None:
    """Write ``measured`` as JSON, with what was measured, when, by which command, and the versions."""
    head = {"what": what, "date": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    write(file, {**head, "command": command, **measured, "versions": versions()})
    print(f"written to {file}")


def write(file: Path, result: dict[str, Any]) -> None:
    """JSON with one measurement per line: an object or a list that holds no further object stands on one line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(as_lines(result) + "\n", encoding="utf-8")


def as_lines(value: Any, indent: str = "") -> str:
    parts = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(parts, list) or not any(holds_object(part) for part in parts):
        return json.dumps(value)
    inner = indent + " "
    texts = [as_lines(part, inner) for part in parts]
    if isinstance(value, dict):
        texts = [f"{json.dumps(key)}: {text}" for key, text in zip(value, texts, strict=True)]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n{inner}" + f",\n{inner}".join(texts) + f"\n{indent}{closing}"


def holds_object(value: Any) -> bool:
    return isinstance(value, dict) or isinstance(value, list) and any(map(holds_object, value))


def versions() -> dict[str, Any]:
    """The code, the libraries and the machine, with how busy it was."""
    return {
        "commit": output("git", "describe", "--always", "--dirty"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def output(*command: str) -> str | None:
    """What a command prints; None if it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def cpu_name() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
