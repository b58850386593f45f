"""What commands are pointed at: all of them read the same rows of a target, and refuse it in the same words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vtp.cli.data import point_at
from vtp.cli.main import main
from vtp.errors import ConfigError, DataError
from vtp.prepare.target import Target, tables_of
from vtp.types import MediaRef, Sample

COMMANDS = ("check", "cache", "pack")
ENDINGS = ("csv", "tsv", "jsonl", "json")
ROWS = [
    {"clip_name": "clips/a", "Sentence": "a first one"},
    {"clip_name": "clips/b.mkv", "Sentence": "second, with comma"},
    {"clip_name": "clips/a", "Sentence": "the first again"},
]
TEXTS = {"clips/a.mp4": ["a first one", "the first again"], "clips/b.mkv": ["second, with comma"]}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    (tmp_path / "clips").mkdir()
    for name in ("a.mp4", "b.mkv", "c.MP4", "d.wav", "notes.md", ".hidden.mp4"):
        (tmp_path / "clips" / name).write_bytes(b"no media at all")
    (tmp_path / "clips" / "a.txt").write_text(" a caption \n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(file: Path, rows: list[dict[str, str]]) -> str:
    if file.suffix == ".json":
        file.write_text(json.dumps(rows))
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        mark = "\t" if file.suffix == ".tsv" else ","
        lines = [rows[0], *(row.values() for row in rows)]
        file.write_text("".join(mark.join(f'"{cell}"' for cell in line) + "\n" for line in lines))
    return str(file)


def run(command: str, target: str, out: Path, *more: str) -> int:
    """Exit code of ``vtp data COMMAND TARGET``."""
    return main(["data", command, target, *(["--out", str(out)] if command == "check" else [str(out)]), *more])


@pytest.mark.parametrize(
    "ending", [end if end in ("csv", "jsonl") else pytest.param(end, marks=pytest.mark.slow) for end in ENDINGS]
)
def test_the_same_table_gives_every_command_the_same_files(folder, ending):
    """The files hold no media, so that each command names all of them as failed."""
    target = write(folder / f"my.{ending}", ROWS)
    found = {}
    for command in COMMANDS:
        assert run(command, target, folder / command) == 1
        report = json.loads((folder / command / ("manifest.json" if command == "pack" else "report.json")).read_text())
        failed = report["failed"] if command == "cache" else report["failures" if command == "pack" else "problems"]
        found[command] = sorted(one if isinstance(one, str) else one["path"] for one in failed)
    assert found == dict.fromkeys(COMMANDS, [str(folder / path) for path in TEXTS])


@pytest.mark.parametrize("ending", ENDINGS)
def test_rows_of_a_table_have_their_texts_and_keep_their_order(folder, ending):
    samples = list(point_at(write(folder / f"my.{ending}", ROWS), {}).samples(("caption", "retrieval")))
    assert {Path(s.video.path).relative_to(folder).as_posix(): list(s.texts) for s in samples} == TEXTS
    many = [{"video": f"{n}.mp4", "caption": f"number {n}"} for n in range(30)]
    target = write(folder / f"many.{ending}", many)
    assert [s.texts[0] for s in point_at(target, {}).samples()] == [row["caption"] for row in many]
    parts = [list(point_at(target, {"split": split}).samples()) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [24, 3, 3]  # as `vtp run dataset=csv` divides it
    divided = point_at(target, {}, hold_out=True)
    assert [len(divided.source.samples(*table)) for table in tables_of(divided.source)] == [24, 3, 3]


def test_a_table_of_media_alone_can_be_looked_at_but_not_learnt_from(folder):
    target = point_at(write(folder / "list.csv", [{"path": "clips/a.mp4"}, {"path": "clips/b"}]), {})
    assert tables_of(target.source) == [("media", split) for split in ("train", "val", "test")]
    assert target.media_paths() == [str(folder / path) for path in TEXTS]
    assert [sample.texts for sample in target.samples()] == [(), ()]
    with pytest.raises(
        DataError, match=r"Needed are video .* and caption, or question and answer, or label; found: path"
    ):
        target.source.samples("retrieval", "train")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("words.csv", "the columns say neither what is shown nor what is said about it"),
        ("words.jsonl", "the columns say neither what is shown nor what is said about it"),
        ("gone.csv", "gone.csv: there is no such file or folder"),
        ("no/such", "no/such: there is no such file or folder"),
        ("msvdd", "'msvdd' is neither a data set nor a file or folder here. Did you mean 'msvd'"),
        ("clips size=1", "clips is a folder, and size is for data sets"),
        ("good.csv rot=x", "csv has no option 'rot'. Did you mean 'root'"),
        ("good.csv kind=qa", "csv has no 'qa' tables; it has caption, retrieval"),
        ("good.csv kind=caption split=dev", "csv has no split 'dev'; caption has train, val, test"),
        ("msrvtt_7k rot=x", "msrvtt has no option 'rot'"),
    ],
)
def test_every_command_refuses_in_the_same_words(folder, target, words, capsys):
    for ending in ("csv", "jsonl"):
        write(folder / f"words.{ending}", [{"speaker": "me", "year": "2020"}])
    write(folder / "good.csv", ROWS)
    name, *options = target.split()
    said = set()
    for command in COMMANDS:
        assert run(command, name, folder / "out", *options) == 2
        said.add(capsys.readouterr().err)
    assert len(said) == 1 and words in said.pop()


def test_a_folder_gives_videos_and_sounds_with_the_captions_beside_them(folder):
    samples = list(point_at("clips", {}).samples())
    assert [sample.id for sample in samples] == ["a", "b", "c", "d"]
    media = MediaRef("clips/a.mp4")
    assert samples[0] == Sample("a", media, media, ("a caption",), {}, {"video_id": "a.mp4"})
    assert samples[3] == Sample("d", None, MediaRef("clips/d.wav"), (), {}, {"video_id": "d.wav"})
    for name in ("more/a.mp4", "more/b.jpg", "more/b.wav"):  # files of one name are not one sample, nor one clip
        (folder / "clips" / name).parent.mkdir(exist_ok=True)
        (folder / "clips" / name).write_bytes(b"no media at all")
    samples = list(point_at("clips", {}).samples())
    assert [sample.id for sample in samples] == ["a", "b", "c", "d", "more/a", "more/b.jpg", "more/b.wav"]
    assert len({sample.extra["video_id"] for sample in samples}) == 7
    (folder / "clips" / "b.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(DataError, match=r"b\.txt is not UTF-8"):
        list(point_at("clips", {}).samples())
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="no media files in empty"):
        list(point_at("empty", {}).samples())
    (folder / "msvd").mkdir()
    assert isinstance(point_at("./msvd", {}).source, Path) and point_at("msvd", {}).source.name == "msvd"


class Toy:
    name = "toy"
    kinds = ("caption", "retrieval", "qa")

    def splits(self, kind):
        return ("train", "test") if kind == "qa" else ("train", "val")

    def samples(self, kind, split):
        if split == "train":
            raise DataError(f"{kind}/{split} is not there")
        return [Sample(f"{kind}-{split}", MediaRef(f"{split}.mp4"), MediaRef(f"{split}.mp4"), ("text",))]


def test_tables_are_chosen_by_kind_and_split():
    retrieval, qa = [("retrieval", "train"), ("retrieval", "val")], [("qa", "train"), ("qa", "test")]
    assert tables_of(Toy()) == [*retrieval, *qa]  # the clips of captions come with retrieval
    assert tables_of(Toy(), ["caption"]) == [("caption", "train"), ("caption", "val")]
    assert tables_of(Toy(), splits=["test", "val"]) == [retrieval[1], qa[1]]
    with pytest.raises(ConfigError, match="toy has no 'mc' tables; it has caption, retrieval, qa"):
        tables_of(Toy(), ["mc"])
    with pytest.raises(ConfigError, match="toy has no split 'val'; qa has train, test"):
        tables_of(Toy(), ["qa"], ["val"])


def test_what_is_there_of_a_data_set_is_used():
    assert [sample.id for sample in Target(Toy()).samples()] == ["retrieval-val", "qa-test"]
    assert [sample.id for sample in Target(Toy()).samples(["mc", "caption"])] == ["caption-val"]
    assert [sample.id for sample in Target(Toy(), ["qa"]).samples(["caption"])] == ["qa-test"]
    assert Target(Toy()).media_paths() == ["val.mp4", "test.mp4"]
    with pytest.raises(DataError, match="retrieval/train is not there"):
        list(Target(Toy(), splits=["train"]).samples())
