"""One clip has one name however its path is spelled, and different files never share one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vtp.catalogue import VIDEOS, Paths


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name in ("clips/a.mp4", "clips/b.webm", "clips/sub/a.mp4", "list/a.mp4", "list/c.mp4", "list/sub/d.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_every_spelling_of_one_file(folders, monkeypatch):
    monkeypatch.chdir(folders)
    (folders / "link").symlink_to(folders / "clips")
    plain = ["a.mp4", "./a.mp4", "a", "./a", "sub/../a.mp4", "sub//..//a", ".\\a.mp4", "../clips/a.mp4", "../clips/a"]
    whole = [str(folders / "clips" / "a.mp4"), f"{folders}/clips/./a", f"{folders}//clips/a.mp4"]
    for root in (folders / "clips", Path("clips"), Path("./clips"), folders / "link"):
        paths = Paths([root], VIDEOS)
        assert {paths.clip(name) for name in plain + whole} == {"a.mp4"}
        assert {paths.ref(name).path for name in plain[:-2]} == {str(root / "a.mp4")}  # one entry in a cache


def test_different_files_have_different_names(folders):
    paths = Paths([folders / "clips", folders / "list"], VIDEOS)
    names = [
        "a",
        "sub/a",
        "b",
        "c",
        "sub/d",
        "../list/a",
        "../list/sub/d.mp4",
        "gone.mp4",
        "sub/gone",
        "/elsewhere/a.mp4",
    ]
    found = {name: paths.clip(name) for name in names}
    assert found == {
        "a": "a.mp4",
        "sub/a": "sub/a.mp4",
        "b": "b.webm",
        "c": "c.mp4",
        "sub/d": "sub/d.mp4",
        "../list/a": str(folders / "list" / "a.mp4"),  # the first folder has a file of that name
        "../list/sub/d.mp4": "sub/d.mp4",
        "gone.mp4": "gone.mp4",
        "sub/gone": "sub/gone",
        "/elsewhere/a.mp4": "/elsewhere/a.mp4",
    }
    for name in names[:7]:
        assert os.path.samefile(paths.ref(name).path, paths.ref(found[name]).path)


def test_names_with_an_extension_cost_no_look_at_the_disk(folders, monkeypatch):
    paths = Paths([folders / "clips"], VIDEOS)
    monkeypatch.setattr(os, "stat", None)
    monkeypatch.setattr(os.path, "exists", None)
    assert paths.clip("sub/a.mp4") == "sub/a.mp4" and paths.clip("./x.mp4") == "x.mp4"
    assert paths.clip(str(folders / "clips/q.mp4")) == "q.mp4"


def test_composed_and_decomposed_letters_are_one_name(folders):
    paths = Paths([folders / "clips"], VIDEOS)
    assert paths.clip("cafe\u0301.mp4") == paths.clip("caf\u00e9.mp4") == "caf\u00e9.mp4"
