"""What ``vtp data cache`` reports: speeds that can be believed, and a hash of what is stored."""

from __future__ import annotations

import os
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "media"))
from odd_files import painted, tone, write

from vtp.media import MediaError, MediaReader, Wanted
from vtp.media.cache import CONTENT, CachedReader, ClipCache, Settings
from vtp.prepare import cache_report
from vtp.prepare.cache import build
from vtp.types import MediaRef


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    monkeypatch.setattr("vtp.prepare.cache.MediaReader", partial(MediaReader, isolate=False))


def films(folder: Path, first: int = 0) -> list[str]:
    folder.mkdir()
    return [
        str(write(folder / f"{k}.mp4", [painted(first + 10 * k + i) for i in range(8)], sounds=[[(0.0, tone(0.8))]]))
        for k in range(3)
    ]


def test_the_first_reads_do_not_count_and_rounds_are_at_least_three(tmp_path, monkeypatch):
    """Readers whose first read takes a second more, as loading a library does, on a clock of their own."""
    cache = ClipCache.create(tmp_path / "cache", Settings("raw", 48, audio=0))
    clock, reads = [0.0], {"original": 0, "cache": 0}

    def reader(name, seconds):
        class Slow:
            def __init__(self, *_, **__):
                pass

            def read(self, ref, wanted):
                clock[0] += seconds + (1.0 if not reads[name] else 0.0)
                reads[name] += 1

        return Slow

    monkeypatch.setattr(cache_report, "MediaReader", reader("original", 0.5))
    monkeypatch.setattr(cache_report, "CachedReader", reader("cache", 0.01))
    monkeypatch.setattr(cache_report.time, "process_time", lambda: clock[0])
    made = cache_report._speed(cache, ["a", "b"], seconds=0.0)
    assert made["clips_per_core_second"] == {"original": 2.0, "cache": 100.0} and made["times_faster"] == 50.0
    assert reads == {"original": 2 + 3 * 2, "cache": 2 + 3 * 2}


@pytest.mark.parametrize("kind", ["raw", "jpeg"])
def test_the_hash_is_that_of_what_is_stored(tmp_path, kind):
    sources = films(tmp_path / "here")
    moved = tmp_path / "there"
    shutil.copytree(tmp_path / "here", moved)
    one = ClipCache.create(tmp_path / "one", Settings(kind, 48))
    two = ClipCache.create(tmp_path / "two", Settings(kind, 48))
    build(one, sources)
    for name in sorted(os.listdir(moved), reverse=True):  # other folder, date, order and number of calls
        os.utime(moved / name, ns=(1, 1))
        build(two, [str(moved / name)])
    assert one.content_hash() == two.content_hash() != None  # noqa: E711
    assert one.record()["hash"] == one.content_hash() and one.record()["kind"] == kind
    (tmp_path / "here" / "0.mp4").unlink()
    films(tmp_path / "more", first=100)
    shutil.copy(tmp_path / "more" / "0.mp4", tmp_path / "here" / "0.mp4")
    build(one, sources)
    assert one.content_hash() != two.content_hash()


def test_an_unfinished_build_has_no_hash(tmp_path, monkeypatch):
    sources = films(tmp_path / "here")
    cache = ClipCache.create(tmp_path / "cache", Settings("raw", 48))
    assert cache.record()["hash"] is None
    build(cache, sources[:1])
    before = cache.content_hash()
    with monkeypatch.context() as patch:
        patch.setattr("vtp.prepare.cache.make_entry", lambda *_: os.open(tmp_path / "none" / "none", os.O_RDONLY))
        with pytest.raises(OSError):
            build(cache, sources)
    assert cache.content_hash() is None and not (cache.folder / CONTENT).exists()
    build(cache, sources[:1])  # nothing to make, but the hash
    assert cache.content_hash() == before


def test_a_copy_that_is_too_small_says_so_where_its_original_is_gone(tmp_path):
    sources = films(tmp_path / "here")
    cache = ClipCache.create(tmp_path / "cache", Settings("raw", 32, audio=8000))
    build(cache, sources)
    os.unlink(sources[0])
    reader = CachedReader(MediaReader(isolate=False), cache)
    assert reader.read(MediaRef(sources[0]), Wanted(size=32)).frames.shape[1] == 32
    for wanted in (Wanted(size=48), Wanted(), Wanted(size=32, sample_rate=16000)):
        with pytest.raises(MediaError, match="no such file, and its cached copy .*32 pixels.* is too small") as caught:
            reader.read(MediaRef(sources[0]), wanted)
        assert caught.value.kind == "missing"
