#!/usr/bin/env bash
# safetensors 0.8.0: the same tensors with the same metadata, saved again and again by one process, do not always give
# the same bytes. The tensors are laid out in a fixed order, the entries of `metadata` are not: with two keys there
# are two files. So a hash of a .safetensors file names the weights only if the metadata has at most one key, or if it
# leaves the header out.
# Seen: "one key: 1 file, two keys: 2 files" over 64 saves each.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check safetensors==0.8.0 numpy==2.3.5
cat >"$folder/ask.py" <<'PYTHON'
import numpy as np
from safetensors.numpy import save

tensors = {"weight": np.arange(6, dtype=np.float32)}


def files(metadata):
    return len({save(tensors, metadata=metadata) for _ in range(64)})


print(f"one key: {files({'a': '1'})} file, two keys: {files({'a': '1', 'b': '2'})} files")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/out"
diff "$folder/out" - <<'SEEN'
one key: 1 file, two keys: 2 files
SEEN
