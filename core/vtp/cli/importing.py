"""``vtp import NAME FILE OUT``: convert a checkpoint of another program into a vtp checkpoint, with an importer of a
plugin."""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtp.cli.arguments import key_values, refuse_file
from vtp.components import check_options, refuse
from vtp.contracts import Importer
from vtp.errors import ConfigError, DataError, PluginError
from vtp.faults import title

if TYPE_CHECKING:
    from vtp.model.model import VTPModel

__all__ = ["main"]

USAGE = """vtp import: convert a checkpoint of another program.

usage: vtp import NAME FILE OUT [OPTION=VALUE ...]

  NAME    which importer; they come from plugins
  FILE    the checkpoint: a file or a folder, as the importer says
  OUT     a new folder for model.safetensors, config.json and import_report.json

The result is a vtp checkpoint: use it with init_from=OUT or checkpoint=OUT. Files are read without executing anything
that is in them. The report lists every tensor that was used, dropped or found missing.
"""


def main(arguments: list[str]) -> int:
    """Convert, and print what became of every tensor."""
    from vtp.plugins import host

    registry = host().registry
    names = [entry.name for entry in registry.entries("importer")]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        print(f"importers: {', '.join(names) or 'none; plugins offer them'}")
        return 0
    paths = [argument for argument in arguments[1:] if "=" not in argument]
    if strange := [path for path in paths if path.startswith("-")]:
        raise ConfigError(f"there is no {strange[0]}: options are KEY=VALUE. `vtp import --help` explains.")
    if len(paths) != 2:
        raise ConfigError(
            f"expected NAME FILE OUT, got {' '.join(arguments)}. Importers: {', '.join(names) or 'none'}."
        )
    importer = registry.get("importer", arguments[0]).load()
    options = _options(importer, arguments[0], [argument for argument in arguments[1:] if "=" in argument])
    if not all(path.strip() for path in paths):
        raise ConfigError("expected the names of a checkpoint and of a new folder, got an empty one.")
    source, out = Path(paths[0]).expanduser(), Path(paths[1]).expanduser()
    if not source.exists():
        raise DataError(f"{source} does not exist.")
    if out.exists():
        raise DataError(f"{out} exists already. Give the name of a new folder, or remove it first.")
    refuse_file(out)
    spec, state, report = _given(title("importer", arguments[0]), importer(source, **options))
    from vtp.model.build import build_model, lookup_in
    from vtp.model.weights import fill

    model = build_model(spec, lookup_in(registry))
    fill(model, state, source, allow_missing=report.get("missing", {}))
    origin = {"importer": arguments[0], "source": str(source), "options": options}
    _write(out, model, report, {"import": {**origin, "kind": report.get("kind", "")}, **_trained_on(source)})
    print(_summary(report, model))
    print(f"written to {out}; details in {out / 'import_report.json'}")
    return 0


def _given(who: str, found: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What an importer returned, checked before anything is written."""
    if not (isinstance(found, tuple) and len(found) == 3 and all(isinstance(part, Mapping) for part in found)):
        kinds = ", ".join(type(part).__name__ for part in found) if isinstance(found, tuple) else type(found).__name__
        raise PluginError(f"{who} returned ({kinds}), expected (specification, tensors, report), three dicts.")
    spec, state, report = (dict(part) for part in found)
    if strange := [name for name, tensor in state.items() if not hasattr(tensor, "copy_")]:
        raise PluginError(f"{who} returned {strange[0]!r} as {type(state[strange[0]]).__name__}, expected a tensor.")
    if not isinstance(report.get("used"), Collection) or isinstance(report["used"], str):
        raise PluginError(f"{who} returned a report without 'used', expected the names of the tensors that it used.")
    for key in ("dropped", "missing"):
        if not isinstance(report.get(key, {}), Mapping):
            found_kind = type(report[key]).__name__
            raise PluginError(f"{who} returned report[{key!r}] as {found_kind}, expected a dict of name to reason.")
    return spec, state, report


def _options(importer: Importer, name: str, arguments: list[str]) -> dict[str, Any]:
    """``heads=4`` as the importer's keyword arguments."""
    options = key_values(arguments)
    problems: list[str] = []
    check_options("", name, importer, options, problems, given=list(inspect.signature(importer).parameters)[:1])
    refuse(problems)
    return options


def _trained_on(source: Path) -> dict[str, Any]:
    """``stages`` of a checkpoint of vtp: its weights have seen the same clips when they are another model's. Of a
    foreign one nothing is known."""
    from vtp.run.stages import recorded
    from vtp.train.checkpoint import locate

    folder = source if source.is_dir() else source.parent
    if (folder / "checkpoints").is_dir():  # a run folder
        folder = locate(folder)
    return {"stages": recorded(folder)} if (folder / "provenance.json").is_file() else {}


def _write(out: Path, model: VTPModel, report: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    from vtp.model.weights import save_weights
    from vtp.storage import ELSEWHERE, DirectoryTransaction

    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    with DirectoryTransaction(out, size, ELSEWHERE) as folder:
        save_weights(folder, model, provenance)
        (folder / "import_report.json").write_text(
            json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def _summary(report: Mapping[str, Any], model: VTPModel) -> str:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    lines = [f"{report.get('kind', 'checkpoint')}: {len(report['used'])} tensors used, {parameters:,} parameters"]
    lines += [f"  note: {note}" for note in report.get("notes", [])]
    for what in ("dropped", "missing"):
        reasons: dict[str, list[str]] = {}
        for name, reason in report.get(what, {}).items():
            reasons.setdefault(reason, []).append(name)
        for reason, names in reasons.items():
            shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            lines.append(f"  {what}: {shown} ({reason})")
    return "\n".join(lines)
