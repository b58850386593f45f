"""Exhaustive l2 retrieval with UniVL: all pairs of texts and clips through the cross encoder, vtp and a plain loop.

    python benchmarks/univl_retrieval.py [--preset base] [--texts 200] [--clips 200] [--plain 320] [--threads 2]

``plain`` is the loop of the released programs, from their specification: for every pair it encodes the clip, the text
(its feature, BERT over the 30 padded tokens) and the two together (padded text, clip tokens, [SEP], an additive mask),
here ``--batch`` pairs at a time, with BERT by transformers. ``vtp`` is what the retrieval task runs
(``vtp_tasks.rerank.score_pairs``): clips and texts once, pairs in the order of the length of their texts, no padding.
Both have the same weights, frames and texts of 6 to 18 tokens, and the script stops unless their scores agree. (Weights
are random, and larger than those that training starts from: else all pairs would have one score.)

vtp scores all pairs. The plain loop takes long, so it scores ``--plain`` pairs that are drawn at random, in as many
parts as there are rounds, before, between and behind those of vtp; all its pairs cost the same, and its time is scaled
to all of them (``--plain 0`` scores all). Decoding is in neither time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from vtp.data import Example, collate
from vtp.eval.evaluator import Evaluator
from vtp.model.build import BuildContext, build_model, lookup_in
from vtp.plugins import host
from vtp.types import MediaRef, Sample
from vtp_tasks.pairs import Pairs
from vtp_tasks.rerank import score_pairs

LONGEST = 30  # tokens of a padded text
PRESETS: dict[str, dict[str, Any]] = {
    "base": {"text": {"preset": "base"}, "video": {"preset": "base", "backbone": "pvt_v2_b0"}},
    "tiny": {"text": {"preset": "tiny"}, "video": {"preset": "tiny"}},
}


class Plain:
    """The loop, with the weights of a vtp model."""

    def __init__(self, model: Any) -> None:
        text, self.video = model.encoders["text"], model.encoders["video"]
        self.spec, self.normalize = text.spec, model.normalize_video
        config = BertConfig(
            vocab_size=text.bert.embeddings.word_embeddings.num_embeddings,
            hidden_size=text.width,
            num_hidden_layers=text.depth,
            num_attention_heads=text.heads,
            intermediate_size=4 * text.width,
        )
        self.bert = BertModel(config).eval()
        missing, unknown = self.bert.load_state_dict(text.bert.state_dict(), strict=False)
        assert not unknown and set(missing) <= {"embeddings.position_ids"}, (missing, unknown)
        self.pooler: nn.Module = model.encoders["fusion"].cross_pooler
        self.head: nn.Module = model.objectives["vtm"].similarity_dense

    @torch.no_grad()
    def scores(self, frames: Tensor, ids: Tensor) -> Tensor:
        """Of pairs: frames uint8 (R, T, H, W, 3), ids int64 (R, 30), 0 = padding -> (R,)."""
        real = (ids != self.spec.pad_id).float()
        clips = self.video(self.normalize(frames)).x  # (R, n, D)
        self.bert(input_ids=ids, attention_mask=real)  # the text feature: l1 is made beside l2
        embed = self.bert.embeddings
        last = embed.word_embeddings(torch.full((len(ids), 1), self.spec.sep_id))
        seen = torch.cat([clips, last], 1)
        x = torch.cat(
            [
                embed(input_ids=ids),
                embed(inputs_embeds=seen, token_type_ids=torch.ones(seen.shape[:2], dtype=torch.long)),
            ],
            1,
        )
        mask = torch.cat([real, torch.ones(seen.shape[:2])], 1)
        out = self.bert.encoder(x, attention_mask=((1 - mask) * -10000.0)[:, None, None])[0]
        found: Tensor = self.head(self.pooler(out[:, 0]))[:, 0]
        return found


class Memory:
    """A loader of clips that are in memory."""

    def __init__(self, model: Any, samples: list[Sample], frames: dict[str, np.ndarray], batch: int) -> None:
        self.samples, self.frames, self.batch, self.specs = samples, frames, batch, model.specs()
        self.misses: dict[str, str] = {}

    def __iter__(self) -> Any:
        for start in range(0, len(self.samples), self.batch):
            part = self.samples[start : start + self.batch]
            yield collate([Example(sample.id, frames=self.frames[sample.id]) for sample in part], self.specs)


def made_model(preset: str, texts: list[str], folder: Path) -> Any:
    words = sorted({word for text in texts for word in text.split()})
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]) + "\n")
    chosen = PRESETS[preset]
    tokens = {"tokenizer": str(folder / "vocab.txt"), "max_length": LONGEST, "vocabulary": 30522}
    spec = {
        "encoders": {
            "text": {"name": "univl", **chosen["text"], **tokens},
            "video": {"name": "univl", **chosen["video"]},
            "fusion": {"name": "univl"},
        },
        "objectives": {"vtc": {"name": "univl_vtc"}, "vtm": {"name": "univl_vtm"}},
    }
    torch.manual_seed(0)
    model = build_model(spec, lookup_in(host().registry), BuildContext()).eval()
    with torch.no_grad():
        for parameter in (*model.encoders["text"].parameters(), *model.objectives["vtm"].parameters()):
            if parameter.dim() == 2:
                parameter.mul_(3.0)
    return model


def measure(options: argparse.Namespace, folder: Path) -> int:
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(2000)]
    texts = [" ".join(rng.choice(words, int(rng.integers(4, 17)))) for _ in range(options.texts)]
    model = made_model(options.preset, texts, folder)
    spec = model.specs()
    shape = (spec["video"].frames, spec["video"].size, spec["video"].size, 3)
    clips = [f"clip{i}" for i in range(options.clips)]
    frames = {name: rng.integers(0, 256, shape, dtype=np.uint8) for name in clips}
    videos = [Sample(name, MediaRef(f"{name}.mp4")) for name in clips]
    queries = [
        Sample(f"q{i}", texts=(text,), extra={"video_id": clips[i % len(clips)]}) for i, text in enumerate(texts)
    ]
    pairs = Pairs.of(queries, videos)
    assert len(pairs.texts) == len(texts)
    evaluator = Evaluator(
        model, lambda samples, drop: Memory(model, list(samples), frames, options.batch), progress=False
    )
    plain = Plain(model)
    ids = torch.full((len(texts), LONGEST), spec["text"].pad_id)
    for row, found in zip(ids, spec["text"].tokenize(texts), strict=True):
        row[: len(found)] = torch.tensor(found)

    total = len(texts) * len(clips)
    drawn = rng.permutation(total)[: options.plain or total]
    every = np.ones((len(texts), len(clips)), bool)
    seconds: dict[str, list[float]] = {"plain": [], "vtp": []}  # of all pairs
    cpu: dict[str, list[float]] = {"plain": [], "vtp": []}  # the same, of all threads: on a machine that others use too
    worst, spread, scores = 0.0, 0.0, np.zeros(0)
    plain.scores(torch.from_numpy(frames[clips[0]])[None], ids[:1])  # the first pass of a process is slower
    for number, part in enumerate(np.array_split(drawn, options.rounds + 1)):
        rows, columns = part // len(clips), part % len(clips)
        theirs = []
        start, busy = time.perf_counter(), time.process_time()
        for at in range(0, len(part), options.batch):
            some = slice(at, at + options.batch)
            shown = torch.from_numpy(np.stack([frames[clips[column]] for column in columns[some]]))
            theirs.append(plain.scores(shown, ids[rows[some]]))
        seconds["plain"].append((time.perf_counter() - start) * total / len(part))
        cpu["plain"].append((time.process_time() - busy) * total / len(part))
        if number < options.rounds:
            start, busy = time.perf_counter(), time.process_time()
            scores, _ = score_pairs(evaluator, pairs, every, "vtm", pair_batch=options.pair_batch)
            seconds["vtp"].append(time.perf_counter() - start)
            cpu["vtp"].append(time.process_time() - busy)
            print(f"round {number + 1}: plain {seconds['plain'][-1]:.1f} s, vtp {seconds['vtp'][-1]:.1f} s", flush=True)
        found = torch.cat(theirs).numpy()
        worst = max(worst, float(np.abs(scores[rows, columns] - found).max()))
        spread = float(scores.std())
    print(f"scores of {len(drawn):,} pairs agree within {worst:.1e}; they vary by {spread:.1e} (standard deviation)")
    if worst > 1e-5:
        print("they must agree within 1e-5; no speed-up is reported")
        return 1
    middle = {name: statistics.median(found) for name, found in seconds.items()}
    ratio = middle["plain"] / middle["vtp"]
    by_cpu = statistics.median(cpu["plain"]) / statistics.median(cpu["vtp"])
    times = f"plain {middle['plain']:.1f} s, vtp {middle['vtp']:.1f} s"
    print(f"{total:,} pairs: {times}, speed-up {ratio:.2f} (by processor time {by_cpu:.2f})")
    settings = ("preset", "texts", "clips", "plain", "batch", "pair_batch", "rounds", "threads")
    record.save(
        options.out or record.RESULTS / f"univl_retrieval_{options.preset}.json",
        "Exhaustive l2 retrieval with UniVL, all pairs; the plain loop's time is scaled from the pairs that it scored",
        settings={name: getattr(options, name) for name in settings},
        frames=list(shape),
        mean_tokens=float((ids != spec["text"].pad_id).sum(1).float().mean()),
        largest_difference=worst,
        standard_deviation_of_scores=spread,
        seconds={name: {"median": middle[name], "all": found} for name, found in seconds.items()},
        processor_seconds=cpu,
        vtp_speedup=ratio,
        vtp_speedup_by_processor_time=by_cpu,
    )
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="base", choices=PRESETS)
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--plain", type=int, default=320, help="pairs that the plain loop scores; 0 = all")
    parser.add_argument("--batch", type=int, default=8, help="pairs of the plain loop, and clips of vtp, at a time")
    parser.add_argument("--pair-batch", type=int, default=256, help="task.pair_batch")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None, help="JSON file; default benchmarks/results/...")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        return measure(options, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
