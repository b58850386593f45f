#!/usr/bin/env bash
# torch 2.11.0 with timm 1.0.31: torch.nn.SyncBatchNorm.convert_sync_batchnorm replaces every subclass of BatchNorm2d by
# a plain SyncBatchNorm. timm's networks hold BatchNormAct2d, a subclass that applies the activation as well, so the
# converted network runs without them: the same weights, no error, other outputs even in eval mode. timm's own
# convert_sync_batchnorm keeps them.
# Seen: EfficientNet-B0 has 49 layers of that class, none after torch's conversion; its output moves by more than half
# of its own size with torch's, and not at all with timm's.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.11.0 torchvision==0.26.0 timm==1.0.31 numpy==2.3.5
cat >"$folder/ask.py" <<'PYTHON'
import copy

import timm
import torch
from timm.layers import BatchNormAct2d, convert_sync_batchnorm

torch.manual_seed(0)
model = timm.create_model("efficientnet_b0", pretrained=False, num_classes=0).eval()
image = torch.randn(1, 3, 64, 64)


def layers(network):
    return sum(isinstance(part, BatchNormAct2d) for part in network.modules())


def moved(network):
    # SyncBatchNorm in eval mode is ordinary batch normalisation, on a CPU too
    with torch.no_grad():
        before = model(image)
        return float((network.eval()(image) - before).norm() / before.norm())


by_torch = torch.nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))
by_timm = convert_sync_batchnorm(copy.deepcopy(model))
print("layers with an activation:", layers(model), "after torch's conversion:", layers(by_torch))
print("output moved by more than half:", moved(by_torch) > 0.5, "with timm's:", moved(by_timm) > 1e-6)
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/out"
diff "$folder/out" - <<'SEEN'
layers with an activation: 49 after torch's conversion: 0
output moved by more than half: True with timm's: False
SEEN
