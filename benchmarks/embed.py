"""Clips per second into embeddings: `vtp embed` against the loop that everybody writes, and sentence-transformers.

    python benchmarks/embed.py --videos ../shared/data/videos --copies 4 --rounds 3 --threads 2

One random CLIP with a ViT-S/16 for pictures is saved to a folder; all sides load it, take 8 frames of each whole file,
and give one embedding per file:

  loop                   av decodes, the image processor of transformers prepares, CLIPModel embeds; one file at a time
  vtp                    `vtp embed FOLDER TABLE --model ... --window 0`, its table of LanceDB included
  vtp, N processes       the same as torchrun starts it: one process per thread, one table
  forward                no side to compare with but the bound: the forward passes alone, of frames decoded beforehand,
                         one file at a time, with the memory kept as `vtp embed` keeps it
  sentence-transformers  SentenceTransformer(folder).encode([{"video": file}, ...]), or why it does not take these

Each side has processes of its own and works while the others wait, in random order. What is timed is the embedding, not
imports and not loading the model; a first clip warms up. Writes times_as_fast: the median over rounds of the ratio of
one round (that of forward is the most that these cores can reach), and the smallest cosine between the embeddings of
loop and vtp, whose frames are not the very same.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import record

FRAMES = 8
MEDIA = {".mp4", ".avi", ".mkv", ".webm", ".mov"}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[MASK]", "a", "dog", "runs", "[SEP]"]


def make_model(folder: Path, width: int, depth: int, size: int) -> None:
    """A random CLIP with its tokenizer and its processor, as save_pretrained writes them."""
    import torch
    import transformers as hf

    torch.manual_seed(0)
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    hf.BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    sizes = {"num_hidden_layers": depth, "num_attention_heads": width // 64 or 1, "intermediate_size": 4 * width}
    vision = {**sizes, "hidden_size": width, "image_size": size, "patch_size": 16}
    ends = {"bos_token_id": 2, "eos_token_id": len(WORDS) - 1, "pad_token_id": 0}
    text = {**sizes, **ends, "hidden_size": width, "num_hidden_layers": 1, "vocab_size": len(WORDS)}
    config = hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=min(width, 512))
    hf.CLIPModel(config).save_pretrained(folder)
    square = {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
    hf.CLIPImageProcessor(**square).save_pretrained(folder)


def decode(file: Path) -> list[Any]:
    """8 frames, spread evenly: the frames of the whole file are counted, then decoded and the chosen ones kept."""
    import av
    import numpy as np

    with av.open(str(file)) as container:
        total = container.streams.video[0].frames or sum(1 for _ in container.decode(video=0))
        wanted = set(np.linspace(0, total - 1, FRAMES).astype(int).tolist())
        container.seek(0)
        kept = [f.to_ndarray(format="rgb24") for n, f in enumerate(container.decode(video=0)) if n in wanted]
    return [kept[int(n)] for n in np.linspace(0, len(kept) - 1, FRAMES)]


class Loop:
    """The straightforward loop."""

    def __init__(self, model: Path) -> None:
        import transformers as hf

        self.model = hf.CLIPModel.from_pretrained(model).eval()
        self.processor = hf.CLIPImageProcessor.from_pretrained(model)

    def embed(self, folder: Path, table: str) -> tuple[float, dict[str, list[float]]]:
        """Seconds, and the embedding of each file."""
        import torch
        from torch.nn.functional import normalize

        found = {}
        start = time.perf_counter()
        for file in sorted(folder.iterdir()):
            pixels = self.processor(images=decode(file), return_tensors="pt")["pixel_values"]
            with torch.inference_mode():
                features = self.model.get_image_features(pixel_values=pixels).pooler_output
                found[file.name] = normalize(normalize(features, dim=-1).mean(0), dim=-1)
        return time.perf_counter() - start, {name: vector.tolist() for name, vector in found.items()}


class Vtp:
    """`vtp embed`."""

    def __init__(self, model: Path) -> None:
        import vtp.use.embed as embedding

        self.model = f"model=clip,encoder.video.model={model},encoder.video.frames={FRAMES}"
        self.seconds = 0.0
        whole = embedding.embed_into

        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return whole(*arguments, **named)
            finally:
                self.seconds = time.perf_counter() - start

        embedding.embed_into = timed

    def embed(self, folder: Path, table: str) -> tuple[float, dict[str, list[float]]]:
        """Seconds, and the embedding of each file that is in the table by now."""
        from vtp.cli.main import main
        from vtp.use.table import Table

        code = main(["embed", str(folder), table, f"--model={self.model}", "--window", "0"])
        if code:
            raise SystemExit(f"vtp embed ended with {code}")
        rows = Table.open(table).windows.search().limit(1_000_000).to_arrow().to_pylist()
        return self.seconds, {Path(row["file"]).name: list(row["vector"]) for row in rows}


class Forward(Loop):
    """The forward passes of the loop and nothing else: no side that also decodes can be faster on the same cores."""

    def __init__(self, model: Path) -> None:
        from vtp.machine import keep_memory

        keep_memory(1 << 30, 2 << 30)
        super().__init__(model)
        self.pixels: dict[str, Any] = {}

    def embed(self, folder: Path, table: str) -> tuple[float, dict[str, list[float]]]:
        """Seconds of the forward passes."""
        import torch

        for file in folder.iterdir():
            if file.name not in self.pixels:
                self.pixels[file.name] = self.processor(images=decode(file), return_tensors="pt")["pixel_values"]
        start = time.perf_counter()
        with torch.inference_mode():
            for file in folder.iterdir():
                self.model.get_image_features(pixel_values=self.pixels[file.name])
        return time.perf_counter() - start, {}


class SentenceTransformers:
    """The encoder of sentence-transformers over the same folder. A bare path it would embed as a text."""

    def __init__(self, model: Path) -> None:
        from sentence_transformers import SentenceTransformer

        self.model = SentenceTransformer(str(model), device="cpu")

    def embed(self, folder: Path, table: str) -> tuple[float, dict[str, list[float]]]:
        """Seconds, and the embedding of each file."""
        files = sorted(folder.iterdir())
        start = time.perf_counter()
        rows = self.model.encode([{"video": str(file)} for file in files], batch_size=4, normalize_embeddings=True)
        return time.perf_counter() - start, {f.name: r.tolist() for f, r in zip(files, rows, strict=True)}


SIDES = {"loop": Loop, "vtp": Vtp, "forward": Forward, "sentence-transformers": SentenceTransformers}


def serve(side: str, model: Path, warm: Path, folder: Path) -> None:
    """One side: loads, warms up, and then embeds the folder for each line on stdin."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        runner = SIDES[side](model)
        with tempfile.TemporaryDirectory() as temporary:
            runner.embed(warm, f"{temporary}/table")
    except Exception as error:
        if side != "sentence-transformers":
            raise
        answers.write(json.dumps({"refused": " ".join(f"{type(error).__name__}: {error}".split())[:400]}) + "\n")
        return
    answers.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        seconds, vectors = runner.embed(folder, line.strip())
        answers.write(json.dumps({"seconds": seconds, "vectors": vectors}) + "\n")


