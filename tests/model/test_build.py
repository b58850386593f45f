from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest
from torch import nn

from vtp.errors import ConfigError, PluginError
from vtp.model.build import BuildContext, build_model, lookup_in
from vtp.model.objective import ContrastiveObjective, Objective
from vtp.registry import Entry, Registry
from vtp.types import LossOutput


@pytest.fixture
def lookup(stubs):
    class Text(stubs.Words):
        def __init__(
            self, *, context: BuildContext, width: int = 4, mode: Literal["a", "b"] = "a", rate: float | None = None
        ):
            super().__init__()
            self.seen = list(context.texts()) if context.assets is None else str(context.assets_of("encoders/text"))

    class Video(stubs.Frames):
        def __init__(self, *, frames: int, name_of: str = "x"):
            super().__init__()
            if frames % 2:
                raise ConfigError(f"encoder video: frames={frames} must be even")

    class Fusion(stubs.Sum):
        variants = ("released", "paper")

        def __init__(self, *, context: BuildContext, sizes: list[int] = ()):
            super().__init__()
            self.saw = sorted(context.encoders)
            self.variant = context.variant

    class Asking(Objective):
        needs = frozenset({"text"})
        needs_fusion = True

        def __init__(self, *, context: BuildContext, hidden: int = 3):
            super().__init__()
            self.width = context.pooled_width("text")
            self.answers = context.answers

        def forward(self, ctx):
            return LossOutput(ctx.pooled("text").sum(), ctx.present("text").sum())

    class Listening(ContrastiveObjective):
        needs = frozenset({"audio"})

        def __init__(self, *, width: int = 3):
            super().__init__()

    classes = {
        ("encoder", "words", "text"): Text,
        ("encoder", "frames", "video"): Video,
        ("encoder", "sum", "fusion"): Fusion,
        ("objective", "asking", None): Asking,
        ("objective", "listening", None): Listening,
    }

    def find(kind, name, slot):
        if (kind, name, slot) not in classes:
            raise PluginError(f"no plugin offers {kind} {name!r}")
        return classes[kind, name, slot]

    return find


def full() -> dict:
    return {
        "encoders": {
            "text": {"name": "words", "rate": None},
            "video": {"name": "frames", "frames": 2},
            "audio": {"name": None},
            "fusion": {"name": "sum", "sizes": (1, 2)},
        },
        "objectives": {"asking": {"name": "asking", "weight": 2, "hidden": 1}},
    }


def test_a_model_comes_out(lookup):
    context = BuildContext(texts=lambda: ["one", "two"], answers=("red", "blue"))
    model = build_model(full(), lookup, context, seed=3)
    assert list(model.encoders) == ["video", "text", "fusion"]
    assert model.encoders["text"].seen == ["one", "two"]
    assert model.encoders["fusion"].saw == ["text", "video"]  # built after them
    assert model.objectives["asking"].width == 4 and model.objectives["asking"].answers == ("red", "blue")
    assert model.weights == {"asking": 2.0} and model.seed == 3 and model.answers == ("red", "blue")


def test_the_stored_spec_is_json_and_builds_the_same_model(lookup):
    model = build_model(full(), lookup, BuildContext(texts=list, answers=("red",)))
    spec = json.loads(json.dumps(model.spec))
    assert spec == model.spec and spec["answers"] == ["red"] and spec["encoders"]["audio"] is None
    again = build_model(spec, lookup, BuildContext(assets=Path("saved")))
    assert again.answers == ("red",)  # of the spec, when the context has none
    assert again.encoders["text"].seen == str(Path("saved/encoders/text"))
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}


def test_all_errors_are_reported_at_once(lookup):
    spec = full()
    spec["encoders"]["text"] |= {"widht": 3, "mode": "c", "rate": "fast"}
    spec["encoders"]["video"] = {"name": "frames", "frames": True, "name_of": 4}
    spec["encoders"]["fusion"] = {"name": "summ"}
    spec["objectives"]["asking"] |= {"weight": "1", "hiden": 2}
    with pytest.raises(ConfigError) as caught:
        build_model(spec, lookup, BuildContext())
    message = str(caught.value)
    assert message.startswith("8 problems with the model:")
    for part in (
        "encoder.text: words has no option 'widht'. Did you mean 'width'? Options: width, mode, rate.",
        "encoder.text.mode: expected one of 'a', 'b', got 'c'",
        "encoder.text.rate: expected float or null, got 'fast'",
        "encoder.video.frames: expected int, got true",
        "encoder.video.name_of: expected str, got 4",
        "encoder.fusion: no plugin offers encoder 'summ'",
        "objectives.asking.weight: expected float (at least 0), got '1'",
        "objectives.asking: asking has no option 'hiden'. Did you mean 'hidden'? Options: hidden.",
    ):
        assert part in message


