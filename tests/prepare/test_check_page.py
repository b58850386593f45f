from __future__ import annotations

from vtp.prepare.check import Finding
from vtp.prepare.check_page import ROWS, page


def test_good_files_are_on_the_page_however_many_are_missing():
    found = [Finding(f"gone{i}.mp4", "missing", reason="no such file") for i in range(2 * ROWS)]
    found += [Finding("broken.mp4", "bad", reason="<b>"), Finding("good.mp4", "ok", thumbnail="QUJD")]
    empty = {name: [] for name in ("gaps", "tables", "overlaps", "annotations")}
    report = {"target": "x", "verdict": "v", "how": "h", "ok": False, "summary": {}, "distributions": {}, **empty}
    text = page(report, found, {})
    rows = [row for row in text.split("<tr>") if 'class="path"' in row]
    assert len(rows) == ROWS and "broken.mp4" in rows[0] and "bad: &lt;b&gt;" in rows[0] and "good.mp4" in rows[-1]
    assert f"(1,000 of {2 * ROWS + 2:,}; all: report.json)" in text
