"""From a sample to an example: decode, choose frames and a text, augment, tokenise. Runs in the loader's workers."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from vtp.contracts import Read, Sampler
from vtp.data.bad import BadFiles
from vtp.data.batching import Example
from vtp.data.keys import keyed_generator
from vtp.data.table import media_id
from vtp.data.transforms import OwnTransforms
from vtp.errors import ConfigError
from vtp.media.info import MediaError, VideoInfo
from vtp.media.request import Reader, Wanted
from vtp.media.sampling import dense, random_segment, uniform
from vtp.media.transforms import ClipTransform, TrainTransform, eval_transform
from vtp.types import AudioSpec, Clip, MediaRef, Modality, Sample, TextSpec, VideoSpec

__all__ = ["GIVEN", "Pipeline"]

S = TypeVar("S")

GIVEN = frozenset({"video_id", "text", "missing"})  # what a batch has in ``extra`` without being asked

# key, frames (T, H, W, 3), waveform (S,), what is missing and why
_Media = tuple[Hashable, npt.NDArray[np.uint8] | None, npt.NDArray[np.float32] | None, dict[str, str]]


class Pipeline:
    """Callable ``(sample, epoch, index) -> Example``, a function of its arguments and ``seed`` alone.

    Every random choice (frames, crop, text, cut of the sound) is drawn from a generator keyed by (seed, epoch, index):
    the same item in the same epoch gives the same example in any worker, on any rank, and after a resume. In evaluation
    nothing is random.

    Args:
        specs: what the encoders want, by modality, as ``VTPModel.specs()`` gives it. Modalities that are not in it are
            not read.
        train: random frames, crops and texts; otherwise the middle ones.
        seed: first part of every key.
        labels: from a sample to its labels, for example ``{"answer": 17}``.
        reads: keys of ``Sample.extra`` that the example carries along, and ``texts`` for all texts of a sample: as they
            are, or as tensors. Its clip (``video_id``) and its chosen text always come.
        reader: decodes; None builds a :class:`vtp.media.MediaReader` with its defaults.
        text_choice: which of several texts a row gets: a (keyed) random one, or the first. None is random in training,
            first otherwise.
        drop: modalities that are left out although the samples have them: they come as missing.
        sampler: which frames; None is random segments (TSN) in training and uniform middles in evaluation, or dense
            windows if the video spec has a stride.
        transform: augmentation of the clip; None is :class:`TrainTransform` with its defaults in training,
            :class:`EvalTransform` otherwise.
        transforms: those of plugins, by modality: of frames before the crop or after it, of sound after its cut, of the
            chosen text before it is tokenised.
        clips: windows of frames that the sampler takes, one after the other.
        views: clips of T frames that the transform makes of them, (views, T, H, W, 3) with more than one.
        stills: ``repeat`` gives an image (whatever has one frame) as often as frames are wanted, ``pad`` once, and
            black frames after it.
        memo: in evaluation, how many decoded files each worker remembers, since consecutive questions are often about
            one video.
    """

    def __init__(
        self,
        specs: Mapping[Modality, VideoSpec | AudioSpec | TextSpec],
        *,
        train: bool,
        seed: int = 0,
        labels: Callable[[Sample], Mapping[str, Any]] | None = None,
        reads: Mapping[str, Read] | None = None,
        reader: Reader | None = None,
        text_choice: Literal["random", "first"] | None = None,
        drop: Collection[str] = (),
        sampler: Sampler | None = None,
        transform: ClipTransform | None = None,
        transforms: Mapping[Modality, OwnTransforms] | None = None,
        clips: int = 1,
        views: int = 1,
        stills: Literal["repeat", "pad"] = "repeat",
        memo: int = 8,
    ) -> None:
        if reader is None:
            from vtp.media.isolation import MediaReader

            reader = MediaReader()
        self.specs = dict(specs)
        self.train = train
        self.seed = seed
        self.labels = labels
        reads = reads or {}
        self.reads = tuple(sorted({name for name, read in reads.items() if read.listed} - GIVEN))
        self.fields = {name: read for name, read in reads.items() if read.how is not None}
        self.reader = reader
        self.text_choice = text_choice or ("random" if train else "first")
        self.drop = frozenset(drop)
        self.video_spec = _spec(specs.get("video"), VideoSpec)
        self.audio_spec = _spec(specs.get("audio"), AudioSpec)
        self.text_spec = _spec(specs.get("text"), TextSpec)
        if self.video_spec is not None:
            strided = self.video_spec.stride is not None
            sampler = sampler or (dense if strided else random_segment if train else uniform)
            transform = transform or (
                TrainTransform(self.video_spec.size) if train else eval_transform(self.video_spec)
            )
        self.transforms = dict(transforms or {})
        self.clips = clips
        self.views = views
        self.stills = stills
        self.sampler = sampler
        self.transform = transform
        self.bad: BadFiles | None = None
        self._memo: OrderedDict[Any, Clip] = OrderedDict()
        self._memo_size = 0 if train else memo
        self._last: _Media | None = None

    def __call__(self, sample: Sample, epoch: int, index: int, clip: int | None = None) -> Example:
        """Decode and prepare one sample.

        Args:
            index: its place in the table, which may differ from its id.
            clip: keys the choice of frames, crop and sound in place of ``index``: samples about one clip that are given
                the same number get the same frames, which are then decoded once when they follow each other.

        Raises:
            MediaError: if the sample cannot be used; the loaders turn that into a replacement or a recorded miss.
        """
        example = Example(id=sample.id, labels={} if self.labels is None else self.labels(sample))
        extra = example.extra = {"video_id": media_id(sample)}
        for name in self.reads:
            extra[name] = _of(sample, name)
        media = self._prepared(sample, epoch, index if clip is None else clip)
        key, example.frames, example.waveform, missing = media
        example.missing = missing
        if (clip is not None or not self.train) and any(self.media(sample)):
            example.media = key
        if self.text_spec is not None and sample.texts and "text" not in self.drop:
            text = sample.texts[0]
            if self.text_choice == "random" and len(sample.texts) > 1:
                text = sample.texts[int(self._generator("text", epoch, index).integers(len(sample.texts)))]
            if own := self.transforms.get("text"):
                text = own.text(text, self._draws(epoch, index))
            example.token_ids = self.text_spec.tokenize([text])[0]
            extra["text"] = text
        if example.frames is None and example.waveform is None and example.token_ids is None:
            raise MediaError("; ".join(missing.values()) or "the sample has none of the wanted modalities", "empty")
        if self.fields:
            example.fields = {name: extra[name] if name in extra else _of(sample, name) for name in self.fields}
        return example

    def media(self, sample: Sample) -> tuple[MediaRef | None, MediaRef | None]:
        """The files that this pipeline opens for ``sample``: of the picture and of the sound."""
        return self._wanted("video", sample.video), self._wanted("audio", sample.audio)

    def _prepared(self, sample: Sample, epoch: int, clip: int) -> _Media:
        """Key, frames, sound and what is missing, for one clip in one epoch; the last one is remembered."""
        key = (*self.media(sample), *((epoch, clip) if self.train else ()))
        if self._last is not None and self._last[0] == key:
            return self._last
        missing: dict[str, str] = {}
        decoded = self._decode(sample, epoch, clip, missing)
        frames = waveform = None
        if decoded.frames is not None and self.transform is not None:
            seed = int(self._generator("augment", epoch, clip).integers(2**62)) if self.train else None
            own, draws, frames = self.transforms.get("video"), self._draws(epoch, clip), decoded.frames
            if own is not None:
                windows = frames.reshape(self.clips, -1, *frames.shape[1:])
                windows = own.frames(windows, draws, before_crop=True)
                frames = windows.reshape(-1, *windows.shape[2:])
            frames = self.transform(frames, seed)
            frames = frames if own is None else own.frames(frames, draws, before_crop=False)
            if self.stills == "pad" and decoded.timestamps is not None and np.ptp(decoded.timestamps) == 0:
                frames = frames.copy()
                frames[..., 1:, :, :, :] = 0  # (T, H, W, 3), or with views before
        if decoded.waveform is not None:
            waveform = self._cut_sound(decoded, self.media(sample)[1], epoch, clip)
            if own := self.transforms.get("audio"):
                waveform = own.waveform(waveform, self._draws(epoch, clip))
        self._last = (key, frames, waveform, missing)
        return self._last

    def with_bad(self, bad: BadFiles | None) -> Pipeline:
        """A copy that records every unusable file in ``bad`` and does not open files that are in it."""
        twin = copy.copy(self)
        twin.bad = bad
        twin._memo, twin._last = OrderedDict(), None
        return twin

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_memo": OrderedDict(), "_last": None}

    def _generator(self, what: str, epoch: int, index: int) -> np.random.Generator:
        return keyed_generator(self.seed, what, epoch, index)

    def _draws(self, epoch: int, index: int) -> Callable[[str], np.random.Generator | None]:
        """Gives the generator of a transform by its name; None in evaluation."""
        return lambda name: self._generator(name, epoch, index) if self.train else None

    def _wanted(self, modality: Modality, ref: MediaRef | None) -> MediaRef | None:
        return ref if modality in self.specs and modality not in self.drop else None

    def _decode(self, sample: Sample, epoch: int, index: int, missing: dict[str, str]) -> Clip:
        """Frames and sound of a sample, in one open when they come from the same file and span."""
        video, audio = self.media(sample)
        if video is None or audio is None or video == audio:
            ref = video or audio
            if ref is None:
                return Clip()
            clip = self._read(sample, ref, epoch, index, frames=video is not None, sound=audio is not None)
        else:
            clip = self._read(sample, video, epoch, index, frames=True, sound=False)
            try:
                sound = self._read(sample, audio, epoch, index, frames=False, sound=True)
            except MediaError as error:  # the picture is fine, so the sample is: the sound is a missing modality
                clip = Clip(clip.frames, clip.timestamps, missing={"audio": error.reason})
            else:
                heard = sound.waveform, sound.sample_rate, sound.missing, sound.sound_start
                clip = Clip(clip.frames, clip.timestamps, *heard)
        missing.update(clip.missing)
        return clip

    def _read(self, sample: Sample, ref: MediaRef, epoch: int, index: int, *, frames: bool, sound: bool) -> Clip:
        """One file, from the memo, the list of bad files or the disk."""
        key = (ref, frames, sound)
        if key in self._memo:
            self._memo.move_to_end(key)
            return self._memo[key]
        known = None if self.bad is None else self.bad.find(ref)
        if known is not None:
            raise known
        try:
            clip = self._open(ref, epoch, index, frames=frames, sound=sound)
        except MediaError as error:
            error.backend = error.backend or getattr(self.reader, "backend_name", "")
            if error.kind == "no_audio" and ref == sample.video:
                # A silent film whose picture is withheld: the file is good, and must be used again with its picture.
                return Clip(missing={"audio": error.reason})
            if self.bad is not None:
                self.bad.add(sample, ref, error)
            raise
        if self._memo_size:
            self._memo[key] = clip
            while len(self._memo) > self._memo_size:
                self._memo.popitem(last=False)
        return clip

    def _open(self, ref: MediaRef, epoch: int, index: int, *, frames: bool, sound: bool) -> Clip:
        def times(info: VideoInfo) -> npt.NDArray[Any]:
            assert self.video_spec is not None and self.sampler is not None
            generator = self._generator("frames", epoch, index) if self.train else None
            return self.sampler(info, frames=self.video_spec.frames, stride=self.video_spec.stride, generator=generator)

        wanted = Wanted(
            times=times if frames else None,
            size=self.transform.decode_size if frames and self.transform is not None else None,
            sample_rate=self.audio_spec.sample_rate if sound and self.audio_spec is not None else None,
            video=frames,
        )
        clip = self.reader.read(ref, wanted)
        if frames and clip.frames is None and clip.timestamps is None:  # else the span has sound alone
            raise MediaError(clip.missing.get("video", "no video stream"), "no_video")
        return clip

    def _cut_sound(self, decoded: Clip, ref: MediaRef | None, epoch: int, index: int) -> npt.NDArray[np.float32]:
        """At most ``seconds`` of sound: a random stretch in training, the middle one in evaluation. Sound that begins
        later than the clip has silence before it, so that it stays where it belongs."""
        assert self.audio_spec is not None and decoded.waveform is not None
        channels = decoded.waveform
        waveform: npt.NDArray[np.float32]
        waveform = channels[0] if len(channels) == 1 else channels.mean(0, dtype=np.float32)
        begin = 0.0 if ref is None or ref.start is None else ref.start
        silent = max(0, round((decoded.sound_start - begin) * decoded.sample_rate))
        wanted, spare = self.audio_spec.samples, silent + len(waveform) - self.audio_spec.samples
        start = 0
        if spare > 0:
            start = int(self._generator("sound", epoch, index).integers(spare + 1)) if self.train else spare // 2
        if not silent:
            return waveform[start : start + wanted] if spare > 0 else waveform
        placed = np.zeros(min(wanted, silent + len(waveform)), np.float32)
        heard = waveform[max(start - silent, 0) : max(start + wanted - silent, 0)]
        before = max(silent - start, 0)
        placed[before : before + len(heard)] = heard
        return placed


def _of(sample: Sample, name: str) -> Any:
    """Something that is read of a sample, None where it lacks it."""
    return sample.texts if name == "texts" else sample.extra.get(name)


def _spec(spec: object, kind: type[S]) -> S | None:
    if spec is not None and not isinstance(spec, kind):
        raise TypeError(f"an encoder declared {spec!r}, expected a {kind.__name__}")
    if isinstance(spec, VideoSpec) and (spec.frames < 1 or spec.size < 1):
        raise ConfigError(
            f"the video encoder asks for {spec.frames} frames of {spec.size} pixels: both must be positive."
        )
    if isinstance(spec, AudioSpec) and (spec.sample_rate < 1 or spec.samples < 1):
        raise ConfigError(
            f"the audio encoder asks for {spec.seconds} s of sound at {spec.sample_rate} Hz: both must be positive."
        )
    return spec