def test_errors_of_constructors_are_collected(lookup):
    spec = full()
    spec["encoders"]["video"]["frames"] = 3
    with pytest.raises(
        ConfigError, match=r"(?s)2 problems.*encoder.video: .*frames=3 must be even.*encoder.text: a tokenizer"
    ):
        build_model(spec, lookup, BuildContext())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"encoder": {}}, "no key 'encoder'. Did you mean 'encoders'"),
        ({"encoders": {"txt": {"name": "words"}}}, "no slot 'txt'. Did you mean 'text'"),
        ({"encoders": {"text": "words"}}, r"expected options with a name, got 'words'. Write \{name: words\}"),
        ({"encoders": {"text": {"width": 3}}}, r"has options \(width\) but no name. Choose one: encoder/text="),
        ({"encoders": {"video": {"name": "frames"}}}, "frames needs a value for frames. Give encoder.video.frames="),
        ({"objectives": {"asking": {"weight": 0.5}}}, r"no name, so it was not chosen. Add it with objective=\[asking"),
        ({"objectives": {"asking": 1}}, "expected options with a name, got 1"),
    ],
)
def test_a_wrong_shape_of_the_specification_says_what_to_write(lookup, change, message):
    with pytest.raises(ConfigError, match=message):
        build_model(change, lookup, BuildContext(texts=list))


def test_objectives_without_their_encoders_are_refused(lookup):
    spec = full()
    spec["encoders"] = {"video": {"name": "frames", "frames": 2}}
    spec["objectives"]["listening"] = {"name": "listening"}
    with pytest.raises(ConfigError) as caught:
        build_model(spec, lookup, BuildContext())
    assert "objectives.asking: needs an encoder for text and fusion, and that slot is empty" in str(caught.value)
    assert "objectives.listening: needs an encoder for audio" in str(caught.value)
    assert "encoder/audio=..." in str(caught.value)


def test_a_fusion_that_reads_embeddings_needs_an_encoder_that_gives_them(lookup, stubs):
    class Cross(stubs.Sum):
        consumes = {"video": "embedded", "text": "embedded"}

        def __init__(self, *, sizes: list[int] = ()):
            super().__init__()

    def with_cross(kind, name, slot):
        return Cross if slot == "fusion" else lookup(kind, name, slot)

    with pytest.raises(ConfigError, match=r"embedding layer of video, .*\(Video\) has no embed\(\)"):
        build_model(full(), with_cross, BuildContext(texts=list))


def test_options_reach_constructors_that_take_anything(lookup):
    class Open(nn.Module):
        width = 4

        def __init__(self, **options):
            super().__init__()
            self.options = options

    spec = {"encoders": {"fusion": {"name": "open", "whatever": 1}}}
    model = build_model(spec, lambda *a, **k: Open, BuildContext())
    assert model.encoders["fusion"].options == {"whatever": 1}


def test_lookup_in_a_registry():
    registry = Registry()
    registry.add(Entry("encoder/text", "t", "torch.nn:Linear", "p", "d"))
    registry.add(Entry("objective", "o", "torch.nn:Bilinear", "p", "d"))
    lookup = lookup_in(registry)
    assert lookup("encoder", "t", slot="text") is nn.Linear
    assert lookup("objective", "o", slot=None) is nn.Bilinear


def test_pooled_width_follows_the_module_that_pools(stubs):
    context = BuildContext(encoders={"text": stubs.Words(), "fusion": stubs.Sum()})
    assert context.pooled_width("text") == 4
    context.encoders["text"].pooled_width = 9
    assert context.pooled_width("text") == 9
    context.encoders["fusion"].unimodal = True
    context.encoders["fusion"].width = 6
    assert context.pooled_width("text") == 6


def test_a_variant_reaches_the_parts_and_is_stored(lookup):
    context = BuildContext(texts=lambda: ["a"])
    model = build_model(full() | {"variant": "released"}, lookup, context)
    assert model.encoders["fusion"].variant == "released" and model.spec["variant"] == "released"
    again = build_model(json.loads(json.dumps(model.spec)), lookup, BuildContext(texts=lambda: ["a"]))
    assert again.encoders["fusion"].variant == "released"
    assert build_model(full(), lookup, BuildContext(texts=lambda: ["a"])).spec["variant"] is None


@pytest.mark.parametrize(
    "slots, variant, words",
    [
        (
            ("text", "fusion"),
            "relesed",
            r"^variant=relesed: .* Did you mean 'released'\? Choose paper, released",
        ),
        (("text", "fusion"), True, r"^model: variant must be a string or null, got True"),
        (("text",), "released", r"^variant=released: no part of this model has variants"),
    ],
)
def test_a_variant_that_nobody_knows_is_one_line(lookup, slots, variant, words):
    spec = full()
    spec = {"encoders": {slot: spec["encoders"][slot] for slot in slots}, "variant": variant}
    with pytest.raises(ConfigError, match=words) as caught:
        build_model(spec, lookup, BuildContext(texts=lambda: ["a"]))
    assert "\n" not in str(caught.value)


def test_the_slots_of_an_objective_may_be_more_than_a_row_needs(lookup):
    """A row without sound takes part; a model without an audio encoder is refused."""

    class Triple(Objective):
        needs = frozenset({"text"})
        slots = frozenset({"text", "audio"})

    def find(kind, name, slot):
        return Triple if name == "triple" else lookup(kind, name, slot)

    spec = {"encoders": {"text": {"name": "words"}}, "objectives": {"triple": {"name": "triple"}}}
    with pytest.raises(ConfigError, match=r"objectives.triple: needs an encoder for audio, and that slot is empty"):
        build_model(spec, find, BuildContext(texts=lambda: ["a"]))
    Triple.slots = frozenset()
    assert "triple" in build_model(spec, find, BuildContext(texts=lambda: ["a"])).objectives
