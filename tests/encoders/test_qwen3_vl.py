"""Qwen3-VL as an embedder: one set of weights in two slots, adapters over it, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from tower_models import SHORT, TEXTS, options_of, save

import vtp
from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.model.momentum import Momentum

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen") / "model"
    save(folder, "qwen3_vl_embedding")
    return folder


@pytest.fixture(scope="module")
def model(source):
    return vtp.load([*options_of("qwen3_vl_embedding", source), "encoder.video.size=16"], device="cpu", workers=0)


def made(source, **options):
    from vtp_encoders.qwen3_vl_text import Qwen3VLText

    return Qwen3VLText(context=BuildContext(), model=str(source), **options)


def test_texts_are_read_with_the_weights_of_clips(model, source):
    encoders = model.module.encoders
    assert not list(encoders["text"].parameters()) and encoders["text"].model is encoders["video"].model
    assert not any(name.startswith("encoders.text.") for name in model.module.state_dict())
    alone = made(source, max_length=120).eval()
    assert not any(".visual." in name for name, _ in alone.named_parameters())
    ids = torch.tensor(alone.spec.tokenize(TEXTS[:1]))
    mask = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        assert torch.equal(alone.pool(alone(ids, mask)), encoders["text"].pool(encoders["text"](ids, mask)))


def test_another_model_of_texts_has_weights_of_its_own(source, tmp_path):
    save(tmp_path / "other", "qwen3_vl_embedding")
    options = [*options_of("qwen3_vl_embedding", source), f"encoder.text.model={tmp_path / 'other'}"]
    module = vtp.load([*options, "encoder.video.size=16"], device="cpu").module
    assert list(module.encoders["text"].parameters()) and len(module.objectives["vtc"].proj) == 2


def test_a_long_text_is_cut_off_and_its_template_is_not(source):
    encoder = made(source, max_length=100)
    tokenizer, (short, long) = encoder.settings.tokenizer, encoder.spec.tokenize(["red", "red " * 50])
    ending = "<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(short).endswith(f"user\nred{ending}") and len(short) < 100
    assert (
        tokenizer.decode(long).endswith(f"user\n{('red ' * 50)[: 100 - len(short) + 3]}{ending}") and len(long) == 100
    )


def test_what_cannot_be_is_refused(source, model, hub, tmp_path):
    from vtp_encoders.qwen3_vl import Qwen3VLVideo

    with pytest.raises(ConfigError, match="max_length=20 leaves no room for a word"):
        made(source, max_length=20)
    with pytest.raises(ConfigError, match=r"size=40 must be a multiple of 16. Nearest valid: 32"):
        Qwen3VLVideo(context=BuildContext(), model=str(source), size=40)
    with pytest.raises(ConfigError, match="is a vjepa2 model. Choose a Qwen3-VL model"):
        Qwen3VLVideo(context=BuildContext(), model=str(hub("vjepa2")))
    with pytest.raises(ConfigError, match="no objective can keep a moving average"):
        Momentum(model.module.encoders["text"])
    assert len(list(Momentum(made(source, max_length=120)).module.parameters())) > 10


def test_adapters_are_trained_by_both_and_load_alone_as_merged(source, table, tmp_path, capsys):
    from safetensors.torch import load_file

    from vtp.cli.main import main

    options = [f"dataset.file={table}", *options_of("qwen3_vl_embedding", source), "encoder.video.size=16", *SHORT]
    lora = "train.lora={rank: 2, targets: [q_proj, v_proj], merge: true}"
    run = tmp_path / "run"
    given = ["run", "task=retrieval", "dataset=csv", *options, "train.lr=0.1", lora, f"run_dir={run}"]
    assert main(given) == 0, capsys.readouterr().err
    folder = next((run / "checkpoints").glob("step_*"))
    about = json.loads((folder / "adapters.json").read_text())
    assert len(about["scales"]) == 4 and all(
        name.startswith("encoders.video.model.language_model") for name in about["scales"]
    )
    before = vtp.load([*options_of("qwen3_vl_embedding", source), "encoder.video.size=16"], device="cpu", workers=0)
    after = vtp.load(run, device="cpu", workers=0)
    assert not torch.allclose(*(m.encode(texts=TEXTS, tensors="torch").texts for m in (before, after)), atol=1e-3)
    whole = load_file(folder / "model.safetensors")
    state = after.module.state_dict()
    assert all(torch.allclose(whole[name], state[name], atol=1e-6) for name in whole)
