"""``vtp data check`` on small files made here, on hostile ones, and on the real clips."""

from __future__ import annotations

import base64
import csv
import html.parser
import io
import json
import os
import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from vtp.cli.main import main
from vtp.prepare import check
from vtp.prepare.check import look_at


def make_clip(path: Path, *, frames=10, size=(64, 48), fps=10, sound=False) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        noise = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        for i in range(frames):
            picture = np.full((size[1], size[0], 3), 20 * i % 255, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
        if noise is not None:
            samples = np.random.default_rng(0).standard_normal((1, 16000)).astype(np.float32) * 0.1
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate = 16000
            for packet in [*noise.encode(frame), *noise.encode()]:
                container.mux(packet)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", sound=True)


@pytest.fixture(scope="module")
def silent(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clips") / "silent.mp4", frames=20, size=(80, 48))


def run(*arguments, out: Path) -> tuple[int, dict]:
    code = main(["data", "check", *map(str, arguments), "--out", str(out), "--workers", "2"])
    path = out / "report.json"
    return code, json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_csv(path: Path, rows: list[dict]) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_folder_of_good_files(clip, silent, tmp_path, capsys):
    folder = tmp_path / "media"
    (folder / "deep").mkdir(parents=True)
    shutil.copy(clip, folder / "a.mp4")
    shutil.copy(silent, folder / "deep" / "b.mp4")
    (folder / "notes.txt").write_text("hello")
    code, report = run(folder, out=tmp_path / "out")
    assert code == 0 and report["ok"] and report["problems"] == []
    assert report["media"] == {
        "files": 2, "there": 2, "missing": 0, "decodable": 2, "undecodable": 0, "not_looked_at": 0,
        "with_sound": 1, "without_sound": 1,
    }  # fmt: skip
    assert report["distributions"]["Codec"] == {"mpeg4": 2}
    assert report["distributions"]["Size"] == {"64x48": 1, "80x48": 1}
    assert report["distributions"]["Sound"] == {"aac, 16,000 Hz, 1 ch": 1}
    assert report["others"] == {".txt": 1}
    out = capsys.readouterr().out
    assert "2 of 2 files are there; 2 of 2 that were looked at can be used, 1 of them with sound" in out
    findings = [json.loads(line) for line in (tmp_path / "out/files.jsonl").read_text().splitlines()]
    facts = {Path(one["path"]).name: (one["video"]["frames"], one["video"]["fps"], one["seconds"]) for one in findings}
    assert facts == {"a.mp4": (10, 10.0, pytest.approx(1, abs=0.15)), "b.mp4": (20, 10.0, pytest.approx(2, abs=0.15))}


def test_hostile_files_are_told_and_stop_nothing(clip, tmp_path, capsys):
    folder = tmp_path / "media"
    folder.mkdir()
    whole = clip.read_bytes()
    (folder / "whole.mp4").write_bytes(whole)
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no video")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    (folder / os.fsdecode(b"bad\xff.mp4")).write_bytes(b"x" * 100)
    (folder / "<script>alert(1)<").mkdir()
    (folder / "<script>alert(1)<" / "x.mp4").write_text("no")
    code, report = run(folder, out=tmp_path / "out")
    assert code == 1 and not report["ok"]
    states = {os.path.basename(p["path"]): (p["state"], p["kind"]) for p in report["problems"]}
    names = {"truncated", "empty", "text", "pipe", "loop", "bad\\udcff", "x"}
    assert states.keys() == {f"{name}.mp4" for name in names}
    assert states["empty.mp4"] == ("bad", "empty") and states["pipe.mp4"] == ("bad", "not_a_file")
    assert all(p["reason"] for p in report["problems"]) and report["media"]["decodable"] == 1
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)&lt;" in page
    assert "is not a regular file" in capsys.readouterr().out


class Page(html.parser.HTMLParser):
    """What a browser would see: open tags, images, addresses that it would fetch."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.fetched, self.headings = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(attrs["src"])
        self.fetched += [v for k, v in attrs.items() if k in ("src", "href") and not v.startswith("data:")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def test_the_page_needs_nothing_else_and_shows_frames(clip, silent, tmp_path):
    from PIL import Image

    folder = tmp_path / "media"
    folder.mkdir()
    for i, source in enumerate((clip, silent, silent)):
        shutil.copy(source, folder / f"{i}.mp4")
    run(folder, "--thumbnails", 2, out=tmp_path / "out")
    page = Page((tmp_path / "out/report.html").read_text(encoding="utf-8"))
    assert page.open == [] and page.fetched == [] and len(page.images) == 2
    assert {"Files", "Codec", "Size", "Every file"} <= set(page.headings)
    picture = Image.open(io.BytesIO(base64.b64decode(page.images[0].partition("base64,")[2])))
    assert picture.size == (128, 96)  # 64 x 48 with a short side of 96
    assert np.asarray(picture).mean() == pytest.approx(20 * 5, abs=25)  # one in the middle of ten frames


def test_what_was_found_is_used_again_until_a_file_changes(clip, silent, tmp_path, monkeypatch):
    folder = tmp_path / "media"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(clip, folder / name)
    looked: list[str] = []
    real = check._examine

    def examine(reader, before, *rest):
        looked.append(os.path.basename(before.path))
        return real(reader, before, *rest)

    monkeypatch.setattr(check, "_examine", examine)
    _, first = run(folder, out=tmp_path / "out")
    assert sorted(looked) == ["a.mp4", "b.mp4"]
    with open(tmp_path / "out/files.jsonl", "a") as file:
        file.write('{"path": "half a li')  # of a process that was killed
    assert run(folder, out=tmp_path / "out")[1] == first and len(looked) == 2
    shutil.copy(silent, folder / "b.mp4")
    _, second = run(folder, out=tmp_path / "out")
    assert looked[2:] == ["b.mp4"] and second["media"]["with_sound"] == 1
    assert run(folder, out=tmp_path / "out")[1] == second and len(looked) == 3  # also what stands behind half a line
    run(folder, "--frames", 3, out=tmp_path / "out")
    assert sorted(looked[3:]) == ["a.mp4", "b.mp4"]  # looked at in another way
    run(folder, "--frames", 3, out=tmp_path / "out")
    assert len(looked) == 5


def test_own_data_missing_files_and_spans_behind_the_end(clip, silent, tmp_path, capsys):
    shutil.copy(clip, tmp_path / "a.mp4")
    shutil.copy(silent, tmp_path / "b.mp4")
    rows = [
        {"video": "a.mp4", "caption": "one", "split": "train", "start": "", "end": ""},
        {"video": "b.mp4", "caption": "two", "split": "train", "start": 0, "end": 1},
        {"video": "b.mp4", "caption": "two", "split": "test", "start": 50, "end": 51},
        {"video": "gone.mp4", "caption": "three", "split": "test", "start": "", "end": ""},
    ]
    code, report = run(write_csv(tmp_path / "my.csv", rows), "--kind", "retrieval", out=tmp_path / "out")
    problems = {os.path.basename(p["path"]): (p["state"], p["kind"]) for p in report["problems"]}
    assert code == 1 and problems == {"gone.mp4": ("missing", "missing"), "b.mp4": ("bad", "span")}
    tables = {f"{t['kind']}/{t['split']}": t for t in report["tables"]}
    assert tables["retrieval/train"]["media"]["files"] == 2 and tables["retrieval/test"]["media"]["missing"] == 1
    assert "a span begins at 50 s" in capsys.readouterr().out


def test_a_quick_look_decodes_nothing(clip, tmp_path, monkeypatch):
    folder = tmp_path / "media"
    folder.mkdir()
    shutil.copy(clip, folder / "a.mp4")
    (folder / "broken.mp4").write_text("no video")
    monkeypatch.setattr(check, "_examine", None)
    code, report = run(folder, "--no-decode", out=tmp_path / "out")
    assert code == 0 and report["media"]["there"] == 2 and report["media"]["not_looked_at"] == 2
    assert report["how"] == "only looked whether files are there"
    assert run(folder, "--limit", 1, "--no-decode", out=tmp_path / "out")[0] == 0


def test_a_limit_looks_at_a_part_and_says_so(clip, tmp_path):
    folder = tmp_path / "media"
    folder.mkdir()
    for i in range(4):
        shutil.copy(clip, folder / f"{i}.mp4")
    _, report = run(folder, "--limit", 2, out=tmp_path / "out")
    assert report["media"]["decodable"] == 2 and report["media"]["not_looked_at"] == 2
    assert "2 files left out by --limit 2" in report["how"]


def test_a_file_without_what_its_samples_need_is_bad(clip, silent, tmp_path):
    from vtp.media import MediaReader
    from vtp.prepare.survey import NamedFile, Survey

    survey = Survey("x", files={
        str(silent): NamedFile("s", {0}, 1, video=False, audio=True),
        str(clip): NamedFile("c", {0}, 1, video=False, audio=True),
    })  # fmt: skip
    found = look_at(survey, reader=lambda: MediaReader(isolate=False), settings="x", workers=1, frames=2)
    assert (found[str(silent)].status, found[str(silent)].kind) == ("bad", "no_audio")
    assert found[str(clip)].status == "ok"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["msvdd"], "neither a data set nor a file or folder here. Did you mean 'msvd'"),
        (["nowhere/clips"], "there is no such file or folder"),
        (["my.csv"], "there is no such file or folder"),
        (["msvd", "rot=x"], "has no option 'rot'. Did you mean 'root'"),
        (["msvd", "--kind", "mc"], "has no 'mc' tables; it has caption, retrieval, qa"),
        (["msvd", "--workers", "-1"], "--workers: expected int (at least 0"),
        (["msvd", "--limit", "0"], "--limit: expected int (at least 1)"),
        (["msvd", "--wrong"], "unrecognized arguments: --wrong"),
    ],
)
def test_mistakes_are_explained_in_one_line(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "check", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists()


def test_a_folder_without_media_says_what_is_in_it(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("x")
    assert main(["data", "check", f"{tmp_path}/"]) == 2
    assert "there are no media files" in (err := capsys.readouterr().err) and "1 .txt" in err
    assert main(["data", "check", f"{tmp_path}/", "root=x"]) == 2
    assert "is a folder, and root is for data sets" in capsys.readouterr().err


@pytest.mark.data
def test_the_real_msvd_clips(shared_data, tmp_path, capsys):
    root = tmp_path / "msvd"
    (root / "videos").mkdir(parents=True)
    for folder in ("msvd", "msvd_qa"):
        for path in (shared_data / "annotations" / folder).iterdir():
            if not (root / path.name).exists():
                (root / path.name).symlink_to(path)
    for path in (shared_data / "videos/msvd").glob("*.avi"):
        (root / "videos" / path.name).symlink_to(path)
    code, report = run("msvd", f"root={root}", "--split", "val", "--split", "test", out=tmp_path / "out")
    assert code == 1 and report["gaps"] == []
    tables = {f"{t['kind']}/{t['split']}": t for t in report["tables"]}
    assert {name: t["samples"] for name, t in tables.items()} == {
        "retrieval/val": 100, "retrieval/test": 670, "qa/val": 6415, "qa/test": 13157,
    }  # fmt: skip
    assert [one["media"]["decodable"] for one in tables.values()] == [0, 2, 1, 1]
    assert tables["retrieval/test"]["protocols"][0]["official"] and tables["qa/test"]["protocols"][0]["official"]
    # ids 1301 to 1450 are retrieval-test clips and QA-validation clips; three of them have no question
    overlaps = {(o["one"], o["other"]): o["clips"] for o in report["overlaps"]}
    assert overlaps == {("retrieval/test", "qa/val"): 147}
    assert report["media"]["files"] == 770 and report["media"]["decodable"] == 2
    assert report["distributions"]["Size"] == {"320x240": 1, "352x288": 1}


@pytest.mark.data
def test_the_real_clips_of_every_codec(shared_data, tmp_path):
    code, report = run(shared_data / "videos", out=tmp_path / "out")
    assert code == 0 and report["media"]["decodable"] == report["media"]["files"] >= 14
    findings = [json.loads(line) for line in (tmp_path / "out/files.jsonl").read_text().splitlines()]
    frames = {os.path.basename(one["path"]): one["video"]["frames"] for one in findings}
    assert frames["video9771.mp4"] == 419 and frames["av1_video.mkv"] == 125 and frames["var_fps_video.mp4"] == 300
    silent = {os.path.basename(one["path"]) for one in findings if one["audio"] is None}
    assert "video9771.mp4" in silent and "video9770.mp4" not in silent


def test_two_checks_do_not_write_into_one_folder(tmp_path, capsys, monkeypatch):
    from vtp.storage import alone

    (tmp_path / "clips").mkdir()
    make_clip(tmp_path / "clips" / "a.mp4")
    out = tmp_path / "out"
    out.mkdir()
    command = ["data", "check", str(tmp_path / "clips"), "--out", str(out)]
    with alone(out):
        assert main(command) == 2
    assert "another process is writing into" in capsys.readouterr().err
    assert not (out / "files.jsonl").exists()
    monkeypatch.chdir(tmp_path)
    assert main(["data", "check", "clips", "--backend", "nope", "--out", "new"]) == 2
    assert not (tmp_path / "new").exists()


HEAD = "video,caption,split\n"


@pytest.mark.parametrize(
    "text, options, code, words",
    [
        (HEAD, [], 1, "csv has no samples in any table"),
        (HEAD + ",a dog,train\nclip.mp4,,train\n", [], 1, "my.csv: 2 rows are left out (first: line 2: neither video"),
        (HEAD + "clip.mp4,a dog,train\nclip.mp4,a cat,trian\n", [], 1, "left out (first: line 3: split 'trian'"),
        (HEAD + "clip.mp4,a dog,train\n", ["--split", "val"], 1, "retrieval/val has no samples"),
        (HEAD + "clip.mp4,a dog,train\n", ["--split", "train"], 0, "1 of 1 files are there"),
        (HEAD + "clip.mp4,a dog,train\n", ["--split", "nope"], 2, "csv has no split 'nope'"),
        (HEAD + "clip.mp4,a dog,train\n", ["split=nope"], 2, "csv has no split 'nope'"),
        (HEAD + 'clip.mp4,"a dog,train\n', [], 1, "the quotation mark that opens a cell in line 2 is never closed"),
        (HEAD + 'clip.mp4,"a dog\nruns, fast",train\n', [], 0, "with line ends and delimiters: 1, first in line 2"),
    ],
)  # fmt: skip
def test_a_table_in_which_nothing_is_right_is_no_success(clip, tmp_path, capsys, text, options, code, words):
    shutil.copy(clip, tmp_path / "clip.mp4")
    file = tmp_path / "my.csv"
    file.write_text(text)
    found, _ = run(file, "--no-decode", *options, out=tmp_path / "out")
    told = capsys.readouterr()
    assert found == code and words in " ".join((told.out + told.err).split()), told
    if "nope" in options or words.startswith(("csv has no samples", "my.csv: 2 rows", "the quotation mark")):
        for command in ("cache", "pack"):
            given = [option for option in options if "=" in option]
            assert main(["data", command, str(file), str(tmp_path / command), *given]) == (
                2 if not options or given else 0
            )
            assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check", "cache", "pack"])
def test_a_media_file_is_not_read_as_a_table(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.MP4").write_bytes(b"junk")
    assert main(["data", command, "clip.MP4", *([] if command == "check" else ["OUT"])]) == 2
    assert "clip.MP4: a media file is no table. Give its folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["clip.MP4"]
