"""The data that crosses hooks. Shapes: B batch, T frames, C channels, H W pixels, N tokens, D width, L text length, S
audio samples.

A ``Sample`` is what a dataset gives (no tensors), a ``Clip`` what the decoder gives, a ``Batch`` what the loader gives,
``Tokens`` what an encoder gives and ``LossOutput`` what an objective gives. A modality that is missing is a state
(``present`` False, an all-False token mask), never zeros.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from vtp.errors import PluginError, SampleTypeError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

__all__ = [
    "IGNORE",
    "MODALITIES",
    "AudioSpec",
    "Batch",
    "Clip",
    "Field",
    "Fused",
    "LossOutput",
    "MediaRef",
    "Modality",
    "Sample",
    "Space",
    "StepDone",
    "TextSpec",
    "Tokens",
    "VideoSpec",
]

Modality = Literal["video", "audio", "text"]
IGNORE = -100  # integer label of a row or a place that has none, as in torch's cross_entropy
MODALITIES: tuple[Modality, ...] = ("video", "audio", "text")  # the order in which a fusion encoder concatenates them


@dataclass(frozen=True, slots=True, init=False)
class MediaRef:
    """Where media lies: a file, and optionally the span [start, end) of it in seconds. Other types are refused
    (SampleTypeError).

    Attributes:
        path: a file path, or the encoded bytes themselves (as they come out of a tar shard).
        start: first second; None is the beginning.
        end: last second, exclusive; None is the end.
    """

    path: str | bytes
    start: float | None = None
    end: float | None = None

    # Written out, as that of Sample: with its checks it is faster than a generated one without.
    def __init__(self, path: str | bytes, start: float | None = None, end: float | None = None) -> None:
        if (
            (type(path) is not str and type(path) is not bytes)
            or (start is not None and type(start) is not float)
            or (end is not None and type(end) is not float)
        ):
            _check_media_ref(path, start, end)
        _set_path(self, path)
        _set_start(self, start)
        _set_end(self, end)


_set_path, _set_start, _set_end = (vars(MediaRef)[name].__set__ for name in ("path", "start", "end"))


@dataclass(frozen=True, slots=True, init=False)
class Sample:
    """One annotated item of a dataset. Small, picklable, without tensors. Other types are refused (SampleTypeError), a
    single string for ``texts`` among them, which would be read letter by letter.

    Attributes:
        id: unique within its table; a string, also when the file has a number.
        video: the video, or None where the item has none.
        audio: the sound, usually the same file as ``video``; None where the item has none by annotation. (Whether the
            file really has a sound track is found out when it is decoded, and is then a missing modality.)
        texts: captions, paragraph or the question, as they stand in the file.
        labels: what is to be predicted, for example ``{"answer": "red"}``.
        extra: anything else: ``video_id``, which names the clip (:func:`vtp.data.table.media_id`), ``question_type``,
            ``category``, ``source`` (file and line). Batches hold what objectives or the task name in ``reads``.
    """

    id: str
    video: MediaRef | None = None
    audio: MediaRef | None = None
    texts: tuple[str, ...] = ()
    labels: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __init__(
        self,
        id: str,
        video: MediaRef | None = None,
        audio: MediaRef | None = None,
        texts: tuple[str, ...] = (),
        labels: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        labels = {} if labels is None else labels
        extra = {} if extra is None else extra
        if (
            type(id) is not str
            or (video is not None and type(video) is not MediaRef)
            or (audio is not None and type(audio) is not MediaRef)
            or type(texts) is not tuple
            or type(labels) is not dict
            or type(extra) is not dict
        ):
            _check_sample(id, video, audio, texts, labels, extra)
        for text in texts:
            if type(text) is not str:
                _check_sample(id, video, audio, texts, labels, extra)
        _set_id(self, id)
        _set_video(self, video)
        _set_audio(self, audio)
        _set_texts(self, texts)
        _set_labels(self, labels)
        _set_extra(self, extra)


_set_id, _set_video, _set_audio, _set_texts, _set_labels, _set_extra = (
    vars(Sample)[name].__set__ for name in ("id", "video", "audio", "texts", "labels", "extra")
)


def _check_media_ref(path: object, start: object, end: object) -> None:
    """Refuse what is no MediaRef; subclasses and other numbers pass."""
    if not isinstance(path, (str, bytes)):
        _refuse("MediaRef", "path", path, f"the path of a file as a string: {str(path)!r}, or the bytes of one")
    for name, second in (("start", start), ("end", end)):
        if second is not None and (isinstance(second, bool) or not isinstance(second, Real)):
            _refuse("MediaRef", name, second, "a number of seconds or None")


def _check_sample(id: object, video: object, audio: object, texts: object, labels: object, extra: object) -> None:
    """Refuse what is no Sample; subclasses and other mappings pass."""
    if not isinstance(id, str):
        _refuse("Sample", "id", id, f"a string: {str(id)!r}")
    what = f"Sample {id!r}"
    for name, ref in (("video", video), ("audio", audio)):
        if ref is not None and not isinstance(ref, MediaRef):
            _refuse(what, name, ref, "a MediaRef(path) or None")
    if isinstance(texts, str):
        _refuse(what, "texts", texts, "a tuple of strings, of one with a comma behind it: ('a dog',)")
    if not isinstance(texts, tuple) or not all(isinstance(text, str) for text in texts):
        _refuse(what, "texts", texts, "a tuple of strings")
    for name, facts in (("labels", labels), ("extra", extra)):
        if not isinstance(facts, Mapping):
            _refuse(what, name, facts, f"a dict, such as {{{'answer' if name == 'labels' else 'category'!r}: ...}}")


def _refuse(what: str, name: str, value: object, expected: str) -> NoReturn:
    """Raise the error, with the module that made it: the data set's own, where it is one."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") in (__name__, "dataclasses"):
        frame = frame.f_back
    where = f"{frame.f_globals.get('__name__')}, line {frame.f_lineno}"
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    raise SampleTypeError(f"{where}: {what}: {name}={shown} must be {expected}.")


