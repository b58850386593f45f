#!/usr/bin/env bash
# pytrec-eval-terrier 0.5.10 (the trec_eval behind many retrieval benchmarks): two documents of equal score are ranked
# by their names, the later one in the alphabet first. With constant scores, as a collapsed model gives them, recall
# at 1 is 1 or 0 as the clips happen to be called. And scores are compared as float32: 0.3 and 0.2999999999, which
# Python tells apart, are such a tie. A harness that sorts the same scores with numpy gets another number.
# Seen: right document "b" against "a": 1.0; right document "b" against "c": 0.0; a right document "a" that is better
# by 1e-10: 0.0, by 1e-4: 1.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check pytrec-eval-terrier==0.5.10 numpy==2.3.5
cat >"$folder/ask.py" <<'PYTHON'
import pytrec_eval


def recall_at_1(right, scores):
    found = pytrec_eval.RelevanceEvaluator({"q": {right: 1}}, {"success_1"}).evaluate({"q": scores})
    return found["q"]["success_1"]


print("b against a:", recall_at_1("b", {"a": 1.0, "b": 1.0}))
print("b against c:", recall_at_1("b", {"b": 1.0, "c": 1.0}))
print("a better by 1e-10:", recall_at_1("a", {"a": 0.3, "b": 0.3 - 1e-10}))
print("a better by 1e-4:", recall_at_1("a", {"a": 0.3, "b": 0.3 - 1e-4}))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/out"
diff "$folder/out" - <<'SEEN'
b against a: 1.0
b against c: 0.0
a better by 1e-10: 0.0
a better by 1e-4: 1.0
SEEN
