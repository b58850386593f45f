"""What every data set promises, checked for those without annotation files; test_readers.py checks the readers."""

from __future__ import annotations

from vtp.testing import check_dataset
from vtp_datasets.own import OwnData
from vtp_datasets.shapes import Shapes


def test_generated_clips(tiny):
    check_dataset(Shapes, {"size": "tiny", "root": str(tiny.root)})


def test_own_data(tmp_path):
    rows = [f"clips/{i}.mp4,what runs in {i}?,dog {i % 2}" for i in range(40)]
    (tmp_path / "my.csv").write_text("\n".join(["video,question,answer", *rows]))
    check_dataset(OwnData, {"file": str(tmp_path / "my.csv")})
