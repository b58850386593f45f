"""Folders that are not there are told as such, without asking the hub."""

from __future__ import annotations

import pytest

import vtp
from vtp.errors import DataError
from vtp.use.places import is_path, near


def test_what_nobody_can_mean_as_a_name_on_the_hub():
    for name in ("./index", "../a", "~/a", "/a/b", "a/", "a/b/c", "outputs/indx"):
        assert is_path(name)
    for name in ("index", "organisation/name", "openai/clip-vit-base-patch32", "outputs", "model=clip"):
        assert not is_path(name)


def test_what_lies_beside_the_part_that_is_not_there(tmp_path, monkeypatch):
    (tmp_path / "outputs" / "index").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert near("outputs/indx") == near("outputs/indx/checkpoints/last") == " Did you mean 'index'?"
    assert near(str(tmp_path / "output" / "index")) == " Did you mean 'outputs'?"
    assert near("outputs/zzz") == near("zzz") == near("x\0y") == ""


def test_the_hub_is_not_asked_for_a_path(tmp_path, monkeypatch):
    (tmp_path / "outputs" / "index").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *given, **how: pytest.fail("the hub was asked"))
    for name in ("outputs/indx", "./outputs/indx", f"{tmp_path}/outputs/indx", "outputs/indx/"):
        with pytest.raises(DataError, match=f"^load: there is no folder {name}. Did you mean 'index'"):
            vtp.load(name, device="cpu")
    with pytest.raises(DataError, match="no name on the hub .* Did you mean 'outputs'"):
        vtp.load("output", device="cpu")
