"""What is hidden. A masker makes a named view of a modality (:meth:`ForwardContext.view`): the same clip without some
of its tokens, the same text with other words in some places.

The masks of a run stand once, at the top of its configuration; the objectives share them, because a mask belongs to the
batch::

    masks:
      video: {kind: tube, ratio: 0.9}               tube | token | frame
      audio: {kind: token, ratio: 0.3}              token | time | frequency
      text: {probability: 0.15, replace: bert}      bert | mask; whole_words: true

An objective asks ``ctx.masked("video")`` for the name of the view, and ``ctx.inputs``, ``ctx.tokens`` or ``ctx.fused``
for what is in it. A mask of another kind is a class with ``name`` and ``view(ctx)``, which an objective puts into
``context.masks["text"]`` when it is built.

Masks are drawn from :meth:`ForwardContext.uniform`, so they depend on the seed, the step and the row of the global
batch, and on neither processes nor micro-batches. Sorting them is done on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, get_args

import torch
from torch import Tensor

from vtp.contracts import Encoder, member
from vtp.errors import ConfigError
from vtp.types import IGNORE, TextSpec

if TYPE_CHECKING:
    from vtp.model.context import ForwardContext

__all__ = [
    "MASKS",
    "AudioMask",
    "Masker",
    "VideoMask",
    "WeightedWordMask",
    "WordMask",
    "default_masks",
    "draw_mask",
    "first_tokens",
    "grid_of",
    "replace_words",
    "select_by_weight",
    "split_mask",
    "whole_word_problems",
]

AUDIO_KINDS = Literal["token", "time", "frequency"]
VIDEO_KINDS = Literal["tube", "token", "frame"]
_KEY = "simvtp"  # of the random numbers: masks come from that method, and a run of then must draw the same ones now
# Axes of the grid that are drawn; a token is hidden where its place on them is. Video (T', H', W'), audio (F', S').
AXES = {
    "video": {"tube": (1, 2), "token": (0, 1, 2), "frame": (0,)},
    "audio": {"token": (0, 1), "time": (1,), "frequency": (0,)},
}


class Masker(Protocol):
    """A way to hide parts of a modality."""

    @property
    def name(self) -> str:
        """Name of the view. Equal masks have equal names: they are one view, however many objectives ask for it."""

    def view(self, ctx: ForwardContext) -> str:
        """Make the view with ``ctx.view``, once per batch, and return its name."""


@dataclass(frozen=True, slots=True)
class VideoMask:
    """Hides tokens of the clip; the encoder then encodes the visible ones only.

    The view has ``mask`` bool (B, N), True = hidden, and ``visible`` and ``hidden``, int64 positions in it, ascending.
    Of several clips of one video (B, V, T, ...) each has a mask of its own, (B, V, N).

    Args:
        kind: ``tube`` is one spatial mask per clip, the same in every slot of time; ``token`` any tokens of the grid;
            ``frame`` whole slots of time.
        ratio: share to hide, in [0, 1), rounded down: 0.9 of 14 x 14 hides 176 and keeps 20.
    """

    kind: VIDEO_KINDS = "tube"
    ratio: float = 0.9
    modality: ClassVar[str] = "video"
    renamed: ClassVar[dict[str, str]] = {"kind=random": "masks.video.kind=token"}

    def __post_init__(self) -> None:
        _check_grid_mask(self, get_args(VIDEO_KINDS))

    @property
    def name(self) -> str:
        """``tube0.9``."""
        return f"{self.kind}{self.ratio:g}"

    def view(self, ctx: ForwardContext) -> str:
        """Make the view and return its name."""
        return _hide_tokens(ctx, self)


@dataclass(frozen=True, slots=True)
class AudioMask:
    """Hides tokens of the spectrogram, as :class:`VideoMask` does of the clip; tokens of padding are drawn like others.

    Args:
        kind: ``token`` any tokens of the grid; ``time`` whole slots of time; ``frequency`` whole bands.
        ratio: share to hide, in [0, 1), rounded down.
    """

    kind: AUDIO_KINDS = "token"
    ratio: float = 0.3
    modality: ClassVar[str] = "audio"

    def __post_init__(self) -> None:
        _check_grid_mask(self, get_args(AUDIO_KINDS))

    @property
    def name(self) -> str:
        """``token0.3``."""
        return f"{self.kind}{self.ratio:g}"

    def view(self, ctx: ForwardContext) -> str:
        """Make the view and return its name."""
        return _hide_tokens(ctx, self)


@dataclass(frozen=True, slots=True)
class WordMask:
    """Selects words, each independently, and replaces them. Special tokens and unknown words are never selected.

    The view has other ``token_ids``, and ``labels`` int64 (B, L): the original id where a word was selected, -100
    elsewhere.

    Args:
        probability: that a word is selected, in [0, 1].
        replace: ``bert`` makes 80 % of the selected words [MASK], 10 % a random word and leaves 10 % as they are (BERT,
            arXiv:1810.04805); ``mask`` makes all of them [MASK].
        whole_words: select whole words, with all of their tokens, instead of tokens (BERT's whole word masking); the
            tokenizer must know words (``TextSpec.words``). What a selected token becomes is drawn token by token.
    """

    probability: float = 0.15
    replace: Literal["bert", "mask"] = "bert"
    whole_words: bool = False
    modality: ClassVar[str] = "text"

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ConfigError(
                f"masks.text: probability={self.probability} must lie between 0 and 1; BERT takes 0.15, SimVTP 0.75."
            )
        if self.replace not in ("bert", "mask"):
            raise ConfigError(f"masks.text: replace={self.replace!r} must be bert or mask.")

    @property
    def name(self) -> str:
        """``bert0.15``, ``mask0.75``, ``bert0.15whole``."""
        return f"{self.replace}{self.probability:g}{'whole' if self.whole_words else ''}"

    def view(self, ctx: ForwardContext) -> str:
        """Make the view and return its name."""
        ctx.view("text", self.name, lambda inputs: inputs | self._draw(ctx, inputs["token_ids"]))
        return self.name

    def _draw(self, ctx: ForwardContext, ids: Tensor) -> dict[str, Tensor]:
        spec, words = _words(ctx)
        if self.replace == "mask":
            (select,) = _draws(ctx, f"{_KEY}.words{self.probability:g}", 1, spec, ids)
            selected = words & (self._by_word(ctx, select) < self.probability)
            return {"token_ids": ids.masked_fill(selected, spec.mask_id), "labels": ids.masked_fill(~selected, IGNORE)}
        select, action, word = _draws(ctx, "mlm", 3, spec, ids)
        selected = words & (self._by_word(ctx, select) < self.probability)
        return _replaced(ids, selected, action, word, spec)

    def _by_word(self, ctx: ForwardContext, numbers: Tensor) -> Tensor:
        """Numbers (B, L) such that all tokens of a word have the one of its first token."""
        return numbers.gather(1, first_tokens(ctx)) if self.whole_words else numbers


@dataclass(frozen=True, slots=True)
class WeightedWordMask:
    """Selects a fixed number of words per text, the more probably the larger their weight; built by an objective, which
    knows the weights (attention that words receive, rank of a word in the corpus).

    Args:
        name: of the view, and key of its random numbers.
        weights: gives float (B, L) >= 0 for a context. Special tokens and padding count as 0, whatever it gives.
        share: of the words of a text to select, rounded down, at least one.
        replace: as in :class:`WordMask`.
    """

    name: str
    weights: Callable[[ForwardContext], Tensor]
    share: float = 0.15
    replace: Literal["bert", "mask"] = "mask"

    def view(self, ctx: ForwardContext) -> str:
        """Make the view, as :class:`WordMask` does, and return its name."""
        ctx.view("text", self.name, lambda inputs: inputs | self._draw(ctx, inputs["token_ids"]))
        return self.name

    def _draw(self, ctx: ForwardContext, ids: Tensor) -> dict[str, Tensor]:
        spec, words = _words(ctx)
        select, action, word = _draws(ctx, self.name, 3, spec, ids)
        count = (words.sum(dim=1) * self.share).long().clamp(min=1)
        selected = select_by_weight(self.weights(ctx).masked_fill(~words, 0.0), count, select)
        if self.replace == "mask":
            action = torch.zeros_like(action)
        return _replaced(ids, selected, action, word, spec)


MASKS: dict[str, type[VideoMask] | type[AudioMask] | type[WordMask]] = {
    "video": VideoMask,
    "audio": AudioMask,
    "text": WordMask,
}


def default_masks() -> dict[str, Masker]:
    """The masker of each modality where the configuration says nothing."""
    return {modality: mask() for modality, mask in MASKS.items()}


def draw_mask(grid: Sequence[int], axes: Sequence[int], ratio: float, numbers: Tensor) -> Tensor:
    """bool (B, N), True = hidden; all rows hide the same number of tokens.

    Args:
        grid: tokens per axis, the first one slowest.
        axes: those on which places are drawn; a token is hidden where its place on them is.
        ratio: share of the places to hide, in [0, 1), rounded down.
        numbers: uniform float (B, N), on the device where the mask is wanted; the first columns are used.
    """
    places = prod(grid[axis] for axis in axes)
    first = numbers[:, :places].argsort(dim=1)[:, : int(ratio * places)]
    mask = torch.zeros(len(numbers), places, dtype=torch.bool, device=numbers.device).scatter_(1, first, True)
    shape = [size if axis in axes else 1 for axis, size in enumerate(grid)]
    return mask.view(-1, *shape).expand(-1, *grid).flatten(1)


def split_mask(mask: Tensor, visible: int) -> tuple[Tensor, Tensor]:
    """Positions of visible and of hidden tokens, ascending: int64 (B, ``visible``) and (B, N - ``visible``).

    ``visible`` is known beforehand, so nothing waits for the device.
    """
    order = mask.int().argsort(dim=1, stable=True)
    return order[:, :visible], order[:, visible:]


def grid_of(encoder: Any, modality: str, media: Tensor | None = None) -> tuple[int, ...]:
    """Tokens per axis: (T', H', W') of a video encoder, (F', S') of an audio encoder; one axis of time is (1, S').

    Args:
        encoder: of the modality.
        modality: video or audio.
        media: a clip (..., T, H, W, C) or (..., T, C, H, W) of another length than ``encoder.spec`` says.

    Raises:
        ConfigError: if the encoder does not say how its tokens lie.
    """
    grid = member(encoder, Encoder, "grid")
    if modality == "audio" and grid is not None and len(grid) == 1:
        return (1, *grid)
    if grid is None or len(grid) != len(AXES[modality]["token"]):
        wanted = "(T', H', W')" if modality == "video" else "(F', S')"
        raise ConfigError(
            f"masks.{modality}: {type(encoder).__name__} has no attribute grid = {wanted}, which says where its tokens "
            f"lie. Choose an encoder that has one and whose forward takes a mask, for example encoder/{modality}=tiny."
        )
    if media is None:
        return tuple(grid)
    return (media.shape[-4] // (encoder.spec.frames // grid[0]), *grid[1:])


def select_by_weight(weights: Tensor, count: Tensor, numbers: Tensor) -> Tensor:
    """Draw ``count[b]`` positions of row b without replacement, each draw with probability proportional to the weights
    that are left (Efraimidis and Spirakis 2006: the smallest of -log(u) / w).

    Args:
        weights: float (B, L) >= 0; positions of weight 0 are never drawn, so a row may get fewer.
        count: int64 (B,).
        numbers: uniform float (B, L).

    Returns:
        bool (B, L).
    """
    keys = (-numbers.double().clamp(min=1e-300).log() / weights.double()).masked_fill(weights <= 0, torch.inf)
    rank = keys.argsort(dim=1, stable=True).argsort(dim=1)
    return (rank < count[:, None]) & (weights > 0)


def replace_words(
    ids: Tensor, selected: Tensor, action: Tensor, others: Tensor, mask_id: int, share_masked: float = 0.8
) -> tuple[Tensor, Tensor]:
    """Replace the selected words.

    Args:
        ids: int64 (B, L).
        selected: bool (B, L).
        action: uniform float (B, L): below ``share_masked`` a selected word becomes [MASK]; of the rest one half
            becomes another word, the other half stays.
        others: int64 (B, L), the other words.
        mask_id: id of [MASK].
        share_masked: see ``action``.

    Returns:
        masked ids (B, L), and labels (B, L): the original id where selected, -100 elsewhere.
    """
    to_mask = selected & (action < share_masked)
    to_other = selected & (action >= share_masked) & (action < (1 + share_masked) / 2)
    masked = torch.where(to_mask, mask_id, torch.where(to_other, others, ids))
    return masked, torch.where(selected, ids, IGNORE)


def first_tokens(ctx: ForwardContext) -> Tensor:
    """int64 (B, L): for each token the place of the first token of its word; its own for what is in no word.

    Raises:
        ConfigError: the tokenizer knows no words.
    """
    spec = ctx.model.specs()["text"]
    assert isinstance(spec, TextSpec)
    if problems := whole_word_problems(spec):
        raise ConfigError(problems[0])
    token_ids = ctx.inputs("text")["token_ids"]
    texts = ctx.batch.extra.get("text", [None] * len(token_ids))
    rows = [_first_tokens(spec, text, ids) for text, ids in zip(texts, token_ids.tolist(), strict=True)]
    return torch.tensor(rows, device=ctx.device)


def whole_word_problems(spec: object) -> list[str]:
    """What keeps a tokenizer from masks of whole words."""
    if isinstance(spec, TextSpec) and spec.words is not None:
        return []
    return [
        "masks.text: whole_words=true needs a text encoder whose tokenizer knows words (TextSpec.words), and this one "
        "does not. Choose another encoder/text, or leave masks.text.whole_words out."
    ]


def _first_tokens(spec: TextSpec, text: str | None, ids: list[int]) -> list[int]:
    places = list(range(len(ids)))
    if text is None or spec.words is None:
        return places
    words = [found for _, found in spec.words(text)]
    content = [token for word in words for token in word]
    starts = range(len(ids) - len(content) + 1)
    place = next((start for start in starts if ids[start : start + len(content)] == content), None)
    if place is None:  # the text is withheld (data.modality_dropout)
        return places
    for word in words:
        places[place : place + len(word)] = [place] * len(word)
        place += len(word)
    return places


def _hide_tokens(ctx: ForwardContext, mask: VideoMask | AudioMask) -> str:
    axes = AXES[mask.modality][mask.kind]

    def draw(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        media = inputs["video"] if mask.modality == "video" else inputs["waveform"]
        grid = grid_of(ctx.model.encoders[mask.modality], mask.modality, media if mask.modality == "video" else None)
        clips = media.shape[1] if media.dim() == 6 else 1  # several clips of one video are masked one by one
        numbers = ctx.uniform(f"{_KEY}.{mask.name}", clips * prod(grid)).reshape(-1, prod(grid))
        hidden = draw_mask(grid, axes, mask.ratio, numbers)
        places = prod(grid[axis] for axis in axes)
        left, gone = split_mask(hidden, (places - int(mask.ratio * places)) * (prod(grid) // places))
        made = {"mask": hidden, "visible": left, "hidden": gone}
        return inputs | ({k: v.view(len(media), clips, -1) for k, v in made.items()} if media.dim() == 6 else made)

    ctx.view(mask.modality, mask.name, draw)
    return mask.name


def _check_grid_mask(mask: VideoMask | AudioMask, kinds: Sequence[str]) -> None:
    if mask.kind not in kinds:
        raise ConfigError(f"masks.{mask.modality}: kind={mask.kind!r} must be one of {', '.join(kinds)}.")
    if not 0 <= mask.ratio < 1:
        raise ConfigError(f"masks.{mask.modality}: ratio={mask.ratio} must be a share in [0, 1).")


def _words(ctx: ForwardContext) -> tuple[TextSpec, Tensor]:
    """The tokenizer's ids, and bool (B, L): where a word may be selected."""
    spec = ctx.model.specs()["text"]
    assert isinstance(spec, TextSpec)
    inputs = ctx.inputs("text")
    special = torch.tensor(spec.special_ids, device=ctx.device)
    words = inputs["attention_mask"] & ~torch.isin(inputs["token_ids"], special) & ctx.present("text")[:, None]
    return spec, words


def _draws(ctx: ForwardContext, name: str, count: int, spec: TextSpec, ids: Tensor) -> tuple[Tensor, ...]:
    """``count`` times uniform (B, L), drawn for the longest text that can come: padding must not change them."""
    longest = max(spec.max_length, ids.shape[1])
    return ctx.uniform(name, count * longest).view(len(ids), count, longest)[:, :, : ids.shape[1]].unbind(1)


def _replaced(ids: Tensor, selected: Tensor, action: Tensor, word: Tensor, spec: TextSpec) -> dict[str, Tensor]:
    masked, labels = replace_words(ids, selected, action, _ordinary(word, spec), spec.mask_id)
    return {"token_ids": masked, "labels": labels}


def _ordinary(uniform: Tensor, spec: TextSpec) -> Tensor:
    """Ids (any shape) drawn evenly from those that are not special."""
    special = sorted({i for i in spec.special_ids if 0 <= i < spec.vocab_size})
    count = spec.vocab_size - len(special)
    ids = (uniform * count).long().clamp(max=count - 1)  # float32: 0.99999997 * n may round up to n
    for one in special:  # ascending: the k-th ordinary id is k plus the number of special ones up to it
        ids = ids + (ids >= one)
    return ids
