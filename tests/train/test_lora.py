"""Adapters: what trains, what is saved, what comes back, and what is refused."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from toy_training import history, launch, toy_batch, toy_model

from vtp.errors import ConfigError, DataError
from vtp.model.adapters import weights_hash
from vtp.model.weights import load_weights
from vtp.train import TrainConfig, checkpoint
from vtp.train.config import Lora

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("peft", reason="adapters need peft")

from vtp.train.lora import adapt  # noqa: E402

HERE = Path(__file__).parent
LORA = {"rank": 2, "alpha": 6.0, "dropout": 0.1}
RUN = {"dropout": 0.1, "lora": LORA, "lr": 1e-2, "ema_decay": 0.5, "save_every": 2, "eval_every": 2, "keep": None}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Four steps of the toy model with adapters."""
    folder = tmp_path_factory.mktemp("lora") / "run"
    assert launch(str(folder), steps=4, **RUN) == 0
    return folder


def outputs(model) -> torch.Tensor:
    """Logits of the toy model on fixed rows, without dropout."""
    model.eval()
    batch = toy_batch(list(range(8)), 0, 8)
    with torch.no_grad():
        found = model(batch, run=lambda ctx: {"x": model.objectives["qa"].head(ctx.pooled("audio"))})
    return found["x"]


def by_hand(folder: Path, name: str = "adapters.safetensors") -> dict[str, torch.Tensor]:
    """W + alpha / rank * B A of a checkpoint, from its files."""
    weights = load_file(folder.parent / "base" / "model.safetensors") | load_file(folder / name)
    layers = [n.removesuffix(".lora_A.weight") for n in weights if n.endswith(".lora_A.weight")]
    assert sorted(layers) == ["encoders.audio.embed_in", "encoders.audio.layers.0.1", "encoders.audio.layers.1.1"]
    for layer in layers:
        down, up = weights.pop(f"{layer}.lora_A.weight"), weights.pop(f"{layer}.lora_B.weight")
        assert down.shape[0] == up.shape[1] == 2 and up.abs().sum() > 0
        weights[f"{layer}.weight"] = weights[f"{layer}.weight"] + 3.0 * up @ down
    return weights


def test_checkpoints_hold_what_was_trained_alone_and_the_rest_stays_as_it_was(run):
    before = toy_model(dropout=0.1).state_dict()
    base = load_file(run / "checkpoints" / "base" / "model.safetensors")
    own = load_file(run / "checkpoints" / "step_00000004" / "adapters.safetensors")
    heads = {name for name in before if name.startswith("objectives.")}
    assert set(base) == set(before) - heads and heads < set(own)
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.items())
    assert any(not torch.equal(own[name], before[name]) for name in heads)
    assert not (run / "checkpoints" / "step_00000004" / "model.safetensors").exists()
    about = json.loads((run / "checkpoints" / "step_00000004" / "adapters.json").read_text())
    assert about["base"]["sha256"] == weights_hash(base) and set(about["scales"].values()) == {3.0}
    moments = load_file(run / "checkpoints" / "step_00000004" / "optimizer.safetensors")
    assert all(".lora_" in name or name.startswith("objectives.") for name in moments)


@pytest.mark.parametrize("name", ["adapters.safetensors", "ema.safetensors"])
def test_loaded_elsewhere_they_are_the_merged_model(run, name):
    folder = run / "checkpoints" / "step_00000004"
    want, got = toy_model(), toy_model(seed=5)
    want.load_state_dict(by_hand(folder, name))
    load_weights(folder if name.startswith("adapters") else folder / name, got)
    torch.testing.assert_close(outputs(got), outputs(want))


def test_a_model_with_adapters_computes_what_the_merged_one_does(run):
    model = toy_model()
    adapt(model, Lora(**LORA))
    own = load_file(run / "checkpoints" / "step_00000004" / "adapters.safetensors")
    named = {
        n.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default."): t for n, t in own.items()
    }
    missing = model.load_state_dict(named, strict=False)
    assert not missing.unexpected_keys
    plain = toy_model()
    plain.load_state_dict(by_hand(run / "checkpoints" / "step_00000004"))
    torch.testing.assert_close(outputs(model), outputs(plain))


def test_a_resumed_run_is_the_unbroken_one(run, tmp_path):
    half = tmp_path / "run"
    assert launch(str(half), steps=4, **RUN) == 0
    shutil.rmtree(half / "checkpoints" / "step_00000004")
    assert launch(str(half), steps=4, resume="auto", **RUN) == 0
    for file in ("adapters.safetensors", "ema.safetensors", "optimizer.safetensors"):
        one, other = (load_file(r / "checkpoints" / "step_00000004" / file) for r in (run, half))
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert [line["losses"] for line in history(half) if "losses" in line] == [
        line["losses"] for line in history(run) if "losses" in line
    ]


def test_adapters_that_come_alone_need_the_weights_that_they_were_trained_over(run, tmp_path, caplog):
    alone = shutil.copytree(run / "checkpoints" / "step_00000004", tmp_path / "sent" / "adapters")
    want = toy_model()
    want.load_state_dict(by_hand(run / "checkpoints" / "step_00000004"))
    same = toy_model()
    with caplog.at_level(logging.INFO, "vtp.model"):
        load_weights(alone, same)
    assert "the same that they were trained over (sha256 " in caplog.text
    torch.testing.assert_close(outputs(same), outputs(want))
    with pytest.raises(DataError, match="are not what they were trained over"):
        load_weights(alone, toy_model(seed=1))


