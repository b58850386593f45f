#!/usr/bin/env bash
# simplemma 2.0.0, English: the lemma of "playing" is "playe", and that of "singing" is "singe". These are no slips of its
# rules for unknown words, where one would look first: is_known says True, and "played", "plays", "staying" and "walking"
# are right. "playe" is no word, so that whoever joins captions by lemma ("a man plays", "a man is playing") has two verbs
# without being told. "cutting" and "sitting" are their own lemmas, as the nouns that they are too; "running" is not.
# Seen: "playing playe True", "singing singe True", "cutting cutting True"; "played", "plays" and "play" give "play".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check simplemma==2.0.0
cat >"$folder/ask.py" <<'PYTHON'
import simplemma

for word in "play plays played playing staying singing walking running cutting sitting".split():
    print(word, simplemma.lemmatize(word, lang="en"), simplemma.is_known(word, lang="en"))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/out"
diff "$folder/out" - <<'SEEN'
play play True
plays play True
played play True
playing playe True
staying stay True
singing singe True
walking walk True
running run True
cutting cutting True
sitting sitting True
SEEN
