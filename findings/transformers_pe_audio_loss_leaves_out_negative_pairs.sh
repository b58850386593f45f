#!/usr/bin/env bash
# transformers 5.23, PeAudioModel(..., return_loss=True), the audio half of Perception Encoder AV: the sigmoid loss of
# pairs multiplies a logit by its label, +1 for a pair that belongs together and -1 for one that does not. Here the
# labels of the others are 0: each costs log 2 whatever its logit is, and has no gradient. The loss looks plausible and
# falls, while nothing pushes a sound away from the texts of other sounds.
# Seen for 3 sounds and 3 texts of a small random model: the gradient of the 6 logits off the diagonal is 0; the loss
# is the one with labels 0, and not that with labels -1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.11.0 transformers==5.23.0 numpy==2.3.5
cat >"$folder/ask.py" <<'PYTHON'
import torch
from torch.nn.functional import logsigmoid
from transformers import PeAudioConfig, PeAudioModel

torch.manual_seed(0)
small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
audio = {**small, "head_dim": 16, "dac_config": {"downsampling_ratios": [2, 2], "encoder_hidden_size": 8, "codebook_dim": 8}}
text = {**small, "vocab_size": 20, "pad_token_id": 0}
model = PeAudioModel(PeAudioConfig(text_config=text, audio_config=audio)).eval()
with torch.no_grad():
    model.text_audio_logit_scale.fill_(5.0)
    model.text_audio_logit_bias.fill_(-1.0)
ids = torch.tensor([[2, 5, 6, 3], [2, 7, 8, 3], [2, 9, 10, 3]])
sounds = torch.randn(3, 1, 256)
found = model(ids, sounds, attention_mask=torch.ones_like(ids), return_loss=True)
logits = found.logits_audio_text
(gradient,) = torch.autograd.grad(found.loss, logits)
others = ~torch.eye(3, dtype=torch.bool)
print("gradients off the diagonal that are 0:", int((gradient[others] == 0).sum()), "of", int(others.sum()))
for name, off in (("0", 0.0), ("-1", -1.0)):
    labels = torch.where(others, off, 1.0)
    wanted = -logsigmoid(labels * logits).sum() / 3
    print(f"the loss is that with labels {name}:", bool(torch.allclose(found.loss, wanted, atol=1e-6)))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" 2>/dev/null | tee "$folder/out"
diff "$folder/out" - <<'SEEN'
gradients off the diagonal that are 0: 6 of 6
the loss is that with labels 0: True
the loss is that with labels -1: False
SEEN
