"""What ``vtp run ... --cfg job`` prints, kept: composing takes twenty times as long as starting Python, half of it the
import of hydra."""

from __future__ import annotations

import io
import os
import sys
import zlib
from contextlib import redirect_stderr, redirect_stdout

from vtp.kept import SWITCHES, keep, kept, vtp_modules, watched_by

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["printed"]

_PLACES = 16  # for kept configurations, some 50 kB each; a new one takes the place of another


def printed(arguments: list[str], run: Callable[[list[str]], int]) -> int | None:
    """Print what ``run`` prints of these arguments; None where more than arguments and installed files decide it.

    It is asked again when a package was installed or removed, an option file came, went or changed, a module that took
    part changed, or other plugins are switched on. What fails or warns is not kept.

    Args:
        run: prints to stdout and gives the exit code.
    """
    if not _for_good(arguments):
        return None
    asked = repr((arguments, [os.environ.get(switch) for switch in SWITCHES]))
    name = f"composed-{zlib.crc32(asked.encode(errors='surrogateescape')) % _PLACES}"
    if (lines := kept(name, asked)) is not None:
        print("\n".join(lines))
        return 0
    out, err = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = run(arguments)
    finally:
        sys.stdout.write(out.getvalue())
        sys.stderr.write(err.getvalue())
    if code == 0 and not err.getvalue() and (watched := _watched()):
        keep(name, out.getvalue().removesuffix("\n").split("\n"), watched, asked)
    return code


def _for_good(arguments: list[str]) -> bool:
    """Whether these print a configuration that only installed files decide: no folder of a run, no environment."""
    flags = [place for place, argument in enumerate(arguments) if argument.startswith("-")]
    if len(flags) != 1 or arguments[flags[0] : flags[0] + 2] not in (["--cfg", "job"], ["-c", "job"]):
        return False
    settings = arguments[: flags[0]] + arguments[flags[0] + 2 :]
    for setting in settings:
        key, _, value = setting.lstrip("+~").partition("=")
        if key == "resume" or key.startswith("hydra") or "${" in value:
            return False
        if key == "model" and (not value.isidentifier() or os.path.isdir(value)):  # the model of a run
            return False
    return True


def _watched() -> list[str]:
    """The files and folders that a composition depends on; none where the environment may choose between options, or
    the list of plugins is not kept itself."""
    from vtp import conf
    from vtp.plugins import Host, config_places

    points = Host().active_points()
    found = [*conf.__path__, *(str(place) for point in points for place in config_places(point))]
    for place, _, names in [step for folder in found for step in os.walk(folder)]:
        found.append(place)
        for name in names:
            if name.endswith(".yaml"):
                found.append(f"{place}/{name}")
                with open(found[-1], "rb") as file:
                    if b"oc.env" in file.read():
                        return []
    plugins = watched_by("plugins")
    return [] if plugins is None else [*plugins, *found, *vtp_modules()]
