"""The other fusion encoders against what they are defined as, and what must not depend on what."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fusions import assert_same, build, real, some_tokens, without
from torch import Tensor, nn

from vtp.errors import ConfigError
from vtp.types import MODALITIES, Tokens
from vtp_crossformer.pairwise import CrossAttention


def other(tokens: dict[str, Tokens], *modalities: str) -> dict[str, Tokens]:
    """The same with other features of some modalities."""
    drawn = some_tokens(seed=9)
    return tokens | {m: replace(tokens[m], x=drawn[m].x) for m in modalities}


def test_cross_attention_is_that_of_torch() -> None:
    ours, theirs = CrossAttention(16, 2), nn.MultiheadAttention(16, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.q.weight, ours.kv.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.q.bias, ours.kv.bias]).normal_())
        ours.q.bias.copy_(theirs.in_proj_bias[:16])
        ours.kv.bias.copy_(theirs.in_proj_bias[16:])
        theirs.out_proj.load_state_dict(ours.proj.state_dict())
    x, seen = torch.randn(3, 4, 16), torch.randn(3, 5, 16)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    found = ours(x, seen, mask)
    want = theirs(x[:2], seen[:2], seen[:2], key_padding_mask=~mask[:2])[0]
    torch.testing.assert_close(found[:2], want, rtol=0, atol=1e-6)
    assert not found[2].any()


def test_pairwise_hears_the_mean_of_those_that_are_there() -> None:
    layer = build("pairwise").layers[0]
    x = {m: torch.randn(2, 3, 16) for m in MODALITIES}
    masks = {m: torch.ones(2, 3, dtype=torch.bool) for m in MODALITIES}
    masks["audio"][1] = False
    heard = layer._heard("text", x, masks)
    from_video, from_audio = (layer.attention[f"text_{m}"](x["text"], x[m], masks[m]) for m in ("video", "audio"))
    torch.testing.assert_close(heard[0], (from_video[0] + from_audio[0]) / 2)
    torch.testing.assert_close(heard[1], from_video[1])


def test_modalities_meet_in_the_bottleneck_alone() -> None:
    """In the first layer that has it, none reads what another wrote; in the second, it does."""
    tokens = some_tokens()
    for depth, reached in ((1, False), (2, True)):
        fusion = build("bottleneck", depth=depth).eval()
        left, right = (fusion(given).tokens["text"].x for given in (tokens, other(tokens, "video")))
        assert torch.equal(left, right) != reached


def test_before_they_meet_each_modality_runs_through_its_own_layers() -> None:
    fusion, tokens = build("bottleneck", depth=3, start=2).eval(), some_tokens()
    seen: dict[str, Tensor] = {}
    fusion.blocks["audio"][2].register_forward_hook(lambda module, inputs, out: seen.update(audio=inputs[0]))
    fusion(tokens)
    row, mask = 1, tokens["audio"].attention_mask[1]
    x = fusion.projections("audio", tokens["audio"])[row][mask]
    want = torch.cat([fusion.first["audio"][None], x])[None]
    for layer in (0, 1):
        alone = type(fusion.blocks["audio"])(16, 1, 2)
        alone[0] = fusion.blocks["audio"][layer]
        want = alone(want)
    found = seen["audio"].view(4, 1 + 5 + 4, 16)[row]
    torch.testing.assert_close(found[: 1 + int(mask.sum())], want[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[6:], fusion.bottleneck)


def test_the_bottleneck_is_the_mean_over_the_modalities_of_a_row() -> None:
    """With two modalities the text reads both; where one is gone, the other one alone."""
    fusion, tokens = build("bottleneck").eval(), some_tokens()
    lacking = without(tokens, {"audio": [1]}, fill=torch.nan)
    assert_same(real(fusion(lacking), 1), real(fusion({m: t for m, t in lacking.items() if m != "audio"}), 1))


def test_modalities_must_meet() -> None:
    with pytest.raises(ConfigError, match="start=2 must be below depth=2"):
        build("bottleneck", start=2)


def test_the_gate_written_out() -> None:
    """For a row that has two of three modalities."""
    fusion, tokens = build("gate").eval(), without(some_tokens(), {"video": [1]}, fill=torch.nan)
    row, names = 1, ("audio", "text")
    p = {}
    for m in names:
        t = tokens[m]
        part = fusion.projections
        p[m] = (part.proj[m](t.x[row]) + part.modality[m])[t.attention_mask[row]].mean(0)
    s = (p["audio"] + p["text"]) / 2
    scores = {m: fusion.gates[m](torch.cat([p[m], s])).exp() for m in names}
    total = scores["audio"] + scores["text"]
    y = sum(scores[m] / total * fusion.values[m](p[m]).tanh() for m in names) + s
    for layer in fusion.layers:
        y = y + layer(y)
    torch.testing.assert_close(fusion(tokens).pooled[row], fusion.norm(y), rtol=0, atol=1e-5)


def test_the_gate_mixes_no_tokens() -> None:
    fusion, tokens = build("gate").eval(), some_tokens()
    left, right = fusion(tokens), fusion(other(tokens, "video", "audio"))
    assert torch.equal(left.tokens["text"].x, right.tokens["text"].x)


@pytest.mark.parametrize("case", ["pairwise", "bottleneck", "gate", "crossformer"])
def test_layers_are_numbered_from_the_input(case: str) -> None:
    fusion = build(case)
    layers = {name: fusion.layer_of(name) for name, _ in fusion.named_parameters()}
    assert set(layers.values()) == set(range(fusion.depth + 2))
    assert all(layers[name] == 0 for name in layers if name.startswith("projections."))
