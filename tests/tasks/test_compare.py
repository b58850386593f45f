"""`vtp compare`: what is told of two runs, and which runs are refused."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from random_tasks import BROKEN, LOST, NAMES, TASKS, measure

from vtp.cli.main import main
from vtp.eval.compare import compare, frames_note, read_run
from vtp.eval.report import write_report
from vtp.eval.significance import paired_test
from vtp.page import text


@pytest.fixture
def make(tmp_path, fake_dataset, fake_model, make_evaluator):
    """``make("a", kind, seed=5)``: a run folder."""

    def run(name, kind, seed=5, broken=(), config=None, change=None, lost=None):
        task = TASKS[kind](fake_dataset)
        result = measure(task, fake_model, make_evaluator, lost, broken, seed)
        if change:
            change(result)
        folder = tmp_path / name
        folder.mkdir(parents=True)
        full = {"task": {"name": NAMES[kind]}, "seed": seed, **(config or {})}
        write_report(folder, result, selection="last", seed=seed, config=full)
        return str(folder)

    return run


SOON = ("retrieval",)  # the others are in the slow run


@pytest.mark.parametrize("kind", [one if one in SOON else pytest.param(one, marks=pytest.mark.slow) for one in TASKS])
def test_a_pair_has_differences_a_test_and_a_sentence(kind, make, capsys):
    a, b = make("a", kind), make("b", kind, seed=6)
    assert main(["compare", a, b]) == 0
    told = capsys.readouterr().out
    assert f"A  {a}" in told and f"B  {b}" in told and "B - A" in told
    assert re.search(r"A and B (cannot be told apart by|do equally well)|B is (better|worse) than A in", told)
    assert main(["compare", a, b, "--json"]) == 0
    (pair,) = json.loads(capsys.readouterr().out)["pairs"]
    one, other = read_run_of(a), read_run_of(b)
    name = next(iter(one.counted.items))
    items = one.counted.items[name]
    values = dict(zip(other.counted.items[name].ids, other.counted.items[name].values, strict=True))
    difference = items.scale * (np.array([values[i] for i in items.ids]) - items.values)
    want = paired_test(np.zeros(len(difference)), difference, clusters=items.clips)
    found = pair["metrics"][name]
    assert found["difference"] == pytest.approx(other.metric(name) - one.metric(name))
    assert found["p_value"] == pytest.approx(want.p_value, abs=0.03)
    assert found["interval"] == pytest.approx(want.interval, abs=1e-9) and found["visible"] == pytest.approx(
        want.visible
    )


def read_run_of(folder):
    from pathlib import Path

    return read_run(Path(folder))


def test_a_run_against_itself_is_the_same_and_against_a_worse_one_better(make, capsys):
    a, same = make("a", "questions"), make("same", "questions")
    assert main(["compare", a, same]) == 0
    assert "A and B do equally well on every one of 17 queries (accuracy)" in capsys.readouterr().out

    def all_right(result):
        for line in result.predictions:
            if line["in_vocabulary"]:
                line |= {"higher": 0, "tied": 0, "credit": 1.0, "rank": 1.0}
        result.metrics["accuracy"] = 100 * np.mean([line["credit"] for line in result.predictions])

    better = make("better", "questions", change=all_right)
    assert main(["compare", a, better]) == 0
    told = capsys.readouterr().out
    assert re.search(
        r"B is better than A in accuracy: \+[\d.]+ points \(95 % interval \+[\d.]+ to \+[\d.]+\), p [<=]", told
    )
    assert "17 queries about 8 clips" in told


def test_what_cannot_be_told_apart_says_how_small_a_difference_could_be_seen(make, capsys, monkeypatch):
    a, b = make("a", "choices"), make("b", "choices", seed=6)
    assert main(["compare", a, b]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert re.search(r"cannot be told apart by accuracy: [+-][\d.]+ points", told)
    assert "8 clips are too few for an interval or a test to say much" in told
    monkeypatch.setattr("vtp.eval.compare.FEW", 5)
    assert main(["compare", a, b]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert re.search(r"differences under [\d.]+ points are not visible with 8 clips \(power 80 %\)", told)


REFUSED = {
    "other items": ({"kind": "questions"}, {"kind": "retrieval"}, "the task is qa and retrieval"),
    "other rule": ({"kind": "retrieval"}, {"kind": "retrieval, sets"}, "the tie rule is expected and average"),
    "other form": ({"kind": "retrieval"}, {"kind": "retrieval, sets"}, "is any and set"),
    "other classes": ({"kind": "one class"}, {"kind": "several classes"}, "whether a clip has several classes is"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_different_protocols_are_refused_in_words(case, make, capsys):
    one, other, words = REFUSED[case]
    assert main(["compare", make("a", **one), make("b", **other)]) == 2
    told = capsys.readouterr().err
    assert "were not measured by the same protocol" in told and words in told and "Traceback" not in told


def protocol(**changes):
    def change(result):
        result.protocol = {**result.protocol, **changes}

    return change


def test_protocols_counts_and_splits_are_compared(make, capsys):
    a = make("a", "questions")
    for number, (changes, words) in enumerate(
        [
            ({"official_name": "msvd_qa", "name": "msvd_qa"}, "the protocol is own data and msvd_qa"),
            ({"counts": {"videos": 7, "questions": 17}}, "8 videos and 7"),
            ({"sha256": {"videos": "0", "questions": "0"}}, "the questions are as many (17) and not the same ones"),
            ({"name": "x@y", "differences": ["the model sees 4 frames of a clip, not 8"]}, "the model sees 4 frames"),
        ]
    ):
        assert main(["compare", a, make(f"b{number}", "questions", change=protocol(**changes))]) == 2
        assert words in capsys.readouterr().err

    def other_split(result):
        result.split = "val"

    assert main(["compare", a, make("val", "questions", change=other_split)]) == 2
    assert "the split is test and val" in capsys.readouterr().err

    def fewer(result):
        result.predictions = result.predictions[:-1]

    assert main(["compare", a, make("fewer", "questions", change=fewer)]) == 2
    assert "1 ids are in one of them alone (first: s16)" in capsys.readouterr().err


def test_seeds_joined_by_commas_are_one_system_with_a_spread(make, capsys):
    a = ",".join(make(f"a{seed}", "one class", seed=seed) for seed in (1, 2, 3))
    b = ",".join(make(f"b{seed}", "one class", seed=seed) for seed in (4, 5))
    assert main(["compare", a, b, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    runs = [read_run_of(name) for name in a.split(",")]
    values = [run.metric("top1") for run in runs]
    cell = found["systems"]["A"]["metrics"]["top1"]
    assert cell["value"] == pytest.approx(np.mean(values))
    assert cell["spread"] == pytest.approx([np.std(values, ddof=1), min(values), max(values)])
    mean = found["systems"]["B"]["metrics"]["top1"]["value"]
    assert found["pairs"][0]["metrics"]["top1"]["difference"] == pytest.approx(mean - np.mean(values))
    assert main(["compare", a, b]) == 0
    told = capsys.readouterr().out
    assert "(3 runs: mean and spread)" in told and "\u00b1" in told


def test_three_systems_are_compared_with_the_first(make):
    runs = [read_run_of(make(name, "one class", seed=seed)) for seed, name in enumerate("abc")]
    systems, pairs = compare([[run] for run in runs])
    assert [system.label for system in systems] == ["A", "B", "C"]
    assert [(pair.a.label, pair.b.label) for pair in pairs] == [("A", "B"), ("A", "C")]
    assert systems[0].clips == 8


def test_with_and_without_a_modality_the_option_is_named(make, capsys):
    a = make("a", "questions", config={"data": {"drop": []}})
    b = make("b", "questions", seed=6, config={"data": {"drop": ["audio"]}, "seed": 5})
    assert main(["compare", a, b]) == 0
    assert "from A to B: data.drop was [] and is ['audio']" in capsys.readouterr().out
    c = make("c", "questions", seed=6)
    assert main(["compare", make("e", "questions"), c]) == 0
    assert "A and B differ in the seed alone: joined by a comma they are one system" in capsys.readouterr().out
    incomplete = make("d", "questions", broken=BROKEN)
    assert main(["compare", a, incomplete]) == 0
    told = capsys.readouterr().out
    assert f"B INCOMPLETE  {incomplete}" in told and "not the same items are missing: 0 items in A and" in told
    assert len(LOST) == 3


def test_frames_tell_machines_apart(make):
    a, b = read_run_of(make("a", "questions")), read_run_of(make("b", "questions"))

    def frames(backend, *hashes, size=224):
        items = {f"clip{i}": {"sha256": one} for i, one in enumerate(hashes)}
        return {backend: {"version": "1.0", "frames": 8, "size": size, "items": {**items, "gone": {"missing": "x"}}}}

    assert frames_note(a, b) == ""  # not known
    a.report["frames"], b.report["frames"] = frames("pyav", "x", "y"), frames("pyav", "x", "y")
    assert frames_note(a, b) == "A and B were shown the same frames (all 2 clips that were hashed)"
    b.report["frames"] = frames("torchcodec", "x", "z")
    assert frames_note(a, b).startswith(
        "A and B were shown different frames of 1 of 2 clips (first: clip1; decoded by pyav 1.0 and torchcodec 1.0)"
    )
    b.report["frames"] = frames("pyav", "p", "q", size=112)
    assert frames_note(a, b) == "A was shown 8 frames of 224 pixels of a clip, B 8 frames of 112 pixels"


def test_a_page_is_one_file_and_everything_in_it_is_escaped(make, tmp_path, capsys):
    nasty = "<script>alert(1)</script>&"
    a = make(f"a{nasty}".replace("/", "_"), "questions")
    b = make("b", "questions", seed=6, config={"note": nasty})
    assert main(["compare", a, b, "--html", str(tmp_path / "pages" / "out.html")]) == 0
    page = (tmp_path / "pages" / "out.html").read_text(encoding="utf-8")
    assert "written to" in capsys.readouterr().out
    assert text(a) in page and "<script>alert" not in page and page.count("<script>") == 1
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", page)
    assert "accuracy/who" in page and "visible from" in page


def test_mistakes_are_told_in_a_line(make, tmp_path, capsys):
    a = make("a", "questions")
    for arguments, words in {
        (f"{a}#prior",): "there is nothing to compare with",
        (make("plain", "retrieval", change=lambda result: result.rows.clear()),): "has no row that could be compared",
        (a, f"{a}#fame"): "there is no row 'fame'. Its rows: question-only prior; majority answer",
        (a, f"{a}#i"): "there are 4 rows with 'i' in their name",
        (a, f"{a}#prior,{a}#majority"): "are seeds of one system, and not majority answer and question-only prior",
        (a, a): "a run is named twice",
        (a, f"{a},"): "a run between two commas has no name",
        (a, str(tmp_path)): "holds no report.json",
    }.items():
        assert main(["compare", *arguments]) == 2
        assert words in capsys.readouterr().err
    changed = make("changed", "questions", seed=6)
    path = tmp_path / "changed/predictions.jsonl"
    path.write_text(path.read_text().replace('"credit": 0.0', '"credit": 1.0', 1))
    assert main(["compare", a, changed]) == 2
    told = capsys.readouterr().err
    assert re.search(r"predictions.jsonl is not what was written .line \d+ .s\d+. was changed", told)
    assert "vtp verify" in told
    path = tmp_path / "changed/report.json"
    path.write_text(path.read_text().replace('"accuracy": ', '"accuracy": 1', 1))
    assert main(["compare", a, changed]) == 2
    assert "report.json is not what was written (metrics was changed" in capsys.readouterr().err


def test_a_run_alone_is_compared_with_its_own_rows(make, capsys):
    """Paired, question by question: what each earned in a row stands in its line."""
    a = make("a", "questions", broken=BROKEN)
    assert main(["compare", a, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    run = read_run_of(a)
    labels = [label for label in run.report["rows"] if not label.startswith("evaluated")]
    assert [system["runs"] for system in found["systems"].values()] == [[a], *([f"{a}#{one}"] for one in labels)]
    (left,) = found["not_compared"]
    assert left.startswith("evaluated items only, not comparable: ") and "ids are in one of them alone" in left
    with open(f"{a}/predictions.jsonl", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    for pair, label in zip(found["pairs"], labels, strict=True):
        earned, clips = [100 * line["rows"][label] for line in lines], [line["video"] for line in lines]
        want = paired_test(np.array([100 * line["credit"] for line in lines]), np.array(earned), clusters=clips)
        told = pair["metrics"]["accuracy"]
        assert told["difference"] == pytest.approx(want.difference) and told["p_value"] == want.p_value
        assert told["interval"] == list(want.interval) and told["queries"] == 17 and told["clips"] == 8
    assert main(["compare", a]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"A INCOMPLETE {a} B" in told and "not compared: evaluated items only" in told
    assert re.search(r"A and B (cannot be told apart by|do equally well)|B is (better|worse) than A in", told)


def test_a_part_of_a_label_names_a_row(make, capsys):
    a, b = make("a", "questions"), make("b", "questions", seed=6)
    assert main(["compare", f"{a}#Prior", f"{a}#majority answer", a]) == 0
    told = capsys.readouterr().out
    assert f"A  {a}#question-only prior\n" in told and f"B  {a}#majority answer\n" in told and f"C  {a}\n" in told
    assert main(["compare", f"{a},{b}", f"{a}#major,{b}#major"]) == 0
    told = capsys.readouterr().out
    assert f"B  {a}#majority answer, {b}#majority answer (2 runs: mean and spread)" in told
    assert main(["compare", f"{a}#major", f"{b}#major"]) == 0  # a row that does not depend on the model
    assert "A and B do equally well on every one of 17 queries" in capsys.readouterr().out


def test_rows_of_other_items_or_among_other_candidates_are_refused(make, capsys):
    a = make("a", "retrieval", broken=BROKEN)
    for row, words in {
        "evaluated items only, not comparable": "ids are in one of them alone",
        "one set": "v2t/r1 ranks 19 candidates and 8",
    }.items():
        assert main(["compare", a, f"{a}#{row}"]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.slow
def test_a_browser_shows_the_page_without_a_complaint(make, tmp_path):
    import shutil
    import subprocess

    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no browser: neither chromium nor google-chrome is installed")
    assert main(["compare", make("a<b>", "questions"), "--html", str(tmp_path / "out.html")]) == 0
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "out.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "#majority answer" in done.stdout and "visible from" in done.stdout
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
