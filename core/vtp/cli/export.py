"""``vtp export MODEL OUT``: ONNX of each tower, or one folder of plain weights; ``vtp export NAME ...`` is the command
``export-NAME`` of a plugin, which writes for another program."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Annotated, Any

from vtp.cli.arguments import Parser, a, place
from vtp.errors import ConfigError
from vtp.ranges import Range
from vtp.shown import one_line
from vtp.types import MODALITIES

__all__ = ["main"]

ABOUT = """Write the towers of a model as ONNX, or all of it up to answers or the match of a pair, compared with torch
through onnxruntime, and export.json with what goes in and how it is prepared:

  vtp export outputs/DATE/TIME exported
  vtp export model=clip exported --tower text
  vtp export outputs/DATE/TIME answering --objective qa    encoders, fusion and head in one
  vtp export outputs/DATE/TIME merged --format vtp     a folder for vtp.load, adapters merged into the weights

exit code: 0 everything exported, 1 some did not (they are named), 2 a mistake."""


def main(arguments: list[str]) -> int:
    """Export, and print a line per tower."""
    if len(arguments) > 1 and (written := _of_a_plugin(arguments[0])) is not None:
        return int(written(arguments[1:]) or 0)
    parser = Parser(prog="vtp export", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", type=place, help="what vtp.load takes: a run, a folder, a name")
    parser.add_argument("out", metavar="OUT", type=place, help="a new folder")
    parser.add_argument("--format", choices=("onnx", "vtp"), default="onnx", help="onnx, vtp (%(default)s)")
    parser.add_argument("--objective", default=None, help="whose embeddings, answers or matches")
    parser.add_argument(
        "--tower", choices=(*MODALITIES, "fused"), action="append", default=[], help="only this one; may be repeated"
    )
    parser.add_argument("--opset", type=a(Annotated[int, Range(least=18, most=25)]), default=None, help="of ONNX (20)")
    parsed = parser.parse_args(arguments)
    if parsed.format == "vtp":
        if parsed.tower or parsed.objective or parsed.opset is not None:
            parser.error("--tower, --objective and --opset are of --format onnx; --format vtp writes the whole model")
        if Path(parsed.out).exists():
            raise ConfigError(f"{parsed.out} is there already. Name a new folder.")
        from vtp.use.loading import load

        model = load(parsed.model, device="cpu", workers=0, kernels="torch")
        print(one_line(f"written to {model.save(parsed.out)}"))
        return 0
    from vtp.use.export import TOLERANCE, export, libraries, parts_of

    libraries()  # before a large model is loaded
    from vtp.use.loading import load

    model = load(parsed.model, device="cpu", workers=0, kernels="torch")
    done = export(model, Path(parsed.out), objective=parsed.objective, towers=parsed.tower, opset=parsed.opset or 20)
    for one in done:
        if one.error:
            print(one_line(f"{one.part:<5}  does not export: {one.error}"))
        else:
            print(f"{one.part:<5}  {one.part}.onnx  differs by {one.difference:.1e} ({TOLERANCE:g} allowed)")
    if not (parsed.objective or parsed.tower):
        for line in _left_out(parts_of(model)):
            print(one_line(line))
    failed = [one for one in done if one.error]
    print("nothing is written" if failed == done else one_line(f"in {parsed.out}: export.json says what goes in"))
    return 1 if failed else 0


def _left_out(parts: dict[str, list[str]]) -> list[str]:
    """A line for each objective behind the first that embeds what none before it does, as its towers lie in another
    space, or that answers or matches."""
    lines: list[str] = []
    written: set[str] = set()
    for number, (name, found) in enumerate(parts.items()):
        if number and (more := [part for part in found if part in MODALITIES and part not in written]):
            lines.append(f"{' and '.join(more)}  is in the space of {name}: --objective {name} exports it")
        if number and "fused" in found:
            lines.append(f"fused  with the head of {name}: --objective {name} exports it")
        written |= {*found}
    return lines


def _of_a_plugin(name: str) -> Any:
    """What writes for another program, such as ``antmmf``; None where no plugin has that."""
    from vtp.plugins import host

    registry, command = host().registry, f"export-{name}"
    there = any(entry.name == command for entry in registry.entries("command"))
    return registry.get("command", command).load() if there else None
