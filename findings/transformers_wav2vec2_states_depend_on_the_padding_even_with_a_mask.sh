#!/usr/bin/env bash
# transformers 5.23.0: Wav2Vec2 with feat_extract_norm="group", the kind of wav2vec2-base. Its first layer normalises
# each channel over the time of the padded row, and the attention mask is not known there: zeros of padding lower the
# variance, so the values of a sound padded to n times its length come out sqrt(n) times as large, whatever the
# convolution's weights (it has no bias). The states of a sound, those far from the padding too, depend on the longest
# sound of its batch, and passing return_attention_mask=True does not help, as it does for the kind with
# feat_extract_norm="layer". The extractor's docstring says to pad with zeros and pass no mask, which is what it does by
# itself. Who wants one answer for one sound runs each without padding, or with others of its length.
# Seen: 1 s of noise beside 4 s: the first normalisation gives twice the values; the final states (2 layers, random
# weights) move by more than a quarter of their size, with the mask or without; the layer kind with a mask: not at all.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.11.0 transformers==5.23.0 numpy==2.3.5
cat >"$folder/ask.py" <<'PYTHON'
import numpy as np
import torch
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

rate = 16_000
noise = np.random.default_rng(0)
short, long = (noise.standard_normal(seconds * rate).astype(np.float32) for seconds in (1, 4))
extract = Wav2Vec2FeatureExtractor()
print("the extractor gives by itself:", list(extract([short, long], padding=True, sampling_rate=rate)))


def first_norm(model, inputs):
    """The normalised values of the first half second of the first row, before any learnt scale."""
    seen = []
    layer = model.feature_extractor.conv_layers[0].layer_norm
    handle = layer.register_forward_hook(lambda module, given, output: seen.append(output))
    with torch.no_grad():
        states = model(**inputs).last_hidden_state
    handle.remove()
    return states[0, : int(model._get_feat_extract_output_lengths(rate))], seen[0][0, :, :1600]


for norm in ("group", "layer"):
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        feat_extract_norm=norm, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128
    )
    model = Wav2Vec2Model(config).eval()
    for mask in (False, True):
        options = {"padding": True, "return_attention_mask": mask, "sampling_rate": rate, "return_tensors": "pt"}
        alone, norm_alone = first_norm(model, extract([short], **options))
        beside, norm_beside = first_norm(model, extract([short, long], **options))
        moved = float((beside - alone).norm() / alone.norm())
        line = f"{norm}, mask {mask}: states moved by more than a quarter: {moved > 0.25}, at all: {moved > 1e-4}"
        if norm == "group":
            line += f"; first norm times {float(norm_beside.norm() / norm_alone.norm()):.1f}"
        print(line)
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/out"
diff "$folder/out" - <<'SEEN'
the extractor gives by itself: ['input_values']
group, mask False: states moved by more than a quarter: True, at all: True; first norm times 2.0
group, mask True: states moved by more than a quarter: True, at all: True; first norm times 2.0
layer, mask False: states moved by more than a quarter: False, at all: True
layer, mask True: states moved by more than a quarter: False, at all: False
SEEN