@dataclass(slots=True)
class Clip:
    """Decoded media.

    Attributes:
        frames: uint8 (T, H, W, 3) RGB, or None when the file has no video stream.
        timestamps: float64 (T,), seconds of each frame from the start of the file; empty where the file has pictures,
            but only sound in the span.
        waveform: float32 (channels, S) in [-1, 1], or None when the file has no audio stream.
        sample_rate: of ``waveform``, in Hz; 0 without one.
        sound_start: second of the file at which ``waveform`` begins.
        missing: what was asked for and is not there, with the reason, for example ``{"audio": "no audio stream"}``.
    """

    frames: npt.NDArray[np.uint8] | None = None
    timestamps: npt.NDArray[np.float64] | None = None
    waveform: npt.NDArray[np.float32] | None = None
    sample_rate: int = 0
    missing: dict[str, str] = field(default_factory=dict)
    sound_start: float = 0.0


@dataclass(frozen=True, slots=True)
class VideoSpec:
    """The frames that a video encoder wants. It owns these numbers: changing the encoder changes the pipeline.

    Attributes:
        frames: frames per clip, T.
        size: side of the square input in pixels.
        mean, std: normalisation per RGB channel, of values in [0, 1].
        layout: ``"float"`` gives the encoder ``video`` float (B, T, C, H, W), normalised; ``"uint8"`` gives it the
            decoder's bytes (B, T, H, W, C).
        stride: source frames between two sampled ones, for samplers that use it; None spreads the frames over the whole
            clip.
        squeeze: in evaluation the whole picture is brought to the square, whatever its shape, as the model was trained;
            else the middle of it is cut out.
        resample: how frames are scaled in evaluation: by the ``decoder`` on the way, which is fast and close to
            bilinear; or ``bilinear`` or ``bicubic`` with antialiasing, from frames as they are stored, to the numbers
            of the library that the model was trained with.
    """

    frames: int
    size: int
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    layout: Literal["float", "uint8"] = "float"
    stride: int | None = None
    squeeze: bool = False
    resample: Literal["decoder", "bilinear", "bicubic"] = "decoder"


@dataclass(frozen=True, slots=True)
class Space:
    """Where the pooled vectors of encoders lie that were trained together, the two towers of CLIP: equal for all of
    them, and for no other.

    Attributes:
        name: of the checkpoint that they come from.
        temperature: that their cosines were divided by.
        bias: that was added to the quotients, of towers that were trained with a sigmoid loss (SigLIP); None of others.
    """

    name: str
    temperature: float
    bias: float | None = None


