#!/usr/bin/env bash
# transformers 5.23.0 with torch 2.11.0: VideoPrismClipModel.get_video_features gives a pooler_output of (videos, 1, width),
# get_text_features one of (texts, width), as all other two-tower models of the library do for both. The cosine of a batch of
# pairs then broadcasts without a word: a matrix of all pairs comes out where one number per pair was meant.
# Seen: shapes (2, 1, 32) and (2, 32), a cosine of (2, 2) in the place of (2,), and rows of CLIP's of (2, 32) for both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.11.0 transformers==5.23.0 numpy==2.3.5
cat >"$folder/ask.py" <<'PYTHON'
import torch
from torch.nn.functional import cosine_similarity
from transformers import CLIPConfig, CLIPModel, VideoPrismClipModel, VideoPrismConfig

torch.manual_seed(0)
sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
words = {**sizes, "num_hidden_layers": 1, "vocab_size": 20, "max_position_embeddings": 8}
vision = {**sizes, "image_size": 16, "num_frames": 4, "tubelet_size": [1, 8, 8]}
layers = {"num_spatial_layers": 1, "num_temporal_layers": 1, "num_auxiliary_layers": 1}
model = VideoPrismClipModel(VideoPrismConfig(text_config=words, vision_config={**vision, **layers})).eval()
ids, mask = torch.randint(3, 20, (2, 8)), torch.ones(2, 8, dtype=torch.long)
with torch.no_grad():
    videos = model.get_video_features(torch.rand(2, 4, 3, 16, 16)).pooler_output
    texts = model.get_text_features(ids, attention_mask=mask).pooler_output
print("videos", tuple(videos.shape), "texts", tuple(texts.shape))
print("cosine of pairs", tuple(cosine_similarity(videos, texts, dim=-1).shape))
towers = {"text_config": words, "vision_config": {**sizes, "num_hidden_layers": 1, "image_size": 16, "patch_size": 8}}
clip = CLIPModel(CLIPConfig(**towers, projection_dim=32)).eval()
with torch.no_grad():
    pictures = clip.get_image_features(torch.rand(2, 3, 16, 16)).pooler_output
    written = clip.get_text_features(ids, attention_mask=mask).pooler_output
print("CLIP: pictures", tuple(pictures.shape), "texts", tuple(written.shape))
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/out"
diff "$folder/out" - <<'SEEN'
videos (2, 1, 32) texts (2, 32)
cosine of pairs (2, 2)
CLIP: pictures (2, 32) texts (2, 32)
SEEN
