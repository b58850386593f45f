#!/usr/bin/env bash
# torchvision 0.26.0 with torch 2.11.0: mvit_v1_b and mvit_v2_s pass further arguments to the class MViT, their
# documentation says. MViT needs spatial_size and temporal_size, but the builders give these themselves: each of the two
# raises a TypeError about several values for one keyword. So a clip of 8 frames or of 112 pixels has no builder, and one
# must copy the list of blocks of the builder and call MViT. swin3d_t takes clips of other sizes as they come.
# Seen: both arguments fail in both builders; the model for 16 frames refuses a clip of 8; swin3d_t takes it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.11.0 torchvision==0.26.0 numpy==2.3.5
cat >"$folder/ask.py" <<'PYTHON'
import torch
from torchvision.models.video import mvit_v1_b, mvit_v2_s, swin3d_t

for build in (mvit_v1_b, mvit_v2_s):
    for options in ({"temporal_size": 8}, {"spatial_size": (112, 112)}, {"attention_dropout": 0.1}):
        try:
            build(**options)
            said = "taken"
        except TypeError as error:
            said = "several values" if "multiple values for keyword argument" in str(error) else str(error)
        print(build.__name__, *options, said)
clip = torch.zeros(1, 3, 8, 224, 224)
for build in (mvit_v2_s, swin3d_t):
    try:
        with torch.no_grad():
            said = tuple(build().eval()(clip).shape)
    except RuntimeError:
        said = "refused"
    print(build.__name__, "8 frames:", said)
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/out"
diff "$folder/out" - <<'SEEN'
mvit_v1_b temporal_size several values
mvit_v1_b spatial_size several values
mvit_v1_b attention_dropout taken
mvit_v2_s temporal_size several values
mvit_v2_s spatial_size several values
mvit_v2_s attention_dropout taken
mvit_v2_s 8 frames: refused
swin3d_t 8 frames: (1, 400)
SEEN
