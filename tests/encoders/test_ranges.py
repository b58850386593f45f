"""Numbers that no encoder, objective or mask can take are told by their key, before anything is built."""

from __future__ import annotations

import inspect
import typing

import pytest

from vtp.components import check_options
from vtp.errors import ConfigError
from vtp.model.build import BuildContext, build_model, lookup_in, spec_problems
from vtp.plugins import host
from vtp.ranges import Range

NAN, INF = float("nan"), float("inf")
HUGE = 10**7
WRONG = {  # slot -> encoder -> option -> values
    "text": {
        "tiny": {
            "width": [0, -1, HUGE],
            "depth": [-1, HUGE],
            "heads": [0, -4],
            "max_length": [0, -1, HUGE],
            "vocabulary": [0, -1],
            "min_count": [0],
            "dropout": [2, 1, -0.1, NAN, INF],
        },
        "transformers": {"max_length": [0, -1]},
        "simvtp": {"width": [0], "depth": [-1], "positions": [0], "vocabulary": [0], "dropout": [2]},
        "simvtp_tower": {"heads": [0], "drop_path": [1, NAN], "init_values": [-1], "unused_patch": [0]},
    },
    "video": {
        "tiny": {"width": [0], "depth": [-1], "frames": [0, -1, HUGE], "size": [0, -64], "patch": [0], "dropout": [2]},
        "timm": {"frames": [0], "size": [0, -1]},
        "vjepa2": {"frames": [0, -2]},
        "torchvision": {"frames": [0], "size": [0, -32]},
        "videomae": {"frames": [0], "size": [0], "tubelet": [0, -2], "patch": [0]},
        "simvtp": {"frames": [0], "tubelet": [0], "patch": [0], "stride": [0, -1], "width": [0], "depth": [-1]},
        "simvtp_tower": {"heads": [0], "drop_path": [-0.1], "unused_vocabulary": [0], "unused_positions": [0]},
    },
    "audio": {
        "tiny": {"seconds": [0, -1, NAN, INF, 1e9], "sample_rate": [0, 1000, HUGE], "bins": [0, 7], "width": [0]},
        "ast": {"seconds": [0, 0.1, NAN], "std": [0, -1]},
        "wav2vec2": {"seconds": [0, 0.01, NAN]},
        "vit_mae": {"bins": [0, 7], "steps": [0, -1], "std": [0, NAN]},
        "timm": {"bins": [0, 7], "steps": [0], "scale": [0], "std": [-1]},
        "whisper": {"seconds": [0, -1, NAN]},
    },
    "fusion": {
        "concat": {"width": [0], "depth": [-1], "heads": [0], "mlp_ratio": [0, -1, NAN], "dropout": [2]},
        "constant": {"width": [0]},
        "simvtp": {"width": [0], "depth": [-1], "heads": [0], "mlp_ratio": [0], "drop_path": [1], "init_values": [-1]},
    },
}
CASES = [
    (slot, name, option, value)
    for slot, encoders in WRONG.items()
    for name, options in encoders.items()
    for option, values in options.items()
    for value in values
]
OBJECTIVES = [
    *(("qa", "weight", value) for value in (-1, NAN, INF)),
    ("qa", "hidden", -1),
    ("qa", "dropout", 2),
    *(("vtc", "temperature", value) for value in (0, 0.001, -1, NAN)),
    ("vtc", "width", 0),
    ("vtm", "hidden", -1),
    ("mvm", "decoder_width", 0),
    ("mvm", "decoder_depth", -1),
    ("mvm", "decoder_heads", 0),
]


@pytest.mark.parametrize("slot, name, option, value", CASES)
def test_wrong_numbers_of_encoders_are_told_by_their_key(slot, name, option, value):
    spec = {"encoders": {slot: {"name": name, option: value}}}
    (problem,) = spec_problems(spec, lookup_in(host().registry))
    assert problem.startswith(f"encoder.{slot}.{option}: expected ") and problem.endswith(f", got {value!r}")


@pytest.mark.parametrize("name, option, value", OBJECTIVES)
def test_wrong_numbers_of_objectives_are_told_by_their_key(name, option, value):
    slots = ("text", "video", "audio")
    spec = {
        "encoders": {**{slot: {"name": "tiny"} for slot in slots}, "fusion": {"name": "concat"}},
        "objectives": {name: {"name": name, option: value}},
    }
    (problem,) = spec_problems(spec, lookup_in(host().registry))
    assert problem.startswith(f"objectives.{name}.{option}: expected ") and problem.endswith(f", got {value!r}")


