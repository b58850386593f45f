"""The packages of the core lie on floors: one imports from its own floor and from those below."""

from __future__ import annotations

import ast
from pathlib import Path

import vtp

FLOORS = [
    ["cli", "use"],
    ["run", "prepare"],
    ["eval"],
    ["train"],
    ["data"],
    ["media"],
    ["model"],
]  # the uppermost first
CORE = Path(vtp.__file__).parent


def imported(file: Path) -> set[str]:
    """Rooms that a module imports from, also inside functions and for types."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"vtp.{a.name}" for a in node.names] if node.module == "vtp" else [str(node.module)]
        found |= {name.split(".")[1] for name in names if name.startswith("vtp.")}
    return found


def test_no_import_goes_up():
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    assert all((CORE / room).is_dir() for room in floor)
    upward = [
        f"{file.relative_to(CORE)} imports vtp.{other}"
        for room in floor
        for file in sorted((CORE / room).rglob("*.py"))
        for other in imported(file)
        if floor.get(other, len(FLOORS)) < floor[room]
    ]
    assert upward == []
