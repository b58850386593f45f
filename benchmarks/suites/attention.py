"""Attention of the framework's own shapes, padded and packed, against every way that torch offers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from harness import Case, Provider
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from vtp_kernels import AttnLayout, masked_attention, masked_attention_reference

RULES = {"text": ["text", "video", "audio"], "video": ["text", "video"], "audio": ["text", "audio"]}


@dataclass(frozen=True)
class Problem:
    """Samples of [text | video | audio] tokens.

    ``text`` is the padded length, real lengths are uniform in ``text_from``..``text``; ``missing`` is the share of
    samples without audio; ``rules`` switches on who may see whom; ``cross`` lets the text look at the video only.
    """

    name: str
    batch: int
    heads: int
    text: int = 0
    video: int = 0
    audio: int = 0
    text_from: int = 0
    missing: float = 0.0
    rules: bool = False
    cross: bool = False
    head_dim: int = 64


GPU = (
    Problem("E1 video, visible", 64, 12, video=160),
    Problem("E2 text + visible video", 64, 12, text=32, video=160, text_from=5),
    Problem("E3 tri-modal visible", 64, 12, text=32, video=160, audio=102, text_from=5, missing=0.5),
    Problem("E3b tri-modal, all audio", 64, 12, text=32, video=160, audio=512, text_from=5, missing=0.5),
    Problem("D1 video decoder", 64, 6, video=1568),
    Problem("F1 tri-modal full", 64, 12, text=32, video=1568, audio=512, text_from=32),
    Problem("F2 tri-modal full, half without audio, segments", 64, 12, 32, 1568, 512, 5, 0.5, True),
    Problem("X1 text looks at video", 64, 12, text=32, video=160, text_from=5, cross=True),
    Problem(
        "E3b with head dimension 128", 64, 6, text=32, video=160, audio=512, text_from=5, missing=0.5, head_dim=128
    ),
    Problem("E2 with head dimension 32", 64, 24, text=32, video=160, text_from=5, head_dim=32),
)
CPU = (
    Problem("tri-modal B8 L397", 8, 12, text=32, video=160, audio=205, text_from=5, missing=0.5),
    Problem("E2 text + visible video, B16", 16, 12, text=32, video=160, text_from=5),
)
TINY = (
    Problem("tri-modal, tiny", 2, 1, text=6, video=10, audio=9, text_from=2, missing=0.5, head_dim=16),
    Problem("segments, tiny", 2, 1, 4, 6, 5, 2, 0.5, True, head_dim=16),
    Problem("cross, tiny", 2, 1, text=4, video=6, text_from=2, cross=True, head_dim=16),
)


@dataclass
class Data:
    """Masks and layouts of a problem; ``query_mask`` and ``key_mask`` are (B, L) bool."""

    query_mask: Tensor
    key_mask: Tensor
    padded: AttnLayout
    packed: AttnLayout
    dense: Tensor  # (B, Lq, Lk) bool


def lengths_of(problem: Problem) -> Tensor:
    """(B, 3) tokens of text, video and audio; drawn once from seed 0, the same for every provider and run."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(problem.text_from, problem.text + 1, (problem.batch,), generator=generator)
    audio = torch.full((problem.batch,), problem.audio)
    audio[: round(problem.batch * problem.missing)] = 0
    return torch.stack([text, torch.full((problem.batch,), problem.video), audio], 1)


def build(problem: Problem, device: torch.device) -> Data:
    """Masks and layouts, as a model would make them once per step."""
    counts, sizes = lengths_of(problem), (problem.text, problem.video, problem.audio)
    parts = [torch.arange(size) < counts[:, i : i + 1] for i, size in enumerate(sizes)]
    if problem.cross:
        query_mask, key_mask = (part.to(device) for part in parts[:2])
        padded = AttnLayout.from_key_mask(key_mask, n_queries=problem.text)
        packed = AttnLayout.from_lengths(
            counts[:, 0], counts[:, 1], packed=True, max_q=problem.text, max_k=problem.video, device=device
        )
        return Data(query_mask, key_mask, padded, packed, padded.dense_mask() & query_mask[:, :, None])
    mask = torch.cat(parts, 1).to(device)
    if not problem.rules:
        padded = AttnLayout.full(*mask.shape) if bool(mask.all()) else AttnLayout.from_key_mask(mask)
        packed = AttnLayout.tri_modal(*counts.unbind(1), device=device)
        return Data(mask, mask, padded, packed, mask[:, :, None] & mask[:, None, :])
    names = ("text", "video", "audio")
    allow = [[names.index(seen) for seen in RULES[name]] for name in names]
    segments = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes)).to(torch.uint8).to(device)
    padded = AttnLayout.from_segments(torch.where(mask, segments, torch.full_like(segments, 255)), allow)
    packed = AttnLayout.tri_modal(*counts.unbind(1), RULES, device=device)
    return Data(mask, mask, padded, packed, padded.dense_mask())


