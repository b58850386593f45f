"""`vtp mine-words` beside the straightforward loop, and its memory over millions of captions.

    NLTK_DATA=FOLDER python benchmarks/mining.py --root MSVD --vocabulary vocab.txt [--workers 2] [--generated 2500000]

``loop`` reads MSVD's training captions and, one after another in one process, cuts each with NLTK's Treebank tokenizer,
tags it with NLTK's perceptron and asks lemminflect for the lemmas of its verbs, nouns and adjectives. ``vtp`` is the
command from its start to the written table, in a process of its own, which also finds the tokens of the words and the
families of their lemmas. They take turns; ``processor`` is the processor's time, which other programs disturb less than
the clock's. The script stops unless both count the same: every word, as every part of speech.

Memory is the proportional set size (PSS) of the command and its processes, added up, 20 times a second; the largest sum
counts. The generated captions are two of MSVD's each, joined at random, with a word that no other has in every 20th.
Exit code 1 where the command is less than ``--times`` as fast as the loop, or takes more than ``--limit-mb``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import record
from annotations_memory import family, memory_mb

from vtp.machine import cores
from vtp_snps3.mining.captions import captions_of
from vtp_snps3.mining.counting import How, count_words
from vtp_snps3.words import read_table

KINDS = {"VB": (0, "VERB"), "NN": (1, "NOUN"), "JJ": (2, "ADJ")}


def loop(root: str) -> tuple[dict[str, list[int]], dict[str, float]]:
    """Counts of word and part of speech, and seconds."""
    begun, used = time.perf_counter(), time.process_time()
    from lemminflect import getLemma
    from nltk.tag.perceptron import PerceptronTagger
    from nltk.tokenize import TreebankWordTokenizer

    cut, tagger = TreebankWordTokenizer(), PerceptronTagger(lang="eng")
    counts: dict[str, list[int]] = {}
    lemmas: dict[tuple[str, str], int] = {}
    lemma_s = 0.0
    for caption in captions_of("msvd", {"root": root}):
        for word, tag in tagger.tag(cut.tokenize(caption.lower())):
            if not word.isalpha():
                continue
            column, part = KINDS.get(tag[:2], (3, "")) if not tag.startswith("NNP") else (3, "")
            counts.setdefault(word, [0, 0, 0, 0])[column] += 1
            if part:
                start = time.perf_counter()
                lemma = next(iter(getLemma(word, part, lemmatize_oov=False)), word)
                lemma_s += time.perf_counter() - start
                lemmas[lemma, part] = lemmas.get((lemma, part), 0) + 1
    seconds = time.perf_counter() - begun
    return counts, {"seconds": seconds, "without_lemmas": seconds - lemma_s, "processor": time.process_time() - used}


def command(source: list[str], out: Path, options: argparse.Namespace) -> tuple[float, float, dict[str, float]]:
    """Seconds of the command, those of the processor, and the largest sums of memory over its processes."""
    arguments = [*source, str(out), f"tokenizer={options.vocabulary}", f"workers={options.workers}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    call = [sys.executable, "-m", "vtp.cli.main", "mine-words", *arguments]
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL)
    peak = {"pss": 0.0, "uss": 0.0}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            now = memory_mb(family(process.pid))
            for name in peak:
                peak[name] = max(peak[name], now[name])

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    seconds = time.perf_counter() - begun
    over.set()
    watcher.join()
    if code:
        raise SystemExit(f"vtp mine-words ended with {code}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, processor, {f"{name}_mb": round(size) for name, size in peak.items()}


def same_counts(counts: dict[str, list[int]], root: str, table: Path) -> None:
    """Stop unless vtp counts what the loop counts."""
    with tempfile.TemporaryDirectory() as parts:
        ours = count_words(captions_of("msvd", {"root": root}), How("nltk", True), Path(parts)).words
    if ours != counts:
        different = [word for word in {*ours, *counts} if ours.get(word) != counts.get(word)]
        raise SystemExit(f"{len(different)} words are counted differently, such as {different[:5]}")
    for word in read_table(table).words:
        if [word.verb, word.noun, word.adj] != counts[word.word][:3]:
            raise SystemExit(f"the row of {word.word} is not what was counted: {word}, {counts[word.word]}")


def generate(file: Path, root: str, rows: int) -> None:
    draw, captions = random.Random(0), list(captions_of("msvd", {"root": root}))
    with open(file, "w", encoding="utf-8") as out:
        for row in range(rows):
            text = f"{draw.choice(captions)} while {draw.choice(captions)}"
            if row % 20 == 0:
                text += " with a z" + "".join(chr(ord("a") + int(digit)) for digit in str(row))
            out.write(json.dumps({"caption": text}) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder with captions_msvd.json and train_list.txt")
    parser.add_argument("--vocabulary", required=True, help="vocab.txt of BERT")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--generated", type=int, default=0, help="captions to generate and mine besides")
    parser.add_argument("--times", type=float, default=4.0)
    parser.add_argument("--limit-mb", type=float, default=400.0)
    parser.add_argument("--out", type=Path, default=record.RESULTS / "mining.json")
    options = parser.parse_args()
    measured: dict[str, Any] = {"cores": cores(), "workers": options.workers}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VTP_CACHE"] = str(Path(folder) / "cache")
        names = ("loop", "loop_without_lemmas", "vtp", "loop_processor", "vtp_processor")
        times: dict[str, list[float]] = {name: [] for name in names}
        memory: list[dict[str, float]] = []
        for turn in range(options.rounds):
            out = Path(folder) / f"{turn}.json"
            seconds, processor, peak = command(["msvd", f"root={options.root}"], out, options)
            counts, looped = loop(options.root)
            times["vtp"].append(seconds)
            times["vtp_processor"].append(processor)
            times["loop_processor"].append(looped["processor"])
            times["loop"].append(looped["seconds"])
            times["loop_without_lemmas"].append(looped["without_lemmas"])
            memory.append(peak)
            print(f"loop {looped['seconds']:.1f} s, vtp {seconds:.1f} s, {peak}", flush=True)
        same_counts(counts, options.root, out)
        table = read_table(out)
        medians = {name: round(statistics.median(values), 2) for name, values in times.items()}
        largest = max(memory, key=lambda sizes: sizes["pss_mb"])
        measured |= {
            "captions": table.counted["captions"],
            "words": table.counted["words"],
            "rows": len(table.words),
            "seconds": medians,
            "rounds": {name: [round(value, 2) for value in values] for name, values in times.items()},
            "speedup": round(statistics.median(a / b for a, b in zip(times["loop"], times["vtp"], strict=True)), 2),
            "speedup_without_lemmas": round(
                statistics.median(a / b for a, b in zip(times["loop_without_lemmas"], times["vtp"], strict=True)), 2
            ),
            "speedup_of_the_processor": round(
                statistics.median(a / b for a, b in zip(times["loop_processor"], times["vtp_processor"], strict=True)),
                2,
            ),
            "memory": largest,
        }
        print(json.dumps(measured))
        if options.generated:
            source = Path(folder) / "captions.jsonl"
            generate(source, options.root, options.generated)
            out = Path(folder) / "generated.json"
            seconds, processor, peak = command([str(source)], out, options)
            table = read_table(out)
            measured["generated"] = {
                "captions": table.counted["captions"],
                "words": table.counted["words"],
                "file_mb": round(source.stat().st_size / 1e6),
                "seconds": round(seconds, 1),
                "processor": round(processor, 1),
                "memory": peak,
            }
            print(json.dumps(measured["generated"]))
    record.save(options.out, "vtp mine-words and the straightforward loop on MSVD's training captions", **measured)
    return int(measured["speedup_without_lemmas"] < options.times or largest["pss_mb"] > options.limit_mb)


if __name__ == "__main__":
    sys.exit(main())
