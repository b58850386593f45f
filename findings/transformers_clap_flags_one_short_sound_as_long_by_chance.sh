#!/usr/bin/env bash
# transformers 5.23.0: ClapFeatureExtractor with truncation="fusion" (its default) gives a flag is_longer with each
# sound, described as "whether the audio clip is longer than max_length" (10 s). Where no sound of a call is longer, it
# draws one of them from numpy's global generator and sets its flag; a call with a single short sound always sets it. A
# model with enable_fusion=True sends the flagged rows through other layers, so the embedding of a short file depends on
# what is beside it in the call, and on chance where all are short: a file embedded alone is not the one embedded in a
# batch, in eval mode too, and nothing says so. The features are equal; only the flag differs. Who wants one embedding
# for one file sets the flags from the lengths before calling the model.
# Seen: 3 s of noise: flagged alone, not flagged beside 12 s, one of two at random beside other 3 s. The embedding
# (small model, random weights) moves by more than half of its size, and not at all once the flag is corrected.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.11.0 transformers==5.23.0 numpy==2.3.5
cat >"$folder/ask.py" <<'PYTHON'
import numpy as np
import torch
from transformers import ClapAudioConfig, ClapAudioModel, ClapFeatureExtractor

torch.manual_seed(0)
noise = np.random.default_rng(0)
rate = 48_000
short, other, long = (noise.standard_normal(seconds * rate).astype(np.float32) for seconds in (3, 3, 12))
extract = ClapFeatureExtractor()
config = ClapAudioConfig(
    enable_fusion=True, depths=[1, 1], num_attention_heads=[2, 2], patch_embeds_hidden_size=32, hidden_size=64
)
model = ClapAudioModel(config).eval()


def ask(*sounds):
    return extract(list(sounds), sampling_rate=rate, return_tensors="pt")


def embed(inputs):
    with torch.no_grad():
        return model(**inputs).pooler_output[0]


def moved(one, two):
    return float((one - two).norm() / two.norm())


alone, beside = ask(short), ask(short, long)
print("alone:", alone["is_longer"].flatten().tolist(), "beside 12 s:", beside["is_longer"].flatten().tolist())
drawn = {tuple(ask(short, other)["is_longer"].flatten().tolist()) for _ in range(40)}
print("beside other 3 s, in 40 calls:", sorted(drawn))
print("features equal:", torch.equal(alone["input_features"][0], beside["input_features"][0]))
print("embedding moved by more than half:", moved(embed(alone), embed(beside)) > 0.5)
alone["is_longer"][:] = False
print("with the flag corrected:", moved(embed(alone), embed(beside)) > 1e-4)
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/out"
diff "$folder/out" - <<'SEEN'
alone: [True] beside 12 s: [False, True]
beside other 3 s, in 40 calls: [(False, True), (True, False)]
features equal: True
embedding moved by more than half: True
with the flag corrected: False
SEEN
