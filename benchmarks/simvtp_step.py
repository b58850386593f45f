"""One SimVTP pre-training step, forward and backward: the four passes written out plainly, and vtp.

    python benchmarks/simvtp_step.py [--preset base] [--batch 2] [--text 32] [--rounds 5] [--threads 2] [--device cpu]

``plain`` follows the released code's order of work from its specification: a Conv3d over every tubelet of every pass,
the encoder on [visible video ; words], on the video, on the words and on 2B pairs, attention with an explicit softmax
and an additive mask, the vocabulary layer on every word. ``vtp`` is ``model=simvtp_released`` with shared passes
(``objectives.vtm.reuse_joint=true``), in the step of the engine as ``vtp run`` takes it (``vtp.train.step``, one
micro-batch, fp32). Both have the same weights, inputs, masks and negatives, and the script stops unless their losses
and gradients agree. Neither is timed with clipping and the optimizer, which are the same for both.

Each then has a process of its own, as in use, because what one of them does to the heap would change the other's times;
the processes take turns, step by step, and the ratio is the median over rounds. On a CPU vtp's process keeps freed
memory, as ``vtp run`` does (vtp.machine), so there are two ratios: over ``plain``, each with its usual setting,
and over ``plain, memory kept``, the plain one in a process with vtp's setting. Peak memory is the process's resident
set (on a GPU: what PyTorch allocated) over all its steps.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import record
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, normalize

from vtp.cli.run import compose
from vtp.machine import keep_memory
from vtp.model.build import BuildContext, build_model, lookup_in
from vtp.model.context import ForwardContext
from vtp.plugins import host
from vtp.train import TrainConfig
from vtp.train.parallel import Parallel
from vtp.train.precision import Precision
from vtp.train.step import Step
from vtp.types import Batch
from vtp_simvtp.keys import PRETRAIN
from vtp_simvtp.vit import PRESETS

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OBJECTIVES = ("mvm", "simvtp/mlm", "simvtp/vtc", "simvtp/vtm")
SERVED = ("plain", "vtp", "plain, memory kept")


# --- the plain implementation


class PlainAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        b, n, d = x.shape
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = nn.functional.linear(x, self.qkv.weight, bias).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0] * (d // self.heads) ** -0.5, qkv[1], qkv[2]
        weights = (q @ k.transpose(-2, -1) + mask).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, d))


class PlainMlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(gelu(self.fc1(x)))


class PlainBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, eps=1e-6), PlainAttention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width, eps=1e-6), PlainMlp(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class PlainTransformer(nn.Module):
    """Blocks and a norm, with a Conv3d (encoder) or a head (decoder)."""

    def __init__(self, width: int, depth: int, heads: int, values: int = 0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(PlainBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        if values:
            self.head = nn.Linear(width, values)
        else:
            self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(3, width, (2, 16, 16), (2, 16, 16))})

    def run(self, x: Tensor, mask: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, mask)
        return x


class PlainSimVTP(nn.Module):
    """The released model's order of work; parameters under its names."""

    def __init__(self, width: int, depth: int, heads: int, vocabulary: int) -> None:
        super().__init__()
        self.encoder = PlainTransformer(width, depth, heads)
        self.decoder = PlainTransformer(width // 2, 4, width // 128, 1536)
        self.encoder_to_decoder = nn.Linear(width, width // 2, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width // 2))
        self.text_embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(vocabulary, width, padding_idx=0),
                "position_embeddings": nn.Embedding(512, width),
                "token_type_embeddings": nn.Embedding(2, width),
                "LayerNorm": nn.LayerNorm(width, eps=1e-12),
            }
        )
        self.text_cls = nn.Linear(width, vocabulary)
        self.vtm_head = nn.Linear(width, 2)
        self.positions = table(1568, width)
        self.decoder_positions = table(1568, width // 2)

    def embed_text(self, ids: Tensor) -> Tensor:
        parts = self.text_embeddings
        x = parts["word_embeddings"](ids) + parts["token_type_embeddings"](torch.zeros_like(ids))
        return parts["LayerNorm"](x + parts["position_embeddings"](torch.arange(ids.shape[1], device=ids.device)))

    def visible(self, video: Tensor, mask: Tensor) -> Tensor:
        x = self.encoder.patch_embed["proj"](video).flatten(2).transpose(1, 2)
        x = x + self.positions.type_as(x).to(x.device)
        return x[~mask].reshape(len(x), -1, x.shape[-1])

    def joint(self, video: Tensor, mask: Tensor, text: Tensor, real: Tensor) -> tuple[Tensor, int]:
        x = self.visible(video, mask)
        additive = torch.cat([torch.zeros(len(x), x.shape[1], device=x.device), (1 - real.float()) * -10000.0], dim=1)
        n = x.shape[1]
        return self.encoder.norm(self.encoder.run(torch.cat([x, text], dim=1), additive[:, None, None, :])), n

    def forward(self, video: Tensor, mask: Tensor, ids: Tensor, real: Tensor, labels: Tensor, other: Tensor) -> dict:
        none = torch.zeros(1, 1, 1, 1, device=video.device)
        text = self.embed_text(ids)
        x, n = self.joint(video, mask, text, real)
        words = self.text_cls(x[:, n:])
        guess = self.decode(x[:, :n], mask, none)
        v = self.encoder.norm(self.encoder.run(self.visible(video, mask), none)).mean(1)
        t = self.encoder.norm(self.encoder.run(text, (1 - real.float())[:, None, None, :] * -10000.0)).mean(1)
        pairs, _ = self.joint(
            torch.cat([video, video[other]]),
            torch.cat([mask, mask[other]]),
            self.embed_text(torch.cat([ids, ids])),
            torch.cat([real, real]),
        )
        matching = self.vtm_head(pairs.mean(1))
        target = torch.cat([torch.ones(len(ids)), torch.zeros(len(ids))]).long().to(ids.device)
        sim = normalize(t, dim=-1, eps=1e-8) @ normalize(v, dim=-1, eps=1e-8).T / 0.05
        diagonal = torch.arange(len(sim), device=sim.device)
        return {
            "mvm": (guess - self.target(video, mask)).square().mean(),
            "mlm": cross_entropy(words.flatten(0, 1), labels.flatten(), ignore_index=-100),
            "vtc": cross_entropy(sim, diagonal) + cross_entropy(sim.T, diagonal),
            "vtm": cross_entropy(matching, target),
        }

    def decode(self, x: Tensor, mask: Tensor, none: Tensor) -> Tensor:
        x = self.encoder_to_decoder(x)
        positions = self.decoder_positions.expand(len(x), -1, -1).type_as(x).to(x.device).clone()
        shown = positions[~mask].reshape(len(x), -1, x.shape[-1])
        hidden = positions[mask].reshape(len(x), -1, x.shape[-1])
        x = self.decoder.run(torch.cat([x + shown, self.mask_token + hidden], dim=1), none)
        return self.decoder.head(self.decoder.norm(x[:, -hidden.shape[1] :]))

    @torch.no_grad()
    def target(self, video: Tensor, mask: Tensor) -> Tensor:
        mean, std = (torch.tensor(v, device=video.device)[None, :, None, None, None] for v in (MEAN, STD))
        u = video * std + mean
        b, c, t, h, w = u.shape
        u = u.reshape(b, c, t // 2, 2, h // 16, 16, w // 16, 16).permute(0, 2, 4, 6, 3, 5, 7, 1)
        u = u.reshape(b, -1, 512, c)
        u = (u - u.mean(-2, keepdim=True)) / (u.var(-2, unbiased=True, keepdim=True).sqrt() + 1e-6)
        return u.flatten(2)[mask].reshape(b, -1, 1536)


def table(positions: int, width: int) -> Tensor:
    from vtp.model.blocks import sincos_table

    return sincos_table(positions, width)[None]


# --- both, on the same step


def vtp_model(options: argparse.Namespace, folder: Path) -> nn.Module:
    words = folder / "vocab.txt"
    words.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "word"]) + "\n")
    part = {"name": "simvtp", "preset": options.preset}
    text = part | {"tokenizer": str(words), "vocabulary": 30522, "dropout": 0.0}
    recipe = compose(["model=simvtp", "variant=released", f"objective=[{','.join(OBJECTIVES)}]"])
    spec = {
        "encoders": {"video": part, "text": text, "fusion": part},
        **{key: recipe[key] for key in ("objectives", "masks", "variant")},
    }
    spec["objectives"]["vtm"]["reuse_joint"] = True
    return build_model(spec, lookup_in(host().registry), BuildContext())


