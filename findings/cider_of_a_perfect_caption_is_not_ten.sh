#!/usr/bin/env bash
# pycocoevalcap 1.2, the CIDEr-D of the COCO captioning code, whose scale ends at 10: a caption that equals its only
# reference word for word gets 10 only under two conditions. It needs four words: the score averages over n-grams of
# one to four words, and an order without n-grams counts as 0, so "blue cat" copied exactly is worth 5. And the test
# set needs a second clip: weights are the logarithm of clips over clips with the n-gram, so a set of one clip scores
# 0 whatever is said. Short captions of generated data and smoke tests on one clip read like failures of the model.
# Seen: one clip 0.0; two clips: five words 10.0, three words 7.5, two words 5.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check pycocoevalcap==1.2 pycocotools==2.0.11 numpy==2.3.5
cat >"$folder/ask.py" <<'PYTHON'
from pycocoevalcap.cider.cider import Cider


def scores(*captions):
    same = {i: [text] for i, text in enumerate(captions)}
    return Cider().compute_score(same, same)[1].round(6).tolist()


print("one clip:", scores("a red dog runs fast"))
print("five and three words:", scores("a red dog runs fast", "one blue cat"))
print("five and two words:", scores("a red dog runs fast", "blue cat"))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/out"
diff "$folder/out" - <<'SEEN'
one clip: [0.0]
five and three words: [10.0, 7.5]
five and two words: [10.0, 5.0]
SEEN
