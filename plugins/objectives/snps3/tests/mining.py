"""What the tests of mining share: a spaCy that tags a few words by a list, captions with a table counted by hand, and
the straightforward loop over captions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

needs_jieba = pytest.mark.skipif(find_spec("jieba") is None, reason="needs jieba: pip install jieba")

DATA = Path(__file__).resolve().parents[5] / "shared" / "data"
MSVD = DATA / "annotations" / "msvd"

SPACY = """
import os, time
__version__ = "0"
TAGS = {"VERB": "runs plays is run", "NOUN": "dog cat man ball giraffe background x dogs", "ADJ": "red old"}
KIND = {word: kind for kind, words in TAGS.items() for word in words.split()}

class Token:
    def __init__(self, text, before):
        self.text = text
        self.pos_ = "NOUN" if (before, text) == ("the", "plays") else KIND.get(text.lower(), "X")

class Pipeline:
    meta = {"version": "1"}

    def pipe(self, texts, batch_size=0):
        if os.environ.get("CALLS"):
            with open(os.environ["CALLS"], "a") as file:
                file.write("call\\n")
            time.sleep(float(os.environ.get("SLOW", 0)))
        for text in texts:
            words = text.split()
            yield [Token(word, before) for before, word in zip(["", *words], words)]

def load(name, disable=()):
    return Pipeline()
"""

# By hand: man 5; plays 4 as a verb and 1 as a noun; dog, runs, red, ball, old 4; cat 3; giraffe 2. Left out: is and
# background, x (a letter), 2 and red-hot (not of letters alone); the tokenizer does not know dogs and run.
CAPTIONS = [
    "A dog runs",
    "a Dog plays",
    "the DOG is red",
    "the cat runs",
    "a cat plays",
    "the cat is old",
    "a man plays",
    "the man runs",
    "a man is in the background",
    "a giraffe runs",
    "the giraffe is old",
    "a red ball",
    "the red ball is old",
    "a man plays a ball",
    "X is red",
    "a dog",
    "the plays",
    "2 dogs run",
    "a red-hot ball",
    "the old man",
]
WORDS = 66  # of letters alone
VOCABULARY = "[PAD] [UNK] [CLS] [SEP] [MASK] a the dog cat man runs red ball plays gir ##af ##fe is in x old background"
GOLDEN = [  # ids, word, total, verb, noun, adj
    ((9,), "man", 5, 0, 5, 0),
    ((13,), "plays", 5, 4, 1, 0),
    ((7,), "dog", 4, 0, 4, 0),
    ((10,), "runs", 4, 4, 0, 0),
    ((11,), "red", 4, 0, 0, 4),
    ((12,), "ball", 4, 0, 4, 0),
    ((20,), "old", 4, 0, 0, 4),
    ((8,), "cat", 3, 0, 3, 0),
    ((14, 15, 16), "giraffe", 2, 0, 2, 0),
]


def fake_spacy(folder: Path) -> Path:
    """A folder for PYTHONPATH."""
    (folder / "spacy").mkdir(parents=True)
    (folder / "spacy" / "__init__.py").write_text(SPACY)
    (folder / "spacy-0.dist-info").mkdir()
    (folder / "spacy-0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: spacy\nVersion: 0\n")
    return folder


def write_vocabulary(file: Path, words: str = VOCABULARY) -> Path:
    file.write_text("\n".join(words.split()) + "\n", encoding="utf-8")
    return file


def write_captions(file: Path, captions: Iterable[Any] = CAPTIONS) -> Path:
    file.write_text("".join(json.dumps({"caption": caption}) + "\n" for caption in captions), encoding="utf-8")
    return file


def msvd_captions(count: int | None = None) -> list[str]:
    """Of MSVD's training clips, spread over them."""
    if not MSVD.is_dir():
        pytest.skip("needs ../shared/data/annotations/msvd, beside the repository")
    captions = json.loads((MSVD / "captions_msvd.json").read_text())
    found = [text for clip in (MSVD / "train_list.txt").read_text().split() for text in captions[clip]]
    return found if count is None else found[:: len(found) // count][:count]


def use_nltk_data(monkeypatch: pytest.MonkeyPatch) -> Any:
    nltk = pytest.importorskip("nltk")
    if not (DATA / "nltk_data").is_dir():
        pytest.skip("needs ../shared/data/nltk_data, beside the repository")
    monkeypatch.setenv("NLTK_DATA", str(DATA / "nltk_data"))  # of processes that are started
    monkeypatch.setattr(nltk.data, "path", [str(DATA / "nltk_data")])
    return nltk


def straightforward(nltk: Any, captions: Sequence[str]) -> dict[str, list[int]]:
    """Word -> how often a verb, a noun, an adjective, anything else: caption by caption, as one would write it."""
    cut, tagger = nltk.tokenize.TreebankWordTokenizer(), nltk.tag.perceptron.PerceptronTagger(lang="eng")
    counts: dict[str, list[int]] = {}
    for caption in captions:
        for word, tag in tagger.tag(cut.tokenize(caption.lower())):
            kinds = {"VB": 0, "NN": 1, "JJ": 2}
            column = 3 if tag.startswith("NNP") else kinds.get(tag[:2], 3)
            if word.isalpha():
                counts.setdefault(word, [0, 0, 0, 0])[column] += 1
    return counts


def start(arguments: Sequence[str], path: Path | None = None, **variables: str) -> subprocess.Popen[bytes]:
    """``vtp mine-words`` in a process of its own; ``path`` for PYTHONPATH."""
    environment = {**os.environ, **variables} | ({"PYTHONPATH": str(path)} if path is not None else {})
    command = [sys.executable, "-m", "vtp.cli.main", "mine-words", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
