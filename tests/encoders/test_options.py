"""Every option file of the encoders and objectives fits its class, and the default model composes from them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch
import yaml

import vtp_encoders
import vtp_objectives
from vtp.cli.run import compose
from vtp.model.build import BuildContext, build_model, lookup_in, spec_problems
from vtp.model.context import ForwardContext
from vtp.model.model import SLOTS
from vtp.model.weights import load_model, save_weights
from vtp.options import option_files
from vtp.plugins import host
from vtp.types import AudioSpec, Batch, TextSpec, VideoSpec

CONF = [Path(package.__file__).parent / "conf" for package in (vtp_encoders, vtp_objectives)]
FILES = sorted(
    file
    for conf in CONF
    for file in conf.rglob("*.yaml")
    if file.parent.name not in ("model", "conf")
    and "defaults" not in yaml.safe_load(file.read_text())  # it varies another one
)
TEXTS = ["what color is the ball?", "how many stars move?", "who sings?"]
ANSWERS = ("red", "blue", "two")


def kind_of(file):
    return f"encoder/{file.parent.name}" if file.parent.parent.name == "encoder" else "objective"


@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_keys_are_parameters_and_values_are_their_defaults(file):
    options = yaml.safe_load(file.read_text())
    if options["name"] is None:
        assert file.stem == "none" and len(options) == 1
        return
    assert options.pop("name") == file.stem
    if kind_of(file) == "objective":
        assert file.read_text().startswith(f"# @package objectives.{file.stem}\n")
        assert options.pop("weight") == 1.0
    parameters = dict(inspect.signature(host().registry.get(kind_of(file), file.stem).load()).parameters)
    parameters.pop("context", None)
    assert list(options) == list(parameters)
    for name, value in options.items():  # one default, in two places that agree
        default = parameters[name].default
        assert value == (list(default) if isinstance(default, tuple) else default), name


def test_every_component_has_an_option_file():
    offered = {
        (e.kind, e.name) for e in host().registry.entries() if e.target.startswith(("vtp_encoders", "vtp_objectives"))
    }
    assert offered == {(kind_of(f), f.stem) for f in FILES if f.stem != "none"}


@pytest.mark.parametrize(
    "model",
    [m if m == "base" else pytest.param(m, marks=pytest.mark.slow) for m in sorted(option_files()["model"])],
)
def test_every_encoder_fits_every_slot_of_every_model(model):
    """A model chooses encoders and sets nothing inside a slot that another choice does not have."""
    groups = option_files()
    slots = {slot: sorted(groups[f"encoder/{slot}"]) for slot in SLOTS}
    for i in range(max(map(len, slots.values()))):  # all slots at once: as many compositions as the longest list has
        chosen = [f"encoder/{slot}={options[i % len(options)]}" for slot, options in slots.items()]
        if model == "crossformer" and {"encoder/fusion=none", "encoder/fusion=constant"} & {
            *chosen
        }:  # they have no preset
            chosen.append("~encoder.fusion.preset")
        config = compose([f"model={model}", "task=msrvtt_qa", "dataset=shapes", "run_dir=x", *chosen])
        assert spec_problems({"encoders": config["encoder"]}, lookup_in(host().registry)) == [], chosen


def test_pooling_has_one_vocabulary():
    """docs/plugins.md explains the words; an encoder that needs another one adds it there."""
    known = {"mean", "mean_all", "mean_then_norm", "cls", "attention"}
    said = set()
    for entry in host().registry.entries():
        if entry.kind.startswith("encoder/"):
            hint = get_type_hints(entry.load().__init__).get("pooling")
            words = {word for one in (hint, *get_args(hint)) for word in get_args(one) if isinstance(word, str)}
            said |= words
            assert words <= known, entry.target
    assert {"mean", "cls", "attention"} <= said
    text = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
    assert all(f"`{word}`" in text for word in known)


def default_spec():
    config = compose(["model=base", "task=msrvtt_qa", "dataset=shapes", "run_dir=x"])
    objectives = {f.stem: yaml.safe_load(f.read_text()) for f in FILES if kind_of(f) == "objective"}
    return {"encoders": config["encoder"], "objectives": objectives}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    context = BuildContext(texts=lambda: TEXTS, answers=ANSWERS)
    return build_model(default_spec(), lookup_in(host().registry), context)


def batch_for(model, rows=6):
    generator = torch.Generator().manual_seed(0)
    video, audio, text = (model.specs()[m] for m in ("video", "audio", "text"))
    assert isinstance(video, VideoSpec) and isinstance(audio, AudioSpec) and isinstance(text, TextSpec)
    ids = text.tokenize([TEXTS[i % 3] for i in range(rows)])
    longest = max(map(len, ids))
    mask = torch.tensor([[True] * len(i) + [False] * (longest - len(i)) for i in ids])
    token_ids = torch.tensor([i + [text.pad_id] * (longest - len(i)) for i in ids])
    sound = torch.ones(rows, dtype=torch.bool)
    sound[1] = False
    waveform = torch.randn(rows, audio.samples, generator=generator) * 0.1 * sound[:, None]
    size = (rows, video.frames, video.size, video.size, 3)
    return Batch(
        ids=[f"q{i}" for i in range(rows)],
        inputs={
            "video": {"frames": torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)},
            "audio": {"waveform": waveform, "lengths": audio.samples * sound.long()},
            "text": {"token_ids": token_ids, "attention_mask": mask},
        },
        present={"video": ~torch.zeros(rows, dtype=torch.bool), "audio": sound, "text": mask.any(1)},
        labels={"answer": torch.tensor([i % 3 for i in range(rows)])},
    )


def test_every_parameter_of_the_default_model_is_trained_by_its_objectives(model, take_step):
    assert set(take_step(model.train(), batch_for(model))) == {
        "qa",
        "vtc",
        "vtm",
        "mlm",
        "mvm",
        "caption",
        "classification",
    }
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    model.zero_grad()


def test_the_default_model_learns_one_batch(model):
    batch = batch_for(model)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=2e-3)
    losses = []
    for _ in range(10):
        loss = model.objectives["qa"](ForwardContext(model, batch)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_a_saved_model_restores_without_texts_or_network(model, tmp_path):
    batch = batch_for(model)
    model.eval()
    save_weights(tmp_path / "saved", model, {"note": "test"})
    again = load_model(tmp_path / "saved", lookup_in(host().registry)).eval()
    assert again.answers == ANSWERS

    def evaluate(ctx):
        objectives = ctx.model.objectives
        return {"answers": objectives["qa"].logits(ctx), **objectives["vtc"].embeddings(ctx)}

    with torch.no_grad():
        for one, other in zip(model(batch, run=evaluate).items(), again(batch, run=evaluate).items(), strict=True):
            assert one[0] == other[0] and torch.equal(one[1], other[1])
    config = (tmp_path / "saved" / "config.json").read_text()
    assert '"distribution": "vtp-core"' in config


def test_checkpointing_is_offered_by_all_default_encoders(model):
    assert model.gradient_checkpointing_enable() == []


def test_importing_the_plugins_imports_nothing_heavy():
    import subprocess
    import sys

    code = (
        "import sys, vtp_encoders.plugin, vtp_objectives.plugin;"
        "heavy = {'torch', 'transformers', 'timm', 'tokenizers', 'hydra'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
