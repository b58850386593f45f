"""Files are found however their endings and accents are written."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from vtp.catalogue.media_files import VIDEOS, ClipFolders, Layouts, Paths

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café über") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("ending", [".MOV", ".mov", ".Mov", ".MP4", ".mp4"])
def test_a_name_without_its_ending_is_found(tmp_path: Path, ending: str) -> None:
    (tmp_path / "clips").mkdir()
    file = tmp_path / "clips" / f"phone{ending}"
    file.touch()
    paths = Paths([tmp_path], VIDEOS)
    assert paths.ref("clips/phone").path == str(file) and "clips/phone" in paths
    assert paths.ref(str(tmp_path / "clips/phone")).path == str(file)
    assert "clips/phon" not in paths
    assert ClipFolders(tmp_path, "clips", ()).ref("phone").path == str(file)


def test_small_letters_are_taken_first(tmp_path: Path) -> None:
    for name in ("a.MP4", "a.webm", "b.mp4", "b.MP4"):
        (tmp_path / name).touch()
    paths = Paths([tmp_path], VIDEOS)
    assert [Path(paths.ref(name).path).name for name in ("a", "b", "b.MP4")] == ["a.webm", "b.mp4", "b.MP4"]


@pytest.mark.parametrize("on_disk, named", [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED), (COMPOSED, COMPOSED)])
def test_accents_may_be_composed_or_not(tmp_path: Path, on_disk: str, named: str) -> None:
    folder = tmp_path / on_disk
    folder.mkdir()
    file = folder / f"{on_disk}.mp4"
    file.touch()
    for media, name in (
        (Paths([tmp_path], VIDEOS), f"{named}/{named}.mp4"),
        (Paths([tmp_path], VIDEOS), f"{named}/{named}"),
        (Paths([tmp_path], VIDEOS, flatter=True), f"made/elsewhere/{named}/{named}.mp4"),
        (Layouts([tmp_path], ("{name}/{name}.mp4",)), named),
        (ClipFolders(tmp_path, folder, ()), named),
    ):
        assert media.ref(name, 1.0, 2.0).path == str(file)
        assert name in media
        assert f"{name}x" not in media