def providers(problem: Problem, data: Data, q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Iterator[Provider]:
    """Padded tensors (B, L, H, D) in; every result is padded again and 0 in padding, so that all can be compared."""
    flat_q, flat_k = (mask.flatten().nonzero().squeeze(1) for mask in (data.query_mask, data.key_mask))
    packed = [x.flatten(0, 1)[rows].contiguous() for x, rows in ((q, flat_q), (k, flat_k), (v, flat_k), (g, flat_q))]
    keep_q, keep_k = data.query_mask[:, :, None, None], data.key_mask[:, :, None, None]

    def unpack(x: Tensor, rows: Tensor, like: Tensor) -> Tensor:
        return torch.zeros_like(like).flatten(0, 1).index_copy(0, rows, x).view(like.shape)

    ours = functools.partial(masked_attention, layout=data.packed)
    back = [(flat_q, q), (flat_q, q), (flat_k, k), (flat_k, v)]
    yield _provider(
        "ours, packed", ours, packed, lambda x, i: unpack(x, *back[i]), _builder(problem, q.device, "packed")
    )
    clean = [(keep_q), (keep_q), (keep_k), (keep_k)]
    zero = lambda x, i: x * clean[i]  # noqa: E731
    g = g * keep_q  # the loss looks at no padding
    yield _provider(
        "ours, padded",
        functools.partial(masked_attention, layout=data.padded),
        [q, k, v, g],
        zero,
        _builder(problem, q.device, "padded"),
    )
    yield from _sdpa_providers(data, [x.transpose(1, 2) for x in (q, k, v, g)], zero)
    yield _varlen_provider(problem, data, packed, lambda x, i: unpack(x, *back[i]))
    yield from _flex_providers(problem, data, [x.transpose(1, 2) for x in (q, k, v, g)], zero)


def _builder(problem: Problem, device: torch.device, which: str) -> Callable[[], Any]:
    return lambda: getattr(build(problem, device), which)


def _provider(
    name: str,
    attend: Callable[..., Tensor],
    tensors: list[Tensor],
    restore: Callable[[Tensor, int], Tensor],
    setup: Callable[[], Any] | None = None,
) -> Provider:
    """Phases and results of ``attend(q, k, v)`` with the output's gradient as the fourth tensor."""
    *leaves, g = [x.detach() for x in tensors]
    leaves = [x.requires_grad_() for x in leaves]
    kept = attend(*leaves)  # its graph serves the backward phase

    def forward() -> Tensor:
        with torch.no_grad():
            return attend(*leaves)

    def both() -> tuple[Tensor, ...]:
        o = attend(*leaves)
        return o, *torch.autograd.grad(o, leaves, g)

    def results() -> Mapping[str, Tensor]:
        return {
            name: corner(restore(x, i))
            for i, (name, x) in enumerate(zip(("o", "grad q", "grad k", "grad v"), both(), strict=True))
        }

    phases = {
        "forward": forward,
        "backward": lambda: torch.autograd.grad(kept, leaves, g, retain_graph=True),
        "both": both,
    }
    return Provider(name, phases, results, setup)


def _sdpa_providers(data: Data, tensors: list[Tensor], zero: Callable[[Tensor, int], Tensor]) -> Iterator[Provider]:
    cuda = tensors[0].device.type == "cuda"
    dense = data.dense[:, None]
    no_row = ~dense.any(-1, keepdim=True)
    mask = dense | no_row  # SDPA gives NaN for a row without keys; what it gives instead is cleared below
    plain = bool(data.dense.all())
    heads_last = lambda x, i: zero(x.transpose(1, 2), i)  # noqa: E731

    def attend(
        q: Tensor, k: Tensor, v: Tensor, backend: SDPBackend | None = None, mask: Tensor | None = mask
    ) -> Tensor:
        if backend is None:
            return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        with sdpa_kernel(backend):
            return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    def offer(
        name: str, backend: SDPBackend | None, mask: Tensor | None = mask, only_if: str | None = None
    ) -> Provider:
        if only_if is not None:
            return Provider(name, unavailable=only_if)
        try:
            return _provider(name, functools.partial(attend, backend=backend, mask=mask), tensors, heads_last)
        except RuntimeError as error:  # no kernel of this backend takes these tensors
            return Provider(name, unavailable=str(error).splitlines()[0])

    no_cuda = None if cuda else "needs a GPU"
    yield offer("sdpa, dense mask", None)
    rows = data.key_mask[:, None, None, :]
    same = bool((rows & data.query_mask[:, None, :, None] == dense).all())
    yield offer("sdpa, broadcast mask", None, rows, None if same else "the mask is no row per sample")
    yield offer("sdpa, no mask", None, None, None if plain else "would attend to padding")
    yield offer("sdpa flash", SDPBackend.FLASH_ATTENTION, None, no_cuda if plain else "takes no mask")
    yield offer("sdpa efficient, dense mask", SDPBackend.EFFICIENT_ATTENTION, mask, no_cuda)
    yield offer("sdpa cudnn, dense mask", SDPBackend.CUDNN_ATTENTION, mask, no_cuda)
    yield offer("math", SDPBackend.MATH)


def _varlen_provider(
    problem: Problem, data: Data, packed: list[Tensor], restore: Callable[[Tensor, int], Tensor]
) -> Provider:
    name = "varlen_attn"
    if packed[0].device.type != "cuda":
        return Provider(name, unavailable="needs a GPU")
    if problem.rules:
        return Provider(name, unavailable="knows no segments")
    from torch.nn.attention.varlen import varlen_attn

    layout = data.packed

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return varlen_attn(q, k, v, layout.cu_q, layout.cu_k, layout.max_q, layout.max_k)

    return _provider(name, attend, packed, restore)


def _flex_providers(
    problem: Problem, data: Data, tensors: list[Tensor], zero: Callable[[Tensor, int], Tensor]
) -> Iterator[Provider]:
    names = ("flex, cached block mask", "flex, rebuilt block mask")
    if tensors[0].device.type != "cuda":
        yield from (
            Provider(name, unavailable="needs a GPU: FlexAttention has no backward pass on a CPU") for name in names
        )
        return
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    dense = data.dense
    compiled = torch.compile(flex_attention, dynamic=False)

    def block_mask() -> Any:
        shape = dense.shape
        return create_block_mask(
            lambda b, h, i, j: dense[b, i, j], shape[0], None, shape[1], shape[2], device=dense.device
        )

    cached = block_mask()
    heads_last = lambda x, i: zero(x.transpose(1, 2), i)  # noqa: E731
    yield _provider(names[0], lambda q, k, v: compiled(q, k, v, block_mask=cached), tensors, heads_last)
    yield _provider(names[1], lambda q, k, v: compiled(q, k, v, block_mask=cached), tensors, heads_last, block_mask)


def corner(x: Tensor) -> Tensor:
    """First and last sample, two heads of (B, L, H, D): samples and heads are independent, and float64 is slow."""
    return x[[0, -1], :, :2]


def reference(data: Data, q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> dict[str, Tensor]:
    """The corner in float64 on the CPU, padding cleared."""
    layout = data.padded
    sets = {name: None if x is None else x[[0, -1]].cpu() for name, x in (("see", layout.see), ("bit", layout.bit))}
    small = AttnLayout(2, layout.max_q, layout.max_k, **sets)
    leaves = [corner(x.detach()).cpu().double().requires_grad_() for x in (q, k, v)]
    keep_q, keep_k = (mask[[0, -1]].cpu()[:, :, None, None] for mask in (data.query_mask, data.key_mask))
    o = masked_attention_reference(*leaves, small) * keep_q
    dq, dk, dv = torch.autograd.grad(o, leaves, corner(g.detach()).cpu().double())
    return {"o": o.detach(), "grad q": dq, "grad k": dk * keep_k, "grad v": dv * keep_k}


def cases(device: torch.device, tiny: bool) -> Iterator[Case]:
    """One case per problem and type."""
    cuda = device.type == "cuda"
    for problem in TINY if tiny else GPU if cuda else CPU:
        for dtype in (torch.bfloat16,) if cuda else (torch.float32,) if tiny else (torch.float32, torch.bfloat16):
            data = build(problem, device)
            torch.manual_seed(0)
            shape = (problem.batch, data.dense.shape[1], problem.heads, problem.head_dim)
            shape_k = (problem.batch, data.dense.shape[2], problem.heads, problem.head_dim)
            q, k, v, g = (torch.randn(s, device=device, dtype=dtype) for s in (shape, shape_k, shape_k, shape))
            pairs = float(data.dense.sum())
            flop = 4.0 * problem.heads * problem.head_dim
            share = {"forward": 1.0, "backward": 2.5, "both": 3.5}
            size = (2 * q.numel() + 2 * k.numel()) * q.element_size()
            yield Case(
                "attention", problem.name, dtype,
                list(providers(problem, data, q, k, v, g)), reference(data, q, k, v, g),
                useful={phase: flop * pairs * times for phase, times in share.items()},
                dense={phase: flop * data.dense.numel() * times for phase, times in share.items()},
                traffic={"forward": size, "backward": 2 * size, "both": 3 * size},
            )  # fmt: skip
