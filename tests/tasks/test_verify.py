"""`vtp verify` finds and names what was changed, of every task; and finds nothing where nothing was."""

from __future__ import annotations

import json
import shutil

import pytest
from random_tasks import BROKEN, NAMES, TASKS, measure

from vtp.cli.main import main
from vtp.eval.report import write_report
from vtp.eval.seal import checked_line, write_sealed

SOON = ("retrieval",)  # the others are in the slow run


@pytest.fixture(params=[one if one in SOON else pytest.param(one, marks=pytest.mark.slow) for one in TASKS])
def kind(request):
    return request.param


@pytest.fixture
def run(kind, tmp_path, fake_dataset, fake_model, make_evaluator):
    result = measure(TASKS[kind](fake_dataset), fake_model, make_evaluator, None, BROKEN)
    write_report(tmp_path, result, selection="last", seed=0, config={"task": {"name": NAMES[kind]}})
    return tmp_path


@pytest.fixture
def told(run, capsys):
    """``told(code)``: what the command says, whose exit code must be that."""

    def check(code):
        assert main(["verify", str(run)]) == code
        return capsys.readouterr().out

    return check


def lines_of(run):
    return (run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()


def write(run, lines):
    (run / "predictions.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def marked(lines):
    """Lines with marks that fit, as a forger would make them."""
    return [checked_line({k: v for k, v in json.loads(one).items() if k != "check"}, i) for i, one in enumerate(lines)]


def test_nothing_is_found_where_nothing_was_changed(told, run):
    report = json.loads((run / "report.json").read_text())
    text = told(0)
    assert ": verified, " in text and "NOT" not in text and "problem" not in text
    counted = int(text.split(": verified, ")[1].split()[0])
    assert counted >= len(report["metrics"]) + 2 * len(report["intervals"]) + 2 * len(report["bounds"]) + 4


@pytest.mark.parametrize("kind", ["questions", "choices"])
def test_every_row_of_accuracies_is_counted_again(kind, tmp_path, fake_dataset, fake_model, make_evaluator, capsys):
    task = TASKS[kind](fake_dataset)
    task.subsets = [["video", "text"]] if kind == "questions" else [["video"]]
    task.padded = 8
    result = measure(task, fake_model, make_evaluator, None, BROKEN)
    write_report(tmp_path, result, selection="last", seed=0, config={"task": {"name": NAMES[kind]}})
    assert len(result.rows) == {"questions": 5, "choices": 3}[kind]
    assert main(["verify", str(tmp_path)]) == 0
    assert "only sealed" not in capsys.readouterr().out
    lines = marked(one.replace('"rows": {', '"rows": {"x": 0.0, ', 1) for one in lines_of(tmp_path))
    whole = json.loads((tmp_path / "report.json").read_text())
    for label in result.rows:
        changed = json.loads(json.dumps(whole))
        changed["rows"][label]["accuracy"] += 1e-9
        write_sealed(tmp_path / "report.json", changed)
        assert main(["verify", str(tmp_path)]) == 1
        assert f"report.json: rows.{label}.accuracy is " in capsys.readouterr().out
    write(tmp_path, lines)
    write_sealed(tmp_path / "report.json", whole)
    assert main(["verify", str(tmp_path)]) == 1
    assert "report.json: rows.x.accuracy is not there" in capsys.readouterr().out


def test_a_changed_digit_of_a_metric_is_named(told, run):
    whole = json.loads((run / "report.json").read_text())
    for name, value in list(whole["metrics"].items())[::4]:
        changed = json.loads(json.dumps(whole))
        changed["metrics"][name] = value + 1e-9
        (run / "report.json").write_text(json.dumps(changed))
        text = told(1)
        assert "report.json: metrics was changed since it was written" in text
        assert (
            f"report.json: metrics.{name} is {json.dumps(value + 1e-9)}, the predictions give {json.dumps(value)}"
            in text
        )
    for part in ("intervals", "bounds"):
        changed = json.loads(json.dumps(whole))
        name = next(iter(changed[part]))
        changed[part][name][1] += 0.5
        write_sealed(run / "report.json", changed)  # with a seal that fits
        assert f"report.json: {part}.{name} is" in told(1)
    whole["facts"]["decoder"] = "other"
    (run / "report.json").write_text(json.dumps(whole))
    assert "report.json: facts was changed" in told(1)


def test_a_changed_digit_of_a_line_is_named(told, run):
    lines = lines_of(run)
    for number in range(0, len(lines), 9):
        text, mark = lines[number].split(', "check"')
        digits = [i for i, letter in enumerate(text) if letter.isdigit() and i > text.index(",")]
        place = digits[number % len(digits)]  # anywhere behind the id
        changed = f'{text[:place]}{(int(text[place]) + 1) % 10}{text[place + 1 :]}, "check"{mark}'
        write(run, [*lines[:number], changed, *lines[number + 1 :]])
        assert f"line {number + 1} ({json.loads(lines[number])['id']}) was changed since it was written" in told(1)


def test_a_dropped_line_is_named(told, run):
    lines = lines_of(run)
    ids = [json.loads(line)["id"] for line in lines]
    write(run, [*lines[:3], *lines[4:]])
    text = told(1)
    assert f"1 line is missing between line 3 ({ids[2]}) and line 4 ({ids[4]})" in text
    write(run, lines[:-2])
    assert f"{len(lines) - 2:,} lines, and report.json says {len(lines):,}" in told(1)
    write(run, marked([*lines[:3], *lines[4:]]))
    assert "are not those of the report" in told(1) or "the predictions give" in told(1)


def test_swapped_ids_are_named(told, run):
    lines = lines_of(run)
    first, second = (json.loads(lines[i]) for i in (0, 1))
    first["id"], second["id"] = second["id"], first["id"]
    write(run, [json.dumps(first, ensure_ascii=False), json.dumps(second, ensure_ascii=False), *lines[2:]])
    text = told(1)
    assert f"line 1 ({first['id']}) was changed" in text and f"line 2 ({second['id']}) was changed" in text
    write(run, [lines[1], lines[0], *lines[2:]])
    assert f"line 2 ({second['id']}) does not belong behind line 1" in told(1) or "missing between" in told(1)
    write(run, [lines[0], lines[0], *lines[2:]])
    assert f"{json.loads(lines[0])['id']} stands there 2 times" in told(1)


def test_clips_that_were_swapped_by_a_forger_are_not_those_of_the_protocol(told, run):
    lines = [json.loads(line) for line in lines_of(run)]
    key = "target" if "target" in lines[0] else "video"
    other = next(line for line in lines if line[key] != lines[0][key])
    lines[0][key], other[key] = other[key], lines[0][key]
    write(run, marked([json.dumps(line) for line in lines]))
    assert "are not those of the report" in told(1)


def test_lines_that_are_none_and_folders_that_are_none(run, told, tmp_path, capsys):
    lines = lines_of(run)
    write(run, [*lines[:2], "{", '"text"', '{"id": 5}', '{"id": "x"}', *lines[2:]])
    text = told(1)
    assert all(f"line {n} is no line of predictions" in text for n in (3, 4, 5)) and "1 lines have no mark" in text
    (run / "predictions.jsonl").unlink()
    assert "predictions.jsonl cannot be read" in told(1)
    (run / "report.json").write_text("[]")
    assert "is not the report of an evaluation" in told(1)
    shutil.rmtree(run)
    assert main(["verify", str(run)]) == 2 and "holds no report.json" in capsys.readouterr().err


def test_a_report_without_the_form_of_one_is_named_in_a_line(run, told):
    text = (run / "report.json").read_text()
    changes = (
        (("protocol", "counts"), None, "protocol.counts is no table"),
        (("protocol", "sha256"), 5, "protocol.sha256 is no table"),
        (("rows",), {"x": True}, "rows.x is no table"),
        (("row_intervals",), "12", "row_intervals is no table"),
        (("intervals",), {"x": [1]}, "intervals.x is no interval"),
        (("seed",), -1, "seed is -1"),
    )
    for path, value, words in changes:
        report = json.loads(text)
        part = report
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = value
        (run / "report.json").write_text(json.dumps(report))
        assert words in told(1), path
    name = next(iter(json.loads(text)["metrics"]))
    (run / "report.json").write_text(text.replace('"metrics": {', f'"metrics": {{"{name}": 99.0,', 1))
    assert f"'{name}' stands there 2 times" in told(1)


@pytest.mark.parametrize("value", ["[[]]", "1e999", '"\\ud800"'])
def test_a_value_of_any_kind_in_a_line_is_no_traceback(run, told, value):
    lines = lines_of(run)
    for key, old in json.loads(lines[0]).items():
        if key not in ("id", "check"):
            changed = lines[0].replace(f'"{key}": {json.dumps(old, ensure_ascii=False)}', f'"{key}": {value}', 1)
            assert changed != lines[0]
            write(run, [changed, *lines[1:]])
            assert "line 1 (" in told(1), key
    assert main(["verify", str(run), "--json"]) == 1


def test_a_task_of_several_whose_report_is_gone_is_named(run, tmp_path, capsys):
    whole = tmp_path / "whole"
    for name in ("a", "b"):
        (whole / name).mkdir(parents=True)
        for file in ("report.json", "predictions.jsonl"):
            shutil.copy(run / file, whole / name / file)
    (whole / "tasks.json").write_text(json.dumps({"tasks": {"a": {"report": "a/report.json"}, "b": {"report": ""}}}))
    assert main(["verify", str(whole)]) == 0 and capsys.readouterr().out.count(": verified, ") == 2
    shutil.rmtree(whole / "b")
    assert main(["verify", str(whole)]) == 2 and "b holds no report.json" in capsys.readouterr().err
    (whole / "tasks.json").write_text("[]")
    assert main(["verify", str(whole)]) == 2 and "tasks.json cannot be read" in capsys.readouterr().err
