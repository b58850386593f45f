"""train.sync_batchnorm: what of it can be seen without GPUs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vtp import distributed
from vtp.errors import ConfigError
from vtp.train import TrainConfig
from vtp.train.parallel import Parallel, _synchronise_batchnorm

CONFIG = TrainConfig(steps=1, global_batch=4, sync_batchnorm=True)


def model() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4)))


def test_two_processes_without_gpus_are_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(ConfigError, match="train.sync_batchnorm=true needs GPUs, and this run is on cpu") as told:
        Parallel(model(), CONFIG, torch.device("cpu"))
    assert "\n" not in str(told.value)


def test_one_process_ignores_it():
    same = model()
    Parallel(same, CONFIG, torch.device("cpu"))
    assert type(same[1]) is nn.BatchNorm2d


def test_every_batchnorm_is_replaced_and_keeps_its_tensors():
    changed = model()
    changed(torch.randn(5, 3, 1, 1))  # running statistics of its own
    before, x = changed.state_dict(keep_vars=True), torch.randn(2, 3, 1, 1)
    expected = changed.eval()(x)
    _synchronise_batchnorm(changed, torch.device("cuda"))
    assert [type(module) for module in (changed[1], changed[2][1])] == [nn.SyncBatchNorm] * 2
    after = changed.state_dict(keep_vars=True)
    assert list(after) == list(before) and all(after[name] is before[name] for name in before)
    torch.testing.assert_close(changed(x), expected)


def test_a_batchnorm_with_an_activation_inside_is_refused_by_name():
    """torch's conversion would drop the activation without a word."""
    layers = pytest.importorskip("timm.layers")
    kept = nn.Sequential(layers.BatchNormAct2d(3))
    with pytest.raises(ConfigError, match="0 is a BatchNormAct2d, which may do more"):
        _synchronise_batchnorm(kept, torch.device("cuda"))
    assert type(kept[0]) is layers.BatchNormAct2d
