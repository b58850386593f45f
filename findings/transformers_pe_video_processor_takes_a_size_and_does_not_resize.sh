#!/usr/bin/env bash
# transformers 5.23.0 with torch 2.11.0: PeVideoVideoProcessor, the processor of PE-AV, leaves do_resize at None, so that a size
# that it is given changes nothing: frames come out as large as they went in. Clips of unequal sizes cannot be one batch, and one
# clip of another size than the model's reaches it unchanged. CLIP's and LLaVA-OneVision's processors resize to the size given.
# Seen: 40 x 48 pixels stay 40 x 48 with size 32 x 32, and become 32 x 32 with do_resize=True beside it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.11.0 torchvision==0.26.0 transformers==5.23.0 numpy==2.3.5
cat >"$folder/ask.py" <<'PYTHON'
import torch
from transformers import LlavaOnevisionVideoProcessor, PeVideoVideoProcessor

frames = torch.zeros(2, 3, 40, 48, dtype=torch.uint8)
size = {"height": 32, "width": 32}
for name, processor in {
    "PE": PeVideoVideoProcessor(size=size),
    "PE, do_resize=True": PeVideoVideoProcessor(size=size, do_resize=True),
    "LLaVA-OneVision": LlavaOnevisionVideoProcessor(size=size),
}.items():
    pixels = processor([frames], return_tensors="pt")["pixel_values_videos"]
    print(f"{name}: do_resize {processor.do_resize}, pixels {tuple(pixels.shape[-2:])}")
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/out"
diff "$folder/out" - <<'SEEN'
PE: do_resize None, pixels (40, 48)
PE, do_resize=True: do_resize True, pixels (32, 32)
LLaVA-OneVision: do_resize True, pixels (32, 32)
SEEN