class Case:
    """Inputs, and a forward and backward of either implementation."""

    def __init__(self, options: argparse.Namespace, folder: Path, which: tuple[str, ...]) -> None:
        torch.manual_seed(0)
        device = torch.device(options.device)
        self.model = vtp_model(options, folder).to(device)
        rows, length = options.batch, options.text
        ids = torch.randint(5, 30522, (rows, length))
        ids[:, 0], ids[:, -1] = 2, 3
        self.batch = Batch(
            ids=[str(i) for i in range(rows)],
            inputs={
                "video": {"frames": torch.randint(0, 256, (rows, 16, 224, 224, 3), dtype=torch.uint8)},
                "text": {"token_ids": ids, "attention_mask": torch.ones(rows, length, dtype=torch.bool)},
            },
            present={m: torch.ones(rows, dtype=torch.bool) for m in ("video", "text")},
        ).to(device)
        if "vtp" in which:
            config = TrainConfig(steps=1, global_batch=rows)
            precision = Precision(config.precision, device)
            self.step = Step(Parallel(self.model, config, device), precision, config.accumulation)
        self.modules: dict[str, nn.Module] = {"vtp": self.model}
        if "plain" in which:
            self.modules["plain"] = self._plain(options).to(device)

    def _plain(self, options: argparse.Namespace) -> nn.Module:
        shape = PRESETS[options.preset]
        plain = PlainSimVTP(shape.width, shape.depth, shape.heads, 30522)
        state, unknown = PRETRAIN.to_theirs(self.model.state_dict())
        assert not unknown
        plain.load_state_dict(state, strict=True)
        ctx = ForwardContext(self.model, self.batch)
        mask = ctx.inputs("video", ctx.masked("video"))["mask"]
        words = ctx.inputs("text", ctx.masked("text"))
        frames = self.batch.inputs["video"]["frames"].float() / 255
        video = (frames - torch.tensor(MEAN, device=frames.device)) / torch.tensor(STD, device=frames.device)
        from vtp.model.losses import other_rows

        other = other_rows(ctx.uniform("simvtp.vtm", 1)[:, 0], ctx.present("video"))
        real = self.batch.inputs["text"]["attention_mask"]
        self.inputs = (
            video.permute(0, 4, 1, 2, 3).contiguous(), mask, words["token_ids"], real, words["labels"], other
        )  # fmt: skip
        return plain

    def forward_backward(self, which: str) -> dict[str, Tensor]:
        self.modules[which].zero_grad(set_to_none=True)
        if which == "vtp":
            losses = {seen.name: seen.loss for seen in self.step(self.batch)}
        else:
            losses = self.modules["plain"](*self.inputs)
            torch.stack(list(losses.values())).sum().backward()
        if self.batch.inputs["video"]["frames"].is_cuda:
            torch.cuda.synchronize()
        return {name: loss.detach() for name, loss in losses.items()}

    def check(self) -> float:
        """Largest relative difference of losses and of gradient norms."""
        plain, ours = ({n: float(x) for n, x in self.forward_backward(w).items()} for w in ("plain", "vtp"))
        errors = [abs(plain[name] - ours[name]) / abs(plain[name]) for name in plain]
        grads, _ = PRETRAIN.to_theirs({name: p.grad for name, p in self.model.named_parameters()})
        norms = {name: p.grad.norm() for name, p in self.modules["plain"].named_parameters()}
        largest = max(norms.values())
        # a norm near zero says nothing: differences are measured against at least a millionth of the largest
        errors += [float((grads[n].norm() - norm).abs() / norm.clamp(min=1e-6 * largest)) for n, norm in norms.items()]
        return max(errors)