class Side:
    """The processes of one side, each with its share of the threads and of the files."""

    def __init__(self, name: str, model: Path, warm: Path, folder: Path, threads: int, processes: int = 1) -> None:
        self.name = name if processes == 1 else f"{name}, {processes} processes"
        command = [sys.executable, __file__, "--serve", name, str(model), str(warm), str(folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads // processes), "HF_HUB_OFFLINE": "1"}
        environment["WORLD_SIZE"] = str(processes)
        self.processes = [
            subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env={**environment, "RANK": str(rank)})
            for rank in range(processes)
        ]
        self.first = self.answers()[0]

    def answers(self) -> list[dict[str, Any]]:
        """What the processes say next."""
        lines = [process.stdout.readline() for process in self.processes if process.stdout is not None]
        if not all(lines):
            raise SystemExit(f"the side {self.name} has ended")
        return [dict(json.loads(line)) for line in lines]

    def embed(self) -> dict[str, Any]:
        """Let it embed the folder once. Seconds are those of the slowest process."""
        with tempfile.TemporaryDirectory() as temporary:
            for process in self.processes:
                assert process.stdin is not None
                process.stdin.write(f"{temporary}/table\n")
                process.stdin.flush()
            told = self.answers()
        vectors = {name: vector for one in told for name, vector in one["vectors"].items()}
        return {"seconds": max(one["seconds"] for one in told), "vectors": vectors}

    def close(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.kill()
            process.communicate()


def usable(videos: Path) -> list[Path]:
    """The videos below a folder that av decodes; hostile ones are not what is measured."""
    found = []
    for file in sorted(videos.rglob("*")):
        if file.suffix.lower() in MEDIA:
            try:
                decode(file)
                found.append(file)
            except Exception as error:
                print(f"left out: {file.name}: {error}")
    return found


def cosine(one: list[float], other: list[float]) -> float:
    """Of two vectors."""
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return float(dot / (sum(a * a for a in one) * sum(b * b for b in other)) ** 0.5)


def main() -> None:
    if "--serve" in sys.argv:
        side, *places = sys.argv[sys.argv.index("--serve") + 1 :]
        serve(side, *map(Path, places))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, default=Path("../shared/data/videos"))
    parser.add_argument("--copies", type=int, default=4, help="of each video, as files of their own")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--out", type=Path, default=record.RESULTS / "embed.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        files = usable(options.videos)
        if not files:
            raise SystemExit(f"there is no video below {options.videos}")
        for folder in ("warm", "clips"):
            (root / folder).mkdir()
        shutil.copy(files[0], root / "warm")
        for number in range(options.copies):
            for place, file in enumerate(files):
                shutil.copy(file, root / "clips" / f"{place:02}_{number:02}{file.suffix}")
        make_model(root / "model", options.width, options.depth, options.size)
        sides = []
        refused = {}
        try:
            places = (root / "model", root / "warm", root / "clips")
            wanted = [("loop", 1), ("vtp", 1), ("vtp", options.threads), ("forward", 1), ("sentence-transformers", 1)]
            for name, processes in dict.fromkeys(wanted):
                side = Side(name, *places, options.threads, processes)
                sides.append(side)
                if "refused" in side.first:
                    refused[side.name] = side.first["refused"]
                    print(f"{side.name} does not take these clips: {refused[side.name]}")
            sides = [side for side in sides if side.name not in refused]
            count = options.copies * len(files)
            rates: dict[str, list[float]] = {side.name: [] for side in sides}
            vectors = {}
            for _ in range(options.rounds):
                for side in random.sample(sides, len(sides)):
                    told = side.embed()
                    rates[side.name].append(count / told["seconds"])
                    vectors[side.name] = told["vectors"]
                print("  ".join(f"{name} {values[-1]:.2f} clips/s" for name, values in rates.items()), flush=True)
        finally:
            for side in sides:
                side.close()
    others = [name for name in rates if name in ("loop", "sentence-transformers")]
    ratios = {
        one: {
            other: round(statistics.median(a / b for a, b in zip(rates[one], rates[other], strict=True)), 3)
            for other in others
        }
        for one in rates
        if one not in others
    }
    alike = min(cosine(vector, vectors["vtp"][name]) for name, vector in vectors["loop"].items())
    for one, found in ratios.items():
        print(f"{one}: {', '.join(f'{ratio:.2f} times as fast as {other}' for other, ratio in found.items())}")
    print(f"smallest cosine to the loop {alike:.4f}")
    record.save(
        options.out,
        "clips per second into embeddings: vtp embed, a loop over transformers, sentence-transformers",
        times_as_fast=ratios,
        clips_per_s={name: [round(rate, 3) for rate in values] for name, values in rates.items()},
        clips=count,
        refused=refused,
        smallest_cosine=round(alike, 5),
        frames=FRAMES,
        threads=options.threads,
    )


if __name__ == "__main__":
    main()
