"""The documentation site: `make docs`, or `python tools/docs/build.py [OUT]` (build/docs without one).

Three steps, so that docs/ stays what is read in the repository:

1. *Lay out* the sources in OUT/source: docs/ as it is, contributing.md, changelog.md and examples.md from the root, the
   generated pages (generated.py), a page for each section of docs/navigation.yaml, and llms.txt. "docs/data.md" in
   running text becomes a link to that page.
2. *Build* OUT/html with Sphinx; a warning is an error.
3. *Look* for addresses of scripts, styles, fonts and pictures elsewhere: there must be none.

Exit code 0: built. 1: Sphinx or a check found something, which is printed. 2: a library is missing, or navigation.yaml
and the pages do not fit together.
"""

from __future__ import annotations

import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))

from generated import generated_pages  # noqa: E402  (lies beside this file)

COPIED = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",
    "kernels/RESOURCES.md": "kernels.md",
}
MARKUP = ("#", "|", "```", "!", "<", "    ", "- ", "* ")  # what a paragraph does not begin with
NEEDED = ("sphinx", "myst_parser", "pydata_sphinx_theme")
PICTURE = re.compile(r"(?<=\]\()\.\./([\w./-]+\.(?:png|svg))(?=\))")
SPOKEN = re.compile(r"(?<![\w/\[(`])docs/([\w/-]+\.md)(?!\))")


class Wrong(Exception):
    """Navigation and pages do not fit together."""


def main(arguments: list[str]) -> int:
    out = Path(arguments[0] if arguments else ROOT / "build" / "docs").resolve()
    if lacking := [name for name in NEEDED if find_spec(name) is None]:
        print(f"{lacking[0]} is not installed: pip install -c constraints.txt -e '.[docs]'", file=sys.stderr)
        return 2
    try:
        sections = lay_out(out / "source")
    except Wrong as error:
        print(error, file=sys.stderr)
        return 2
    return build(out, sections)


def lay_out(source: Path) -> dict[str, list[str]]:
    """Write every page of the site into ``source``.

    Returns:
        section -> its pages, as navigation.yaml orders them.

    Raises:
        Wrong: a page is in no section, or a section names one that is not there.
    """
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "docs", source)
    for name, target in COPIED.items():
        shutil.copyfile(ROOT / name, source / target)
    for name, text in generated_pages().items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text, encoding="utf-8")
    for page in source.rglob("*.md"):
        page.write_text(linked(page.read_text(encoding="utf-8"), source), encoding="utf-8")
    navigation = yaml.safe_load((source / "navigation.yaml").read_text(encoding="utf-8"))
    sections = {entry["section"]: _pages(entry["pages"], source) for entry in navigation}
    _refuse(sections, source)
    for entry in navigation:
        name = entry["section"]
        (source / f"{name.lower()}.md").write_text(_section(entry, sections[name], source), encoding="utf-8")
    index = source / "index.md"
    index.write_text(f"{index.read_text(encoding='utf-8').rstrip()}\n\n{_toctree(_files(sections))}", encoding="utf-8")
    (source / "llms.txt").write_text(llms(navigation, sections, source), encoding="utf-8")
    return sections


def linked(text: str, source: Path) -> str:
    """``docs/data.md`` in running text as a link to that page; code is left alone."""
    out, fence = [], False
    for line in text.splitlines():
        fence ^= line.startswith("```")
        if not fence and not line.startswith(("    ", "```")):
            parts = line.split("`")
            parts[::2] = [SPOKEN.sub(lambda found: _link(found, source), part) for part in parts[::2]]
            line = "`".join(parts)
            line = PICTURE.sub(lambda found: _picture(found[1], source), line)
            for name, target in COPIED.items():
                line = line.replace(f"](../{name})", f"](/{target})")
        out.append(line)
    return "\n".join(out) + "\n"


def _picture(name: str, source: Path) -> str:
    """A picture of the repository that lies outside docs/, such as the result of a benchmark, in the site."""
    (source / "pictures").mkdir(exist_ok=True)
    shutil.copyfile(ROOT / name, source / "pictures" / Path(name).name)
    return f"/pictures/{Path(name).name}"


def _link(found: re.Match[str], source: Path) -> str:
    if not (source / found[1]).exists():
        raise Wrong(f"{found[0]} is spoken of, and there is no such page")
    return f"[{title(source / found[1])}](/{found[1]})"


def title(page: Path) -> str:
    """The first heading of a page, without code marks."""
    first = next((line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("# ")), None)
    if first is None:
        raise Wrong(f"{page.name} has no heading")
    return first[2:].replace("`", "").strip()