@dataclass(frozen=True, slots=True)
class AudioSpec:
    """The sound that an audio encoder wants: mono float32 of ``sample_rate`` Hz, cut or padded to ``seconds``."""

    sample_rate: int
    seconds: float

    @property
    def samples(self) -> int:
        """Length S of the padded waveform."""
        return round(self.sample_rate * self.seconds)


@dataclass(frozen=True, slots=True)
class TextSpec:
    """The token ids that a text encoder wants.

    Attributes:
        tokenize: maps a list of strings to a list of id lists, special tokens included and truncated to ``max_length``,
            without padding. Picklable or fork-safe: it runs in the loader's workers.
        pad_id, mask_id, cls_id, sep_id: ids of the special tokens, asked from the tokenizer, never assumed.
        special_ids: all ids that masking must leave alone, the unknown-word id included.
        vocab_size: number of ids, for heads that predict words.
        max_length: L at most, special tokens included.
        detokenize: maps ids, special ones among them or not, to a text as it would be read; None if it cannot. An
            unknown word stays its special word.
        words: maps one text to its words as they stand in it, each with its ids: what ``tokenize`` gives without the
            special tokens around, in order, cut off at the same place. None if the tokenizer knows no word boundaries.
            Both travel to loader workers as ``tokenize`` does.
    """

    tokenize: Callable[[list[str]], list[list[int]]]
    pad_id: int
    mask_id: int
    cls_id: int
    sep_id: int
    special_ids: tuple[int, ...]
    vocab_size: int
    max_length: int
    detokenize: Callable[[Sequence[int]], str] | None = None
    words: Callable[[str], list[tuple[str, list[int]]]] | None = None


_FIELD_TYPES = ("float32", "float16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")


@dataclass(frozen=True, slots=True)
class Field:
    """Something of ``Sample.extra`` that an objective or a task wants as a tensor: ``reads = {"boxes": Field((None,
    4))}``.

    Attributes:
        shape: of one value; () is a number. None in the first place is a length of its own in every row, which is
            padded with zeros.
        dtype: of the tensor, by its name in numpy.
    """

    shape: tuple[int | None, ...] = ()
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if not isinstance(self.shape, tuple) or not all(
            (size is None and place == 0) or (type(size) is int and size > 0) for place, size in enumerate(self.shape)
        ):
            raise PluginError(
                f"Field: shape={self.shape!r} must be a tuple of sizes, (3, 4), with None only in the first place: "
                "(None, 4)."
            )
        if self.dtype not in _FIELD_TYPES:
            raise PluginError(f"Field: dtype={self.dtype!r} must be one of {', '.join(_FIELD_TYPES)}.")


