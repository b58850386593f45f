"""report.html: what it shows, that nothing in it can be anything but text, and that a browser has no complaint."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from vtp.eval.ledger import Ledger
from vtp.eval.report_page import page, picked
from vtp.eval.task import ReportTable, TaskResult
from vtp.types import MediaRef, Sample

HOSTILE = "<img src=x onerror=alert(1)></script><b>\"dog\" & 'cat'\udcff"


def clip(number: int) -> Sample:
    return Sample(f"ret{number}", MediaRef(f"v{number}.mp4"), None, ("a",), {}, {"video_id": f"video{number}"})


def retrieved(number: int, rank: float, first: int | None = None, sure: float = 0.5, direction: str = "t2v") -> dict:
    top = [[f"video{number if first is None else first}", sure]]
    return {
        "id": f"{direction}:ret{number}", "direction": direction, "query": f"q{number}", "target": [f"video{number}"],
        "rank": rank, "hit": float(rank == 1), "top": top,
    }  # fmt: skip


def shown(result: TaskResult, worst=(), best=(), pictures=None, **more) -> str:
    record = result.record() | {"warnings": [], "selection": "last", "train": []} | more
    return page(record, result, "my title", worst, best, pictures or {})


def result(**options) -> TaskResult:
    given = {"protocol": {"official": False, "official_name": None, "name": "own data", "title": "data of one's own"}}
    ledger = options.pop("ledger", Ledger(("a", "b"), {}, "queries"))
    return TaskResult("retrieval", "test", options.pop("metrics", {"t2v/r1": 50.0}), ledger, **(given | options))


class Reader(HTMLParser):
    """Tags, attribute names, and the cells of all tables."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.names: set[str] = set()
        self.rows: list[list[str]] = []
        self.within = False
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.names |= {name for name, _ in attrs}
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.within = True

    def handle_endtag(self, tag):
        self.within = self.within and tag not in ("td", "th")

    def handle_data(self, data):
        if self.within:
            self.rows[-1][-1] += data.strip()


def test_the_worst_are_the_lowest_ranks_and_the_surest_of_equal_ones():
    lines = [retrieved(n, rank=n + 1) for n in range(30)]
    lines += [retrieved(30, 40, first=3, sure=0.2), retrieved(31, 40, first=4, sure=0.9)]
    lines += [retrieved(n, rank=99, direction="v2t") for n in range(3)]  # another direction
    lines.append(retrieved(40, 500) | {"missing": "no video stream"})
    worst, best = picked(lines, map(clip, range(50)))
    assert [one.line["query"] for one in worst] == ["q31", "q30", *(f"q{n}" for n in range(29, 21, -1))]
    assert [one.line["query"] for one in best] == [f"q{n}" for n in range(10)]
    assert worst[0].right.id == "ret31" and worst[0].first.id == "ret4"
    assert best[0].right.id == "ret0" and best[0].first is None  # the same clip is not shown twice


def test_few_items_are_halved():
    worst, best = picked([retrieved(n, rank=n + 1) for n in range(3)], map(clip, range(3)))
    assert [one.line["query"] for one in worst] == ["q2"] and [one.line["query"] for one in best] == ["q0", "q1"]


@pytest.mark.parametrize("key", ["credit", "token_f1"])
def test_without_ranks_credit_decides_and_items_of_no_clip_are_shown_too(key):
    lines = [{"id": f"q{n}", key: n / 4, "video": "gone", "prediction": "a"} for n in range(4)]
    worst, best = picked(lines, [])
    assert [one.line["id"] for one in (*best, *worst)] == ["q3", "q2", "q0", "q1"] and best[0].clips == []
    assert picked([], []) == ([], []) == picked([{"id": "a"}], [])


def test_ranks_are_counted_by_place_in_each_direction():
    ranks = {"t2v": [1, 1, 2, 3.5, 5, 6, 80], "v2t": [1, 200_000]}
    lines = [retrieved(n, rank, direction=d) for d, found in ranks.items() for n, rank in enumerate(found)]
    rows = Reader(shown(result(predictions=lines))).rows
    start = [rows.index(row) for row in rows if row[0] == "rank" and row[1] == "items"][0]
    counted = [row[:2] for row in rows[start + 1 : start + 8]]
    assert counted == [
        ["1", "2"],
        ["2", "1"],
        ["3 to 5", "2"],
        ["6 to 10", "1"],
        ["11 to 20", "0"],
        ["21 to 50", "0"],
        ["51 to 100", "1"],
    ]
    assert ["above 100,000", "1", ""] in rows


