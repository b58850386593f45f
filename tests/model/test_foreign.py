"""Checkpoints of others: whatever their files say, one line that names the file, and no more memory than they hold."""

from __future__ import annotations

import json
import shutil
import struct
import time

import pytest
import torch

from vtp.errors import DataError
from vtp.eval.leaks import check_leaks
from vtp.eval.report import checkpoint_hash
from vtp.model.build import BuildContext, build_model, lookup_in
from vtp.model.weights import load_model, load_weights, read_config, save_weights
from vtp.plugins import host
from vtp.run.stages import configuration, recorded
from vtp.run.start import take_objective

SPEC = {
    "encoders": {
        "text": {"name": "tiny", "width": 16, "heads": 2, "max_length": 8},
        "video": {"name": "tiny", "width": 16, "heads": 2, "frames": 2, "size": 32},
        "fusion": {"name": "concat", "width": 16, "heads": 2, "depth": 1},
    },
    "objectives": {"qa": {"name": "qa"}},
    "answers": ["red", "blue"],
}
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("foreign") / "made"
    torch.manual_seed(0)
    model = build_model(SPEC, lookup_in(host().registry), BuildContext(texts=lambda: ["red ball", "blue box"]))
    save_weights(folder, model, {"stages": []})
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "copy")


def refused(folder):
    begin = time.perf_counter()
    with pytest.raises(DataError) as caught:
        load_model(folder, lookup_in(host().registry))
    assert time.perf_counter() - begin < 30
    message = str(caught.value)
    assert str(folder) in message and "Traceback" not in message
    return message


def with_spec(**changes):
    """``encoders__text__width=3`` at its place in config.json."""

    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        for path, value in changes.items():
            node = config
            *parents, last = ["spec", *path.split("__")] if not path.startswith("_") else [path[1:]]
            for key in parents:
                node = node.setdefault(key, {})
            node[last] = value
        (folder / "config.json").write_text(json.dumps(config))

    return change


