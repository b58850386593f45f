#!/usr/bin/env bash
# hydra-core 1.3.8 on Python 3.11: HydraConfig's runtime.choices is the record of which option of each group was chosen. A
# group that takes a list (`- loss: [a, b]`) is composed from all its options, but the record has no entry for it at all,
# neither the list nor its members, while a group with one option is recorded. Who checks or logs choices by that record
# never sees the options that were chosen as a list.
# Seen: "composed: ['a', 'b', 'rows']" / "recorded: ['db']".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check hydra-core==1.3.8 omegaconf==2.3.0
mkdir -p "$folder/conf/db" "$folder/conf/loss"
printf 'defaults:\n  - db@_global_: small\n  - loss@_global_: [a, b]\n' >"$folder/conf/run.yaml"
printf 'rows: 3\n' >"$folder/conf/db/small.yaml"
printf 'a: 1\n' >"$folder/conf/loss/a.yaml"
printf 'b: 2\n' >"$folder/conf/loss/b.yaml"
cat >"$folder/ask.py" <<'PYTHON'
import sys

from hydra import compose, initialize_config_dir

with initialize_config_dir(sys.argv[1], version_base="1.3"):
    config = compose("run", return_hydra_config=True)
choices = config.hydra.runtime.choices
print("composed:", sorted(key for key in config if key != "hydra"))
print("recorded:", sorted(key.partition("@")[0] for key in choices if not key.startswith("hydra/")))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" "$folder/conf" | tee "$folder/out"
diff "$folder/out" - <<'SEEN'
composed: ['a', 'b', 'rows']
recorded: ['db']
SEEN
