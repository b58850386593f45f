from __future__ import annotations

import os

from vtp.prepare.check import Finding, Known


def test_known_findings_survive_names_that_are_no_text(tmp_path):
    known = Known(tmp_path / "files.jsonl")
    path = os.fsdecode(b"\xff\xfe.mp4")
    known.add(Finding(path, "ok", bytes=3, mtime_ns=4, settings="s"))
    again = Known(tmp_path / "files.jsonl")
    assert again.get(path, (3, 4, "s"), False).path == path
    assert again.get(path, (3, 5, "s"), False) is None and again.get(path, (3, 4, "t"), False) is None
