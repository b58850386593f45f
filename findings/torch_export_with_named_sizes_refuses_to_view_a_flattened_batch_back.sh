#!/usr/bin/env bash
# torch 2.11, torch.export.export: a module flattens batch and length into rows and views them back, the usual way
# around a layer that takes rows. With both sizes free and given as Dim("batch", min=1, max=64), Dim("length", min=2,
# max=32) the export ends with "Constraints violated (length)": it wants length * min(96, 96 * length) to be
# 96 * length, which holds for every length of at least 1, and cannot show it. The ranges make no difference, nor does
# -1 in the view. One free size is exported, the flattening alone too, and so are both sizes as Dim.DYNAMIC, which have
# no name and no range.
# Seen: refused; exported, exported, exported.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.11.0 numpy==2.3.5
cat >"$folder/ask.py" <<'PYTHON'
import torch
from torch import nn
from torch.export import Dim


class Words(nn.Module):
    def __init__(self, back):
        super().__init__()
        self.words, self.back = nn.Embedding(10, 96), back

    def forward(self, ids):
        rows = self.words(ids).flatten(0, 1)
        return rows.view(*ids.shape, 96) if self.back else rows


batch, length = Dim("batch", min=1, max=64), Dim("length", min=2, max=32)
cases = {
    "both named": (True, {0: batch, 1: length}),
    "only the batch": (True, {0: batch}),
    "not viewed back": (False, {0: batch, 1: length}),
    "both DYNAMIC": (True, {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}),
}
for name, (back, free) in cases.items():
    ids = torch.zeros(2, 8, dtype=torch.long)
    try:
        torch.export.export(Words(back), (ids,), dynamic_shapes=(free,))
        print(f"{name}: exported")
    except Exception as error:
        print(f"{name}: refused, {str(error)[:29]}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" 2>/dev/null | tee "$folder/out"
diff "$folder/out" - <<'SEEN'
both named: refused, Constraints violated (length)
only the batch: exported
not viewed back: exported
both DYNAMIC: exported
SEEN