@pytest.mark.parametrize("mask, key, values", [("video", "ratio", (-0.1, 1, 2, NAN)), ("audio", "ratio", (1, -1, NAN)),
                                               ("text", "probability", (-0.1, 1.1, NAN))])  # fmt: skip
def test_shares_of_masks(mask, key, values):
    for value in values:
        (problem,) = spec_problems({"masks": {mask: {key: value}}}, lookup_in(host().registry))
        assert problem.startswith(f"masks.{mask}") and key in problem


FREE = {("encoder/audio", name, "mean") for name in ("ast", "vit_mae", "timm")}  # any number will do
FREE.add(("objective", "vtc", "bias"))


def test_every_number_of_the_built_in_parts_says_its_bounds():
    """A new option cannot be forgotten: NaN and -1 are refused by type or bounds."""
    builtin = ("vtp_encoders", "vtp_objectives", "vtp_simvtp")
    parts = [e for e in host().registry.entries() if e.kind.startswith(("encoder/", "objective"))]
    parts = [e for e in parts if e.target.startswith(builtin)]
    assert len(parts) > 10
    for entry in parts:
        cls = entry.load()
        hints = typing.get_type_hints(cls.__init__, include_extras=True)
        for option in inspect.signature(cls).parameters:
            kinds = {hints[option], *typing.get_args(hints[option])}
            if kinds & {int, float} and not any(isinstance(kind, Range) for kind in kinds):
                assert (entry.kind, entry.name, option) in FREE, f"{entry.target} {option}"
            problems: list[str] = []
            check_options("it", entry.name, cls, {option: NAN}, problems, given=("context",))
            assert problems or option == "context", f"{entry.target} {option}"


@pytest.mark.parametrize("slot, options, words", [
    ("text", {"depth": 0, "heads": 7}, r"encoder.text: width=96 must be a multiple of heads=7"),
    ("text", {"depth": 1, "heads": 7}, r"encoder.text: width=96 must be a multiple of heads=7"),
    ("text", {"max_length": 1}, r"encoder.text: max_length=1 leaves no room for a word.*at least 3"),
    ("text", {"max_length": 2}, r"encoder.text: max_length=2 leaves no room for a word.*at least 3"),
    ("text", {"vocabulary": 5}, r"encoder.text: .*vocabulary=5 and min_count=1 leave no word"),
    ("text", {"min_count": 9}, r"encoder.text: .*min_count=9 leave no word.*2 words, the most frequent one 2 times"),
    ("video", {"heads": 7}, r"encoder.video: width=96 must be a multiple of heads=7"),
    ("fusion", {"heads": 7}, r"encoder.fusion: width=96 must be a multiple of heads=7"),
    ("fusion", {"mlp_ratio": 0.001}, r"encoder.fusion: .*mlp_ratio=0.001"),
])  # fmt: skip
def test_numbers_that_do_not_go_together(slot, options, words):
    encoders = {"text": {"name": "tiny"}, "video": {"name": "tiny"}, "fusion": {"name": "concat"}}
    encoders[slot] = encoders[slot] | options
    with pytest.raises(ConfigError, match=words):
        build_model({"encoders": encoders}, lookup_in(host().registry), BuildContext(texts=lambda: ["a b a"]))


def test_what_a_library_says_while_building_is_one_line(monkeypatch):
    """Torch, timm and transformers raise whatever they like."""
    import vtp_encoders.tiny_video as module

    def fails(*_, **__):
        raise RuntimeError("cannot\nallocate   memory")

    monkeypatch.setattr(module, "Transformer", fails)
    with pytest.raises(ConfigError, match=r"^encoder.video: tiny cannot be built .*RuntimeError: cannot allocate mem"):
        build_model({"encoders": {"video": {"name": "tiny"}}}, lookup_in(host().registry))
    monkeypatch.setenv("VTP_TRACEBACK", "1")
    with pytest.raises(RuntimeError, match="allocate"):
        build_model({"encoders": {"video": {"name": "tiny"}}}, lookup_in(host().registry))
