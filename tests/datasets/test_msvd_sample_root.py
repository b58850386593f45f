"""The documented script makes an MSVD root of which five clips are there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from vtp_datasets.msvd import MSVD, MSVDCN

TOOL = Path(__file__).resolve().parents[2] / "tools" / "msvd_sample_root.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("msvd_sample_root", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.data
def test_the_root_is_complete_but_for_the_clips(tool, shared_data, tmp_path, capsys):
    assert tool.main([str(shared_data), str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "5 clips, 102 of 30,933 train questions, 22 of 6,415 val questions, 23 of 13,157 test questions" in printed
    assert f"vtp run task=msvd_qa dataset.root={tmp_path}" in printed
    dataset, chinese = MSVD(root=tmp_path), MSVDCN(root=tmp_path)
    here = {s.id for s in dataset.samples("qa", "test") if Path(s.video.path).is_file()}
    assert len(here) == 23 and len(dataset.samples("qa", "test")) == 13_157
    for split, clips in (("train", 3), ("val", 0), ("test", 2)):
        assert sum(dataset.samples("retrieval", split).clips_on_disk().values()) == clips
        assert sum(chinese.samples("retrieval", split).clips_on_disk().values()) == clips
    assert tool.main([str(shared_data), str(tmp_path), "--copy"]) == 0  # again, over what is there
    assert not any(path.is_symlink() for path in (tmp_path / "videos").iterdir())


def test_another_folder_is_refused(tool, tmp_path, capsys):
    assert tool.main([str(tmp_path), str(tmp_path / "out")]) == 2
    assert "captions_msvd.json" in capsys.readouterr().err and not (tmp_path / "out").exists()
