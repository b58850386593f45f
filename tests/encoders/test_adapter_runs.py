"""``train.lora`` through ``vtp run``: methods and encoders of different make, and what their checkpoints hold."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tower_models import SHORT, TEXTS

import vtp
from vtp.cli.main import main

pytestmark = pytest.mark.slow
pytest.importorskip("peft", reason="adapters need peft")

MODELS = {
    "univl": ["model=univl", "encoder.text.preset=tiny", "encoder.text.tokenizer=texts", "encoder.video.preset=tiny"],
    "base": ["model=base", "objective=[vtc,vtm]"],
    "dual": ["model=dual"],
    "transformers": ["model=dual", "encoder/text=transformers", "encoder.text.model={bert}"],
}


@pytest.mark.parametrize("name", MODELS)
def test_adapters_alone_and_merged_weights_are_the_same_model(name, bert, table, tmp_path, capsys):
    options = [option.format(bert=bert) for option in MODELS[name]]
    given = ["task=retrieval", "dataset=csv", f"dataset.file={table}", *options, *SHORT, "train.lr=0.01"]
    loaded = []
    for merge in ("false", "true"):  # the same run twice
        run = tmp_path / merge
        lora = f"train.lora={{rank: 2, merge: {merge}}}"
        assert main(["run", *given, lora, f"run_dir={run}"]) == 0, capsys.readouterr().err
        step = next((run / "checkpoints").glob("step_*"))
        slots = {"base": {"fusion"}, "univl": {"text", "video", "fusion"}}.get(name, {"text", "video"})
        about = json.loads((step / "adapters.json").read_text())
        assert {layer.split(".")[1] for layer in about["scales"]} == slots
        assert (step / "model.safetensors").exists() == (merge == "true")
        own = load_file(step / "adapters.safetensors")
        assert any(
            tensor.any() for key, tensor in own.items() if key.endswith("lora_B.weight")
        )  # they learnt something
        if merge == "true":
            shutil.rmtree(step.parent / "base")
        loaded.append(vtp.load(step, device="cpu", workers=0))
    one, other = loaded
    weights, same = one.module.state_dict(), other.module.state_dict()
    assert weights.keys() == same.keys() and not any(".lora_" in key for key in weights)
    assert all(torch.allclose(weights[key].float(), same[key].float(), rtol=0, atol=1e-6) for key in weights)
    found = [model.encode(texts=TEXTS, tensors="torch").texts for model in (one, other)]
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)
