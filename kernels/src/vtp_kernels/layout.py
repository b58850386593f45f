"""Who may see whom in an attention call: built once per step, on the device, and shared by all layers and heads.

Tokens lie padded, (B, L, H, D), or packed, (T, H, D) with the samples one after the other. Every query carries a set of
segments that it may see, ``see`` (32 bits), every key the segment that it belongs to, ``bit``; a pair is allowed if the
sets meet. A padding key has no bit, wherever it stands, so padding in the middle of [text | video | audio] costs no
dense mask. From the bits ``visits`` derives, per block of rows, which blocks of columns have to be read, and which of
them need no mask.

Order: layout, definition as a dense mask, block lists (kernel A0).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vtp_kernels.configs import attention_config
from vtp_kernels.dispatch import accelerator, jit, on_device, tl, use_triton

__all__ = ["PAD", "AttnLayout"]

PAD = 255  # segment of a token that nobody sees and that sees nobody


@dataclass
class AttnLayout:
    """Shape and mask of an attention call. Use a constructor: ``full``, ``from_lengths``, ``from_key_mask``,
    ``from_segments``, ``tri_modal``, ``pack``.

    Attributes:
        batch: number of samples B.
        max_q, max_k: padded: the lengths of the tensors; packed: an upper bound of the lengths. Numbers, so that a
            launch needs no answer of the GPU.
        cu_q, cu_k: int32 (B + 1), where each packed sample starts; None if padded. The last entry must be the number
            of tokens: a static buffer with a free tail makes the tail a sample of its own.
        len_q, len_k: int32 (B), lengths of padded samples; None = full. Queries beyond give 0.
        see: int32, one per query, the segments that it may see; None = all.
        bit: int32, one per key, ``1 << segment``, 0 for padding; None = every key can be seen.
    """

    batch: int
    max_q: int
    max_k: int
    cu_q: Tensor | None = None
    cu_k: Tensor | None = None
    len_q: Tensor | None = None
    len_k: Tensor | None = None
    see: Tensor | None = None
    bit: Tensor | None = None
    _visits: dict[tuple[str, int, torch.dtype, str], Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def packed(self) -> bool:
        """True for (T, H, D) tensors, False for (B, L, H, D)."""
        return self.cu_q is not None

    @property
    def unmasked(self) -> bool:
        """True if every query sees every key, which cuDNN and FlashAttention do faster than we."""
        return not self.packed and self.len_q is None and self.len_k is None and self.see is None and self.bit is None

    @staticmethod
    def full(batch: int, max_q: int, max_k: int | None = None) -> AttnLayout:
        """Padded tensors without any padding."""
        return AttnLayout(batch, max_q, max_q if max_k is None else max_k)

    @staticmethod
    def from_lengths(
        lengths: Tensor | Sequence[int],
        lengths_k: Tensor | Sequence[int] | None = None,
        *,
        packed: bool,
        max_q: int | None = None,
        max_k: int | None = None,
        device: torch.device | str | None = None,
    ) -> AttnLayout:
        """Samples of ``lengths`` tokens, 0 included, each seeing only itself.

        Args:
            lengths: (B,) number of queries per sample; of keys too unless ``lengths_k`` is given.
            lengths_k: (B,) number of keys per sample, for cross-attention.
            packed: whether the tensors are (T, H, D) or padded (B, L, H, D) with the tokens first and the padding last.
            max_q, max_k: lengths of the padded tensors, or upper bounds for packed ones. None asks ``lengths`` (a wait
            for the GPU if they lie there).
            device: where the layout goes; None is the device of ``lengths``.
        """
        queries = torch.as_tensor(lengths, device=device).to(torch.int32)
        keys = queries if lengths_k is None else torch.as_tensor(lengths_k, device=queries.device).to(torch.int32)
        if queries.shape != keys.shape or queries.dim() != 1:
            raise ValueError(f"lengths {tuple(queries.shape)} and lengths_k {tuple(keys.shape)} must both be (batch,).")
        max_q = _longest(queries) if max_q is None else max_q
        if max_k is None:
            max_k = max_q if lengths_k is None else _longest(keys)
        if not packed:
            return AttnLayout(len(queries), max_q, max_k, len_q=queries, len_k=keys)
        cu_q = _starts(queries)
        return AttnLayout(len(queries), max_q, max_k, cu_q=cu_q, cu_k=cu_q if lengths_k is None else _starts(keys))

    @staticmethod
    def from_key_mask(
        key_mask: Tensor, *, n_queries: int | None = None, query_mask: Tensor | None = None
    ) -> AttnLayout:
        """Padded tensors with padding anywhere, as transformers' 2-D ``attention_mask``.

        Args:
            key_mask: bool or 0/1 (B, Lk), True = real token.
            n_queries: Lq; None is Lk (self-attention).
            query_mask: (B, Lq); queries that are False give 0 and cost less. None computes all of them, as SDPA does.
        """
        if key_mask.dim() != 2:
            raise ValueError(
                f"key_mask {tuple(key_mask.shape)} must be (batch, keys). A 4-D mask has no layout: use SDPA."
            )
        batch, max_k = key_mask.shape
        see = None if query_mask is None else query_mask.to(torch.bool).to(torch.int32).contiguous()
        max_q = max_k if n_queries is None else n_queries
        return AttnLayout(batch, max_q, max_k, see=see, bit=key_mask.to(torch.bool).to(torch.int32).contiguous())

    @staticmethod
    def from_segments(
        segments: Tensor,
        allow: Sequence[Sequence[int]] | Tensor,
        segments_k: Tensor | None = None,
        *,
        within: AttnLayout | None = None,
    ) -> AttnLayout:
        """Tokens in segments, and a table of who may see whom.

        Args:
            segments: uint8, padded (B, Lq) or packed (Tq,), the segment of each query, below 32, or ``PAD``.
            allow: per segment the segments that its queries may see; or that as int32 (segments,), bit j of entry i.
            segments_k: the same for the keys, (B, Lk) or (Tk,); None is ``segments``.
            within: the packed layout that says where samples begin; needed for packed tokens.
        """
        keys = segments if segments_k is None else segments_k
        see, bit = _see(segments, _bits(allow, segments.device)), _bit(keys)
        if segments.dim() == 2:
            return AttnLayout(segments.shape[0], segments.shape[1], keys.shape[1], see=see, bit=bit)
        if within is None or not within.packed:
            raise ValueError(
                "Packed segments need within=AttnLayout.from_lengths(..., packed=True) to know where samples begin."
            )
        return AttnLayout(within.batch, within.max_q, within.max_k, within.cu_q, within.cu_k, see=see, bit=bit)

    @staticmethod
    def tri_modal(
        n_text: int | Tensor | Sequence[int],
        n_video: int | Tensor | Sequence[int],
        n_audio: int | Tensor | Sequence[int],
        rules: Mapping[str, Sequence[str]] | None = None,
        *,
        device: torch.device | str = "cpu",
    ) -> AttnLayout:
        """Packed samples [text | video | audio]; a modality that a sample lacks has 0 tokens.

        Args:
            n_text, n_video, n_audio: tokens per sample, (B,), known to the host (the loader counts them), or one
                number for all.
            rules: which modalities the queries of each may see, for example ``{"text": ["text", "video"], ...}``; None
                = all see all.
        """
        given = [torch.as_tensor(n, device="cpu").to(torch.int64) for n in (n_text, n_video, n_audio)]
        counts = torch.stack(torch.broadcast_tensors(*[n.reshape(-1) for n in given]), 1)  # (B, 3)
        layout = AttnLayout.from_lengths(counts.sum(1), packed=True, device=device)
        if rules is None:
            return layout
        names = ("text", "video", "audio")
        unknown = {*rules, *(seen for row in rules.values() for seen in row)} - set(names)
        if unknown or len(rules) < len(names):
            raise ValueError(f"rules {dict(rules)} must have one entry for each of {names} and name no other modality.")
        segments = torch.arange(3).repeat(len(counts)).repeat_interleave(counts.flatten()).to(torch.uint8).to(device)
        return AttnLayout.from_segments(
            segments, [[names.index(seen) for seen in rules[name]] for name in names], within=layout
        )

    @staticmethod
    def pack(
        mask: Tensor, segments: Tensor | None = None, allow: Sequence[Sequence[int]] | Tensor | None = None
    ) -> tuple[AttnLayout, Tensor]:
        """Leave padding out altogether: the packed layout of the real tokens, and where they come from.

        ``x.flatten(0, 1)[index]`` packs (B, L, ...) into (T, ...), ``packed.new_zeros(B * L, ...).index_copy(0, index,
        packed)`` undoes it. Waits for the GPU once, because the number of tokens T is a shape.

        Args:
            mask: bool (B, L), True = real token.
            segments, allow: as in ``from_segments``, with segments (B, L).
        """
        layout = AttnLayout.from_lengths(mask.sum(1), packed=True, max_q=mask.shape[1])
        index = mask.flatten().nonzero().squeeze(1)
        if segments is None or allow is None:
            return layout, index
        return AttnLayout.from_segments(segments.flatten()[index], allow, within=layout), index

    def dense_mask(self) -> Tensor:
        """The definition: bool (B, Lq, Lk), or (Tq, Tk) for packed tokens, True = the query may see the key."""
        if self.cu_q is not None and self.cu_k is not None:
            sample_q, sample_k = _sample_of(self.cu_q), _sample_of(self.cu_k)
            allowed = sample_q[:, None] == sample_k[None, :]
        else:
            device = next((t.device for t in (self.len_q, self.len_k, self.see, self.bit) if t is not None), None)
            allowed = torch.ones(self.batch, self.max_q, self.max_k, dtype=torch.bool, device=device)
            if self.len_q is not None:
                allowed &= (torch.arange(self.max_q, device=device) < self.len_q[:, None])[:, :, None]
            if self.len_k is not None:
                allowed &= (torch.arange(self.max_k, device=device) < self.len_k[:, None])[:, None, :]
        if self.see is not None and self.bit is not None:
            return allowed & ((self.see[..., :, None] & self.bit[..., None, :]) != 0)
        if self.bit is not None:
            return allowed & (self.bit != 0)[..., None, :]
        return allowed if self.see is None else allowed & (self.see != 0)[..., :, None]

    def visits(self, kernel: str, head_dim: int, dtype: torch.dtype, backend: str) -> Tensor | None:
        """Block lists of ``kernel`` (forward, dkdv, dq), int32 (B, blocks, 2 + columns), built on first use; None if
        lengths say everything."""
        if self.see is None and self.bit is None:
            return None
        key = (kernel, head_dim, dtype, backend)
        if key not in self._visits:
            self._visits[key] = _block_visits(
                self.see, self.bit, self.cu_q, self.cu_k, self.len_q, self.len_k,
                self.batch, self.max_q, self.max_k, kernel, head_dim, dtype, backend,
            )  # fmt: skip
        return self._visits[key]


def _longest(lengths: Tensor) -> int:
    return int(lengths.max()) if len(lengths) else 0


def _starts(lengths: Tensor) -> Tensor:
    return torch.nn.functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))


def _sample_of(cu: Tensor) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(cu) - 1, device=cu.device), cu.diff())


def _bits(allow: Sequence[Sequence[int]] | Tensor, device: torch.device) -> Tensor:
    """int32 (segments,) from lists, or checked."""
    if isinstance(allow, Tensor):
        table = allow.to(device=device, dtype=torch.int32)
    else:
        if any(not 0 <= seen < 32 for row in allow for seen in row):
            raise ValueError(f"allow={allow} names a segment outside 0..31: a set of segments is 32 bits.")
        bits = torch.tensor([sum(1 << seen for seen in set(row)) for row in allow], dtype=torch.int64)
        table = bits.to(torch.int32).to(device)  # bit 31 wraps to the sign, as wanted
    if len(table) > 32:
        raise ValueError(
            f"allow has {len(table)} segments, but a set of segments is 32 bits. Merge segments of equal rules."
        )
    return table


def _see(segments: Tensor, table: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(
        table, (0, 256 - len(table))
    )  # segments without a rule, PAD among them, see nobody
    return padded[segments.long()].contiguous()


def _bit(segments: Tensor) -> Tensor:
    powers = torch.zeros(256, dtype=torch.int64, device=segments.device)
    powers[:32] = 1 << torch.arange(32, device=segments.device)
    return powers.to(torch.int32)[segments.long()].contiguous()


@jit()
def span(cu, lengths, sample, longest):
    """First token and number of tokens of a sample; the first is 0 in padded tensors."""
    if cu is not None:
        start = tl.load(cu + sample).to(tl.int64)  # start * stride may pass 2**31
        length = tl.load(cu + sample + 1) - tl.load(cu + sample)
    else:
        start = 0
        length = longest if lengths is None else tl.load(lengths + sample)
    return start, length


@jit()
def _union(x, SIZE: tl.constexpr, LOG_SIZE: tl.constexpr):
    """Bitwise or of a vector, by halves: a reduction with its own function takes seconds in the interpreter."""
    for step in tl.static_range(LOG_SIZE):
        x = tl.reshape(x, (SIZE >> (step + 1), 2))
        left, right = tl.split(x)
        x = left | right
    return tl.sum(x, 0)  # one element is left


@jit()
def _summarise_queries(see, cu_q, len_q, at, block, sample, max_q, SIZE: tl.constexpr, LOG_SIZE: tl.constexpr):
    start, length = span(cu_q, len_q, sample, max_q)
    token = block * SIZE + tl.arange(0, SIZE)
    inside = token < length
    first = start if cu_q is not None else sample.to(tl.int64) * max_q
    sets = tl.where(inside, -1, 0) if see is None else tl.load(see + first + token, mask=inside, other=0)
    tl.store(at, _union(sets, SIZE, LOG_SIZE))
    tl.store(at + 1, _union(tl.where(inside, ~sets, 0), SIZE, LOG_SIZE))


@jit()
def _summarise_keys(bit, cu_k, len_k, at, block, sample, max_k, SIZE: tl.constexpr, LOG_SIZE: tl.constexpr):
    start, length = span(cu_k, len_k, sample, max_k)
    token = block * SIZE + tl.arange(0, SIZE)
    inside = token < length
    first = start if cu_k is not None else sample.to(tl.int64) * max_k
    sets = tl.where(inside, -1, 0) if bit is None else tl.load(bit + first + token, mask=inside, other=0)
    tl.store(at, _union(sets, SIZE, LOG_SIZE))
    tl.store(at + 1, tl.min(tl.where(sets == 0, -1, 0), 0))


@jit()
def _summary_kernel(
    see, bit, cu_q, cu_k, len_q, len_k, summary, max_q, max_k, n_query_blocks,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, LOG_QUERIES: tl.constexpr, LOG_KEYS: tl.constexpr,
):  # fmt: skip
    """A0, part 1: two sets per block. Queries: segments that some, and that not all, may see. Keys: segments present,
    and -1 if there is padding.
    Queries past the end count for nothing, keys past the end are padding."""
    block = tl.program_id(0)
    sample = tl.program_id(1)
    at = summary + (sample.to(tl.int64) * tl.num_programs(0) + block) * 2
    if block < n_query_blocks:
        _summarise_queries(see, cu_q, len_q, at, block, sample, max_q, QUERIES, LOG_QUERIES)
    else:
        _summarise_keys(bit, cu_k, len_k, at, block - n_query_blocks, sample, max_k, KEYS, LOG_KEYS)


@jit()
def _visits_kernel(summary, out, n_query_blocks, n_blocks, n_columns, CHUNK: tl.constexpr, KEYS_ARE_ROWS: tl.constexpr):
    """A0, part 2: for one block of rows, the blocks of columns without a mask (from the left) and with one (from the
    right)."""
    block = tl.program_id(0)
    sample = tl.program_id(1)
    summary += sample.to(tl.int64) * n_blocks * 2
    own = summary + (block + n_query_blocks if KEYS_ARE_ROWS else block) * 2
    columns = summary if KEYS_ARE_ROWS else summary + n_query_blocks * 2
    out += (sample.to(tl.int64) * tl.num_programs(0) + block) * (n_columns + 2)
    own_some = tl.load(own)
    own_other = tl.load(own + 1)
    n_free = 0
    n_masked = 0
    for chunk in range(0, n_columns, CHUNK):
        column = chunk + tl.arange(0, CHUNK)
        inside = column < n_columns
        some = tl.load(columns + column * 2, mask=inside, other=0)
        other = tl.load(columns + column * 2 + 1, mask=inside, other=0)
        seen = (own_some & some) != 0
        # no mask: every query sees all segments present among the keys, and no key is padding
        keys = own_some if KEYS_ARE_ROWS else some
        hidden = other if KEYS_ARE_ROWS else own_other
        padding = own_other if KEYS_ARE_ROWS else other
        every = ((keys & hidden) == 0) & (padding == 0)
        free = (seen & every).to(tl.int32)
        masked = seen.to(tl.int32) - free
        tl.store(out + 2 + n_free + tl.cumsum(free, 0) - 1, column, mask=free != 0)
        tl.store(out + 2 + n_columns - n_masked - tl.cumsum(masked, 0), column, mask=masked != 0)
        n_free += tl.sum(free, 0)
        n_masked += tl.sum(masked, 0)
    tl.store(out, n_free)
    tl.store(out + 1, n_masked)


VISIT_CHUNK = 128  # blocks that one iteration looks at


def _visits_shape(
    batch: int, max_q: int, max_k: int, rows: int, cols: int, keys_are_rows: bool
) -> tuple[int, int, int]:
    n_rows, n_columns = (max_k, max_q) if keys_are_rows else (max_q, max_k)
    return batch, -(-n_rows // rows), 2 + -(-n_columns // cols)


@torch.library.custom_op("vtp_kernels::block_visits", mutates_args=(), device_types="cuda")
def _block_visits(
    see: Tensor | None,
    bit: Tensor | None,
    cu_q: Tensor | None,
    cu_k: Tensor | None,
    len_q: Tensor | None,
    len_k: Tensor | None,
    batch: int,
    max_q: int,
    max_k: int,
    kernel: str,
    head_dim: int,
    dtype: torch.dtype,
    backend: str,
) -> Tensor:
    """Lists for the kernels, int32 (B, blocks, 2 + columns): counts of unmasked and masked blocks, then their numbers.
    Empty on the fallback."""
    given = see if see is not None else bit
    assert given is not None  # `visits` asks for no list without sets
    if not use_triton(backend, given.device, dtype, head_dim):
        return torch.empty(0, dtype=torch.int32, device=given.device)
    config = attention_config(kernel, accelerator(given.device), dtype, head_dim, max(max_q, max_k))
    keys_are_rows = kernel == "dkdv"
    shape = _visits_shape(batch, max_q, max_k, config.rows, config.cols, keys_are_rows)
    out = torch.empty(shape, dtype=torch.int32, device=given.device)
    n_columns = shape[2] - 2
    queries, keys = (config.cols, config.rows) if keys_are_rows else (config.rows, config.cols)
    n_query_blocks, n_blocks = n_columns if keys_are_rows else shape[1], shape[1] + n_columns
    summary = torch.empty(batch, n_blocks, 2, dtype=torch.int32, device=given.device)
    if out.numel():
        with on_device(given):
            _summary_kernel[(n_blocks, batch)](
                see, bit, cu_q, cu_k, len_q, len_k, summary, max_q, max_k, n_query_blocks,
                QUERIES=queries, KEYS=keys, LOG_QUERIES=queries.bit_length() - 1, LOG_KEYS=keys.bit_length() - 1,
                num_warps=1,
            )  # fmt: skip
            _visits_kernel[(shape[1], batch)](
                summary,
                out,
                n_query_blocks,
                n_blocks,
                n_columns,
                CHUNK=VISIT_CHUNK,
                KEYS_ARE_ROWS=keys_are_rows,
                num_warps=1,
            )
    return out


_block_visits.register_kernel("cpu")(_block_visits._init_fn)


@_block_visits.register_fake
def _(see, bit, cu_q, cu_k, len_q, len_k, batch, max_q, max_k, kernel, head_dim, dtype, backend):
    given = see if see is not None else bit
    if not use_triton(backend, given.device, dtype, head_dim):
        return given.new_empty(0, dtype=torch.int32)
    config = attention_config(kernel, accelerator(given.device), dtype, head_dim, max(max_q, max_k))
    return given.new_empty(
        _visits_shape(batch, max_q, max_k, config.rows, config.cols, kernel == "dkdv"), dtype=torch.int32
    )
