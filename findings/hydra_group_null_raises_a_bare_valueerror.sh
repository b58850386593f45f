#!/usr/bin/env bash
# hydra-core 1.3.8 on Python 3.11: an entry of a defaults list may be null (`- db: null` loads nothing), yet `db=null` on the
# command line, or in hydra.compose, is not "load nothing": it ends in a bare ValueError, which is no HydraException. Who
# catches HydraException to print one line for a mistake of the user therefore shows a traceback for this one, while
# a misspelt option, `db=nothing`, does raise a HydraException (MissingConfigException). `~db` is how to take the group out.
# Seen: "null: ValueError, HydraException: False" / "misspelt: MissingConfigException, HydraException: True" / "~db: {}".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check hydra-core==1.3.8 omegaconf==2.3.0
mkdir -p "$folder/conf/db"
printf 'defaults:\n  - db: small\n' >"$folder/conf/run.yaml"
printf 'rows: 3\n' >"$folder/conf/db/small.yaml"
cat >"$folder/ask.py" <<'PYTHON'
import sys

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

for name, override in (("null", "db=null"), ("misspelt", "db=nothing"), ("~db", "~db")):
    with initialize_config_dir(sys.argv[1], version_base="1.3"):
        try:
            print(f"{name}: {compose('run', [override])}")
        except Exception as error:
            print(f"{name}: {type(error).__name__}, HydraException: {isinstance(error, HydraException)}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" "$folder/conf" | tee "$folder/out"
diff "$folder/out" - <<'SEEN'
null: ValueError, HydraException: False
misspelt: MissingConfigException, HydraException: True
~db: {}
SEEN