@dataclass(slots=True)
class Batch:
    """What a loader yields and a model reads.

    Attributes:
        ids: B sample ids, for the ledger.
        inputs: per modality the tensors that its encoder takes by name:
            ``video``: ``frames`` uint8 (B, T, H, W, 3);
            ``audio``: ``waveform`` float32 (B, S) and ``lengths`` int64 (B,) of real samples;
            ``text``: ``token_ids`` int64 (B, L) and ``attention_mask`` bool (B, L), True = real.
        present: per modality bool (B,), False where the sample lacks it.
        labels: per name a tensor with B rows, for example ``answer`` int64 (B,), -100 = none.
        row_offset: index of the first row in the global batch of this step (over micro-batches and ranks).
        global_rows: rows of that global batch; random masks are drawn for all of them and sliced, so that they do not
            depend on the number of processes or the accumulation.
        step: optimiser step, the other half of the key of random draws.
        total_steps: length of the run, for schedules; None in evaluation.
        extra: lists of B Python objects: always ``video_id``, the clip that each row is about; ``text``, the chosen
            text; ``missing``, where files lack what their samples name, modality -> reason; and what objectives and the
            task name in ``reads``. None in rows without.
        fields: what ``reads`` gives a :class:`Field` or a function for, as tensors with B rows: ``boxes`` (B, L, 4),
            ``boxes.present`` bool (B,), False in rows without, and ``boxes.lengths`` int64 (B,) where it is padded.
        media_rows: where several rows are about one clip, the row of the video and audio inputs that each of the B rows
            uses (never falling); those inputs then have fewer rows than B. None = one each. Who reads inputs through
            the forward context gets B rows; the encoders run once per clip.
    """

    ids: list[str]
    inputs: dict[str, dict[str, Tensor]]
    present: dict[str, Tensor]
    labels: dict[str, Tensor] = field(default_factory=dict)
    row_offset: int = 0
    global_rows: int = 0
    step: int = 0
    extra: dict[str, list[Any]] = field(default_factory=dict)
    media_rows: list[int] | None = None
    total_steps: int | None = None
    fields: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.global_rows = self.global_rows or len(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch with ``function`` applied to every tensor."""
        return Batch(
            ids=self.ids,
            inputs={m: {k: function(v) for k, v in tensors.items()} for m, tensors in self.inputs.items()},
            present={m: function(v) for m, v in self.present.items()},
            labels={k: function(v) for k, v in self.labels.items()},
            row_offset=self.row_offset,
            global_rows=self.global_rows,
            step=self.step,
            extra=self.extra,
            media_rows=self.media_rows,
            total_steps=self.total_steps,
            fields={k: function(v) for k, v in self.fields.items()},
        )

    def to(self, device: Any, non_blocking: bool = True) -> Batch:
        """Copy every tensor to ``device``."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Copy every tensor to page-locked memory (called by ``DataLoader(pin_memory=True)``)."""
        return self.map(lambda tensor: tensor.pin_memory())

    def rows(self, start: int, stop: int) -> Batch:
        """Rows [start, stop) as views; ``row_offset`` moves along, ``global_rows`` stays."""
        cut = self.map(lambda tensor: tensor[start:stop])
        if self.media_rows is not None:
            first, last = self.media_rows[start], self.media_rows[stop - 1] + 1
            for modality in {"video", "audio"} & self.inputs.keys():
                cut.inputs[modality] = {k: v[first:last] for k, v in self.inputs[modality].items()}
            cut.media_rows = [row - first for row in self.media_rows[start:stop]]
        cut.ids = self.ids[start:stop]
        cut.extra = {k: v[start:stop] for k, v in self.extra.items()}
        cut.row_offset = self.row_offset + start
        return cut


@dataclass(slots=True)
class Tokens:
    """A sequence of features of one modality.

    Attributes:
        x: (B, N, D).
        attention_mask: bool (B, N), True = real token. Rows of a missing modality are all False. (A ``mask`` is the
            other way round: True = hidden.)
        grid: (T', H', W') for dense video or (F', S') style grids, None for text.
        index: int64 (B, N) positions of the tokens in the full grid, where only visible ones were encoded; None = all
            of them.
    """

    x: Tensor
    attention_mask: Tensor
    grid: tuple[int, ...] | None = None
    index: Tensor | None = None

    def pooled(self) -> Tensor:
        """Mean over real tokens, (B, D); 0 for rows without any."""
        weight = self.attention_mask.to(self.x.dtype).unsqueeze(-1)  # (B, N, 1)
        return (self.x * weight).sum(1) / weight.sum(1).clamp(min=1)

    def take(self, rows: Tensor) -> Tokens:
        """Tokens of the batch rows ``rows`` (int64, any length), for pairing a text with another video."""
        return Tokens(
            self.x[rows], self.attention_mask[rows], self.grid, None if self.index is None else self.index[rows]
        )


@dataclass(slots=True)
class Fused:
    """What a fusion encoder gives: the tokens per modality after fusion, and one vector per item, ``pooled`` (B, D)."""

    tokens: dict[str, Tokens]
    pooled: Tensor


@dataclass(slots=True)
class LossOutput:
    """What an objective gives for one micro-batch.

    Attributes:
        loss: scalar, the mean over the items that took part. With none, a zero that is connected to the graph.
        metrics: detached scalars to log, such as ``accuracy``; averaged over micro-batches and ranks with ``weight``.
        weight: number of items that took part (tokens for MLM, rows for QA), a detached scalar tensor.
    """

    loss: Tensor
    weight: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepDone:
    """What a part of the model is told after an update of the weights.

    Attributes:
        step: updates done so far, 1 after the first.
        total_steps: length of the run.
    """

    step: int
    total_steps: int
