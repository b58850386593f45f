"""``dataset=mix``: its parts, their problems, splits and names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vtp.cli.run import compose
from vtp.components import build
from vtp.errors import ConfigError, DataError
from vtp.eval.leaks import check_leaks, media_names, train_record
from vtp.plugins import host
from vtp.run.check import check
from vtp.testing import check_dataset
from vtp_datasets.mix import Mix


def caption_json(root: Path, names: str, **splits: str) -> Path:
    """A root for ``caption_json`` with a file per split, whose clips are the letters of ``names`` or of ``splits``."""
    root.mkdir(parents=True)
    for split, letters in {"train": names, **splits}.items():
        content = {f"{letter}.mp4": f"the clip {letter} of {root.name}" for letter in letters}
        (root / f"{split}.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def roots(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """Two parts that name clips alike; the second has a validation split."""
    one, two = caption_json(tmp_path / "one", "abcd"), caption_json(tmp_path / "two", "cdefgh", val="xy")
    return {
        "one": {"name": "caption_json", "root": str(one)},
        "two": {"name": "caption_json", "root": str(two), "namespace": "other"},
    }


def test_a_mix_keeps_the_contract(roots: dict[str, Any]) -> None:
    check_dataset(Mix, {"parts": roots})


def test_ids_are_unique_and_clips_keep_their_namespace(roots: dict[str, Any]) -> None:
    table = Mix(parts=roots).samples("retrieval", "train")
    assert len(table) == 10 == len({sample.id for sample in table})
    assert [sample.extra["video_id"] for sample in table][:5] == [
        "caption_json:one:a.mp4", "caption_json:one:b.mp4", "caption_json:one:c.mp4", "caption_json:one:d.mp4",
        "other:c.mp4",
    ]  # fmt: skip


def test_a_leak_is_found_through_the_mix_and_only_within_a_namespace(roots: dict[str, Any]) -> None:
    mixed = Mix(parts=roots)
    stage = train_record("pretraining", mixed.samples("retrieval", "train"), mixed)
    assert stage["parts"] == {"one": {"samples": 4, "share": 0.4}, "two": {"samples": 6, "share": 0.6}}
    alone = build("dataset", roots["two"], host().registry)
    tested = media_names(alone.samples("retrieval", "train"), alone)
    assert check_leaks([stage], tested, on_leak="stamp").leaked == set(tested) and len(tested) == 6
    other = build("dataset", roots["two"] | {"namespace": "third"}, host().registry)
    assert not check_leaks([stage], media_names(other.samples("retrieval", "train"), other)).found
    # and the other way round: trained alone, tested in a mix
    stage = train_record("finetuning", alone.samples("retrieval", "train"), alone)
    with pytest.raises(DataError, match="LEAK: 6 of 10 test clips"):
        check_leaks([stage], media_names(mixed.samples("retrieval", "train"), mixed))


def test_splits_are_those_of_the_parts_that_have_them(roots: dict[str, Any]) -> None:
    assert [s.id.partition("/")[0] for s in Mix(parts=roots).samples("retrieval", "val")] == ["two", "two"]
    assert len(Mix(parts=roots).samples("retrieval", "test")) == 0
    assert len(Mix(parts=roots, train=["one"]).samples("retrieval", "train")) == 4
    with pytest.raises(DataError, match="one: no rows for the val split of the mix"):
        Mix(parts=roots, val=["one"]).samples("retrieval", "val")


def test_every_problem_of_every_part_is_told_at_once(roots: dict[str, Any]) -> None:
    parts = {
        "coco": {"rot": "x"},
        "vg": {"name": "visual_genom"},
        "cc3m": {"images": 3},
        "shapes": {"size": "huge"},
        "webvid": 7,
        "inner": {"name": "mix", "parts": {"coco": {}}},
    }
    with pytest.raises(ConfigError) as error:
        Mix(parts=parts)  # type: ignore[arg-type]
    lines = str(error.value).splitlines()
    for number, words in enumerate(
        [
            "6 problems with the parts of the mix:",
            "dataset.parts.coco: coco has no option 'rot'. Did you mean 'root'",
            "dataset.parts.vg: no plugin offers dataset 'visual_genom'. Did you mean 'visual_genome'",
            "dataset.parts.cc3m.images: expected",
            "dataset.parts.shapes: dataset.parts.shapes.size='huge' must be one of tiny",
            "dataset.parts.webvid: expected a mapping with a name",
        ]
    ):
        assert words in lines[number], lines
    assert "a mix cannot be a part of a mix" in str(error.value)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"parts": None}, r"needs dataset\.parts=\{NAME"),
        ({"weights": {"one": 1}}, r"dataset\.weights=.* must give each of one, two a number above 0"),
        ({"weights": {"one": 1, "two": 0}}, "a number above 0"),
        ({"temperature": 2}, r"dataset\.temperature=2 must be between 0"),
        ({"temperature": 0.5, "weights": {"one": 1, "two": 1}}, "give one of them"),
        ({"val": ["three"]}, r"dataset\.val: there is no part 'three'; the parts are one, two"),
    ],
)
def test_options_of_the_mix(roots: dict[str, Any], options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Mix(**{"parts": roots, **options})


def test_missing_files_of_a_part_are_told_with_its_keys(roots: dict[str, Any], tmp_path: Path) -> None:
    mixed = Mix(parts=roots | {"coco": {"root": str(tmp_path / "nowhere")}})
    with pytest.raises(DataError, match=r"dataset\.parts\.coco\.root=FOLDER names another folder"):
        mixed.samples("retrieval", "train")


def test_the_command_line_tells_all_problems_before_anything_is_built(tmp_path: Path) -> None:
    config = compose(
        ["task=msrvtt_retrieval", "dataset=mix", "dataset.parts={coco: {rot: x}, vg: {name: visual_genome, imges: y}}"]
    )
    with pytest.raises(ConfigError) as error:
        check(config, tmp_path)
    assert "dataset.parts.coco: coco has no option 'rot'" in str(error.value)
    assert "dataset.parts.vg: visual_genome has no option 'imges'" in str(error.value)