def test_a_page_says_what_was_missing_and_why():
    ledger = Ledger(("a", "b", "c"), {"b": "no video stream", "c": "no video stream"}, "queries")
    source = shown(result(ledger=ledger, bounds={"t2v/r1": (10.0, 90.0)}))
    rows = Reader(source).rows
    assert ["queries", "3", "1", "2"] in rows and ["no video stream", "2", "b"] in rows
    assert ">INCOMPLETE</p>" in source and "1 of 3 queries evaluated" in source


def test_bars_modalities_intervals_and_published_numbers():
    found = result(
        metrics={"accuracy": 40.0},
        rows={"only video": {"accuracy": 30.0}, "majority answer": {"accuracy": 20.0}},
        chart={"model": {"what": 40.0, "who": 25.0}, "prior": {"what": 10.0}},
        intervals={"accuracy": (31.0, 49.0)},
        tables=[ReportTable("by type", ("type", "model"), (("what", 40.0), ("all", None)))],
    )
    rows = Reader(shown(found)).rows
    assert ["accuracy", "40.00", "31.00", "49.00"] in rows
    assert (
        ["what", "model", "40.00", ""] in rows
        and ["", "prior", "10.00", ""] in rows
        and ["who", "model", "25.00", ""] in rows
    )
    assert ["only video", "30.00"] in rows and ["all", "40.00"] in rows and ["majority answer", "20.00"] not in rows
    assert ["what", "40.00"] in rows and ["all", "-"] in rows


def hostile() -> str:
    """A page in which every text from elsewhere tries to be more than that."""
    line = {
        "id": HOSTILE, "video": HOSTILE, "question": HOSTILE, "answer": HOSTILE, "prediction": HOSTILE, "credit": 1.0,
        "rank": 1.0, "top": [[HOSTILE, 0.5]],
    }  # fmt: skip
    lines = [line, line | {"id": HOSTILE + "2", "rank": 7.0}]
    ledger = Ledger((HOSTILE, "b"), {HOSTILE: HOSTILE}, "questions")
    found = result(
        ledger=ledger,
        metrics={"accuracy": 50.0, HOSTILE: 1.0},
        predictions=lines,
        rows={f"only {HOSTILE}": {"accuracy": 1.0}},
        chart={"model": {HOSTILE: 3.0}, HOSTILE: {HOSTILE: 2.0}},
        intervals={"accuracy": (1.0, 99.0)},
        tables=[
            ReportTable(HOSTILE, (HOSTILE, "n"), ((HOSTILE, 2),), (HOSTILE,)),
            ReportTable("numbers", ("name", "sorted"), (("b", 10), ("a", 9), ("c", 100))),
        ],
        facts={HOSTILE: HOSTILE, "list": [HOSTILE]},
    )
    worst, best = picked(lines, [Sample(HOSTILE, MediaRef("a.mp4"), None, (), {}, {"video_id": HOSTILE})])
    pictures = {HOSTILE: "/9j/4AAQ"}
    checkpoint = {"path": HOSTILE, "sha256": HOSTILE}
    return shown(found, worst, best, pictures, warnings=[HOSTILE], checkpoint=checkpoint)


def test_captions_and_names_of_files_stay_text():
    source = hostile()
    read = Reader(source)
    assert read.tags.count("script") == 1 and "b" not in read.tags
    assert not read.names & {"onerror", "onload", "onclick", "href"}
    assert all("\udcff" not in part for part in (source,)) and source.count("&lt;img src=x") >= 20
    assert {value[:23] for value in re.findall(r'src="([^"]*)', source)} == {"data:image/jpeg;base64,"}


def test_a_browser_shows_it_without_a_complaint_and_sorts_by_a_click(tmp_path):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no browser: neither chromium nor google-chrome is installed")
    click = "<script>[...document.querySelectorAll('th')].find(one => one.textContent === 'sorted').click()</script>"
    complaint = "<script>nonsense()</script>"
    source = hostile()

    def opened(name: str, added: str) -> tuple[str, list[str]]:
        (tmp_path / name).write_text(source.replace("</body>", f"{added}</body>"), encoding="utf-8")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / name).as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    dom, complaints = opened("page.html", click)
    assert complaints == []
    assert dom.index(">9<") < dom.index(">10<") < dom.index(">100<")  # as numbers, not as words
    assert len(opened("wrong.html", complaint)[1]) == 1  # so a complaint would have been seen
