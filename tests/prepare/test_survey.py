from __future__ import annotations

import pytest

from vtp.errors import DataError, PluginError
from vtp.prepare.survey import survey_dataset
from vtp.types import MediaRef, Sample


class Toy:
    """A data set with everything that can be wrong."""

    name = "toy"
    kinds = ("caption", "retrieval", "qa")

    def __init__(self, folder):
        def sample(name, clip, **media):
            ref = MediaRef(str(folder / f"{clip}.mp4"))
            return Sample(name, media.get("video", ref), media.get("audio", ref), ("text",), {}, {"video_id": clip})

        self.tables = {
            ("caption", "train"): [sample("c", "one")],
            ("retrieval", "train"): [sample("r1", "one"), sample("r1", "two")],
            ("retrieval", "test"): [sample("r2", "two"), sample("r3", "three")],
            ("qa", "train"): [sample("q0", "one")],
            ("qa", "val"): [sample("q1", "three"), sample("q2", "three")],
        }

    def splits(self, kind):
        return ("train", "val", "test")

    def samples(self, kind, split):
        if (kind, split) == ("qa", "test"):
            raise DataError("test_qa.json is not there")
        return self.tables.get((kind, split), ())

    def origin(self):
        return {"files": [{"path": "list.txt", "rows": 3, "malformed": 1, "malformed_first": ["line 4: no caption"]}]}


@pytest.mark.parametrize("files", [["list.txt"], "list.txt", [{"name": "list.txt"}]])
def test_files_that_are_told_otherwise_are_the_fault_of_the_data_set(tmp_path, files):
    data = Toy(tmp_path)
    data.origin = lambda: {"files": files}
    with pytest.raises(
        PluginError, match=r'dataset=toy gave .*list.txt.* as origin\(\)\["files"\], expected a list of'
    ):
        survey_dataset(data)


def test_duplicates_overlaps_and_missing_annotations(tmp_path):
    survey = survey_dataset(Toy(tmp_path))
    names = ["retrieval/train", "retrieval/test", "qa/train", "qa/val", "qa/test"]
    assert [table.name for table in survey.tables] == names
    assert survey.tables[0].duplicates == ["r1"] and survey.tables[0].clips == 2
    assert [(o.one, o.other, o.clips, o.first, o.within) for o in survey.overlaps] == [
        ("retrieval/train", "retrieval/test", 1, "two", True),
        ("retrieval/test", "qa/val", 1, "three", False),
    ]
    assert survey.gaps() == ["qa/test: test_qa.json is not there"]
    three = survey.files[str(tmp_path / "three.mp4")]
    assert three.samples == 3 and three.tables == {1, 3} and three.video and three.audio
    assert survey.annotations[0]["malformed"] == 1
    assert [t.name for t in survey_dataset(Toy(tmp_path), kinds=["caption"]).tables] == ["caption/train"]
    assert [t.name for t in survey_dataset(Toy(tmp_path), splits=["val"]).tables] == ["qa/val"]
