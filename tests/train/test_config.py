"""TrainConfig: the schema that hydra checks, and its own checks, all at once."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, ValidationError

from vtp.cli.run import _fields
from vtp.config import DataConfig, MediaConfig
from vtp.train.config import TrainConfig


def test_defaults_are_valid_with_a_length():
    assert TrainConfig(steps=10).validate() == []
    assert TrainConfig(epochs=0.5, global_batch=32, accumulation=2).validate(world_size=4) == []


def test_hydra_can_use_it_as_a_schema():
    node = OmegaConf.merge(
        OmegaConf.structured(TrainConfig), {"steps": 3, "group_lr": {"encoders.video": 0.1}, "clip_norm": None}
    )
    config = OmegaConf.to_object(node)
    assert isinstance(config, TrainConfig)
    assert (config.steps, config.group_lr, config.clip_norm) == (3, {"encoders.video": 0.1}, None)
    with pytest.raises(ConfigKeyError):
        OmegaConf.merge(OmegaConf.structured(TrainConfig), {"stps": 3})
    with pytest.raises(ValidationError):
        OmegaConf.merge(OmegaConf.structured(TrainConfig), {"steps": "many"})


def test_importing_the_schema_does_not_import_torch():
    code = "import sys, vtp.train.config, vtp.train; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("schema", [TrainConfig, DataConfig, MediaConfig])
def test_every_option_is_documented(schema):
    assert [name for name, meaning in _fields(schema) if not meaning] == []
    assert [name for name, _ in _fields(schema) if "lambda" in name or "field(" in name] == []
    assert [name.partition("=")[0] for name, _ in _fields(schema)] == [field.name for field in fields(schema)]


def test_all_errors_are_reported_at_once():
    wrong = TrainConfig(steps=5, epochs=2, lr=-1, schedule="cosin", global_batch=30, accumulation=4, betas=[0.9])
    lines = wrong.validate(world_size=2)
    assert lines[0] == "train.steps=5 and train.epochs=2: give exactly one of them."
    for start in ("train.lr=-1", "train.betas=[0.9]", "train.schedule=cosin", "train.global_batch=30"):
        assert sum(line.startswith(start) for line in lines) == 1, lines
    assert any("Did you mean 'cosine'?" in line for line in lines)
    assert any("global_batch=32" in line for line in lines)  # the nearest multiple of 2 * 4


@pytest.mark.parametrize(
    "option",
    [
        {"steps": 0},
        {"global_batch": 0},
        {"accumulation": 0},
        {"lr": float("nan")},
        {"min_lr": 1.0},
        {"warmup": -1},
        {"warmup": 2.5},
        {"warmup": 50},
        {"layer_decay": 0.0},
        {"layer_decay": 1.5},
        {"ema_decay": 1.0},
        {"group_lr": {"encoders": -1.0}},
        {"precision": "fp8"},
        {"strategy": "horovod"},
        {"monitor_mode": "best"},
        {"keep": 0},
        {"patience": 0},
        {"clip_norm": 0.0},
        {"schedule": "step"},
        {"lr_milestones": [5]},
        {"lr_milestones": [5, 3], "schedule": "step"},
        {"log_every": 0},
        {"eval_every": -1},
        {"sync_batchnorm": True, "strategy": "fsdp2"},
    ],
    ids=str,
)
def test_each_wrong_value_is_refused_by_name(option):
    (wrong,) = TrainConfig(**{"steps": 10, **option}).validate()
    assert wrong.startswith(f"train.{next(iter(option))}")


def test_an_option_that_a_checkpoint_does_not_know_was_at_its_default():
    saved = TrainConfig(steps=10, lr=1e-3).as_dict()
    del saved["sync_batchnorm"]
    assert TrainConfig(steps=10).differences(saved) == {"lr": (1e-3, 1e-4)}
    assert TrainConfig(steps=10, lr=1e-3, sync_batchnorm=True).differences(saved) == {"sync_batchnorm": (False, True)}


def test_fingerprint_covers_what_decides_the_weights_and_nothing_else():
    one = TrainConfig(steps=10)
    assert one.fingerprint() == TrainConfig(steps=10, keep=5, eval_every=3, tensorboard=False).fingerprint()
    assert one.fingerprint() != TrainConfig(steps=11).fingerprint()
    assert TrainConfig(steps=10, lr=1.0, keep=9).differences(one.as_dict()) == {"lr": (1e-4, 1.0)}
