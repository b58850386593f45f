#!/usr/bin/env bash
# sentence-transformers 6.2.0 with transformers 5.23 and a CLIP model, whose modalities are text and image: encode()
# takes the path of a picture in a list of strings as words, not as a picture, and so it does with the path of a video.
# Nothing is said; the embedding has the right shape and unit length. Two paths of the same words differ in no bit, and
# a file that does not exist is embedded as well, so that a folder of clips is "embedded" at hundreds of clips a second.
# Asked in the form that names the modality, {"video": path}, it refuses.
# Seen: the path of a file that is not there has an embedding, equal to that of the same words; {"video": ...} raises
# ValueError.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check sentence-transformers==6.2.0 transformers==5.23.0 \
  torch==2.11.0 torchvision==0.26.0 numpy==2.3.5
cat >"$folder/ask.py" <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from sentence_transformers import SentenceTransformer

torch.manual_seed(0)
place = Path(sys.argv[1]) / "model"
place.mkdir()
words = ["[PAD]", "[UNK]", "[CLS]", "[MASK]", "clips", "dog", "mp4", ".", "/", "[SEP]"]
(place / "vocab.txt").write_text("\n".join(words))
hf.BertTokenizer(vocab=str(place / "vocab.txt")).save_pretrained(place)
tower = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
text = {**tower, "vocab_size": len(words), "bos_token_id": 2, "eos_token_id": 9, "pad_token_id": 0}
vision = {**tower, "image_size": 32, "patch_size": 16}
hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(place)
square = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
hf.CLIPImageProcessor(**square).save_pretrained(place)

model = SentenceTransformer(str(place), device="cpu")
print("modalities:", *sorted(model.modalities))
path, words_of_it = model.encode(["clips/dog.mp4", "clips / dog . mp4"])
print("the path of a video that is not there:", path.shape, "as the same words:", bool(np.array_equal(path, words_of_it)))
try:
    model.encode([{"video": "clips/dog.mp4"}])
    print("named as a video: taken")
except ValueError:
    print("named as a video: ValueError")
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/ask.py" "$folder" 2>/dev/null | tee "$folder/out"
diff "$folder/out" - <<'SEEN'
modalities: image text
the path of a video that is not there: (16,) as the same words: True
named as a video: ValueError
SEEN
