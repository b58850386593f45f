"""``vtp plugins check NAME``: the contracts of :mod:`vtp.testing` without pytest, with the options of option files."""

from __future__ import annotations

import importlib
import re
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from vtp.cli.plugins_check import Checked, entries_of, own_options
from vtp.contracts import Task, member
from vtp.errors import ConfigError, UserError
from vtp.options import option_files
from vtp.plugins import Host, PluginPoint, host
from vtp.registry import Entry
from vtp.types import MediaRef, Sample

__all__ = ["add_contracts", "as_installed"]

LARGEST = 30_000_000  # parameters; what has more with the options of its file is left to its own tests
DEPENDS = "micro-batches: "  # cannot hold for a loss whose negatives come from the own micro-batch


class _LeftOut(Exception):
    """Why a contract is not looked at."""


def add_contracts(found: Checked, point: PluginPoint, plugins: Host) -> None:
    """Build every component of a plugin with the options of its option files, and hold it against its contract."""
    files = option_files(plugins.active_points())
    for entry in entries_of(point, plugins):
        run = _CONTRACTS.get(entry.kind.partition("/")[0] if entry.kind != "encoder/fusion" else entry.kind)
        if run is None:
            continue
        for where, options in own_options(entry, point, files):
            subject = f"{entry.kind}={entry.name}" + (f" ({where})" if where else "")
            try:
                _refuse_unknown(options)
                problems = _problems(run, entry, options)
            except _LeftOut as reason:
                found.notes.append(f"{subject}: its contract was not looked at: {reason}")
                continue
            depends = [line for line in problems if line.startswith(DEPENDS) and " it raised " not in line]
            found.add("contracts", 1, [f"{subject}: {line}" for line in problems if line not in depends])
            found.notes += [f"{subject}: {line}. Its own tests may leave that out with a reason" for line in depends]


