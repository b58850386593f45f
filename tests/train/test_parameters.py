"""Parameter groups: every trainable parameter once, with the weight decay and the multiplier that the docs promise."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toy_training import toy_model

from vtp.errors import ConfigError
from vtp.train.config import TrainConfig
from vtp.train.parameters import build_optimizer, freeze, parameter_groups


def facts(model, **options) -> dict[str, tuple[float, float]]:
    """name -> (weight decay, multiplier); fails if a parameter stands in two groups."""
    found = {}
    for group in parameter_groups(model, TrainConfig(steps=1, **options)):
        for name, parameter in zip(group["names"], group["params"], strict=True):
            assert name not in found
            assert dict(model.named_parameters())[name] is parameter
            found[name] = (group["weight_decay"], group["lr_scale"])
    return found


def test_biases_norms_scalars_and_positions_do_not_decay():
    found = facts(toy_model(), weight_decay=0.1)
    assert set(found) == {name for name, _ in toy_model().named_parameters()}
    decaying = {name for name, (decay, _) in found.items() if decay}
    assert decaying == {
        "encoders.audio.embed_in.weight",
        "encoders.audio.layers.0.1.weight",
        "encoders.audio.layers.1.1.weight",
        "objectives.vtc.a.weight",
        "objectives.vtc.b.weight",
        "objectives.qa.head.weight",
    }
    assert {decay for decay, _ in found.values()} == {0.0, 0.1}


def test_a_bias_with_two_dimensions_and_what_a_module_declares_do_not_decay():
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(2, 2))
            self.table = nn.Parameter(torch.zeros(2, 2))
            self.rest = nn.Parameter(torch.zeros(2, 2))

        def no_weight_decay(self):  # timm's convention
            return {"table"}

    found = facts(nn.ModuleDict({"head": Head()}))
    assert {name for name, (decay, _) in found.items() if decay} == {"head.rest"}


def test_layer_decay_counts_from_the_output_down():
    found = facts(toy_model(), layer_decay=0.5)  # depth 2: embeddings 0.5 ** 3, layer 1 0.5 ** 2, layer 2 0.5
    assert found["encoders.audio.pos_embed"][1] == 0.125
    assert found["encoders.audio.layers.0.1.weight"][1] == 0.25
    assert found["encoders.audio.layers.1.1.weight"][1] == 0.5
    assert found["objectives.qa.head.weight"][1] == 1.0


def test_longest_prefix_wins_and_multiplies_with_layer_decay():
    options = {"group_lr": {"encoders": 0.1, "encoders.audio.layers.1": 2.0}, "layer_decay": 0.5}
    found = facts(toy_model(), **options)
    assert found["encoders.audio.layers.1.1.bias"][1] == 1.0
    assert found["encoders.audio.layers.0.1.bias"][1] == pytest.approx(0.025)


def test_a_prefix_ends_at_a_dot():
    model = nn.ModuleDict({"text": nn.Linear(2, 2), "text2": nn.Linear(2, 2)})
    found = facts(model, group_lr={"text": 0.1})
    assert found["text.weight"][1] == 0.1
    assert found["text2.weight"][1] == 1.0


def test_multiplier_zero_freezes():
    model = toy_model()
    config = TrainConfig(steps=1, group_lr={"encoders.audio": 0.0})
    assert all(name.startswith("encoders.audio.") for name in freeze(model, config))
    assert not any(p.requires_grad for p in model.encoders.parameters())
    assert not any(name.startswith("encoders") for group in parameter_groups(model, config) for name in group["names"])


def test_a_prefix_without_parameters_is_an_error():
    with pytest.raises(ConfigError, match=r"encoders.vidoe.*encoders.audio"):
        parameter_groups(toy_model(), TrainConfig(steps=1, group_lr={"encoders.vidoe": 0.1}))


def test_layer_decay_without_layers_is_an_error():
    with pytest.raises(ConfigError, match="layer_decay"):
        parameter_groups(nn.ModuleDict({"a": nn.Linear(2, 2)}), TrainConfig(steps=1, layer_decay=0.5))


def test_nothing_to_train_is_an_error():
    model = toy_model()
    config = TrainConfig(steps=1, group_lr={"encoders": 0.0, "objectives": 0.0})
    freeze(model, config)
    with pytest.raises(ConfigError, match="frozen"):
        build_optimizer(model, config)
