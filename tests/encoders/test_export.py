"""Which towers export to ONNX: every encoder at tiny size, through `vtp export`, as the table in docs/use.md says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from encoder_names import NAMES
from tower_models import options_of, save

import vtp
from vtp.model.build import BuildContext, build_model, lookup_in
from vtp.plugins import host
from vtp.use.export import export

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
PAGE = (Path(__file__).parents[2] / "docs" / "use.md").read_text(encoding="utf-8")
ROWS = {(slot, name): said for slot, name, said in re.findall(r"^\| (\w+) \| `(\w+)` \| (.*?) \|$", PAGE, re.M)}
OTHER = {"video": "text", "audio": "text", "text": "video"}
TINY = {"name": "tiny", "width": 16, "depth": 1, "heads": 2}
SMALL = {"text": TINY, "video": {**TINY, "frames": 2, "size": 32}}
PAIRS = ["clip", "siglip2", "xclip", "videoprism", "pe_av", "clap"]


def became(model, modality, folder):
    """What the table says of a tower."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="export needs it")
    [one] = export(model, folder, towers=[modality])
    return one


@pytest.mark.parametrize("slot, name", [n for n in NAMES if n[0] != "fusion"])
def test_encoders(tiny, tmp_path, slot, name):
    other = OTHER[slot]
    encoders = {slot: {"name": name.split()[0], **tiny[slot, name][1]}, other: SMALL[other]}
    vtc = {"name": "vtc", "width": 8, "modalities": [slot, other], "weight": 1.0}
    spec = {"encoders": encoders, "objectives": {"vtc": vtc}}
    module = build_model(spec, lookup_in(host().registry), BuildContext(texts=lambda: ["a red ball", "two boxes"]))
    one = became(vtp.Model(module, workers=0), slot, tmp_path / "out")
    assert ROWS[slot, name.split()[0]].startswith("no" if one.error else "yes"), one


@pytest.mark.parametrize("name", [name for slot, name in NAMES if slot == "fusion"])
def test_fusion_encoders(tiny, tmp_path, name):
    encoders = {**SMALL, "fusion": {"name": name, **tiny["fusion", name][1]}}
    spec = {"encoders": encoders, "objectives": {"qa": {"name": "qa", "weight": 1.0}}, "answers": ["red", "two"]}
    module = build_model(spec, lookup_in(host().registry), BuildContext(texts=lambda: ["a red ball", "two boxes"]))
    one = became(vtp.Model(module, workers=0), "fused", tmp_path / "out")
    assert ROWS["fusion", name].startswith("no" if one.error else "yes"), one


@pytest.mark.parametrize("name", PAIRS)
def test_texts_of_two_towers_by_name(tmp_path, name):
    save(tmp_path / "model", name)
    model = vtp.load(options_of(name, tmp_path / "model"), device="cpu", workers=0, kernels="torch")
    one = became(model, "text", tmp_path / "out")
    assert ROWS["text", name].startswith("no" if one.error else "yes"), one