def test_merged_checkpoints_need_no_base(tmp_path):
    assert launch(str(tmp_path / "run"), steps=1, lora={**LORA, "merge": True}, lr=1e-2) == 0
    folder = tmp_path / "run" / "checkpoints" / "step_00000001"
    whole, want = load_file(folder / "model.safetensors"), by_hand(folder)
    assert whole.keys() == want.keys()
    for name, tensor in want.items():
        torch.testing.assert_close(whole[name], tensor)
    shutil.rmtree(folder.parent / "base")
    load_weights(folder, toy_model(seed=3))


def test_resuming_with_and_without_adapters_is_refused(run, tmp_path, capsys):
    plain = tmp_path / "plain"
    assert launch(str(plain), steps=1) == 0
    with pytest.raises(DataError, match="was trained with train.lora, and this run has none"):
        _restored(run / "checkpoints" / "step_00000004", None)
    with pytest.raises(DataError, match="was trained without train.lora"):
        _restored(plain / "checkpoints" / "step_00000001", Lora(**LORA))
    with pytest.raises(DataError, match=r"trained times 3 \(alpha / rank\), and here they count times 4"):
        _restored(run / "checkpoints" / "step_00000004", Lora(**LORA | {"alpha": 8.0}))


def _restored(path: Path, lora: Lora | None) -> None:
    from vtp.train.parallel import Parallel

    model = toy_model()
    if lora is not None:
        adapt(model, lora)
    checkpoint.load_weights(path, Parallel(model, TrainConfig(steps=1), torch.device("cpu")))


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"targets": ["embed_inn"]},
            r"'embed_inn' in its name. Did you mean 'embed_in'\? There are: audio: embed_in, 1",
        ),
        ({"targets": ["layers.0.0"]}, "is a LayerNorm, and adapters are for linear layers"),
        ({"heads": ["encoder"]}, "no parameter starts with 'encoder'"),
        ({"rank": 1_000_000}, "no chosen layer is wider than .*Expected at most"),  # of 100 GB, in a real encoder
    ],
)
def test_names_that_fit_nothing_are_refused_with_those_that_exist(options, message):
    with pytest.raises(ConfigError, match=message):
        adapt(toy_model(), Lora(**options))


def test_layers_that_would_be_read_past_their_adapter_get_none():
    model = toy_model()
    model.encoders["audio"].layers.append(nn.MultiheadAttention(16, 2))
    model.encoders["audio"].tied = model.encoders["audio"].embed_in
    model.encoders["audio"].shares = nn.Linear(16, 16)
    model.encoders["audio"].shares.weight = model.encoders["audio"].layers[1][1].weight
    with pytest.raises(ConfigError, match="lies within a layer of torch that reads its weights"):
        adapt(model, Lora(targets=["out_proj"]))
    with pytest.raises(ConfigError, match="shares its weight with another layer"):
        adapt(model, Lora(targets=["layers.1.1"]))
    adapt(model, Lora())
    assert model.adapted is not None
    assert sorted(model.adapted.scales) == ["encoders.audio.layers.0.1"]  # embed_in has a second name


def test_options_are_checked_before_anything_is_built(monkeypatch):
    with pytest.raises(ConfigError, match=r"no option 'rnk'.*rank"):
        TrainConfig(steps=1, lora={"rnk": 4})
    with pytest.raises(ConfigError, match=r"train.lora=8: expected options, such as \{rank: 8\}"):
        TrainConfig(steps=1, lora=8)
    with pytest.raises(ConfigError, match=r"train.lora.targets: expected list of str"):
        TrainConfig(steps=1, lora={"targets": "query"})
    wrong = TrainConfig(steps=1, lora={"rank": 0, "dropout": 1.0, "targets": [""]}).validate()
    assert [line.split(":")[0] for line in wrong] == [
        "train.lora.rank=0",
        "train.lora.dropout=1.0",
        "train.lora.targets=['']",
    ]
    monkeypatch.setattr("vtp.train.config.find_spec", lambda name: None)
    (line,) = TrainConfig(steps=1, lora={"rank": 4}).validate()
    assert line == "train.lora needs the package peft, which is not installed: pip install peft"


def test_an_averaged_encoder_and_adapters_do_not_go_together():
    with pytest.raises(ConfigError, match="objective moco keeps a moving average of an encoder"):
        adapt(toy_model(objectives=("moco",)), Lora())


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_train_the_adapters_of_one(strategy, two_ranks, tmp_path):
    lora = {"rank": 2, "alpha": 6.0}
    how = {"steps": 3, "lora": lora, "lr": 1e-2, "strategy": strategy}
    assert launch(str(tmp_path / "one"), **how) == 0
    two_ranks([str(HERE / "toy_training.py")], {**how, "run_dir": str(tmp_path / "two")})
    one, two = (tmp_path / name / "checkpoints" for name in ("one", "two"))
    base = [load_file(folder / "base" / "model.safetensors") for folder in (one, two)]
    assert weights_hash(base[0]) == weights_hash(base[1])
    want, got = by_hand(one / "step_00000003"), by_hand(two / "step_00000003")
    for name, tensor in want.items():
        torch.testing.assert_close(got[name], tensor, atol=1e-5, rtol=1e-4)
