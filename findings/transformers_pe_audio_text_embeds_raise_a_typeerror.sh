#!/usr/bin/env bash
# transformers 5.23: PeAudioModel has a method for each side, get_audio_embeds and get_text_audio_embeds. The one for
# texts reads the hidden states of its text model without having asked for them, so that it raises a TypeError whatever
# the text; forward of both sides asks and gives the embedding. With text_model.config.output_hidden_states = True the
# method gives that of forward, to the last bit.
# Seen: a row of get_audio_embeds, a row of forward, the TypeError, and equality with the setting.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.11.0 transformers==5.23.0 numpy==2.3.5
cat >"$folder/ask.py" <<'PYTHON'
import torch
from transformers import PeAudioConfig, PeAudioModel

torch.manual_seed(0)
small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
audio = {**small, "head_dim": 16, "dac_config": {"downsampling_ratios": [2, 2], "encoder_hidden_size": 8, "codebook_dim": 8}}
text = {**small, "vocab_size": 20, "pad_token_id": 0}
model = PeAudioModel(PeAudioConfig(text_config=text, audio_config=audio)).eval()
ids = torch.tensor([[2, 5, 6, 3]])
mask = torch.ones_like(ids)
print("get_audio_embeds:", tuple(model.get_audio_embeds(torch.randn(1, 1, 256)).shape))
print("forward:", tuple(model(ids, torch.randn(1, 1, 256), attention_mask=mask).text_audio_embeds.shape))
try:
    print("get_text_audio_embeds:", tuple(model.get_text_audio_embeds(ids, mask).shape))
except TypeError as error:
    print("get_text_audio_embeds:", error)
model.text_model.config.output_hidden_states = True
print("with output_hidden_states in the configuration:", end=" ")
both = model(ids, torch.randn(1, 1, 256), attention_mask=mask)
print(torch.equal(model.get_text_audio_embeds(ids, mask), both.text_audio_embeds))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" 2>/dev/null | tee "$folder/out"
diff "$folder/out" - <<'SEEN'
get_audio_embeds: (1, 32)
forward: (1, 32)
get_text_audio_embeds: 'NoneType' object is not subscriptable
with output_hidden_states in the configuration: True
SEEN
