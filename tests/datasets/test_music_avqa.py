"""The reader of MUSIC-AVQA on small files, of records that the format's description quotes."""

from __future__ import annotations

import pytest
from small_files import AVQA, malformed, write

from vtp.errors import ConfigError
from vtp_datasets.music_avqa import MusicAVQA, fill_template


def test_music_avqa(tmp_path):
    templated = AVQA | {
        "question_id": 13, "video_id": "va00000093", "type": '["Audio-Visual", "Existential"]', "anser": "yes",
        "question_content": "Is the <Object> in the <LR> always playing?", "templ_values": '["ukulele", "left"]',
    }  # fmt: skip
    wrong = [
        AVQA | {"question_id": 14, "templ_values": '["one"]'},
        AVQA | {"question_id": 15, "type": "Audio"},
        AVQA | {"question_id": 12},
    ]
    root = write(tmp_path, {"avqa-test.json": [AVQA, templated, *wrong]})
    dataset = MusicAVQA(root=root)
    first, second = dataset.samples("qa", "test")
    assert (first.id, first.labels, first.extra["question_type"]) == ("12", {"answer": "one"}, "Audio/Counting")
    assert (first.extra["question_group"], first.extra["category"]) == ("Audio", "real")
    assert second.texts == ("Is the ukulele in the left always playing?",) and second.extra["category"] == "synthetic"
    assert [line.partition(":")[0] for line in malformed(dataset, "avqa-test.json")] == ["item 2", "item 3", "item 4"]
    real = MusicAVQA(root=root, clips="real")
    assert [s.id for s in real.samples("qa", "test")] == ["12"]
    assert real.origin()["files"][0]["rows_of_other_clips"] == 1
    with pytest.raises(ConfigError, match="no table of the kind 'retrieval'; it has: qa"):
        dataset.samples("retrieval", "test")


def test_templates_are_filled_in_order():
    assert fill_template("<A> or <B>?", ["x", "y"]) == "x or y?"
    with pytest.raises(ValueError, match="1 places and 2 words"):
        fill_template("<A>?", ["x", "y"])