def with_file(name, content):
    def change(folder):
        file = folder / name
        file.unlink(missing_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def with_aliases(value):
    def change(folder):
        file = folder / "model.safetensors"
        data = file.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        header["__metadata__"] = {"format": "pt", "aliases": value}
        head = json.dumps(header).encode()
        head += b" " * (-len(head) % 8)
        file.write_bytes(struct.pack("<Q", len(head)) + head + data[8 + length :])

    return change


def with_link(name, target):
    def change(folder):
        other = folder.parent / "other"
        other.write_text(target)
        (folder / name).unlink()
        (folder / name).symlink_to(other)

    return change


TOKENIZER = "assets/encoders/text/tokenizer.json"
BAD = {
    "no configuration": lambda folder: (folder / "config.json").unlink(),
    "configuration empty": with_file("config.json", ""),
    "configuration nested": with_file("config.json", DEEP),
    "configuration binary": with_file("config.json", b"\xff\xfe\x00"),
    "configuration list": with_file("config.json", "[1]"),
    "specification number": with_spec(_spec=5),
    "specification empty": with_spec(_spec={}),
    "format": with_spec(_format="one"),
    "plugins number": lambda folder: (with_spec(_plugins=5)(folder), with_spec(encoders__text__name="x")(folder)),
    "plugins words": lambda folder: (with_spec(_plugins=["a"])(folder), with_spec(encoders__text__name="x")(folder)),
    "encoders list": with_spec(encoders=[1]),
    "encoders word": with_spec(encoders="tiny"),
    "encoder number": with_spec(encoders__text=7),
    "encoder list": with_spec(encoders__text=["tiny"]),
    "encoder name list": with_spec(encoders__text__name=["tiny"]),
    "encoder name path": with_spec(encoders__text__name="os:system"),
    "encoder option unknown": with_spec(encoders__text__run="ls"),
    "slot unknown": with_spec(encoders__smell={"name": "tiny"}),
    "width word": with_spec(encoders__text__width="wide"),
    "width negative": with_spec(encoders__text__width=-16),
    "width zero": with_spec(encoders__video__width=0),
    "width huge": with_spec(encoders__text__width=10**9),
    "width beyond int64": with_spec(encoders__text__width=10**30),
    "width largest": with_spec(encoders__fusion__width=65536),
    "width fraction": with_spec(encoders__text__width=16.5),
    "width other": with_spec(encoders__fusion__width=32),
    "depth ten million": with_spec(encoders__text__depth=10**7),
    "depth most": with_spec(encoders__fusion__depth=1000),
    "depth negative": with_spec(encoders__fusion__depth=-1),
    "heads zero": with_spec(encoders__text__heads=0),
    "frames huge": with_spec(encoders__video__frames=10**8),
    "length huge": with_spec(encoders__text__max_length=10**9),
    "dropout nan": with_spec(encoders__text__dropout=float("nan")),
    "objectives list": with_spec(objectives=["qa"]),
    "objective number": with_spec(objectives__qa=3),
    "objective unknown": with_spec(objectives__qa__name="nope"),
    "objective hidden huge": with_spec(objectives__qa__hidden=10**12),
    "weight word": with_spec(objectives__qa__weight="much"),
    "weight nan": with_spec(objectives__qa__weight=float("nan")),
    "answers number": with_spec(answers=5),
    "answers word": with_spec(answers="red"),
    "answers numbers": with_spec(answers=[1, 2]),
    "answers others": with_spec(answers=["red", "blue", "green"]),
    "answers none": with_spec(answers=[]),
    "masks list": with_spec(masks=[1]),
    "masks number": with_spec(masks__video=3),
    "mask ratio": with_spec(masks__video={"ratio": 7}),
    "variant list": with_spec(variant=["released"]),
    "variant unknown": with_spec(variant="nope"),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "weights cut": lambda folder: with_file(
        "model.safetensors", (folder / "model.safetensors").read_bytes()[:-100]
    )(folder),
    "weights junk": with_file("model.safetensors", b"\x00" * 64),
    "weights empty": with_file("model.safetensors", b""),
    "weights header huge": with_file("model.safetensors", struct.pack("<Q", 2**62) + b"{}"),
    "aliases list": with_aliases("[1, 2]"),
    "aliases of lists": with_aliases('{"a": ["b"]}'),
    "aliases nested": with_aliases(DEEP),
    "aliases junk": with_aliases("{"),
    "tokenizer gone": lambda folder: (folder / TOKENIZER).unlink(),
    "tokenizer junk": with_file(TOKENIZER, "junk"),
    "tokenizer nested": with_file(TOKENIZER, DEEP),
    "tokenizer link": with_link(TOKENIZER, "root:x:0:0"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_foreign_checkpoint_is_refused_in_words(folder, kind):
    BAD[kind](folder)
    refused(folder)


def test_the_checkpoint_that_these_are_made_of_loads(folder):
    assert load_model(folder, lookup_in(host().registry)).answers == ("red", "blue")


def test_a_model_is_not_built_beyond_what_its_file_holds(folder):
    """1000 blocks are allowed, and the file has one: stopped while they are made, not when they are there."""
    BAD["depth most"](folder)
    message = refused(folder)
    assert "asks for over" in message and "It is damaged, or meant to use up the memory" in message
    BAD["width largest"](folder)


PROVENANCE = {
    "none": None,
    "empty": "",
    "nested": DEEP,
    "list": "[]",
    "number": "5",
    "stages number": '{"stages": 3}',
    "stages of numbers": '{"stages": [1]}',
    "media number": '{"stages": [{"stage": "a", "media": 3}]}',
    "media numbers": '{"stages": [{"stage": "a", "media": [1]}]}',
    "media dict": '{"stages": [{"stage": "a", "media": {"hash": 3}}]}',
    "config list": '{"config": [1], "stages": "x"}',
    "config task list": '{"config": {"task": [1]}}',
}


@pytest.mark.parametrize("kind", PROVENANCE)
def test_of_a_provenance_that_is_no_such_thing_nothing_is_known(folder, kind):
    """Neither cleared nor accused: a stage without a list of clips."""
    (folder / "provenance.json").unlink()
    if PROVENANCE[kind] is not None:
        (folder / "provenance.json").write_text(PROVENANCE[kind])
    report = check_leaks(recorded(folder), ["a.mp4"])
    assert len(report.unknown) == 1 and not report.found
    assert isinstance(configuration(folder), dict)
    config = {"checkpoint": str(folder), "task": {"name": "msrvtt_qa", "objective": "qa"}}
    take_objective(config, [])
    assert config["task"]["objective"] == "qa"


@pytest.mark.parametrize("data", ["!", "AAAA", ""])
def test_a_damaged_list_of_training_clips_is_told(data):
    with pytest.raises(DataError, match="list of training clips .* damaged"):
        check_leaks([{"stage": "a", "media": {"hash": "blake2b-8", "data": data}}], ["a.mp4"])


@pytest.mark.parametrize("manifest", ["", "[]", DEEP, '{"files": 3}', '{"files": {"model.safetensors": 1}}'])
def test_a_manifest_of_another_kind_does_not_stand_for_the_weights(folder, manifest):
    whole = checkpoint_hash(folder)
    (folder / "manifest.json").write_text(manifest)
    assert whole is not None and checkpoint_hash(folder) == whole


def test_init_from_a_foreign_file_is_refused_in_words(folder):
    model = load_model(folder, lookup_in(host().registry))
    for kind in ("weights junk", "aliases list", "aliases nested"):
        bad = shutil.copytree(folder, folder.parent / kind)
        BAD[kind](bad)
        with pytest.raises(DataError, match="cannot be read"):
            load_weights(bad, model)
    assert read_config(folder)["spec"]["answers"] == ["red", "blue"]
