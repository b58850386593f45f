#!/usr/bin/env bash
# transformers 5.23.0, tokenizers 0.23.3: a folder that holds a config.json and no vocabulary, which is what a model
# folder looks like when the tokenizer's files were not copied. AutoTokenizer.from_pretrained does not fail there:
# most families come up with their special tokens alone, and every sentence of three words gets the same ids. A
# training run on it learns that all captions are one caption. What happens depends on the family: MPNet fails at its
# first word, ModernBERT when it is loaded, GPT-2 gives no ids at all. A check that catches BERT's [UNK] passes T5,
# whose ids are two that alternate.
# Seen: "bert same ids: True" and so for t5, mt5, roberta, clip, albert, xlm-roberta, deberta-v2 and gpt2; "mpnet
# Exception", "modernbert ValueError".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check transformers==5.23.0 tokenizers==0.23.3 numpy==2.3.5
cat >"$folder/ask.py" <<'PYTHON'
import json
import sys
from pathlib import Path

from transformers import AutoTokenizer

families = "bert t5 mt5 roberta clip albert xlm-roberta deberta-v2 gpt2 mpnet modernbert".split()
for family in families:
    folder = Path(sys.argv[1]) / family
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": family}))
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = [tokenizer(text)["input_ids"] for text in ("one red dog", "two big owl")]
        print(family, "same ids:", ids[0] == ids[1])
    except Exception as error:
        print(family, type(error).__name__)
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/ask.py" "$folder" 2>/dev/null | tee "$folder/out"
diff "$folder/out" - <<'SEEN'
bert same ids: True
t5 same ids: True
mt5 same ids: True
roberta same ids: True
clip same ids: True
albert same ids: True
xlm-roberta same ids: True
deberta-v2 same ids: True
gpt2 same ids: True
mpnet Exception
modernbert ValueError
SEEN
