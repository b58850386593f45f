"""Every block of commands or code in README and docs. Not a test module."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
PROGRAMS = ("vtp", "torchrun", "pip", "python", "make", "git", "pytest")


@dataclass(frozen=True)
class Block:
    """A fenced or an indented block.

    Attributes:
        page: path from the root of the repository.
        line: of the page, where it begins, from 1.
        language: behind the fence; "" where there is none.
        text: without fence and indentation.
    """

    page: str
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line} {self.text.strip().splitlines()[0][:60]}"

    @property
    def is_commands(self) -> bool:
        words = [line.strip().partition(" ")[0] for line in self.text.splitlines() if not re.match(r"\s*#", line)]
        runs = [word in PROGRAMS or re.match(r"[A-Z_]+=", word) for word in words if word]
        return self.language in ("bash", "sh", "console") or (self.language == "" and any(runs))

    def commands(self) -> list[str]:
        """One command each, without comments; a line that ends with a backslash goes on in the next."""
        found = []
        for line in re.sub(r"\\\n\s*", " ", self.text).splitlines():
            bare = re.split(r"\s+#\s|\s{3,}", line.strip())[0]
            found += [one.strip() for one in re.split(r"\s(?:;|&&)\s", bare) if one.strip()]
        return found


def blocks() -> list[Block]:
    """All blocks of all pages, in order."""
    return [block for page in PAGES for block in blocks_of(page)]


def texts_of(page: str) -> str:
    """A page as it stands."""
    return (ROOT / page).read_text(encoding="utf-8")


def written_to(block: Block) -> str | None:
    """The file that a block is, where the line before it is nothing but its path: a path with a dot, in back quotes."""
    before = [line for line in texts_of(block.page).splitlines()[: block.line - 1] if line.strip()]
    named = re.fullmatch(r"`([\w./-]+\.\w+)`", before[-1].strip()) if before else None
    return named[1] if named else None


def blocks_of(page: Path, root: Path = ROOT) -> list[Block]:
    """The blocks of one page below ``root``; directives of the site, such as its tables of contents, are none."""
    lines = page.read_text(encoding="utf-8").splitlines()
    name = page.relative_to(root).as_posix()
    found = []
    row = 0
    while row < len(lines):
        first = row
        if lines[row].startswith("```"):
            row += 1
            fence = lines[first][: len(lines[first]) - len(lines[first].lstrip("`"))]
            while not lines[row].startswith(fence):
                row += 1
            language = lines[first].lstrip("`").strip()
            if not language.startswith("{"):
                found.append(Block(name, first + 1, language, "\n".join(lines[first + 1 : row])))
        elif lines[row].startswith("    ") and (row == 0 or not lines[row - 1].strip()):
            while row + 1 < len(lines) and (lines[row + 1].startswith("    ") or _goes_on(lines, row + 1)):
                row += 1
            text = "\n".join(line[4:] for line in lines[first : row + 1])
            found.append(Block(name, first + 1, "", text))
        row += 1
    return found


def _goes_on(lines: list[str], row: int) -> bool:
    """Whether an empty line lies within an indented block."""
    return not lines[row].strip() and row + 1 < len(lines) and lines[row + 1].startswith("    ")
