"""Entry points of the installed distributions, read so that one whose metadata is broken takes nothing else down."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

__all__ = ["EntryPoint", "entry_points"]


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """An entry point and the distribution that it belongs to.

    Attributes:
        folder: of the distribution's metadata.
        fault: why the metadata cannot be read, in words; "" where they can.
    """

    name: str
    value: str
    distribution: str
    version: str
    requires: tuple[str, ...]
    folder: str
    fault: str = ""


def entry_points(group: str) -> list[EntryPoint]:
    """Those of a group. Nothing is imported. A distribution whose entry points cannot be read counts as one of its own
    name where its file speaks of the group."""
    try:
        return [_read(point, point.dist) for point in metadata.entry_points(group=group) if point.dist is not None]
    except Exception:  # of one of them, whichever it is: what comes out of importlib.metadata is of many classes
        return list(_one_by_one(group))


def _read(point: metadata.EntryPoint, dist: metadata.Distribution) -> EntryPoint:
    """
    Raises:
        ValueError: name or version are missing; importlib.metadata raises others.
    """
    said = dist.metadata
    name = said["Name"] if "Name" in said else ""  # noqa: SIM401 (its type has no `get` before Python 3.12)
    version = said["Version"] if "Version" in said else ""  # noqa: SIM401
    if not name or not version:
        raise ValueError(f"it has no {'Version' if name else 'Name'}")
    folder = dist.locate_file(f"{name.replace('-', '_')}-{version}.dist-info")
    return EntryPoint(point.name, point.value, name, version, tuple(dist.requires or ()), str(folder))


def _one_by_one(group: str) -> Iterator[EntryPoint]:
    seen = set()
    for dist in metadata.distributions():
        folder = Path(str(getattr(dist, "_path", "unknown")))  # no public name: where METADATA would say who it is
        name, _, version = folder.stem.partition("-")
        if (key := name.lower().replace("_", "-").replace(".", "-")) in seen:
            continue  # further back on the path
        seen.add(key)
        try:
            points = [point for point in dist.entry_points if point.group == group]
        except Exception as error:
            if _speaks_of(group, folder / "entry_points.txt"):
                why = f"its entry_points.txt cannot be read ({_said(error)}). Reinstall it"
                yield EntryPoint(name, "", name, version, (), str(folder), why)
            continue
        for point in points:
            try:
                yield _read(point, dist)
            except Exception as error:
                why = f"its METADATA cannot be read ({_said(error)}). Reinstall it"
                yield EntryPoint(point.name, point.value, name, version, (), str(folder), why)


def _speaks_of(group: str, file: Path) -> bool:
    try:
        return group.encode() in file.read_bytes()
    except OSError:
        return False


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
