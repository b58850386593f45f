"""The reader of WebVid on small files, of records that the format's description quotes."""

from __future__ import annotations

import pytest
from small_files import WEBVID_A, malformed, write

from vtp.types import MediaRef
from vtp_datasets.webvid import WebVid, iso_seconds

WEBVID_B = (
    "videoid,contentUrl,duration,page_dir,name\n"
    '1053841541,http://x.mp4,PT00H00M17S,027701_027750,"Travel blogger shoot, a story on top of mountains."\n'
)


@pytest.mark.parametrize("text", [WEBVID_A, WEBVID_B])
@pytest.mark.parametrize(
    "place", ["videos/027701_027750/1053841541.mp4", "videos/train/105384/1053841541.mp4", "105384/1053841541.mp4",
              "videos/1053841541.mp4"]
)  # fmt: skip
def test_webvid(tmp_path, text, place):
    dataset = WebVid(root=write(tmp_path, {"results_2M_train.csv": text, place: ""}))
    sample = dataset.samples("retrieval", "train")[0]
    assert sample.id == "1053841541" and sample.texts == ("Travel blogger shoot, a story on top of mountains.",)
    assert sample.video == MediaRef(str(tmp_path / place)) and sample.extra["duration"] == 17.0
    if text is WEBVID_A:
        assert malformed(dataset, "results_2M_train.csv") == [
            "line 3: the clip 1053841541 is there already", "line 4: no name",
        ]  # fmt: skip
        assert dataset.origin()["files"][0]["rows_without_a_duration"] == 1
    assert dataset.splits("caption") == ("train", "val")


def test_durations():
    for text, seconds in {"PT00H00M17S": 17, "PT01H02M03.5S": 3723.5, "PT5M": 300, "P1DT1S": 86401}.items():
        assert iso_seconds(text) == seconds
    for text in ("", "PT", "17", "17S", "P"):
        with pytest.raises(ValueError, match="no duration"):
            iso_seconds(text)
