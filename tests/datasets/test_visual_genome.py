"""The reader of Visual Genome on small files, of records that the format's description quotes."""

from __future__ import annotations

from small_files import malformed, write

from vtp_datasets.visual_genome import VisualGenome


def test_visual_genome(tmp_path):
    region = {"region_id": 1382, "width": 82, "height": 139, "image_id": 1, "y": 57, "x": 421}
    rows = [
        {"id": 1, "regions": [region | {"phrase": "the clock is green in colour "}, region | {"phrase": " "}]},
        {"id": 2, "regions": []},
        {"regions": []},
    ]
    dataset = VisualGenome(root=write(tmp_path, {"region_descriptions.json": rows, "VG_100K_2/1.jpg": ""}))
    (sample,) = dataset.samples("caption", "train")
    assert (sample.id, sample.texts, sample.audio) == ("1", ("the clock is green in colour",), None)
    assert sample.video.path == str(tmp_path / "VG_100K_2" / "1.jpg") and dataset.splits("caption") == ("train",)
    assert malformed(dataset, "region_descriptions.json") == ["item 0, region 1: no phrase", "item 2: no id"]
    assert len(dataset.samples("caption", "test")) == 0
