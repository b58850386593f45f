#!/usr/bin/env bash
# transformers 5.23.0 with torch 2.11.0: a ViTMAEModel or ViTMAEForPreTraining that is made from a configuration has
# position embeddings of zeros in the encoder and in the decoder. They are the fixed sine-cosine tables of the paper, so
# they are frozen (requires_grad=False) and training never fills them; from_pretrained does, because checkpoints hold
# them. There is no warning. Pre-training from scratch then reconstructs patches without knowing where they are.
# Seen: the sum of all absolute values is 0 in both tables, and the class token of a picture equals that of the same
# picture with its patches in another order. With a sine-cosine table written in by hand, it does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.11.0 transformers==5.23.0 numpy==2.3.5
cat >"$folder/ask.py" <<'PYTHON'
import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining

torch.manual_seed(0)
sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
decoder = {f"decoder_{name}": size for name, size in sizes.items()}
model = ViTMAEForPreTraining(
    ViTMAEConfig(**sizes, **decoder, image_size=32, patch_size=8, mask_ratio=0.0, initializer_range=0.2)
).eval()
tables = {"encoder": model.vit.embeddings.position_embeddings, "decoder": model.decoder.decoder_pos_embed}
for name, table in tables.items():
    print(f"{name}: sum {float(table.abs().sum())}, learned: {table.requires_grad}")

picture = torch.randn(1, 3, 32, 32)
patches = picture.unfold(2, 8, 8).unfold(3, 8, 8).flatten(2, 3)  # (1, 3, 16, 8, 8)
patches = patches[:, :, torch.randperm(16)].unflatten(2, (4, 4))
shuffled = patches.permute(0, 1, 2, 4, 3, 5).reshape(1, 3, 32, 32)


def differs():
    with torch.no_grad():
        first, second = (model.vit(image).last_hidden_state[:, 0] for image in (picture, shuffled))
    return not torch.allclose(first, second, atol=1e-5)


print("another order of the patches tells:", differs())
angles = torch.arange(17.0)[:, None] / 10000 ** (torch.arange(16.0) / 16)
with torch.no_grad():
    tables["encoder"].copy_(torch.cat([angles.sin(), angles.cos()], dim=1))
print("and with a table of sines and cosines:", differs())
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/out"
diff "$folder/out" - <<'SEEN'
encoder: sum 0.0, learned: False
decoder: sum 0.0, learned: False
another order of the patches tells: False
and with a table of sines and cosines: True
SEEN
