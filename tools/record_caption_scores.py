"""Record what the reference implementation of COCO's caption metrics says, for tests/tasks/caption_reference.json.

    apt-get install default-jre-headless; pip install --target FOLDER pycocoevalcap==1.2
    PYTHONPATH=FOLDER python tools/record_caption_scores.py [--msvd captions_msvd.json]

Tokens of the sentences of the file, which were made for it, by the reference tokenizer (Java), each in a run of its own
lines; scores of sentences drawn at random from a few words. With ``--msvd`` also the sha256 of the tokens of all
captions of MSVD, a caption a line, in the order of the file. No jar and nobody else's data are kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import tempfile
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parents[1] / "tests" / "tasks" / "caption_reference.json"
WORDS = "a man woman dog is are playing plays the guitar ball in on street water red big two runs fast running".split()  # noqa: SIM905


def tokens(sentences: list[str]) -> list[list[str]]:
    """Without punctuation, as the reference leaves it out. An empty line between sentences would be lost, a sentence
    that begins the next line may change the end of this one: a line of its own that begins with a small letter stands
    between them."""
    import pycocoevalcap.tokenizer.ptbtokenizer as reference

    lines = [line for sentence in sentences for line in (sentence, "between")]
    jar = Path(reference.__file__).parent / "stanford-corenlp-3.4.1.jar"
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        command = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
        done = subprocess.run([*command, file.name], capture_output=True, check=True)
    found = done.stdout.decode("utf-8").split("\n")[: len(lines)]
    assert all(line == "between" for line in found[1::2])
    dropped = set(reference.PUNCTUATIONS)
    return [[word for word in line.rstrip().split(" ") if word and word not in dropped] for line in found[::2]]


def corpus() -> tuple[list[str], list[list[str]]]:
    """Written sentences and their references, of words that need no tokenizer."""
    drawn = random.Random(0)
    references = [
        [" ".join(drawn.choices(WORDS, k=drawn.randint(3, 12))) for _ in range(drawn.randint(1, 5))] for _ in range(40)
    ]
    written = []
    for texts in references:
        words = drawn.choice(texts).split()
        words = [drawn.choice(WORDS) if drawn.random() < 0.2 else word for word in words]
        written.append(" ".join(words[: drawn.randint(0, len(words))] if drawn.random() < 0.3 else words))
    return written, references


def scores(written: list[str], references: list[list[str]]) -> dict[str, Any]:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    people, own = dict(enumerate(references)), {i: [text] for i, text in enumerate(written)}
    bleu, _ = Bleu(4).compute_score(people, own, verbose=0)
    _, cider = Cider().compute_score(people, own)
    _, rouge = Rouge().compute_score(people, own)
    return {"bleu": list(bleu), "cider": list(map(float, cider)), "rouge_l": list(map(float, rouge))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--msvd", type=Path)
    options = parser.parse_args()
    record = json.loads(FILE.read_text(encoding="utf-8"))
    sentences = [sentence for sentence, _ in record["tokens"]]
    record["tokens"] = [list(pair) for pair in zip(sentences, tokens(sentences), strict=True)]
    record["scores"] = scores(*corpus())
    if options.msvd:
        captions = [text for texts in json.loads(options.msvd.read_text(encoding="utf-8")).values() for text in texts]
        text = "".join(" ".join(words) + "\n" for words in tokens(captions))
        record["msvd"] = {"captions": len(captions), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    parts = [f'"{key}": {json.dumps(value, ensure_ascii=False)}' for key, value in record.items() if key != "tokens"]
    pairs = ",\n".join(json.dumps(pair, ensure_ascii=False) for pair in record["tokens"])
    FILE.write_text("{" + ",\n".join(parts) + f',\n"tokens": [\n{pairs}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
