"""vtp embed, search, ask and caption: rows, resuming, bad files, and what is found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import vtp
from vtp.cli.main import main
from vtp.errors import ConfigError

pytest.importorskip("lancedb", reason="tables of embeddings need lancedb")

from vtp.use import embed as embedding  # noqa: E402
from vtp.use.table import Table  # noqa: E402

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture
def media(clips, tmp_path):
    """A folder of its own: a.mp4, b.mp4, tone.wav and broken.mp4."""
    return shutil.copytree(clips, tmp_path / "media")


@pytest.fixture
def embed(media, dual_folder, tmp_path):
    """``embed("--window", "2")``: the folder into tmp_path/index; gives the exit code."""
    index = str(tmp_path / "index")
    how = ["--model", str(dual_folder), "--device", "cpu", "--window", "2", "--stride", "1"]
    return lambda *more, out=index: main(["embed", str(media), out, *how, *more])


def rows(place):
    """(file, start, end, modality) -> vector, of a whole table."""
    found = Table.open(str(place)).windows.search().limit(1000).to_arrow().to_pylist()
    out = {(r["file"].rpartition("/")[2], r["start"], r["end"], r["modality"]): r["vector"] for r in found}
    assert len(out) == len(found)  # no row twice
    return out


def test_a_row_per_window_with_the_embedding_of_its_span(embed, media, dual, tmp_path, capsys):
    assert embed() == 1  # broken.mp4, and tone.wav, in which nothing can be seen
    out = capsys.readouterr().out
    assert f"bad: {media / 'broken.mp4'}: not a media file" in out and "--accept 2 accepts them" in out
    found = rows(tmp_path / "index")
    assert sorted(found) == sorted(
        (f"{name}.mp4", start, start + 2.0, "video") for name in "ab" for start in (0.0, 1.0, 2.0)
    )  # the objective vtc embeds no sounds
    for (name, start, end, _), vector in found.items():
        want = dual.encode(videos=[(media / name, start, end)]).videos[0]
        np.testing.assert_allclose(vector, want, atol=1e-6)
    (bad,) = [*Table.open(str(tmp_path / "index")).bad()][:1]
    assert bad[0].endswith("broken.mp4") and "not a media file" in bad[1]["reason"]


@pytest.mark.parametrize("how", [("--model", "{}"), ("--model={}",), ("--mod", "{}")])
def test_a_model_of_options_is_no_option_of_the_data_set(dual_folder, clips, tmp_path, how):
    """model=..., as vtp.load takes it, looks like root=... of a data set."""
    (tmp_path / "media").mkdir()
    shutil.copy(clips / "a.mp4", tmp_path / "media")
    model, index = f"model={dual_folder},checkpoint={dual_folder}", str(tmp_path / "index")
    where = ["--device", "cpu", "--window", "0"]
    assert main(["embed", str(tmp_path / "media"), index, *[part.format(model) for part in how], *where]) == 0
    assert Table.open(index).about["model"] == model
    assert main(["search", index, "a red ball", "--model", model, "--device", "cpu"]) == 0


def test_sounds_in_the_space_that_has_them(embed, media, dual, tmp_path):
    assert embed("--objective", "atc", "--window", "1", "--accept", "9") == 0
    found = rows(tmp_path / "index")
    assert [*found] == [("tone.wav", 0.0, 1.0, "audio"), ("tone.wav", 1.0, 2.0, "audio")]
    want = dual.encode(audios=[(media / "tone.wav", 1.0, 2.0)]).audios[0]
    np.testing.assert_allclose(found["tone.wav", 1.0, 2.0, "audio"], want, atol=1e-6)


def test_what_is_done_is_kept_and_what_changed_is_done_again(embed, media, tmp_path, capsys, monkeypatch):
    embed()
    before, asked = rows(tmp_path / "index"), []
    probe = embedding._lengths
    monkeypatch.setattr(
        embedding, "_lengths", lambda model, some: asked.extend(s.key for s in some) or probe(model, some)
    )
    first = [line for line in capsys.readouterr().out.splitlines() if "bad:" in line]
    assert embed() == 1 and asked == []  # what was bad stays noted, and is told again
    again = capsys.readouterr().out
    assert "4 files: 4 were done, 0 windows added; 6 windows" in again and "--accept 2 accepts them" in again
    assert len(first) == 2 and all(line in again for line in first)
    assert embed("--accept", "2") == 0
    embed("--retry")
    assert sorted(key.rpartition("/")[2] for key in asked) == ["broken.mp4", "tone.wav"]
    asked.clear()
    shutil.copy(media / "b.mp4", media / "a.mp4")
    (media / "c.mp4").write_bytes((media / "b.mp4").read_bytes())
    assert embed("--accept", "2") == 0 and sorted(key.rpartition("/")[2] for key in asked) == ["a.mp4", "c.mp4"]
    after = rows(tmp_path / "index")
    assert len(after) == 9 and after["a.mp4", 0.0, 2.0, "video"] == before["b.mp4", 0.0, 2.0, "video"]


@pytest.mark.parametrize("at", ["windows", pytest.param("files", marks=pytest.mark.slow)])
def test_a_table_that_was_interrupted_is_the_same_in_the_end(embed, tmp_path, monkeypatch, at):
    monkeypatch.setattr(embedding, "AT_ONCE", 1)  # a file at a time
    embed()
    embed(out=str(tmp_path / "whole"))
    add, calls = Table.add, []

    def interrupted(self, rows, done):
        calls.append(1)
        if len(calls) == 2 and at == "windows":  # nothing of the second file was added
            raise KeyboardInterrupt
        if len(calls) == 2:  # its windows were, but it was not noted
            self.files = None
        add(self, rows, done)

    shutil.rmtree(tmp_path / "index")
    with monkeypatch.context() as patch:
        patch.setattr(Table, "add", interrupted)
        if at == "windows":
            assert embed() == 130
        else:
            with pytest.raises(AttributeError):
                embed()
    begun = Table.open(str(tmp_path / "index"))
    assert len(begun) == (3 if at == "windows" else 6) and begun.files.count_rows() == 1
    assert embed() == 1
    assert rows(tmp_path / "index") == rows(tmp_path / "whole")


def test_shares_of_torchrun_make_the_whole(embed, tmp_path, monkeypatch, capsys):
    embed(out=str(tmp_path / "whole"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        embed()
    assert "2 files (share 2 of 2)" in capsys.readouterr().out
    assert rows(tmp_path / "index") == rows(tmp_path / "whole")


@pytest.mark.slow
def test_a_bad_file_of_one_process_does_not_end_the_others(dual_folder, clips, tmp_path):
    folder, index = tmp_path / "many", tmp_path / "index"
    folder.mkdir()
    for number in range(40):  # the first process is done at once
        shutil.copy(clips / ("a.mp4" if number % 2 else "broken.mp4"), folder / f"{number:02}.mp4")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [*torchrun, "-m", "vtp", "embed", str(folder), str(index), "--model", str(dual_folder), "--device", "cpu"]
    command += ["--window", "2", "--stride", "1", "--index-from", "60"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for accepted, ended in (("19", 1), ("20", 0)):
        done = subprocess.run(
            [*command, "--retry", "--accept", accepted], capture_output=True, text=True, env=environment
        )
        assert done.returncode == ended, done.stderr
        assert len(rows(index)) == 60 and done.stdout.count("index: 60 windows") == 1
    assert "20 files (share 2 of 2)" in done.stdout and done.stdout.count("search it:") == 1


def test_a_table_has_one_model_and_one_window(embed, write, dual, tmp_path, capsys):
    embed()
    assert embed("--window", "3") == 2 and "was made with window=2.0, and now it is 3.0" in capsys.readouterr().err
    spec = {**dual.module.spec, "objectives": {"vtc": {"name": "vtc", "width": 8, "temperature": 0.1, "weight": 1.0}}}
    other = write(tmp_path / "other", spec)
    assert embed("--model", str(other)) == 2 and "was made with fingerprint=" in capsys.readouterr().err
    assert main(["search", str(tmp_path / "index"), "two", "--model", str(other), "--device", "cpu"]) == 2
    assert "was made with another model" in capsys.readouterr().err


def test_search_by_text_and_by_clip(embed, media, dual, tmp_path, capsys):
    embed()
    index = str(tmp_path / "index")
    capsys.readouterr()
    assert main(["search", index, "two blue stars", "-k", "9", "--json", "--device", "cpu"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    text = dual.encode(texts=["two blue stars"], objective="vtc").texts[0]
    every = {key: float(np.dot(text, vector)) for key, vector in rows(index).items()}
    want = sorted(every, key=lambda key: -every[key])
    assert len(found) == 6
    np.testing.assert_allclose([row["score"] for row in found], [every[key] for key in want], atol=1e-5)
    span = dual.encode(videos=[media / "b.mp4"]).videos[0]
    best = max(rows(index).items(), key=lambda row: float(np.dot(span, row[1])))[0]
    assert main(["search", index, str(media / "b.mp4"), "-k", "1", "--device", "cpu"]) == 0
    line, how = capsys.readouterr().out.splitlines()
    assert f"{media / best[0]}  0:{best[1]:04.1f}-0:{best[2]:04.1f}  video" in line
    assert how == "exact: compared with all of 6 windows"


@pytest.mark.parametrize(
    ("query", "more", "said"),
    [
        ("gone.mp4", [], "there is no such file"),
        ("{media}/broken.mp4", [], "cannot be used: not a media file"),
        ("{media}/tone.wav", [], "cannot be searched with audio"),
        ("a red ball", ["--modality", "audio"], "has embeddings of video, and none of audio"),
    ],
)
def test_a_query_that_cannot_be_is_said(embed, media, tmp_path, capsys, query, more, said):
    embed()
    capsys.readouterr()
    assert main(["search", str(tmp_path / "index"), query.format(media=media), "--device", "cpu", *more]) == 2
    assert said in capsys.readouterr().err


def test_an_index_finds_what_the_exact_search_finds(tmp_path):
    from vtp.types import MediaRef
    from vtp.use.windows import Source, Window

    about = {"model": "m", "fingerprint": "f", "objective": "vtc", "modalities": ["video"], "width": 16}
    table = Table.make(str(tmp_path / "index"), about)
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((20, 16))
    vectors = (centres[rng.integers(0, 20, 600)] + 0.3 * rng.standard_normal((600, 16))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    sources = [Source(f"it's {i}", MediaRef(f"it's {i}"), 1, 1) for i in range(600)]
    made = [(Window(s, "video", s.ref, 0.0, 1.0), v) for s, v in zip(sources, vectors, strict=True)]
    table.add(made, {source: [] for source in sources})
    known = table.build_index()
    assert known["rows"] == 600 and known["recall"] >= 0.95 and known["queries"] == 50
    again = Table.open(str(tmp_path / "index"))
    assert again.index() == known
    best = np.argsort(-(vectors @ vectors[7]), kind="stable")[:10]
    exact = [row["file"] for row in again.search(vectors[7], exact=True)]
    assert exact == [f"it's {i}" for i in best]
    assert len({*exact} & {row["file"] for row in again.search(vectors[7])}) >= 8
    assert again.rest(sources) == [] and len(again.rest([Source("it's 3", MediaRef("it's 3"), 2, 1)])) == 1
    assert len(again) == 599


def test_nothing_forks_where_lancedb_is_in_use(dual_folder, tmp_path):
    with pytest.raises(ConfigError, match="workers=2 forks"):
        embedding.embed_into(str(tmp_path / "x"), [], vtp.load(dual_folder, device="cpu", workers=2))


def test_without_a_table_or_a_model_it_is_said(tmp_path, media, fused, write, capsys):
    for place in (tmp_path / "none", media / "a.mp4"):
        assert main(["search", str(place), "a dog"]) == 2
        assert "there is no table of embeddings" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    folder = write(tmp_path / "fused", fused.module.spec)
    assert main(["embed", str(media), str(tmp_path / "x"), "--model", str(folder), "--device", "cpu"]) == 2
    assert "no objective that embeds videos or sounds" in capsys.readouterr().err


def test_a_file_whose_name_no_table_holds_is_named_and_the_others_are_there(embed, media, tmp_path, capsys):
    for name in ("b.mp4", "broken.mp4", "tone.wav"):
        (media / name).unlink()
    for number in range(6):
        os.link(media / "a.mp4", os.fsencode(media) + b"/\xff%d\n.mp4" % number)
    (media / "empty\n.mp4").touch()
    for _ in range(2):  # the second one finds the file noted
        assert embed() == 1
        told = capsys.readouterr().out
        assert told.count("its name is no UTF-8") == 6 and "\\udcff0\\n.mp4: its name" in told
        assert "and 1 more" in told and "--accept 7 accepts them" in told
    (media / "empty\n.mp4").unlink()
    assert {name for name, *_ in rows(tmp_path / "index")} == {"a.mp4"}


def test_a_place_that_can_hold_no_table_is_one_line(embed, media, tmp_path, capsys):
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "new\nline.mp4").touch()
    for place in (tmp_path / "odd", media / "a.mp4", media / "a.mp4" / "deep", "/proc/index"):
        assert embed(out=str(place)) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "cannot be" in line


def test_ask(fused, write, clips, tmp_path, capsys):
    folder, question = str(write(tmp_path / "fused", fused.module.spec)), "what colour is the ball"
    assert main(["ask", str(clips / "a.mp4"), question, "--model", folder, "--device", "cpu", "--top", "1"]) == 0
    assert capsys.readouterr().out.split()[-1] == fused.answer(clips / "a.mp4", question).text


@pytest.mark.slow
def test_ask_and_caption(fused, write, clips, tmp_path, capsys):
    folder = str(write(tmp_path / "fused", fused.module.spec))
    model = vtp.load(folder, device="cpu", workers=0)
    question = "what colour is the ball"
    assert main(["ask", str(clips / "a.mp4"), question, "--model", folder, "--device", "cpu", "--top", "2"]) == 0
    answer = model.answer(clips / "a.mp4", question)
    assert capsys.readouterr().out == "".join(f"{p:.3f}  {text}\n" for text, p in answer.ranking[:2])
    assert main(["caption", str(clips / "a.mp4"), "--model", folder, "--device", "cpu", "--beams", "1"]) == 0
    assert capsys.readouterr().out == model.caption(clips / "a.mp4", beams=1) + "\n"
    assert main(["ask", str(clips / "broken.mp4"), question, "--model", folder, "--device", "cpu"]) == 2
    assert "cannot be used: not a media file" in capsys.readouterr().err.replace(str(clips / "broken.mp4: "), "")


# -- what a kill, a full disk or others leave --------------------------------------------------------------------------


def test_a_table_that_was_killed_before_its_first_version_is_made(embed, tmp_path, capsys):
    for name in ("windows", "files"):
        (tmp_path / "index" / f"{name}.lance" / "data").mkdir(parents=True)
    assert main(["search", str(tmp_path / "index"), "two", "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert "there is no table of embeddings" in said and "Did you mean" not in said
    assert embed() == 1 and len(rows(tmp_path / "index")) == 6


def test_a_damaged_table_is_one_line(embed, tmp_path, capsys):
    assert embed() == 1
    for file in (tmp_path / "index" / "windows.lance" / "data").iterdir():
        file.write_bytes(b"")
    capsys.readouterr()
    for again in (embed, lambda: main(["search", str(tmp_path / "index"), "two", "--device", "cpu"])):
        assert again() == 2
        said = capsys.readouterr().err.strip()
        assert "a file of it is damaged" in said and "\n" not in said


def test_a_table_of_others_is_not_touched(embed, tmp_path, capsys):
    import lancedb

    database = lancedb.connect(tmp_path / "index")
    for name in ("windows", "files"):
        database.create_table(name, [{"theirs": 1}])
    assert embed() == 2
    assert main(["search", str(tmp_path / "index"), "two", "--device", "cpu"]) == 2
    assert "that `vtp embed` did not write" in capsys.readouterr().err
    assert database.open_table("windows").to_arrow().to_pylist() == [{"theirs": 1}]


def test_a_full_disk_is_one_line_and_what_is_there_stays(embed, tmp_path, capsys, monkeypatch):
    from lancedb.table import LanceTable

    def full(*given, **how):
        raise RuntimeError("lance error: LanceError(IO): No space left on device (os error 28)")

    with monkeypatch.context() as patched:
        patched.setattr(LanceTable, "add", full)
        assert embed() == 1
    said = capsys.readouterr().err.strip()
    assert "the disk is full" in said and "\n" not in said
    assert embed() == 1 and len(rows(tmp_path / "index")) == 6