def serve(options: argparse.Namespace, folder: Path, which: str) -> int:
    """The process of one implementation: for each line of stdin a step, answered by its seconds; then its memory."""
    name = which.split(",")[0]
    if which != "plain" and options.device == "cpu":
        keep_memory(1 << 30, 2 << 30)
    case = Case(options, folder, (name,))
    if name == "plain":
        del case.model.encoders, case.model.objectives  # the weights of the other one
    before = start_of_peak(options.device)
    case.forward_backward(name)
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        case.forward_backward(name)
        print(time.perf_counter() - start, flush=True)
    print(json.dumps({"before": before, "peak": max(before, end_of_peak(options.device))}))
    return 0


def start_of_peak(device: str) -> float:
    """Memory in use now, in MiB; the peak counts from here."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark of the resident set starts anew
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def end_of_peak(device: str) -> float:
    """The most memory that was in use since then, in MiB."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


class Served:
    """A process that serves one implementation."""

    def __init__(self, options: argparse.Namespace, which: str) -> None:
        flags = [f"--{k}={getattr(options, k)}" for k in ("preset", "batch", "text", "threads", "device")]
        command = [sys.executable, __file__, "--serve", which, *flags]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.times: list[float] = []
        assert self.process.stdin and self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        if self.stdout.readline() != "ready\n":
            raise SystemExit(f"the process of {which} ended before its first step; what it said stands above")

    def step(self) -> None:
        print("step", file=self.stdin, flush=True)
        self.times.append(float(self.stdout.readline()))

    def memory(self) -> dict[str, float]:
        """End it."""
        self.stdin.close()
        memory: dict[str, float] = json.loads(self.stdout.readline())
        self.process.wait()
        return memory


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="base", choices=sorted(PRESETS))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--text", type=int, default=32, help="text tokens")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--serve", choices=SERVED, help=argparse.SUPPRESS)
    parser.add_argument(
        "--out", type=Path, default=None, help="JSON file; default benchmarks/results/simvtp_step_<device>.json"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.serve:
            return serve(options, folder, options.serve)
        return compare(options, folder)


def compare(options: argparse.Namespace, folder: Path) -> int:
    case = Case(options, folder, ("plain", "vtp"))
    error = case.check()
    print(f"losses and gradient norms agree within {error:.1e} (relative)")
    if error > 1e-3:
        print("they must agree within 1e-3; no timing is reported")
        return 1
    del case
    names = SERVED if options.device == "cpu" else SERVED[:2]
    served = {name: Served(options, name) for name in names}
    for i in range(options.rounds):
        for one in served.values() if i % 2 == 0 else reversed(served.values()):
            one.step()
        line = ", ".join(f"{name} {one.times[-1]:.3f} s" for name, one in served.items())
        print(f"round {i + 1}: {line}", flush=True)
    times = {name: one.times for name, one in served.items()}
    memory = {name: one.memory() for name, one in served.items()}
    speedup = {
        name: {
            "median_of_rounds": statistics.median(a / b for a, b in zip(times[name], times["vtp"], strict=True)),
            "of_minima": min(times[name]) / min(times["vtp"]),
        }
        for name in names
        if name != "vtp"
    }
    for name, ratio in speedup.items():
        print(f"speed-up over {name}: {ratio['median_of_rounds']:.2f} (median), {ratio['of_minima']:.2f} (minima)")
    print(f"peak memory: plain {memory['plain']['peak']:.0f} MiB, vtp {memory['vtp']['peak']:.0f} MiB")
    record.save(
        options.out or record.RESULTS / f"simvtp_step_{options.device.replace(':', '')}.json",
        "SimVTP pre-training step, forward and backward; vtp's is the engine's (vtp.train.step)",
        settings={k: getattr(options, k) for k in ("preset", "batch", "text", "rounds", "threads", "device")},
        gpu=None if options.device == "cpu" else torch.cuda.get_device_name(),
        largest_relative_difference=error,
        seconds={k: {"median": statistics.median(v), "min": min(v), "all": v} for k, v in times.items()},
        vtp_speedup_over=speedup,
        memory_mib=memory,
        memory_ratio=memory["vtp"]["peak"] / memory["plain"]["peak"],
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
