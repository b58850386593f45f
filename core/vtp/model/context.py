"""One forward pass over one micro-batch: what objectives and evaluation read, computed lazily and once.

    ctx.inputs("text")                          the tensors of a modality, video already normalised
    ctx.view("text", "lower", make)             a second version of them, made once
    ctx.masked("text")                          the name of one: the version with masked words, hidden patches
    ctx.tokens("video", "tube0.9")              encoder output, Tokens (B, N, D)
    ctx.pooled("text")                          one vector per row, (B, D)
    ctx.fused({"video": "tube0.9", "text": "bert0.15"})   fusion output over these views
    ctx.uniform("mlm", columns)                 random numbers that depend on neither processes nor micro-batches

Two objectives that ask for the same pass share it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vtp.contracts import Encoder, Fusion, member
from vtp.model import checks
from vtp.model.blocks import connected_zero
from vtp.spans import whole_clip
from vtp.types import MODALITIES, AudioSpec, Batch, Fused, Modality, TextSpec, Tokens, VideoSpec

if TYPE_CHECKING:
    from vtp.model.model import VTPModel

__all__ = ["ForwardContext"]


class ForwardContext:
    """Lazy passes of one model over one batch.

    Args:
        model: the composed model.
        batch: already on the model's device.

    Attributes:
        model, batch: as given.
        device: where the batch lies.
    """

    def __init__(self, model: VTPModel, batch: Batch) -> None:
        self.model = model
        self.batch = batch
        self.device = _device_of(batch)
        self._views: dict[tuple[str, str], dict[str, Tensor]] = {}
        self._tokens: dict[tuple[str, str, str, bool], Tokens] = {}
        self._fused: dict[object, tuple[Fused, object]] = {}
        self._planned: dict[object, tuple[Mapping[str, str | Tokens], dict[str, Tensor]]] = {}
        self._made: dict[str, Tensor] = {}
        self._present: dict[str, Tensor] = {}
        self._used: set[str] = set()  # slots whose encoder gave somebody something, see connected_zero

    # -- inputs ------------------------------------------------------------------------------------------------------

    @property
    def step(self) -> int:
        """Updates done before this pass, for schedules of masking or temperature; 0 in evaluation."""
        return self.batch.step

    @property
    def total_steps(self) -> int | None:
        """Length of the run; None in evaluation, where a schedule must have ended."""
        return self.batch.total_steps

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Modalities with an encoder in the model, in the order video, audio, text. A batch may lack some of them."""
        return tuple(m for m in MODALITIES if m in self.model.encoders)

    def present(self, modality: str) -> Tensor:
        """bool (B,), False where the row lacks the modality; all False where batch or model does not know it."""
        if modality not in self._present:
            rows = torch.zeros(len(self.batch), dtype=torch.bool, device=self.device)
            if modality in self.model.encoders and self._holds(modality):
                rows = self.batch.present.get(modality, ~rows)
            self._present[modality] = rows
        return self._present[modality]

    def _holds(self, modality: str) -> bool:
        tensors = self.batch.inputs.get(modality)
        return bool(tensors) and all(tensor.numel() for tensor in (tensors or {}).values())

    def inputs(self, modality: str, view: str = "") -> dict[str, Tensor]:
        """The tensors that the encoder of ``modality`` takes, by name.

        ``video``: ``{"video": float (B, T, C, H, W)}``, normalised with the encoder's mean and std, or uint8
        (B, T, H, W, C) where its spec says ``layout="uint8"``. ``audio``: ``waveform`` and ``lengths``. ``text``:
        ``token_ids`` and ``attention_mask``. Do not write into them. A modality that no row of the batch has gives
        empty inputs (black frames, silence, one padding token) with :meth:`present` all False.

        Raises:
            ValueError: if the model has no such modality, or if ``view`` was not made with :meth:`view`.
        """
        key = (modality, view)
        if key in self._views:
            return self._views[key]
        if view:
            made = ", ".join(repr(v) for m, v in self._views if m == modality and v) or "none"
            raise ValueError(f"no view {view!r} of {modality} has been made with ctx.view(...) (made: {made})")
        if modality not in self.model.encoders:
            known = ", ".join(self.modalities)
            raise ValueError(f"the model has no encoder for {modality} (it has: {known}); ask ctx.modalities first")
        if self._holds(modality):
            tensors = dict(self.batch.inputs[modality])
        else:  # nobody in this batch has it: the pass still runs, so that every parameter is part of the graph
            spec = member(self.model.encoders[modality], Encoder, "spec")
            tensors = _empty_inputs(spec, len(self.batch), self.device)
        if modality != "text" and (rows := self._media_rows()) is not None and self._holds(modality):
            tensors = {name: tensor[rows] for name, tensor in tensors.items()}
        self._views[key] = self._normalized(tensors)
        return self._views[key]

    def _normalized(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if "frames" in tensors:
            tensors["video"] = self.model.normalize_video(tensors.pop("frames"))
        return tensors

    def _media_rows(self) -> Tensor | None:
        """int64 (B,), where several rows share a clip: the stored clip of each."""
        rows = self.batch.media_rows
        return None if rows is None else torch.tensor(rows, device=self.device)

    def view(
        self, modality: str, name: str, make: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """A named second version of the inputs of a modality, made once per batch.

        Args:
            modality: whose inputs.
            name: not empty. A second call with the same name returns the first result: objectives that share a view
                must agree on what it is, so put what distinguishes it into the name.
            make: gets the clean inputs and returns those of the view: the same keys with other tensors, optionally
                ``mask`` (bool (B, N), True = hidden; the encoder then returns visible tokens only) and any further
                tensors, such as ``labels``, which the encoder does not get unless its ``view_inputs`` names them.

        Raises:
            ValueError: if ``make`` wrote into the clean tensors; other objectives would silently read the masked ones.
        """
        if not name:
            raise ValueError("a view needs a name; the clean inputs are the view ''")
        key = (modality, name)
        if key not in self._views:
            clean = self.inputs(modality)
            before = {k: _version(v) for k, v in clean.items()}
            made = make(dict(clean))
            changed = [k for k, v in clean.items() if _version(v) != before[k]]
            if changed:
                raise ValueError(
                    f"the maker of view {name!r} of {modality} wrote into {', '.join(changed)} in place; "
                    "change a clone()"
                )
            self._views[key] = made
        return self._views[key]

    def masked(self, modality: str) -> str:
        """Name of the view that the run's mask of the modality makes (``masks`` in the configuration)."""
        return self.model.masks[modality].view(self)

    def uniform(self, name: str, columns: int) -> Tensor:
        """Uniform numbers in [0, 1), float32 (B, ``columns``), the same however the global batch is cut into processes
        and micro-batches.

        They are drawn on the CPU for all ``batch.global_rows`` rows from a generator keyed by the model's seed, the
        optimiser step and ``name``; this batch gets its rows. So ask for a fixed number of columns (the longest text,
        the full token grid) and slice, or padding changes the draw.
        """
        key = repr((self.model.seed, self.batch.step, name)).encode()
        generator = torch.Generator().manual_seed(
            int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1
        )
        drawn = torch.rand(self.batch.global_rows, columns, generator=generator)
        start = self.batch.row_offset
        return drawn[start : start + len(self.batch)].to(self.device, non_blocking=True)

    def identity(self, modality: str, *, whole: bool = False) -> Tensor:
        """int64 (B,): equal for rows with equal content, so that a duplicate is not taken for a negative.

        Text: a hash of its token ids (equal captions are equal whatever their padding). Video and audio: a hash of
        ``batch.extra["video_id"]``, the clip that the row is about. Two moments of one film are two clips: they show
        different things, and are negatives of each other.

        Args:
            modality: video, audio or text.
            whole: of video and audio, equal for all moments of one film too: the bags of MIL-NCE, or no negatives
                within a film.
        """
        if modality == "text":
            text = self.inputs("text")
            ids, mask = text["token_ids"], text["attention_mask"]
            powers = torch.tensor([_signed(pow(_PRIME, i, 1 << 64)) for i in range(ids.shape[1])], device=ids.device)
            return ((ids + 1) * powers * mask).sum(dim=1)  # int64 wraps around: a polynomial modulo 2**64
        names = [str(name) for name in self.batch.extra.get("video_id", self.batch.ids)]
        names = [whole_clip(name) for name in names] if whole else names
        hashes = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names]
        return torch.tensor(
            [_signed(int.from_bytes(h, "little")) for h in hashes], dtype=torch.int64, device=self.device
        )

    # -- passes ------------------------------------------------------------------------------------------------------

    def tokens(self, modality: str, view: str = "", stage: str = "encoded") -> Tokens:
        """What the encoder of ``modality`` gives for a view.

        Args:
            stage: ``"encoded"`` is the encoder's output, ``"embedded"`` that of its embedding layer alone
                (``encoder.embed``; UniVL fuses those).

        Returns:
            Tokens with ``attention_mask`` all False in the rows that lack the modality. Several clips of one video
            (frames (B, K, T, H, W, 3)) are encoded one by one and give K * N tokens, the first clip's first.
        """
        self._used.add(modality)
        return self.encode(modality, view, stage)

    def encode(self, modality: str, view: str, stage: str) -> Tokens:
        """:meth:`tokens` of a pass that may be asked for by nobody; a context with other tokens overrides this one."""
        # a pass without gradients must not be served as one with
        key = (modality, view, stage, torch.is_grad_enabled())
        if key not in self._tokens:
            shared = self._media_rows() if modality != "text" and not view and self._holds(modality) else None
            if shared is not None and (modality, "") not in self._views:
                clean = inputs = self._normalized(dict(self.batch.inputs[modality]))  # one row per clip
            else:
                shared = None
                clean, inputs = self.inputs(modality), self.inputs(modality, view)
            encoder: Any = self.model.encoders[modality]
            arguments = self._arguments(modality, clean, inputs)
            encode = encoder if stage == "encoded" else encoder.embed
            if (first := (modality, stage, view != "")) not in self.model.checked:
                encode = partial(checks.first_tokens, self.model, modality, stage, encode)
                self.model.checked.add(first)
            out = _encode_clips(encode, arguments) if modality == "video" else encode(**arguments)
            out = out if shared is None else out.take(shared)
            self._tokens[key] = replace(out, attention_mask=out.attention_mask & self.present(modality)[:, None])
        return self._tokens[key]

    def _arguments(self, modality: str, clean: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of ``inputs`` that the encoder is given: not the labels of a view."""
        taken = {"mask", *member(self.model.encoders[modality], Encoder, "view_inputs")}
        return {k: v for k, v in inputs.items() if k in clean or k in taken}

    def tokens_of(self, encoder: Callable[..., Tokens], modality: str, view: str = "") -> Tokens:
        """:meth:`tokens` of another encoder that takes what that of the model takes, such as a
        :class:`vtp.model.momentum.Momentum` of it. Run anew with every call, with gradients unless they are off."""
        arguments = self._arguments(modality, self.inputs(modality), self.inputs(modality, view))
        out = _encode_clips(encoder, arguments) if modality == "video" else encoder(**arguments)
        return replace(out, attention_mask=out.attention_mask & self.present(modality)[:, None])

    def pooled(self, modality: str, view: str = "") -> Tensor:
        """One vector per row, (B, D) with D = ``model.pooled_width(modality)``.

        The encoder's own ``pool(tokens)`` where it has one, else the mean over real tokens. With a fusion encoder that
        is ``unimodal`` (SimVTP) the modality passes through the fusion encoder alone first, and pooling is the fusion
        encoder's. Rows without the modality: finite, no meaning.
        """
        if self.model.unimodal_fusion:
            tokens, owner = self.fused({modality: view}).tokens[modality], "fusion"
        else:
            tokens, owner = self.tokens(modality, view), modality
        pooled: Tensor = member(self.model.encoders[owner], Encoder, "pool")(tokens)
        if ("pool", owner) not in self.model.checked:
            checks.check_pooled(self.model, owner, pooled, len(tokens.x))
            self.model.checked.add(("pool", owner))
        return pooled

    def fused(self, views: Mapping[str, str | Tokens], rows: Mapping[str, Tensor] | None = None) -> Fused:
        """Fusion of one view per modality.

        Args:
            views: modality -> name of its view ("" = clean), for example ``{"video": "", "text": "mlm"}``. Tokens may
                stand in place of a name, for example those gathered from other processes; such a pass is not shared.
            rows: modality -> int64 (R,) rows of the batch to take, to pair a text with another video. R may differ from
                B (all B^2 pairs); modalities that are not named keep their B rows, so R must then be B. Shared only
                when the same tensors are passed again.

        Returns:
            Fused with tokens per modality and ``pooled`` (R, D).
        """
        rows = dict(rows or {})
        self._used |= {"fusion", *(m for m, view in views.items() if isinstance(view, str))}
        key = self._fused_key(views, rows)
        if key in self._fused:
            return self._fused[key][0]
        passes = {key: (views, rows)}
        if key in self._planned:
            passes = {k: asked for k, asked in self._planned.items() if k not in self._fused}
            self._planned = {}
        inputs = [self._fusion_input(v, r) for v, r in passes.values()]
        fusion = self.model.encoders["fusion"]
        found: list[Fused] = fusion(inputs) if len(inputs) > 1 else [fusion(inputs[0])]
        if (first := ("fusion", len(inputs) > 1)) not in self.model.checked:
            checks.check_many(self.model, found, inputs)
            self.model.checked.add(first)
        made = dict(zip(passes, found, strict=True))
        for k, out in made.items():
            if k is not None:
                self._fused[k] = (out, passes[k][1])  # keeps the index tensors alive: their id() is part of the key
        return made[key]

    def plan(self, views: Mapping[str, str], rows: Mapping[str, Tensor] | None = None) -> None:
        """Announce a call of :meth:`fused` with these arguments (the same ``rows`` tensors).

        When the first announced pass is asked for, all of them are made at once, if the fusion encoder can
        (``takes_many``: called with a list of what it takes otherwise, it returns the list of results). One that draws
        random numbers must not say so: GradCache repeats some of the passes alone, with the same draws. An objective
        announces its passes in ``plan(ctx)``, which the engine calls for all objectives before the first one runs.
        """
        if member(self.model.encoders["fusion"], Fusion, "takes_many"):
            taken = dict(rows or {})
            self._planned[self._fused_key(views, taken)] = (dict(views), taken)

    def once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """What ``make`` gives, made once per batch: index tensors must be the same object for a pass to be shared."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def _fused_key(self, views: Mapping[str, str | Tokens], rows: Mapping[str, Tensor]) -> object:
        """What tells passes apart; None for one that cannot be shared."""
        if not all(isinstance(view, str) for view in views.values()):
            return None
        taken_rows = sorted((modality, id(index)) for modality, index in rows.items())
        return (tuple(sorted(views.items())), tuple(taken_rows), torch.is_grad_enabled())

    def _fusion_input(self, views: Mapping[str, str | Tokens], rows: Mapping[str, Tensor]) -> dict[str, Tokens]:
        unknown = sorted(set(rows) - set(views))
        if unknown:
            raise ValueError(
                f"rows are given for {', '.join(unknown)}, which is not among the fused views ({', '.join(views)})"
            )
        consumes: Mapping[str, str] = member(self.model.encoders["fusion"], Fusion, "consumes")
        tokens: dict[str, Tokens] = {}
        for modality in MODALITIES:
            if modality in views:
                view = views[modality]
                stage = consumes.get(modality, "encoded")
                taken = view if isinstance(view, Tokens) else self.encode(modality, view, stage)
                tokens[modality] = taken.take(rows[modality]) if modality in rows else taken
        counts = {m: t.x.shape[0] for m, t in tokens.items()}  # not len(): a graph that is captured would keep it
        if any(count != other for count, other in pairwise(counts.values())):
            raise ValueError(
                f"fused: the modalities have different numbers of rows {counts}; give rows= for each of them"
            )
        return tokens

    def made(self) -> Iterator[tuple[str, str, Tokens]]:
        """What encoders have given so far: ``encoders.<slot>``, name of the view, tokens."""
        for (modality, view, *_), tokens in self._tokens.items():
            yield f"encoders.{modality}", view, tokens
        for fused, _ in self._fused.values():
            for tokens in fused.tokens.values():
                yield "encoders.fusion", "", tokens

    def connected_zero(self) -> Tensor:
        """A zero, scalar, that depends on every parameter of the encoders that nothing has been asked of so far. A pass
        that was announced and made, but not asked for, does not count.

        Added to a loss it gives those parameters a gradient of zeros instead of none, so that all processes reduce the
        same set of gradients. Sharded parameters (FSDP) are left out: they need no gradient there.
        """
        unused = [p for slot, part in self.model.encoders.items() if slot not in self._used for p in part.parameters()]
        whole = [p for p in unused if type(p) is torch.nn.Parameter]  # a sharded one is a DTensor
        return connected_zero(whole, torch.zeros((), device=self.device))


_PRIME = 0x9E3779B97F4A7C15  # odd, 64 bits: powers of it spread small ids over all of int64


def _signed(number: int) -> int:
    """The int64 with the same bits as an unsigned 64-bit number."""
    return number - (1 << 64) if number >> 63 else number


def _version(tensor: Tensor) -> int:
    """Counts in-place writes; inference tensors do not count."""
    return 0 if tensor.is_inference() else tensor._version


def _device_of(batch: Batch) -> torch.device:
    for tensors in batch.inputs.values():
        for tensor in tensors.values():
            return tensor.device
    for tensor in (*batch.present.values(), *batch.labels.values()):
        return tensor.device
    return torch.device("cpu")


def _encode_clips(encode: Callable[..., Tokens], inputs: dict[str, Tensor]) -> Tokens:
    """Encode one clip per video (B, T, ...) or several (B, K, T, ...), whose tokens are joined along N."""
    if inputs["video"].dim() == 5:
        return encode(**inputs)
    batch, clips = inputs["video"].shape[:2]
    out = encode(**{name: tensor.flatten(0, 1) for name, tensor in inputs.items()})
    joined = replace(
        out, x=out.x.reshape(batch, -1, out.x.shape[-1]), attention_mask=out.attention_mask.reshape(batch, -1)
    )
    joined.grid = None if out.grid is None else (clips * out.grid[0], *out.grid[1:])  # time is the slowest axis
    joined.index = None
    if out.index is not None and out.grid is not None:  # places of visible tokens, in the joined grid
        starts = prod(out.grid) * torch.arange(clips, device=out.index.device)
        joined.index = (out.index.view(batch, clips, -1) + starts[:, None]).flatten(1)
    return joined


def _empty_inputs(spec: VideoSpec | AudioSpec | TextSpec, rows: int, device: torch.device) -> dict[str, Tensor]:
    """What a loader gives for a modality that no row has."""
    if isinstance(spec, VideoSpec):
        return {"frames": torch.zeros(rows, spec.frames, spec.size, spec.size, 3, dtype=torch.uint8, device=device)}
    if isinstance(spec, AudioSpec):
        lengths = torch.zeros(rows, dtype=torch.int64, device=device)
        return {"waveform": torch.zeros(rows, spec.samples, device=device), "lengths": lengths}
    ids = torch.full((rows, 1), spec.pad_id, dtype=torch.int64, device=device)
    return {"token_ids": ids, "attention_mask": torch.zeros_like(ids, dtype=torch.bool)}