def _problems(run: Callable[[Entry, Mapping[str, Any]], None], entry: Entry, options: Mapping[str, Any]) -> list[str]:
    """What a contract of vtp.testing finds."""
    import io

    from vtp.testing import ContractError

    try:
        with redirect_stdout(io.StringIO()):
            run(entry, options)
    except ContractError as error:
        _, *lines = str(error).split("\n  ")
        asked = [re.search(r"it raised (KeyError: '\w+')", line) for line in lines]  # batch.labels["tags"], for example
        if any("is there a label for them?" in line for line in lines) or (asked and all(asked)):
            told = f" ({asked[0][1]})" if asked[0] else ""
            raise _LeftOut(
                f"it needs labels or fields of a batch{told}, which check_objective of vtp.testing takes"
            ) from error
        return [" ".join(line.split()) for line in lines] or [str(error)]
    except (UserError, OSError) as error:
        raise _LeftOut(
            f"it cannot be built with the options of its file ({' '.join(str(error).split())[:200]})"
        ) from error
    except _LeftOut:
        raise
    except Exception as error:
        return [f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"]
    return []


def _refuse_unknown(options: Mapping[str, Any]) -> None:
    for key, value in options.items():
        if value == "???":
            raise _LeftOut(f"{key} has no default; give it in a test of its own")
        if isinstance(value, str) and "${" in value:
            raise _LeftOut(f"{key} is only known in a run ({value})")


def _small(entry: Entry, options: Mapping[str, Any], **given: Any) -> Any:
    """The class, once it has been seen to be small with these options."""
    from vtp.model.build import BuildContext
    from vtp.testing.checks import construct
    from vtp.testing.inputs import TEXTS, tiny_encoders

    cls = entry.load()
    context = BuildContext(texts=lambda: TEXTS, answers=("red", "blue", "two"), encoders=dict(tiny_encoders()))
    built = construct(cls, options, context=context)
    size = sum(parameter.numel() for parameter in built.parameters())
    if size > LARGEST:
        raise _LeftOut(
            f"{size / 1e6:,.0f} million parameters with the options of its file; its own tests have it small"
        )
    return cls


def _encoder(entry: Entry, options: Mapping[str, Any]) -> None:
    from vtp.testing import check_encoder

    check_encoder(_small(entry, options), options)


def _fusion(entry: Entry, options: Mapping[str, Any]) -> None:
    from vtp.testing import check_fusion

    check_fusion(_small(entry, options), options)


def _objective(entry: Entry, options: Mapping[str, Any]) -> None:
    from vtp.testing import check_objective

    check_objective(_small(entry, options), options)


def _dataset(entry: Entry, options: Mapping[str, Any]) -> None:
    from vtp.testing import check_dataset

    check_dataset(entry.load(), options)


def _task(entry: Entry, options: Mapping[str, Any]) -> None:
    from vtp.testing import check_task
    from vtp.testing.checks import construct

    cls, data = entry.load(), _Rows()
    kind = member(construct(cls, options, dataset=data, seed=0, val_share=0.1), Task, "kind")
    if kind not in data.kinds:
        raise _LeftOut(f"it reads tables of the kind {kind}: check_task of vtp.testing takes a data set that has them")
    check_task(cls, options, dataset=data)


def _transform(entry: Entry, options: Mapping[str, Any]) -> None:
    from vtp.testing import check_transform

    modality: Any = entry.kind.partition("/")[2]
    check_transform(entry.load(), options, modality=modality)


class _Rows:
    """A data set for tasks: six clips in every split, each with two captions, and a question."""

    name = "rows"
    kinds = ("caption", "retrieval", "qa")

    def samples(self, kind: str, split: str) -> list[Sample]:
        """As :class:`vtp.contracts.Dataset` says."""
        rows = []
        for k in range(6):
            ref, extra = MediaRef(f"{split}{k}.mp4"), {"video_id": f"{split}{k}"}
            texts = ("what moves?",) if kind == "qa" else (f"number {k} moves", f"{k} in {split}")
            labels = {"answer": ("red", "blue")[k % 2]} if kind == "qa" else {}
            rows.append(Sample(f"{split}{k}", ref, ref, texts[: 1 if kind == "caption" else 2], labels, extra))
        return rows


_CONTRACTS: dict[str, Callable[[Entry, Mapping[str, Any]], None]] = {
    "encoder": _encoder,
    "encoder/fusion": _fusion,
    "objective": _objective,
    "dataset": _dataset,
    "task": _task,
    "transform": _transform,
}


@contextmanager
def as_installed(folder: Path) -> Iterator[list[str]]:
    """The package in a folder, as if pip had installed it into this Python; gives the names of its plugins.

    Raises:
        ConfigError: the folder is no project with a plugin.
    """
    name, version, needs, points = _project(folder)
    sources = folder / "src" if (folder / "src").is_dir() else folder
    with tempfile.TemporaryDirectory() as site:
        info = Path(site) / f"{re.sub('[^A-Za-z0-9.]+', '_', name)}-{version}.dist-info"
        info.mkdir()
        lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {need}" for need in needs)]
        (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", *lines, ""]), encoding="utf-8")
        told = [f"{point} = {module}" for point, module in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[vtp.plugins]", *told, ""]), encoding="utf-8")
        added = [site, str(sources.resolve())]
        sys.path[:0] = added
        importlib.invalidate_caches()
        host.cache_clear()
        try:
            yield list(points)
        finally:
            for path in added:
                sys.path.remove(path)
            host.cache_clear()


def _project(folder: Path) -> tuple[str, str, list[str], dict[str, str]]:
    """Name, version, requirements and plugins of the project in a folder, from its pyproject.toml."""
    file = folder / "pyproject.toml"
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        points = dict(project.get("entry-points", {}).get("vtp.plugins", {}))
        found = str(project["name"]), str(project.get("version", "0")), list(project.get("dependencies", ())), points
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        what = "has no" if isinstance(error, LookupError) else "cannot be read:"
        raise ConfigError(
            f"{file} {what} {' '.join(str(error).split())}. Name the folder of a plugin package."
        ) from error
    if not points:
        raise ConfigError(
            f'{file} names no plugin. Add a table [project.entry-points."vtp.plugins"], NAME = "PACKAGE.plugin".'
        )
    return found
