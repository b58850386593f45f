"""What starting the command line costs, in processor time, with few and with many plugins installed.

    python benchmarks/startup.py [--against /path/to/old/.venv/bin/python] [--rounds 20] [--plugins 3 53]

    bare       python -c ""
    hydra      python -c "import hydra", without which no configuration is composed
    --help     vtp --help
    --cfg job  vtp run task=msrvtt_qa dataset=shapes --cfg job
    composing  the same with a seed of its own each time: what vtp keeps of the last one does not help

Each is started once per round, in turn with the same command of the other environment; the result is the median over
rounds. Started through `python -c` as the scripts of uv and of pip from 25.1 on do it; those of an older pip import
`re` first, which adds what ``re`` says to any command. Plugins are packages with an objective, its option file and a
command each, on PYTHONPATH as pip would leave them.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import record

PLUGIN = """from vtp import hookimpl


@hookimpl
def vtp_register_objectives(register):
    register("NAME", "NAME.objective:Objective")


@hookimpl
def vtp_register_commands(register):
    register("NAME", "NAME.command:main", help="does nothing")
"""
COMPOSE = ["run", "task=msrvtt_qa", "dataset=shapes", "--cfg", "job"]
CODE = {
    "bare": "",
    "re": "import re",
    "hydra": "import hydra",
    "--help": "import sys; from vtp.cli.main import main; sys.exit(main(['--help']))",
    "--cfg job": f"import sys; from vtp.cli.main import main; sys.exit(main({COMPOSE}))",
    "composing": "import os, sys; from vtp.cli.main import main; "
    f"run, *rest = {COMPOSE}; sys.exit(main([run, f'seed={{os.getpid()}}', *rest]))",
}


def install(folder: Path, count: int) -> Path:
    """A folder with that many plugin packages."""
    for number in range(count):
        name = f"vtp_startup_{number}"
        (folder / name / "conf" / "objective").mkdir(parents=True)
        (folder / name / "__init__.py").touch()
        (folder / name / "plugin.py").write_text(PLUGIN.replace("NAME", name))
        (folder / name / "conf" / "objective" / f"{name}.yaml").write_text(
            f"# @package objectives.{name}\nweight: 1.0\n"
        )
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: vtp-core\n")
        (info / "entry_points.txt").write_text(f"[vtp.plugins]\n{name} = {name}.plugin\n")
    for path in (folder, *folder.rglob("*")):  # as if they had been there for a while
        os.utime(path, (1e9, 1e9))
    return folder


def processor_ms(python: str, code: str, site: Path, cache: Path) -> float:
    """Of one start, children included; stops if it fails."""
    environment = os.environ | {"PYTHONPATH": str(site), "VTP_CACHE": str(cache)}
    # pip compiles what it installs; an environment that forbids bytecode would measure the compiler
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["PYTHONPYCACHEPREFIX"] = str(cache / "bytecode")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([python, "-c", code], cwd=site, env=environment, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{python} -c {code!r} failed:\n{done.stderr}")
    return 1e3 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="PYTHON", help="the Python of an environment with another version of vtp")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument(
        "--plugins", type=int, nargs="+", default=[3, 53], help="how many are installed besides vtp's own"
    )
    parser.add_argument("--out", type=Path, default=record.RESULTS / "startup.json")
    options = parser.parse_args()
    sides = {"new": sys.executable, **({"old": options.against} if options.against else {})}
    rows = []
    for count in options.plugins:
        with tempfile.TemporaryDirectory() as folder:
            site = install(Path(folder) / "site", count)
            caches = {side: Path(folder) / side for side in sides}
            times: dict[tuple[str, str], list[float]] = {(side, what): [] for what in CODE for side in sides}
            for turn in range(options.rounds + 1):
                for side, what in times:
                    took = processor_ms(sides[side], CODE[what], site, caches[side])
                    if turn:  # the first one compiles, and looks for plugins
                        times[side, what].append(took)
        median = {key: statistics.median(values) for key, values in times.items()}
        row: dict[str, float | int] = {"plugins": count}
        for (side, what), value in median.items():
            row[f"{side} {what} ms"] = round(value, 1)
        row["--help over bare"] = round(median["new", "--help"] / median["new", "bare"], 2)
        if options.against:
            for what in ("--cfg job", "composing"):
                row[f"{what} over old"] = round(median["new", what] / median["old", what], 2)
        rows.append(row)
        print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    record.save(options.out, "processor time of starting the command line", rounds=options.rounds, rows=rows)


if __name__ == "__main__":
    main()