def summary(page: Path) -> str:
    """The first sentence of the first paragraph, as plain text."""
    blocks = page.read_text(encoding="utf-8").split("\n\n")
    words = [b for b in blocks if b.strip() and not b.lstrip("\n").startswith(MARKUP)]
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(words[0].split())) if words else ""
    plain = re.sub(r"`|\*\*", "", plain)
    return re.split(r"(?<=[a-z0-9)*])\.(?=\s|$)", plain, maxsplit=1)[0].rstrip(".:") + "." if plain else ""


def _pages(wanted: list[str], source: Path) -> list[str]:
    found = []
    for name in wanted:
        files = sorted(source.glob(name if name.endswith(".md") else f"{name}.md"))
        if not files:
            raise Wrong(f"navigation.yaml names {name}, and there is no such page")
        found += [file.relative_to(source).as_posix() for file in files]
    return found


def _refuse(sections: dict[str, list[str]], source: Path) -> None:
    there = {page.relative_to(source).as_posix() for page in source.rglob("*.md")} - {"index.md"}
    named = [page for pages in sections.values() for page in pages]
    if lost := sorted(there - set(named)):
        raise Wrong(f"docs/navigation.yaml has no place for {', '.join(lost)}")
    if twice := sorted({page for page in named if named.count(page) > 1}):
        raise Wrong(f"docs/navigation.yaml names {', '.join(twice)} twice")


def _files(sections: dict[str, list[str]]) -> list[str]:
    return [f"{name.lower()}.md" for name in sections]


def _section(entry: dict[str, str], pages: list[str], source: Path) -> str:
    rows = [f"- [{title(source / page)}](/{page}): {_rest(summary(source / page))}".rstrip(": ") for page in pages]
    return f"# {entry['section']}\n\n{entry['about']}\n\n" + "\n".join(rows) + f"\n\n{_toctree(pages)}"


def _rest(sentence: str) -> str:
    return sentence.replace("<", "&lt;")


def _toctree(pages: list[str]) -> str:
    return "```{toctree}\n:hidden:\n\n" + "\n".join(f"/{page}" for page in pages) + "\n```\n"


def llms(navigation: list[dict[str, str]], sections: dict[str, list[str]], source: Path) -> str:
    """llms.txt: what the site is and every page with a sentence, for programs that read; links go to the Markdown."""
    lines = [f"# {title(source / 'index.md')}", "", f"> {summary(source / 'index.md')}", ""]
    for entry in navigation:
        lines += [f"## {entry['section']}", "", entry["about"], ""]
        for page in sections[entry["section"]]:
            lines.append(f"- [{title(source / page)}]({page}): {summary(source / page)}".rstrip(": "))
        lines.append("")
    return "\n".join(lines)


def build(out: Path, sections: dict[str, list[str]]) -> int:
    """Sphinx, strictly; then the Markdown of each page and llms.txt beside the HTML."""
    from sphinx.cmd.build import main as sphinx

    html = out / "html"
    shutil.rmtree(html, ignore_errors=True)
    code = sphinx(["-b", "html", "-W", "--keep-going", "-q", "-d", str(out / "trees"), str(out / "source"), str(html)])
    if code:
        return 1
    for page in (out / "source").rglob("*.md"):
        shutil.copyfile(page, html / page.relative_to(out / "source"))
    shutil.copyfile(out / "source" / "llms.txt", html / "llms.txt")
    if foreign := elsewhere(html):
        print("\n".join(f"loaded from elsewhere: {line}" for line in foreign), file=sys.stderr)
        return 1
    print(f"{html / 'index.html'}: {sum(map(len, sections.values()))} pages, no warning, nothing loaded from elsewhere")
    return 0


LOADED = re.compile(
    r"<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=[\"'](?:https?:)?//"
    r"|<link\b(?![^>]*rel=[\"']canonical)[^>]*\bhref=[\"'](?:https?:)?//"
    r"|@import\s+(?:url\()?[\"']?(?:https?:)?//|url\([\"']?(?:https?:)?//"
)


def elsewhere(html: Path) -> list[str]:
    """What pages and styles would fetch from another host."""
    found = []
    for file in sorted((*html.rglob("*.html"), *html.rglob("*.css"))):
        for match in LOADED.finditer(file.read_text(encoding="utf-8", errors="replace")):
            found.append(f"{file.relative_to(html)}: {match[0][:100]}")
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
