"""``vtp vat-media``: what simple-multimodal put into its LMDB stores comes back as it was."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vtp.cli.main import main
from vtp.errors import ConfigError, DataError
from vtp.media import Wanted, read_clip
from vtp.types import MediaRef
from vtp_crossformer.stores import MEAN, STD, copy_media, pixels
from vtp_datasets.vat import VAT

SMALL: dict[str, Any] = {"frames": 3, "size": 16, "rate": 8000, "channels": 2}
RANDOM = np.random.default_rng(0)
FRAMES = RANDOM.integers(0, 256, (3, 16, 16, 3), np.uint8)
STEREO = RANDOM.uniform(-1.2, 1.2, (2, 4000)).astype(np.float32)
ROWS = [
    ("a/one_dQw4w9WgXcQ.m4a", "one.txt", "a/one_dQw4w9WgXcQ.mp4"),
    ("two_bbbbbbbbbbb.m4a", "two.txt", "two_bbbbbbbbbbb.mp4"),
    ("three.mp3", "three.txt", ""),
]


def normalized(frames: np.ndarray[Any, Any]) -> bytes:
    """As VideoMAE's image processor does, (1, T, C, H, W)."""
    return ((frames / 255 - MEAN) / STD).astype(np.float32).transpose(0, 3, 1, 2)[None].tobytes()


RECORDS = {
    "video@dQw4w9WgXcQ": normalized(FRAMES),
    "audio@one_dQw4w9WgXcQ": STEREO.reshape(1, -1).tobytes(),
    "audio@of somebody else": b"1234",
}


def store(records: Mapping[str, bytes] = RECORDS) -> Any:
    """In place of the reader of LMDBs."""

    def read(_: Path) -> Iterable[tuple[str, bytes]]:
        return records.items()

    return read


def table(folder: Path, rows: Iterable[tuple[str, str, str]] = ROWS) -> Path:
    file = folder / "train.csv"
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([("audio", "text", "video"), *rows])
    return file


