"""The documentation site: what it generates is of the code, everything has its place, and it builds strictly."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from blocks import ROOT, blocks_of

from vtp.cli.run import compose
from vtp.hookspecs import HOOKS

TOOLS = ROOT / "tools" / "docs"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """tools/docs/build.py as a module."""
    sys.path.insert(0, str(TOOLS))
    try:
        spec = importlib.util.spec_from_file_location("site_of_vtp", TOOLS / "build.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(TOOLS))
    return module


def test_every_hook_has_a_page_with_an_example_that_exists(tool: ModuleType):
    generated = sys.modules["generated"]
    pages = dict(generated.hook_pages())
    assert pages.keys() == {f"hooks/{kind}.md" for kind in HOOKS.values()}
    for (hook, kind), text in zip(HOOKS.items(), pages.values(), strict=True):
        assert f"## `{hook}`" in text and "## Example" in text
        shown = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
        assert any(f"def {hook}(" in block for block in shown), hook
        for block in shown:
            ast.parse(block)
        for path in generated.EXAMPLES[kind] if isinstance(generated.EXAMPLES[kind], list) else ():
            source = (ROOT / path).read_text().rstrip()
            assert path.endswith("plugin.py") or source in text


def test_a_page_without_a_place_and_a_place_without_a_page_are_told(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Site\n\nWhat it is. More of it.\n")
    (tmp_path / "docs" / "one.md").write_text("# One\n\nSee docs/one.md, `docs/one.md`.\n\n    docs/one.md\n")
    navigation = tmp_path / "docs" / "navigation.yaml"
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setattr(tool, "COPIED", {})
    monkeypatch.setattr(tool, "generated_pages", dict)
    navigation.write_text("[{section: Start, about: First., pages: []}]")
    with pytest.raises(tool.Wrong, match="no place for one.md"):
        tool.lay_out(tmp_path / "out")
    navigation.write_text("[{section: Start, about: First., pages: [one.md, two.md]}]")
    with pytest.raises(tool.Wrong, match="names two.md, and there is no such page"):
        tool.lay_out(tmp_path / "out")
    navigation.write_text("[{section: Start, about: First., pages: [one.md]}]")
    assert tool.lay_out(tmp_path / "out") == {"Start": ["one.md"]}
    assert "See [One](/one.md), `docs/one.md`.\n\n    docs/one.md\n" in (tmp_path / "out" / "one.md").read_text()
    assert (tmp_path / "out" / "llms.txt").read_text() == (
        "# Site\n\n> What it is.\n\n## Start\n\nFirst.\n\n- [One](one.md): See One, docs/one.md.\n"
    )


def test_what_is_loaded_from_elsewhere_is_found(tool: ModuleType, tmp_path: Path):
    (tmp_path / "a.html").write_text(
        '<a href="https://example.org">read</a><link rel="canonical" href="https://example.org">'
        '<script src="_static/a.js"></script><img src="data:image/png;base64,AAAA">'
    )
    assert tool.elsewhere(tmp_path) == []
    for line in ('<script async src="https://cdn/x.js">', '<link rel="stylesheet" href="//fonts/x.css">'):
        (tmp_path / "b.html").write_text(line)
        assert len(tool.elsewhere(tmp_path)) == 1
    (tmp_path / "b.html").unlink()
    (tmp_path / "c.css").write_text("@font-face { src: url(https://fonts/x.woff2) }")
    assert len(tool.elsewhere(tmp_path)) == 1


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for library in ("sphinx", "myst_parser", "pydata_sphinx_theme"):
        pytest.importorskip(library, reason="the site is built with pip install -e '.[docs]'")
    done = subprocess.run([sys.executable, TOOLS / "build.py", tmp_path], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and not done.stderr.strip(), done.stderr[-3000:]
    html, source = tmp_path / "html", tmp_path / "source"
    told = (html / "llms.txt").read_text()
    linked = re.findall(r"^- \[[^\]]+\]\(([^)]+)\)", told, re.M)
    assert sorted(linked) == sorted(
        page.relative_to(source).as_posix()
        for page in source.rglob("*.md")
        if page.parent != source or page.stem not in {"index", *re.findall(r"^## (\w+)$", told.lower(), re.M)}
    )
    assert all((html / page).exists() and (html / page).with_suffix(".html").exists() for page in linked)
    assert (html / "searchindex.js").stat().st_size > 10_000
    count: Counter[str] = Counter()
    for page in sorted((*source.glob("hooks/*.md"), *source.glob("reference/**/*.md"))):
        for block in blocks_of(page, source):
            count[block.language] += 1
            if block.language == "python":
                ast.parse(block.text)
            elif block.language == "yaml":
                assert yaml.safe_load(block.text) is not None, block.name
            elif block.language == "bash":
                for command in block.commands():
                    words = shlex.split(command)
                    if words[:2] == ["vtp", "run"] and "my_" not in command:
                        compose([*words[2:], "run_dir=x"])
            else:
                assert block.language == "text" and page.name == "commands.md", block.name  # what --help prints
    with capsys.disabled():
        told = ", ".join(f"{number} of {what}" for what, number in count.most_common())
        print(f"\nGenerated pages: {sum(count.values())} blocks ({told})")
    assert min(count["python"], count["yaml"], count["bash"]) > 20
