from __future__ import annotations

from vtp_datasets.charades_sta import CharadesSTA

TEST = """AO8RW 0.0 6.9##a person is putting a book on a shelf.
3MSZA 24.3 30.4##person turn a light on.
AO8RW 0.0 6.9##a person is putting a book on a shelf.
3MSZA 24.3##person turn a light on.
3MSZA 9 2##person turn a light on.
"""


def test_charades_sta(tmp_path):
    (tmp_path / "charades_sta_test.txt").write_text(TEST)
    (tmp_path / "Charades_v1_480").mkdir()
    (tmp_path / "Charades_v1_480" / "AO8RW.mp4").touch()
    data = CharadesSTA(root=tmp_path)
    first, second, third = data.samples("retrieval", "test")
    assert first.texts == ("a person is putting a book on a shelf.",) and first.extra["video_id"] == "AO8RW[0-6.9]"
    assert (first.video.start, first.video.end) == (0.0, 6.9) and first.video.path.endswith("Charades_v1_480/AO8RW.mp4")
    assert (second.video.start, second.video.end) == (24.3, 30.4) and third.texts == first.texts
    assert len({first.id, second.id, third.id}) == 3 and data.splits("retrieval") == ("train", "test")
