"""Make this checkout runnable: `python3 tools/bootstrap.py`. Every make target calls it; nothing changed, nothing done.

Installs vtp in editable mode with the tested set of constraints.txt, into the active virtual environment if there is
one, else into .venv. What is installed already is kept. Prints the path of the Python to use as its last line. Needs
nothing but Python 3.11+.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = "dev,audio"


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036  (this file is what runs on an older one, to say so)
        return fail(
            f"vtp needs Python 3.11 or newer, this is {sys.version.split()[0]}. Try: make PYTHON=python3.12 test"
        )
    active = os.environ.get("VIRTUAL_ENV")
    home = Path(active) if active else ROOT / ".venv"
    python = home / "bin" / "python"
    stamp = home / f".vtp-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:12]}"
    wanted = fingerprint()
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        print(python)
        return 0
    started = time.monotonic()
    if not python.exists():
        say(f"creating {home}")
        try:
            venv.create(home, with_pip=True)
        except (OSError, subprocess.CalledProcessError) as error:
            return fail(f"cannot create a virtual environment ({error}). On Debian: apt-get install python3-venv")
        # Commands that an older pip installs import `re` first, which is half of the time of starting Python.
        newer = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "pip>=25.1"]
        subprocess.run(newer, stdout=sys.stderr, check=False)  # without it they are slower, no more
    say("installing vtp and the tested versions of torch, transformers and the rest (5 GB on a fresh machine)")
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "-c", ROOT / "constraints.txt"]
    result = subprocess.run([*command, "-e", f"{ROOT}[{EXTRAS}]"], stdout=sys.stderr, check=False)
    if result.returncode:
        return fail("pip could not install the tested set; its message is above. Nothing else was changed")
    stamp.write_text(wanted)
    say(f"installed in {time.monotonic() - started:.0f} s")
    print(python)
    return 0


def fingerprint() -> str:
    """Of everything that decides what gets installed; the version of Python too."""
    files = [ROOT / "pyproject.toml", ROOT / "constraints.txt", Path(__file__)]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files) + sys.version.encode()).hexdigest()


def say(text: str) -> None:
    print(f"[vtp] {text}", file=sys.stderr, flush=True)


def fail(text: str) -> int:
    say(text)
    return 1


if __name__ == "__main__":
    sys.exit(main())
