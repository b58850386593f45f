#!/usr/bin/env bash
# pandas 2.3.3, numpy 2.3.5, Python 3.11: a column whose cells are numpy arrays of strings is written to csv as numpy
# prints them, without commas. ast.literal_eval, the usual way back to a list of captions, does not fail on that: Python
# joins neighbouring string literals, so three captions come back as a list of one. Columns of Python lists survive.
# Seen: 3 captions written, 1 read from the arrays, 3 from the lists.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check pandas==2.3.3 numpy==2.3.5
cat >"$folder/ask.py" <<'PYTHON'
import ast
import sys

import numpy as np
import pandas as pd

captions = ["a dog runs", "a dog in the park", "the park"]
table = pd.DataFrame({"arrays": [np.array(captions)], "lists": [captions]})
table.to_csv(f"{sys.argv[1]}/captions.csv", index=False)
row = pd.read_csv(f"{sys.argv[1]}/captions.csv").iloc[0]
for column in ("arrays", "lists"):
    read = ast.literal_eval(row[column])
    print(column, len(captions), "written,", len(read), "read, equal:", read == captions)
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" "$folder" | tee "$folder/out"
diff "$folder/out" - <<'SEEN'
arrays 3 written, 1 read, equal: False
lists 3 written, 3 read, equal: True
SEEN
