"""``vtp import simvtp_dual`` of folders that are no checkpoint of vtp, whatever their files say."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from vtp.errors import DataError
from vtp_simvtp.dual import import_dual


def spec(**fusion):
    part = {"name": "simvtp", "preset": "tiny"}
    encoders = {"video": part, "text": part, "fusion": {**part, **fusion}}
    return json.dumps({"format": 1, "spec": {"encoders": encoders, "objectives": {}}})


BAD = {
    "nested": '{"spec":' + "[" * 100_000,
    "cut": '{"spec": {',
    "list": "[1]",
    "specification list": '{"spec": [1]}',
    "other format": '{"format": 9, "spec": {"encoders": {}}}',
    "no encoders": '{"format": 1, "spec": {}}',
    "encoder number": '{"format": 1, "spec": {"encoders": {"video": 5}}}',
    "encoder name list": '{"format": 1, "spec": {"encoders": {"video": {"name": ["simvtp"]}}}}',
    "width word": spec(width="wide"),
    "heads zero": spec(heads=0),
    "preset list": spec(preset=["base"]),
    "preset unknown": spec(preset="nope"),
    "without words": spec(),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_configuration_of_any_kind_is_one_line(tmp_path, kind):
    (tmp_path / "config.json").write_text(BAD[kind])
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(DataError) as told:
        import_dual(tmp_path, variant="released")
    assert "\n" not in str(told.value) and len(str(told.value)) < 600


def test_weights_that_are_cut_off_are_named(tmp_path):
    (tmp_path / "config.json").write_text(spec())
    (tmp_path / "model.safetensors").write_bytes(b"\x08")
    with pytest.raises(DataError, match=r"model.safetensors is not a readable safetensors file"):
        import_dual(tmp_path)
