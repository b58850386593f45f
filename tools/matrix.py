"""On which versions of Python and torch do the tests pass? `make matrix`, or one cell: `tools/matrix.py 3.12/newest`.

A cell is a Python and a set of libraries, in a virtual environment of its own that is removed afterwards:

    tested    the versions of constraints.txt
    newest    the newest torch and torchvision that pip offers, the rest as tested (there is no torchaudio for it)
    oldest    the lower end of every range that pyproject.toml declares

Runs the default tests in each (--tests: a part of them) and writes tools/compatibility.json and the table
of docs/compatibility.md from it. A cell is about 6 GB, and 10 to 20 minutes on 2 cores. Pythons are looked for on PATH
and in pyenv's folder; a cell without its Python, or whose libraries pip cannot install, says so in the table.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "tools" / "compatibility.json"
PAGE = ROOT / "docs" / "compatibility.md"
CELLS = ["3.11/oldest", "3.11/tested", "3.11/newest", "3.12/tested", "3.12/newest", "3.13/tested", "3.13/newest"]
TOGETHER = ("torch", "torchvision", "torchaudio", "triton")  # builds that belong to one version of torch
SHOWN = ("torch", "torchvision", "triton", "numpy", "transformers", "timm")
BEGIN, END = "<!-- table: make matrix -->", "<!-- end -->"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", nargs="*", metavar="CELL", help=f"default: {' '.join(CELLS)}")
    parser.add_argument("--tests", nargs="+", default=[], metavar="PATH", help="default: all of the default run")
    parser.add_argument(
        "--work", type=Path, default=None, help="where the environments go (default: a temporary folder)"
    )
    options = parser.parse_args()
    if unknown := set(options.cells) - set(CELLS):
        parser.error(f"no such cell: {', '.join(sorted(unknown))}. There are {', '.join(CELLS)}")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for cell in options.cells or CELLS:
        with tempfile.TemporaryDirectory(prefix="vtp-matrix-", dir=options.work) as folder:
            results[cell] = run(cell, Path(folder), options.tests)
        print(f"[matrix] {cell}: {json.dumps(results[cell])}", flush=True)
        RESULTS.write_text(json.dumps({cell: results[cell] for cell in CELLS if cell in results}, indent=1) + "\n")
        write_page(results)
    return 0 if all(result.get("failed") == 0 for result in results.values()) else 1


def run(cell: str, folder: Path, tests: list[str]) -> dict[str, Any]:
    """The result of one cell: versions and counts of tests, or the reason why there are none."""
    number, libraries = cell.split("/")
    source = find_python(number)
    if source is None:
        return {"problem": f"no Python {number} on this machine"}
    subprocess.run([source, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(constrained(libraries)) + "\n")
    pip: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--prefer-binary",  # a release whose wheels are gone would be built
        "--quiet",
        "--disable-pip-version-check",
        "-c",
        constraints,
    ]
    extras = "dev" if libraries == "newest" else "dev,audio"
    installed = subprocess.run([*pip, "-e", f"{ROOT}[{extras}]"], capture_output=True, text=True, check=False)
    if installed.returncode:
        said = [line for line in installed.stderr.splitlines() if line.startswith("ERROR")]
        return {"problem": f"pip: {(said or ['no message'])[0].removeprefix('ERROR: ')[:300]}"}
    command: list[str | Path] = [
        python,
        "-m",
        "pytest",
        "-m",
        "not slow and not gpu",
        "-q",
        "-n",
        "auto",
        "--maxprocesses=4",
    ]
    command += ["--dist=loadfile", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    counts = {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)", lines[-1])}
    return {
        "python": ask(python, "import platform; print(platform.python_version())"),
        "versions": {
            name: ask(python, f"import importlib.metadata as m; print(m.version({name!r}))") for name in SHOWN
        },
        "tests": " ".join(tests) or "default run",
        "passed": counts.get("passed", 0),
        "skipped": counts.get("skipped", 0),
        "failed": counts.get("failed", 0) + counts.get("error", 0) + counts.get("errors", 0),
        "failures": [line.split(" - ")[0] for line in lines if line.startswith(("FAILED", "ERROR"))][:50],
    }


def find_python(number: str) -> str | None:
    """The path of that Python: of this one, on PATH, or the newest of pyenv's."""
    if sys.version_info[:2] == tuple(map(int, number.split("."))):
        return sys.executable
    kept = sorted(Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser().glob(f"versions/{number}.*/bin/python"))
    for python in [shutil.which(f"python{number}"), *map(str, reversed(kept))]:  # pyenv's shim exists without a Python
        if python and not subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode:
            return python
    return None


def constrained(libraries: str) -> list[str]:
    """Lines for pip's constraints."""
    tested = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    if libraries == "tested":
        return tested
    if libraries == "newest":
        return [line for line in tested if not line.startswith(TOGETHER)]
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    lowest = [match.groups() for line in declared if (match := re.match(r"([a-z-]+)>=([\d.]+)", line))]
    # torchaudio names no torch that it needs, and cannot be loaded beside another one
    lowest += [("torchaudio", version) for name, version in lowest if name == "torch"]
    names = {name for name, _ in lowest} | set(TOGETHER)
    return [f"{name}=={version}.*" for name, version in lowest] + [
        line for line in tested if line.split("=")[0] not in names
    ]


def ask(python: Path, code: str) -> str:
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "absent"


def write_page(results: dict[str, Any]) -> None:
    """Put the table between the marks of the page."""
    rows = [f"| Python | libraries | {' | '.join(SHOWN)} | tests | passed | skipped | failed |"]
    rows.append("|---" * (len(SHOWN) + 6) + "|")
    for cell in CELLS:
        result, (number, libraries) = results.get(cell), cell.split("/")
        if result is None or "problem" in result:
            problem = "not tried" if result is None else result["problem"]
            rows.append(f"| {number} | {libraries} | {problem} |" + " |" * (len(SHOWN) + 3))
            continue
        numbers = [result["tests"], *(str(result[word]) for word in ("passed", "skipped", "failed"))]
        shown = [result["versions"][name] for name in SHOWN]
        rows.append(f"| {' | '.join([result['python'], libraries, *shown, *numbers])} |")
    text = PAGE.read_text()
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    PAGE.write_text(before + "\n\n" + "\n".join(rows) + "\n\n" + after)


if __name__ == "__main__":
    sys.exit(main())
