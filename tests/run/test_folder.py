"""RunFolder: what was asked, how it ended, and that a mistake leaves nothing behind."""

import json
import shutil

import pytest
import yaml

from vtp.cli.main import main
from vtp.run import launch
from vtp.run.folder import RunFolder, find_unfinished, fingerprint


def record(folder) -> dict:
    return json.loads((folder / "run.json").read_text())


def test_a_run_is_recorded_while_it_runs_and_when_it_ends(tmp_path):
    config = {"seed": 3, "run_dir": "x"}
    with RunFolder(tmp_path / "run").recorded(config, processes=2):
        assert record(tmp_path / "run")["status"] == "running"
        assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text()) == config
    found = record(tmp_path / "run")
    assert (found["status"], found["processes"], found["fingerprint"]) == ("finished", 2, fingerprint({"seed": 3}))


def test_a_failed_run_says_how(tmp_path):
    with pytest.raises(ZeroDivisionError), RunFolder(tmp_path).recorded({}, 1):
        1 / 0  # noqa: B018
    assert record(tmp_path)["status"] == "failed"
    assert "ZeroDivisionError" in record(tmp_path)["error"]


def test_the_newest_unfinished_run_of_the_same_configuration_is_found(tmp_path):
    wanted = fingerprint({"seed": 1})
    for name, status, print_, started in [
        ("a", "failed", wanted, "2026-01-01T00:00:01"),
        ("b", "running", wanted, "2026-01-01T00:00:02"),
        ("c", "finished", wanted, "2026-01-01T00:00:03"),
        ("d", "running", "another", "2026-01-01T00:00:04"),
    ]:
        folder = tmp_path / "day" / name
        folder.mkdir(parents=True)
        facts = {"status": status, "fingerprint": print_, "started": started}
        (folder / "run.json").write_text(json.dumps(facts))
    (tmp_path / "day" / "e").mkdir()
    (tmp_path / "day" / "e" / "run.json").write_text('{"fingerpr')  # died while it was written
    assert find_unfinished(wanted, tmp_path) == tmp_path / "day" / "b"
    assert find_unfinished("nobody", tmp_path) is None


@pytest.mark.parametrize(
    "times",
    [
        ("2026-10-25T02:40:00+0200", "2026-10-25T02:10:00+0100"),  # the hour that comes twice when summer time ends
        ("2026-01-02T01:00:00+0900", "2026-01-01T23:00:00-0500"),  # two places: 16:00 and, a day later, 04:00 in UTC
        (None, "2026-01-01T00:00:00+0000"),
        (3, "2026-01-01T00:00:00+0000"),
    ],
)
def test_the_newest_run_is_found_by_the_time_that_has_passed(tmp_path, times):
    for name, started in zip("ab", times, strict=True):
        folder = tmp_path / "day" / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"status": "failed", "fingerprint": "f", "started": started}))
    for name, odd in (("c", "[1]"), ("d", "3"), ("e", "[" * 100_000)):
        (tmp_path / "day" / name).mkdir()
        (tmp_path / "day" / name / "run.json").write_text(odd)
    assert find_unfinished("f", tmp_path) == tmp_path / "day" / "b"


def test_a_mistake_leaves_nothing_behind_and_a_run_is_kept(tmp_path):
    folder = tmp_path / "outputs" / "day" / "time"
    (folder / ".hydra").mkdir(parents=True)
    RunFolder(folder).keep_traceback(ValueError("typo"))
    assert "ValueError: typo" in (folder / "run.log").read_text()
    RunFolder(folder).remove_if_empty()
    assert not (tmp_path / "outputs").exists()
    (folder / "checkpoints").mkdir(parents=True)
    RunFolder(folder).remove_if_empty()
    assert folder.is_dir()


def test_a_folder_that_is_removed_while_it_runs_is_told(tmp_path, monkeypatch, capsys):
    def execute(configs, folder):
        with folder.recorded(configs[""], processes=1):
            shutil.rmtree(folder.path)

    monkeypatch.setattr(launch, "execute", execute)
    assert main(["run", "task=msrvtt_qa", "dataset=shapes", f"run_dir={tmp_path / 'gone'}"]) == 1
    said = capsys.readouterr().err
    assert said == (
        f"vtp run: {tmp_path / 'gone'}: this folder of the run was removed while it ran, and all of it is gone.\n"
    )
    assert not (tmp_path / "gone").exists()
