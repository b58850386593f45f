"""The reader that docs/datasets.md shows: a small class with everything that the built-in ones have."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from vtp import plugins
from vtp.catalogue import Catalogue
from vtp.cli.main import main
from vtp.errors import ConfigError, DataError
from vtp.testing import check_dataset

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
(CODE,) = re.findall(r"```python\n(.*?)```", DOCS, re.S)
FILES = {
    "annotations/talks_train.csv": "talk,title\nt1,On clouds\nt2,\nt3,On rain\n",
    "annotations/talks_test.csv": "title\ttalk\nOn wind\tt4\n",
    "videos/t1.webm": "",
}


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def talks(tmp_path):
    """The class, and a root with its files."""
    write(tmp_path / "root", FILES)
    scope = {"__name__": "talks"}
    exec(compile(CODE, "docs/datasets.md", "exec"), scope)
    return scope["Talks"], tmp_path / "root"


def test_its_samples(talks):
    reader, root = talks
    dataset = reader(root=root)
    assert dataset.splits("caption") == ("train", "test") and len(dataset.samples("caption", "val")) == 0
    table = dataset.samples("retrieval", "train")
    assert [(s.id, s.texts, s.video.path) for s in table] == [
        ("t1", ("On clouds",), str(root / "videos" / "t1.webm")), ("t3", ("On rain",), str(root / "videos" / "t3.mp4")),
    ]  # fmt: skip
    assert dataset.samples("caption", "test")[-1].extra == {"video_id": "t4", "source": "talks_test.csv:2"}
    files = dataset.origin()["files"]
    assert [(f["rows"], f["malformed_first"]) for f in files] == [(2, ["line 3: no title"]), (1, [])]
    assert dataset.origin()["tables"]["retrieval/train"] == {"samples": 2, "clips": 2, "clips_on_disk": 1}


def test_what_it_does_not_have(talks, tmp_path, monkeypatch):
    monkeypatch.setenv("VTP_DATA", str(tmp_path))
    dataset = talks[0]()
    with pytest.raises(DataError) as error:
        dataset.samples("caption", "train")
    assert str(error.value).splitlines()[:7] == [
        f"talks is not complete under {tmp_path / 'talks'}. Missing:",
        f"  folder  {tmp_path / 'talks'}",
        "  file    talks_train.csv",
        "  file    talks_test.csv",
        "  media   talk1.mp4 ..., in videos/",
        "Looked for files in ./, annotations/ of that folder. dataset.root=FOLDER names another folder.",
        "Where Talks comes from: the page of its authors",
    ]
    with pytest.raises(ConfigError, match="no table of the kind 'qa'; it has: caption, retrieval"):
        dataset.samples("qa", "train")


def test_it_keeps_the_contract(talks):
    check_dataset(talks[0], {"root": talks[1]})


def test_a_reader_without_a_plan_is_none():
    with pytest.raises(TypeError, match="abstract"):
        type("Nothing", (Catalogue,), {"name": "nothing", "kinds": ("caption",)})()


def test_it_is_checked_as_a_plugin(talks, tmp_path, monkeypatch, capsys):
    site = tmp_path / "site"
    files = {
        "talks-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: talks\nVersion: 1\nRequires-Dist: vtp-core\n",
        "talks-1.0.dist-info/entry_points.txt": "[vtp.plugins]\ntalks = talks.plugin\n",
        "talks/__init__.py": "",
        "talks/data.py": CODE,
        "talks/plugin.py": "from vtp import hookimpl\n\n@hookimpl\ndef vtp_register_datasets(register):\n"
        "    register('talks', 'talks.data:Talks')\n",
        "talks/conf/dataset/talks.yaml": "name: talks\nroot: null\nvideos: null\n",
    }
    write(site, files)
    monkeypatch.syspath_prepend(str(site))
    plugins.host.cache_clear()
    try:
        out = tmp_path / "out"
        main(["data", "check", "talks", f"root={talks[1]}", "--out", str(out), "--workers", "1"])
    finally:
        plugins.host.cache_clear()
    report = json.loads((out / "report.json").read_text())
    assert report["media"]["files"] == 3 and report["media"]["missing"] == 2
    assert "line 3: no title" in json.dumps(report)
