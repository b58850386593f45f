"""The committed protocol files against the official annotation files, and the readers against the protocol files."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("protocol_hashes", ROOT / "tools/protocol_hashes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.data
def test_every_protocol_file_says_what_the_annotations_say(shared_data, tool, capsys):
    assert tool.main([str(shared_data / "annotations")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 54 and all(line.endswith("ok") for line in lines)
    # numbers published with the data sets
    published = {
        "msvd": 27763,
        "msvd_qa": 13157,
        "didemo": 1004,
        "activitynet": 4917,
        "audiocaps": 4875,
        "msrvtt_qa": 72821,
    }
    found = {(line.split()[0], line.split()[2]) for line in lines if line.split()[1] in ("queries", "questions")}
    assert {(name, f"{count:,}") for name, count in published.items()} <= found


@pytest.mark.data
def test_what_differs_is_found_and_can_be_put_right(shared_data, tool, tmp_path, monkeypatch, capsys):
    for name in ("msvd", "vatex", "coco"):
        shutil.copy(tool.PROTOCOLS / f"{name}.yaml", tmp_path)
    before = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    monkeypatch.setattr(tool, "PROTOCOLS", tmp_path)
    broken = before["msvd.yaml"]
    for right, wrong in (
        ("queries: 27763", "queries: 1"),
        ("queries: a289", "queries: b289"),
        ("videos: 95ea", "videos: 05ea"),
        ("1200,", "1201,"),
    ):
        assert right in broken
        broken = broken.replace(right, wrong)
    (tmp_path / "msvd.yaml").write_text(broken, encoding="utf-8")
    assert tool.main([str(shared_data / "annotations")]) == 1
    out, err = capsys.readouterr()
    assert out.count("DIFFERENT") == 5 and "5 parts differ" in err  # the clips of the cut too
    assert tool.main([str(shared_data / "annotations"), "--write"]) == 0
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == before


def test_without_annotations_there_is_nothing_to_compare(tool, tmp_path, capsys):
    assert tool.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""


# protocol -> data set, its options, folders of annotations that make up its root
READ = {
    "msvd": ("msvd", {}, ("msvd", "msvd_qa")),
    "msvd_qa": ("msvd", {}, ("msvd", "msvd_qa")),
    "msvd_cn": ("msvd_cn", {}, ("msvd", "msvd_cn")),
    "msrvtt_1ka": ("msrvtt", {}, ("msrvtt",)),
    "msrvtt_qa": ("msrvtt", {}, ("msrvtt_qa",)),
    "didemo": ("didemo", {}, ("didemo",)),
    "didemo_val": ("didemo", {}, ("didemo",)),
    "activitynet": ("activitynet", {}, ("activitynet",)),
    "audiocaps": ("audiocaps", {}, ("audiocaps",)),
    "audiocaps_val": ("audiocaps", {}, ("audiocaps",)),
}


@pytest.mark.data
@pytest.mark.parametrize("name", READ)
def test_the_reader_gives_the_official_set(name, shared_data, tmp_path):
    from vtp.eval.protocol import Protocol
    from vtp.plugins import host

    dataset, options, folders = READ[name]
    for folder in folders:
        for path in (shared_data / "annotations" / folder).iterdir():
            (tmp_path / path.name).unlink(missing_ok=True)
            (tmp_path / path.name).symlink_to(path)
    protocol = Protocol.find(name)
    component = host().registry.get("dataset", dataset).load()
    built = component(root=tmp_path, **options)
    match = protocol.match(built.samples(protocol.kind, protocol.split), built.name, protocol.split)
    assert match.official and not match.unverified(), match.line()


@pytest.mark.data
@pytest.mark.parametrize("name, cut, queries", [
    ("msvd", "first_caption", 670), ("activitynet", "one_clip_less", 4916), ("audiocaps", "first_caption", 975),
    ("audiocaps_val", "first_caption", 495),
])  # fmt: skip
def test_the_reader_gives_the_cuts_that_circulate(name, cut, queries, shared_data, tmp_path):
    """Rule and hash come from the protocol file; another clip or another caption would be another hash."""
    import numpy as np

    from vtp.eval.protocol import Protocol
    from vtp.plugins import host
    from vtp_tasks import cuts
    from vtp_tasks.pairs import Pairs, gallery

    dataset, options, folders = READ[name]
    for folder in folders:
        for path in (shared_data / "annotations" / folder).iterdir():
            (tmp_path / path.name).unlink(missing_ok=True)
            (tmp_path / path.name).symlink_to(path)
    protocol = Protocol.find(name)
    samples = (
        host().registry.get("dataset", dataset).load()(root=tmp_path, **options).samples("retrieval", protocol.split)
    )

    class Scored:
        pairs = Pairs.of(samples, gallery(samples))

    kept = cuts._kept(protocol.cuts[cut], Scored, heard=False)
    found = cuts._recognised(protocol, protocol.cuts[cut], Scored, *kept)
    assert found["verified"] and found["counts"] == protocol.cuts[cut]["counts"]
    assert found["counts"]["queries"] == queries
    other = kept[0].copy()
    other[np.flatnonzero(other)[0]] = False
    assert not cuts._recognised(protocol, protocol.cuts[cut], Scored, other, kept[1])["verified"]


def test_every_cut_of_the_real_files_is_counted_or_hashed():
    """Which cuts have a rule and a hash, and with how many clips the others circulate."""
    from vtp.eval.protocol import Protocol

    found = {}
    for name in ("msrvtt_1ka", "msvd", "didemo", "vatex", "activitynet", "audiocaps", "audiocaps_val", "youcook2"):
        for label, cut in Protocol.find(name).cuts.items():
            found[name, label] = (cut.get("rule"), bool(cut.get("sha256")), cut.get("circulates"))
    assert found == {
        ("msrvtt_1ka", "sound"): ("sound", False, [884, 879]),
        ("msvd", "first_caption"): ("first_caption", True, None),
        ("msvd", "five_captions"): (None, False, None),
        ("didemo", "one_file_less"): ("readable", False, [1003]),
        ("vatex", "left_on_youtube"): ("readable", False, [1335]),
        ("vatex", "a_thousand"): (None, False, [1000]),
        ("vatex", "first_caption"): ("first_caption", False, None),
        ("activitynet", "one_clip_less"): ("without", True, [4916]),
        ("audiocaps", "left_on_youtube"): ("readable", False, [665]),
        ("audiocaps", "first_caption"): ("first_caption", True, None),
        ("audiocaps_val", "left_on_youtube"): ("readable", False, None),
        ("audiocaps_val", "first_caption"): ("first_caption", True, None),
        ("youcook2", "left_on_youtube"): ("readable", False, None),
    }


@pytest.mark.data
def test_what_notes_say_of_other_lists_is_counted_in_the_files(shared_data):
    import csv
    import json

    from vtp.eval.forms import canonical_text
    from vtp.eval.protocol import Protocol

    folder = shared_data / "annotations"

    def names(path):
        return set((folder / path).read_text(encoding="utf-8").split())

    def noted(protocol, *numbers):
        notes = " ".join(Protocol.find(protocol).notes)
        assert all(f"{number:,}" in notes for number in numbers), (protocol, numbers)

    second = names("vatex/test1k5_sec_list.txt")
    shared = [len(second & names(f"vatex/{one}_list.txt")) for one in ("test", "val")]
    assert shared == [724, 776]
    noted("vatex", *shared)
    for split, listed, told in (("test", 1004, 1037), ("val", 1065, 1094)):
        content = json.loads((folder / f"didemo/{split}_data.json").read_text(encoding="utf-8"))
        found = len({one["video"] for one in content}), len(names(f"didemo/{split}_list.txt"))
        assert found == (told, listed)
        noted({"test": "didemo", "val": "didemo_val"}[split], *found)
    assert len(names("didemo/train_list.txt")) == 8392
    noted("didemo", 8392, 8395)

    def texts(name):
        with open(folder / "audiocaps" / name, encoding="utf-8", newline="") as file:
            return {(row["youtube_id"], canonical_text(row["caption"])) for row in csv.DictReader(file)}

    one, two = texts("test.csv"), texts("v2_test.csv")
    assert {name for name, _ in one} == {name for name, _ in two}
    assert (len(one), len(one - two)) == (4757, 118)
    noted("audiocaps", 4757, 118)
    assert len(names("activitynet/val_1_list.txt")) == 4916


def test_every_protocol_that_can_be_computed_is_read_too(tool):
    hashed = {path.stem for path in tool.PROTOCOLS.glob("*.yaml")
              if "queries" in (parts := yaml.safe_load(path.read_text(encoding="utf-8")).get("sha256") or {})
              or "questions" in parts}  # fmt: skip
    assert hashed == set(READ)
