"""Shards: what is written, what another library reads from it, what a loader draws from it, and in which order."""

from __future__ import annotations

import errno
import gc
import hashlib
import io
import json
import os
import tarfile
import warnings
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import webdataset

from vtp.data import BadFiles, Pipeline, TrainLoader, keyed_generator
from vtp.data.presence import look
from vtp.data.shards import find_shards, shard_index, shard_order
from vtp.data.table import media_id
from vtp.errors import ConfigError, DataError, RunError
from vtp.media import MediaError, MediaReader, Wanted
from vtp.media.member import frames_path, member_path, split_member
from vtp.media.sampling import uniform
from vtp.prepare import pack as pack_module
from vtp.prepare.pack import MANIFEST, Packing, pack
from vtp.types import MediaRef, Sample, TextSpec, VideoSpec
from vtp_datasets.shards import Shards

READER = MediaReader(isolate=False)
RATE = 16000


def film(path: Path, seed: int = 0, sound: bool = True) -> Path:
    """1.5 seconds of 64x48 with a tone."""
    rows, columns = np.mgrid[0:48, 0:64]
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=10, options={"preset": "ultrafast", "g": "5"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.thread_count = 1
        audio = out.add_stream("aac", rate=RATE, layout="mono") if sound else None
        for number in range(15):
            picture = np.stack([rows * 5, columns * 3, np.full((48, 64), (number * 15 + seed * 50) % 256)], -1)
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")))
        out.mux(video.encode(None))
        if audio is not None:
            wave = 0.4 * np.sin(np.arange(RATE * 3 // 2, dtype=np.float32) / (7 + seed))
            for at in range(0, len(wave), 1024):
                piece = av.AudioFrame.from_ndarray(wave[None, at : at + 1024].copy(), format="fltp", layout="mono")
                piece.sample_rate, piece.pts = RATE, at
                out.mux(audio.encode(piece))
            out.mux(audio.encode(None))
    return path


@pytest.fixture(autouse=True, scope="module")
def in_process():
    """Starting a decoder process for every call of pack would be most of the time of these tests."""
    patch = pytest.MonkeyPatch()
    patch.setattr("vtp.prepare.pack.MediaReader", partial(MediaReader, isolate=False))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("films")
    return [str(film(folder / f"f{k}.{'avi' if k == 2 else 'mp4'}", k, sound=k != 1)) for k in range(5)]


@pytest.fixture(scope="module")
def samples(films) -> list[Sample]:
    """Five files, two samples each about spans of the first two."""
    made = []
    for k, path in enumerate(films):
        spans = [(None, None)] if k > 1 else [(0.0, 0.7), (0.7, 1.5)]
        for n, (start, end) in enumerate(spans):
            ref = MediaRef(path, start, end)
            made.append(
                Sample(f"s{k}-{n}", ref, ref, (f"clip {k} part {n}", "zweiter Text ü"), {"answer": f"a{k}"},
                       {"video_id": f"v{k}", "question_type": "what", "category": "x"})
            )  # fmt: skip
    return made


def through_webdataset(urls: list[str], decode: bool = False) -> list[dict[str, Any]]:
    """What the webdataset library reads; it leaves its files to the garbage collector."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        dataset = webdataset.WebDataset(urls, shardshuffle=False)
        read = list(dataset.decode() if decode else dataset)
        gc.collect()
    return read


def members(tar: Path) -> list[str]:
    with tarfile.open(tar) as file:
        return file.getnames()


def test_the_layout_is_that_of_video2dataset_and_the_webdataset_library_reads_it(films, samples, tmp_path):
    manifest = pack(samples, tmp_path / "out", Packing(per_shard=2))
    assert members(tmp_path / "out" / "00000.tar") == [
        "000000000.mp4", "000000000.txt", "000000000.json", "000000001.mp4", "000000001.txt", "000000001.json",
    ]  # fmt: skip
    assert "000010000.avi" in members(tmp_path / "out" / "00001.tar")
    stats = json.loads((tmp_path / "out" / "00002_stats.json").read_text())
    assert (stats["count"], stats["successes"], stats["status_dict"]) == (1, 1, {"success": 1})
    assert manifest == json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert (manifest["keys"], manifest["samples"], manifest["failures"]) == (5, 7, [])
    for name, facts in manifest["shards"].items():
        data = (tmp_path / "out" / name).read_bytes()
        assert facts["sha256"] == hashlib.sha256(data).hexdigest() and facts["bytes"] == len(data)
    urls = [str(path) for path in sorted((tmp_path / "out").glob("*.tar"))]
    read = through_webdataset(urls)
    for path, item in zip(films, read, strict=True):
        assert item[Path(path).suffix[1:]] == Path(path).read_bytes()
        record = json.loads(item["json"])
        assert record["caption"] == item["txt"].decode() == f"clip {films.index(path)} part 0"
        assert record["key"] == item["__key__"] and record["status"] == "success" and record["url"] == path


def test_decoded_frames_are_arrays_for_webdataset_and_clips_for_us(films, samples, tmp_path):
    pack(samples, tmp_path, Packing(frames=4, size=32, per_shard=3))
    urls = [str(path) for path in sorted(tmp_path.glob("*.tar"))]
    read = through_webdataset(urls, decode=True)
    table = Shards(urls=tmp_path).samples("qa", "train")
    assert len(read) == len(table) == len(samples)  # spans are decoded apart
    for item, packed, sample in zip(read, table, samples, strict=True):
        want = READER.read(sample.video, Wanted(times=partial(uniform, frames=4), size=32, sample_rate=RATE))
        np.testing.assert_array_equal(item["npy"], want.frames)
        for reader in (READER, MediaReader()):  # isolated, too: nothing is sent to the decoder
            got = reader.read(packed.video, Wanted(times=partial(uniform, frames=4), size=32, sample_rate=RATE))
            np.testing.assert_array_equal(got.frames, want.frames)
            np.testing.assert_allclose(got.timestamps, want.timestamps)
            assert reader._child is None
        assert got.missing == want.missing
        if want.waveform is not None:
            np.testing.assert_allclose(got.waveform, want.waveform, atol=5e-5)
            assert got.sound_start == want.sound_start
        small = READER.read(packed.video, Wanted(times=partial(uniform, frames=2), size=16))
        assert small.frames.shape[:2] == (2, 16)
        assert READER.read(packed.audio, Wanted(sample_rate=RATE // 2, video=False)).sample_rate == RATE // 2 \
            if want.waveform is not None else True  # fmt: skip


def test_packed_samples_come_back_as_they_were(films, samples, tmp_path):
    pack(samples, tmp_path, Packing(per_shard=2))
    data = Shards(urls=tmp_path)
    assert data.kinds == ("qa",) and data.splits("qa") == ("train",)
    table = data.samples("qa", "train")
    assert list(table.video_ids()) == [sample.extra["video_id"] for sample in samples]
    assert list(table.all_texts()) == [text for sample in samples for text in sample.texts]
    for got, want in zip(table, samples, strict=True):
        assert (got.id, got.texts, got.labels) == (want.id, want.texts, want.labels)
        assert {key: got.extra[key] for key in want.extra} == want.extra
        assert (got.video.start, got.video.end) == (want.video.start, want.video.end)
        assert got.audio == got.video
        clips = [reader.read(ref, Wanted(times=partial(uniform, frames=3), sample_rate=RATE))
                 for reader in (READER,) for ref in (got.video, want.video)]  # fmt: skip
        np.testing.assert_array_equal(clips[0].frames, clips[1].frames)
        assert (clips[0].waveform is None) == (clips[1].waveform is None)
    isolated = MediaReader()
    clip = isolated.read(table[0].video, Wanted(times=partial(uniform, frames=3)))
    np.testing.assert_array_equal(
        clip.frames, READER.read(samples[0].video, Wanted(times=partial(uniform, frames=3))).frames
    )
    assert isolated.probe(table[1].video).video.count == 8  # of the span from 0.7 s
    isolated.close()
    assert data.origin()["tables"] == {"qa/train": {"samples": 7}}
    with pytest.raises(ConfigError, match="qa"):
        data.samples("caption", "train")
    assert data.samples("qa", "val") == ()
    found = look(table, lambda sample: sample.video)
    assert (found.absent, found.usable) == (0, 7)


def test_a_second_call_keeps_whole_shards_and_makes_the_others(films, samples, tmp_path):
    def times() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*.tar"))}

    first = pack(samples, tmp_path, Packing(per_shard=2))
    before = times()
    assert pack(samples, tmp_path, Packing(per_shard=2)) == first and times() == before
    data = bytearray((tmp_path / "00000.tar").read_bytes())
    data[700] ^= 1  # a bit of the first file
    (tmp_path / "00000.tar").write_bytes(data)
    (tmp_path / "00001_stats.json").unlink()  # killed between the shard and its statistics
    (tmp_path / ".00002.tar.0123456789ab.tmp").write_text("half a shard")
    again = pack(samples, tmp_path, Packing(per_shard=2))
    assert again == first
    after = times()
    assert [after[name] != before[name] for name in before] == [True, True, False]
    assert not list(tmp_path.glob(".*.tmp"))
    changed = [*samples[:-1], Sample("new", samples[-1].video, None, ("other text",))]
    pack(changed, tmp_path, Packing(per_shard=2))
    assert [times()[name] != after[name] for name in before] == [False, False, True]
    assert pack(samples[:2], tmp_path, Packing(per_shard=2))["keys"] == 1
    assert [path.name for path in sorted(tmp_path.glob("0*"))] == ["00000.tar", "00000_stats.json"]


def test_failures_are_in_the_manifest_and_leave_no_trace_in_the_shard(films, tmp_path):
    (tmp_path / "bad.mp4").write_text("nothing")
    paths = [films[0], str(tmp_path / "bad.mp4"), str(tmp_path / "none.mp4"), films[3]]
    rows = [Sample(f"s{k}", MediaRef(path), None, (f"t{k}",)) for k, path in enumerate(paths)]
    for packing in (Packing(), Packing(frames=2, size=16)):
        out = tmp_path / f"out{packing.frames}"
        manifest = pack(rows, out, packing)
        assert [(f["path"], f["kind"]) for f in manifest["failures"]] == [(paths[1], "invalid"), (paths[2], "missing")]
        stats = json.loads((out / "00000_stats.json").read_text())
        assert (stats["count"], stats["successes"], stats["failed_to_download"]) == (4, 2, 1)
        table = Shards(urls=out).samples("caption", "train")
        assert [sample.id for sample in table] == ["s0", "s3"] and table[0].audio is None


def test_a_full_disk_keeps_whole_shards(samples, tmp_path, monkeypatch):
    add, names = pack_module._add, []

    def full(writer: Any, name: str, content: bytes) -> None:
        names.append(name)
        if len(names) > 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        add(writer, name, content)

    monkeypatch.setattr(pack_module, "_add", full)
    with pytest.raises(RunError, match="disk is full.*same command again"):
        pack(samples, tmp_path / "out", Packing(per_shard=2), workers=1)
    left = sorted(path.name for path in (tmp_path / "out").iterdir() if path.name != ".lock")
    assert left == ["00000.tar", "00000_stats.json"]
    monkeypatch.undo()
    kept = (tmp_path / "out" / "00000.tar").stat().st_mtime_ns
    assert pack(samples, tmp_path / "out", Packing(per_shard=2))["keys"] == 5
    assert (tmp_path / "out" / "00000.tar").stat().st_mtime_ns == kept


def test_a_folder_with_other_things_is_left_alone(samples, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="did not write"):
        pack(samples, tmp_path, Packing())
    for wrong in ({"frames": -1}, {"per_shard": 0}, {"per_shard": 10_000}, {"size": 2}):
        with pytest.raises(ConfigError):
            Packing(**wrong)


def write_foreign(folder: Path, films: Sequence[str], shards: int = 3, per_shard: int = 2) -> None:
    """As video2dataset leaves them: webdataset's own writer, statistics beside."""
    folder.mkdir(exist_ok=True)
    for shard in range(shards):
        with webdataset.TarWriter(str(folder / f"{shard:05d}.tar")) as writer:
            for place in range(per_shard):
                number = shard * per_shard + place
                writer.write({
                    "__key__": f"{shard:05d}{place:04d}", "mp4": Path(films[number % 2]).read_bytes(),
                    "txt": f"caption {number}", "json": {"key": "k", "caption": f"caption {number}", "url": "http://x"},
                })  # fmt: skip
        (folder / f"{shard:05d}_stats.json").write_text('{"count": 2}')


def test_shards_made_elsewhere_are_read(films, tmp_path):
    write_foreign(tmp_path, films)
    table = Shards(urls=tmp_path).samples("caption", "train")
    assert [sample.texts for sample in table] == [(f"caption {k}",) for k in range(6)]
    assert len({sample.id for sample in table}) == 6
    assert [media_id(sample) for sample in table][:2] == ["00000/000000000", "00000/000000001"]
    got = READER.read(table[1].video, Wanted(times=partial(uniform, frames=3)))
    want = READER.read(MediaRef(films[1]), Wanted(times=partial(uniform, frames=3)))
    np.testing.assert_array_equal(got.frames, want.frames)
    assert (tmp_path / "00000.index.json").exists()
    index = shard_index(tmp_path / "00000.tar")
    (tmp_path / "00000.index.json").write_text("{")  # damaged: made again
    assert shard_index(tmp_path / "00000.tar") == index
    write_foreign(tmp_path, films, shards=1, per_shard=1)  # the shard changed: so does its index
    assert [group.text for group in shard_index(tmp_path / "00000.tar").groups] == ["caption 0"]


def test_an_index_goes_to_the_cache_folder_where_the_shards_cannot_be_written(films, tmp_path, monkeypatch):
    write_foreign(tmp_path / "shards", films, shards=1)
    monkeypatch.setenv("VTP_CACHE", str(tmp_path / "cache"))
    replace = os.replace

    def refuse(source: Any, target: Any) -> None:
        if Path(target).parent == tmp_path / "shards":
            raise PermissionError(errno.EACCES, "read only")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    shard = tmp_path / "shards" / "00000.tar"
    index = shard_index(shard)
    assert len(list((tmp_path / "cache" / "shards").iterdir())) == 1
    monkeypatch.setattr("vtp.data.shards.scan", lambda shard: pytest.fail("it is in the cache folder"))
    assert shard_index(shard) == index


def test_ways_to_name_shards(films, tmp_path):
    write_foreign(tmp_path / "a", films, shards=3, per_shard=1)
    names = [tmp_path / "a" / f"{k:05d}.tar" for k in range(3)]
    assert find_shards(tmp_path / "a") == find_shards(tmp_path) == find_shards(str(tmp_path / "a" / "*.tar")) == names
    assert find_shards(str(tmp_path / "a" / "{00001..00002}.tar")) == names[1:]
    assert find_shards([str(names[2]), names[0], names[0]]) == [names[2], names[0]]
    for wrong in (tmp_path / "none", str(tmp_path / "a" / "{00002..00003}.tar")):
        with pytest.raises(DataError, match="neither a tar file nor"):
            find_shards(wrong)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no tar files"):
        find_shards(tmp_path / "empty")
    with pytest.raises(ConfigError, match="dataset.urls"):
        Shards()


def test_of_a_shard_that_is_cut_off_whole_samples_are_used(films, tmp_path, caplog):
    write_foreign(tmp_path, films, shards=1)
    shard = tmp_path / "00000.tar"
    data = shard.read_bytes()
    with tarfile.open(shard) as tar:
        infos = tar.getmembers()
    second = next(info.offset for info in infos if info.name.startswith("000000001"))
    end = infos[-1].offset_data + -(-infos[-1].size // 512) * 512
    for size in (end, end - 700, second + 2000):
        shard.write_bytes(data[:size])
        index = shard_index(shard)
        assert [(group.key, group.text) for group in index.groups] == [("000000000", "caption 0")]
        assert index.malformed == [("000000001", "the shard is cut off in it")]
        assert "cut off" in index.damage[0]
    with caplog.at_level("WARNING"):
        assert len(Shards(urls=tmp_path).samples("caption", "train")) == 1
    assert "1 samples of 1 shards are left out" in caplog.text and "cut off at byte" in caplog.text
    shard.write_bytes(data[:second])
    with pytest.raises(DataError, match="no whole sample"):
        shard_index(shard)


def test_a_file_that_is_no_shard_is_refused_and_one_that_changes_later_is_a_bad_sample(films, tmp_path):
    write_foreign(tmp_path, films, shards=1)
    shard = tmp_path / "00000.tar"
    table = Shards(urls=tmp_path).samples("caption", "train")
    data = shard.read_bytes()
    shard.write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError, match="cut off"):
        READER.read(table[1].video, Wanted(times=partial(uniform, frames=2)))
    shard.write_bytes(b"nothing" * 999)
    with pytest.raises(DataError, match="no tar file"):
        shard_index(shard)
    shard.unlink()
    ledger = BadFiles(tmp_path / "bad.jsonl")
    specs: dict[Any, Any] = {"video": VideoSpec(frames=2, size=32)}
    once = Pipeline(specs, train=False, reader=READER).with_bad(ledger)
    for _ in range(2):
        with pytest.raises(MediaError, match="no such shard"):
            once(table[0], 0, 0)
    (entry,) = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert entry["path"] == table[0].video.path and len(entry["path"]) < 300


def test_damaged_decoded_frames_are_a_bad_sample(films, tmp_path):
    pack([Sample("s", MediaRef(films[0]), MediaRef(films[0]), ("t",))], tmp_path, Packing(frames=2, size=32))
    (sample,) = Shards(urls=tmp_path).samples("caption", "train")
    data = bytearray((tmp_path / "00000.tar").read_bytes())
    place = data.index(b"\x93NUMPY")
    for at, value in ((place, 0), (data.index(b"|u1"), ord("x")), (data.index(b"(2, 32"), ord("["))):
        broken = bytearray(data)
        broken[at] = value
        (tmp_path / "00000.tar").write_bytes(broken)
        with pytest.raises(MediaError, match="damaged") as caught:
            READER.read(sample.video, Wanted(times=partial(uniform, frames=2), size=32))
        assert caught.value.kind == "invalid"


def frames_shard(folder: Path, *more: tuple[str, bytes], record: Any = None) -> Path:
    """Shards of decoded frames as somebody else makes them: one film of five frames, frame k of the grey value 40 k."""
    buffer = io.BytesIO()
    np.save(buffer, np.repeat(np.arange(0, 200, 40, dtype=np.uint8), 8 * 8 * 3).reshape(5, 8, 8, 3))
    members = [("k.npy", buffer.getvalue()), ("k.txt", b"text"), *more]
    members += [] if record is None else [("k.json", json.dumps(record).encode())]
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return folder


ODD = {"frames": {"timestamps": [0, 1]}}
NAN = {"frames": {"timestamps": [0, 1, 2, float("nan"), 4]}}


@pytest.mark.parametrize("record", [None, {"frames": 16}, {"frames": {"timestamps": []}}, {"missing": [1], "sound": 5}])
@pytest.mark.parametrize("between", [0, 200_000])
def test_frames_without_times_are_one_a_second(tmp_path, record, between):
    """Also where the members of a key do not lie next to each other."""
    others = (("other.mp4", bytes(between)), ("other.txt", b"t")) if between else ()
    table = Shards(urls=frames_shard(tmp_path, *others, record=record)).samples("caption", "train")
    clip = READER.read(table[0].video, Wanted(times=partial(uniform, frames=5), sample_rate=RATE))
    assert clip.frames[:, 0, 0, 0].tolist() == [0, 40, 80, 120, 160] and clip.timestamps.tolist() == [0, 1, 2, 3, 4]
    assert clip.missing == {"audio": "no audio stream"}


@pytest.mark.parametrize(
    "record", [ODD, NAN, {"frames": {"timestamps": "now"}}, {"frames": {"end": "x"}}, {"frames": {"fps": float("inf")}}]
)
def test_frames_with_other_times_are_a_bad_sample(tmp_path, record):
    (sample,) = Shards(urls=frames_shard(tmp_path, record=record)).samples("caption", "train")
    with pytest.raises(MediaError, match="damaged"):
        READER.read(sample.video, Wanted(times=partial(uniform, frames=2)))


def test_a_path_into_a_shard_takes_no_more_than_the_shard_holds(tmp_path):
    """Such a path may stand in anybody's table."""
    tar = frames_shard(tmp_path) / "00000.tar"
    os.mkfifo(tmp_path / "pipe.tar")
    (tmp_path / "folder.tar").mkdir()
    many = 9_999_999_999_999_999
    for path, words in [
        (f"{tar}!0+{many}/a.npy", "cut off"),
        (f"{tar}!{many}+5/a.mp4", "cut off"),
        (f"{tar}!0+{many}.npy,512+5.json/a.npy", "cut off"),
        (f"{tar}!0+512.json/a.npy", "damaged"),
        (f"{tmp_path}/pipe.tar!0+5/a.mp4", "no regular file"),
        (f"{tmp_path}/folder.tar!0+5/a.mp4", "no regular file"),
        (f"{tmp_path}/none.tar!0+5/a.mp4", "no such shard"),
        (f"{tmp_path}/\0.tar!0+5/a.mp4", "not a valid path"),
    ]:
        with pytest.raises(MediaError, match=words) as caught:
            READER.read(MediaRef(path), Wanted(times=partial(uniform, frames=2)))
        assert caught.value.kind in ("invalid", "missing", "not_a_file")


def test_members_of_no_bytes_are_bad_samples_and_no_captions(films, tmp_path):
    members = [("a.mp4", b""), ("a.txt", b"text"), ("b.mp4", Path(films[0]).read_bytes()), ("b.txt", b" \n")]
    table = Shards(urls=frames_shard(tmp_path, *members)).samples("caption", "train")
    texts = {sample.id: sample.texts for sample in table}
    assert texts == {"00000/k": ("text",), "00000/a": ("text",), "00000/b": ()}
    with pytest.raises(MediaError):
        READER.read(table[1].video, Wanted(times=partial(uniform, frames=2)))


def test_paths_of_members():
    path = member_path("/a b/x.tar", 512, 70, "folder/k.mp4")
    member = split_member(path)
    assert (member.tar, member.pieces, member.name) == ("/a b/x.tar", (("", 512, 70),), "folder/k.mp4")
    assert not member.is_frames and split_member(member_path("x.tar", 0, 1, "k.npy")).is_frames
    frames = split_member(frames_path("x.tar", [("npy", 512, 9), ("json", 1536, 2)], "a/k"))
    assert frames.is_frames and (frames.name, frames.size) == ("a/k.npy", 11)
    assert frames.pieces == (("npy", 512, 9), ("json", 1536, 2))
    inside = split_member(member_path("x.tar", 0, 1, "y.tar!5+5/z.mp4"))  # a name cannot choose another file
    assert inside.tar == "x.tar"
    for other in ("/a/x.tar", "/a/x.tar!y", "b.mp4", b"bytes"):
        assert split_member(other) is None


# -- order -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffer", [0, 1, 7, 40, 10_000])
def test_an_epoch_visits_every_row_once_within_reach_of_the_buffer(buffer):
    counts = [13, 1, 40, 7, 22]
    shards = np.repeat(np.arange(5), counts)
    for epoch in range(5):
        order = shard_order(shards, buffer, keyed_generator(0, epoch))
        assert sorted(order.tolist()) == list(range(sum(counts)))
        assert order.tolist() == shard_order(shards, buffer, keyed_generator(0, epoch)).tolist()
        assert order.tolist() != shard_order(shards, buffer, keyed_generator(0, epoch + 1)).tolist()
        # The sequence that it was shuffled from: the shards in some order, rows of each in theirs.
        visited = shard_order(shards, 0, keyed_generator(0, epoch))
        assert len(np.flatnonzero(np.diff(shards[visited]))) == 4
        assert all((np.diff(visited[shards[visited] == shard]) == 1).all() for shard in range(5))
        place = np.empty(len(order), int)
        place[visited] = np.arange(len(order))
        moved = np.abs(place[order] - np.arange(len(order)))
        assert moved.max() <= buffer
        if 1 < buffer < 100:
            assert moved.max() > buffer // 3  # and it does shuffle


def tokenize(texts: list[str]) -> list[list[int]]:
    return [[1, *(int(word) for word in text.split() if word.isdigit()), 2] for text in texts]


TEXT = TextSpec(
    tokenize, pad_id=0, mask_id=3, cls_id=1, sep_id=2, special_ids=(0, 1, 2, 3), vocab_size=999, max_length=8
)


@pytest.fixture(scope="module")
def long_table(films, tmp_path_factory) -> Any:
    folder = tmp_path_factory.mktemp("long")
    write_foreign(folder, films, shards=6, per_shard=5)
    return Shards(urls=folder, buffer=8).samples("caption", "train")


def loader(table: Any, **options: Any) -> TrainLoader:
    return TrainLoader(table, Pipeline({"text": TEXT}, train=True, seed=3), global_batch=4, seed=3, **options)


def ids(batches: TrainLoader, count: int) -> list[list[str]]:
    iterator = iter(batches)
    taken = [next(iterator).ids for _ in range(count)]
    iterator.close()  # type: ignore[attr-defined]
    return taken


def test_ranks_and_workers_share_an_epoch_without_duplicates(long_table):
    steps = len(long_table) // 4
    parts = [ids(loader(long_table, rank=rank, world_size=2, workers=2), 2 * steps) for rank in (0, 1)]
    whole = ids(loader(long_table), 2 * steps)
    assert [[*a, *b] for a, b in zip(*parts, strict=True)] == whole
    for epoch in (whole[:steps], whole[steps:]):
        seen = Counter(name for batch in epoch for name in batch)
        assert len(seen) == 4 * steps and set(seen.values()) == {1}
    assert whole[:steps] != whole[steps:]
    assert ids(loader(long_table, workers=1), steps) == whole[:steps]


def test_a_run_resumes_exactly_at_every_position(long_table):
    steps = len(long_table) // 4 + 2
    whole = ids(loader(long_table), steps)
    for position in range(steps):
        resumed = loader(long_table)
        resumed.load_state_dict({"samples": 4 * position})
        assert ids(resumed, steps - position) == whole[position:]


def test_a_part_of_the_table_keeps_the_order_of_its_shards(long_table):
    part = long_table.select(np.arange(0, 30, 3))
    assert [sample.id for sample in part] == [long_table[k].id for k in range(0, 30, 3)]
    order = part.epoch_order(keyed_generator(1))
    assert sorted(order.tolist()) == list(range(10))


def test_the_loader_visits_rows_in_the_epoch_order_of_the_table(long_table):
    order = long_table.epoch_order(keyed_generator(3, "order", 0))
    steps = len(long_table) // 4
    assert [name for batch in ids(loader(long_table), steps) for name in batch] == [
        long_table[int(row)].id for row in order[: 4 * steps]
    ]