def test_clips_and_sounds_come_back_as_they_were(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = copy_media(table(tmp_path), [tmp_path], out, **SMALL, read=store())
    assert (done.made, done.there, done.missing, done.wrong) == (2, 0, 3, [])
    clip = read_clip(MediaRef(str(out / "video/a/one_dQw4w9WgXcQ.mp4")))
    assert (clip.frames == FRAMES).all()
    np.testing.assert_allclose(clip.timestamps, np.arange(3) / 7.5, atol=1e-3)
    sound = read_clip(MediaRef(str(out / "audio/a/one_dQw4w9WgXcQ.wav")), Wanted(sample_rate=8000, video=False))
    np.testing.assert_allclose(sound.waveform[0], STEREO.mean(axis=0), atol=1e-6)


def test_its_csv_is_read_as_a_data_set(tmp_path: Path) -> None:
    """With every row, so that what had no record is a miss."""
    texts = tmp_path / "texts"
    texts.mkdir()
    for name in ("one", "two", "three"):
        (texts / f"{name}.txt").write_text(f"clip {name}")
    copy_media(table(tmp_path), [tmp_path], tmp_path / "out", **SMALL, read=store())
    found = VAT(root=tmp_path / "out", text_root=texts).samples("caption", "train")
    assert [sample.texts for sample in found] == [("clip one",), ("clip two",), ("clip three",)]
    assert [Path(sample.audio.path).exists() for sample in found] == [True, False, False]
    assert Path(found[0].video.path).exists() and found[2].video is None


def test_a_second_run_goes_on(tmp_path: Path) -> None:
    given = table(tmp_path)
    first = {key: value for key, value in RECORDS.items() if not key.startswith("audio@one")}
    assert copy_media(given, [tmp_path], tmp_path / "out", **SMALL, read=store(first)).made == 1
    again = copy_media(given, [tmp_path], tmp_path / "out", **SMALL, read=store())
    assert (again.made, again.there) == (1, 1)
    assert not list((tmp_path / "out").rglob(".*"))


def test_a_key_of_several_clips_belongs_to_none(tmp_path: Path) -> None:
    """Eleven characters are left of a stem."""
    rows = [("", "1.txt", "x/part1_dQw4w9WgXcQ.mp4"), ("", "2.txt", "part2_dQw4w9WgXcQ.mp4"), *ROWS[:1]]
    done = copy_media(table(tmp_path, rows[1:2] + rows[:1]), [tmp_path], tmp_path / "out", **SMALL, read=store())
    assert (done.made, done.missing) == (0, 0)
    assert done.wrong == ["video@dQw4w9WgXcQ: it may be any of part2_dQw4w9WgXcQ, x/part1_dQw4w9WgXcQ"]


@pytest.mark.parametrize(
    ("record", "options", "said"),
    [
        (RECORDS["video@dQw4w9WgXcQ"], {"size": 15}, "are no 3 frames of 15 x 15 in float32"),
        (RECORDS["video@dQw4w9WgXcQ"], {"mean": [0.5, 0.5, 0.5], "std": [0.5] * 3}, "no pixels normalised with mean"),
        (RECORDS["video@dQw4w9WgXcQ"], {"std": [0.229, 0.224, 0.226]}, "no pixels normalised with mean"),
        (np.full((3, 3, 16, 16), np.nan, np.float32).tobytes(), {}, "no pixels normalised with mean"),
        (b"123", {}, "3 bytes are no 3 frames"),
    ],
)
def test_what_is_no_clip_of_that_form_is_named(
    tmp_path: Path, record: bytes, options: dict[str, Any], said: str
) -> None:
    read = store({"video@dQw4w9WgXcQ": record})
    done = copy_media(table(tmp_path), [tmp_path], tmp_path / "out", **(SMALL | options), read=read)
    assert done.made == 0 and len(done.wrong) == 1 and said in done.wrong[0]


@pytest.mark.parametrize(
    ("record", "said"),
    [(np.zeros(5, np.float32).tobytes(), "20 bytes are no sound of 2 channels"), (b"", "0 bytes are no sound"),
     (np.array([0, np.inf], np.float32).tobytes(), "samples that are no numbers")],
)  # fmt: skip
def test_what_is_no_sound_of_that_form_is_named(tmp_path: Path, record: bytes, said: str) -> None:
    done = copy_media(table(tmp_path), [tmp_path], tmp_path / "out", **SMALL, read=store({"audio@three": record}))
    assert done.made == 0 and len(done.wrong) == 1 and said in done.wrong[0]


def test_sounds_of_the_first_generation_are_pictures(tmp_path: Path) -> None:
    wave = RANDOM.uniform(-1, 1, 224 * 224).astype(np.float32)
    read = store({"audio@three": ((wave - 0.5) / 0.5).tobytes()})
    assert copy_media(table(tmp_path), [tmp_path], tmp_path / "out", sound="image", read=read).made == 1
    found = read_clip(MediaRef(str(tmp_path / "out/audio/three.wav")), Wanted(sample_rate=22050, video=False))
    np.testing.assert_allclose(found.waveform[0], wave, atol=1e-6)


def test_pixels_are_exact_for_every_value() -> None:
    every = np.arange(768, dtype=np.uint16).astype(np.uint8).reshape(1, 16, 16, 3)
    assert (pixels(normalized(every), frames=1, size=16, mean=MEAN, std=STD) == every).all()


def test_lmdbs_of_many_processes_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lmdb = pytest.importorskip("lmdb")
    (tmp_path / "stores").mkdir()
    for number, (key, value) in enumerate(RECORDS.items()):
        with (
            lmdb.open(str(tmp_path / f"stores/part_0_rank_0_pro_{number}"), map_size=1 << 20) as made,
            made.begin(write=True) as transaction,
        ):
            transaction.put(key.encode(), value)
    command = ["vat-media", str(table(tmp_path)), str(tmp_path / "stores"), str(tmp_path / "out")]
    assert main([*command, "rate=8000", "channels=2", "frames=3", "size=16"]) == 0
    assert "2 files of clips and sounds in" in capsys.readouterr().out
    assert len(list((tmp_path / "out").rglob("*.mp4"))) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rate=8000", "channels=2"], "expected CSV STORE... OUT"),
        (["a", "b", "c"], "rate= is needed"),
        (["a", "b", "c", "rate=8000"], "channels= is needed"),
        (["a", "b", "c", "rate=8000", "channels=0"], "channels"),
        (["a", "b", "c", "rate=8000", "channels=1", "sounds=image"], "has no option 'sounds'"),
        (["no.csv", "b", "c", "rate=8000", "channels=1"], "no.csv: there is no such file"),
        (["a", "b", "c", "rate=8000", "channels=1", "std=[0,1,1]"], "std above 0"),
    ],
)
def test_mistakes_are_told(arguments: list[str], said: str) -> None:
    with pytest.raises((ConfigError, DataError)) as error:
        from vtp_crossformer.stores import main as command

        command(arguments)
    assert said in str(error.value)


def test_nothing_of_the_csv_in_the_stores(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no record has a key of a row of"):
        copy_media(table(tmp_path), [tmp_path], tmp_path / "out", **SMALL, read=store({}))
    with pytest.raises(ConfigError, match="would be overwritten"):
        copy_media(table(tmp_path), [tmp_path], tmp_path, **SMALL, read=store())
