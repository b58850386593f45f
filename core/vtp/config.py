"""The typed nodes of the configuration that the core owns. Importing this imports neither torch nor hydra.

``train`` is :class:`vtp.train.config.TrainConfig`. The nodes of components (``dataset``, ``encoder``, ``objectives``,
``task``) have no schema: their keys are the keyword arguments of the component's class, and an unknown one is an error
when it is built.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, get_args

from vtp.errors import ConfigError, UserError
from vtp.ranges import Processes, Range, Seed
from vtp.values import converted, misfits, types_of

__all__ = [
    "AUGMENTATIONS",
    "NODES",
    "TOP_LEVEL",
    "TYPES",
    "DataConfig",
    "MediaConfig",
    "modes",
    "typed_nodes",
    "with_types",
]

# Keys that a configuration may have at its top; an experiment file with another one is refused.
TOP_LEVEL = {
    "mode": "what to do: train, eval, predict, joined with + (default train+eval)",
    "task": "what is trained for and how it is measured",
    "dataset": "where samples come from",
    "encoder": "the slots text, video, audio and fusion",
    "objectives": "training losses with their weights, chosen with objective=[...]",
    "variant": "null, or released: compute as the released code of the method does, whatever is wrong with that",
    "masks": "what is hidden of video, audio and text; the objectives share it",
    "train": "the engine: steps, batch, learning rate, precision, checkpoints",
    "callbacks": "what watches training, of plugins: [name, ...], or {name: ..., option: ...} in the list",
    "data": "loading: workers, augmentation, limits, what to do with bad files and leaks",
    "media": "decoding",
    "seed": "of everything random",
    "device": "auto, cpu or cuda",
    "kernels": "auto, triton or torch: what computes attention and tube masking",
    "threads": "CPU threads of torch per process; null: the cores that two loader workers leave over",
    "profile": "true: record where the time of a training step goes; '20,10,5': steps left alone, timed, traced",
    "run_dir": "folder of this run",
    "resume": "auto, a run folder or a checkpoint: go on exactly where it stopped",
    "restart": "true: with resume, take the weights only and start counting at 0",
    "resume_other": "true: with resume, go on although the data set or the task is another one",
    "init_from": "checkpoint whose weights to start from",
    "init_map": "renames of key prefixes for init_from, {old: new}",
    "init_allow_missing": "patterns of the model's parameters that init_from may lack",
    "init_allow_unused": "patterns of what init_from holds and the model has no place for",
    "model_from": "the checkpoint of model=PATH, whose tokenizer and answers are used; set by that",
    "checkpoint": "what mode=eval and mode=predict use: a run folder or a checkpoint",
}

Name = str | None
Node = dict

# What may stand at the top. An option file may leave a slot or a component empty, which is null.
TYPES: dict[str, Any] = {
    "mode": str,
    "task": Node | None,
    "dataset": Node | None,
    "encoder": Node,
    "objectives": Node | None,
    "variant": Name,
    "masks": Node | None,
    "train": Node,
    "callbacks": list[Any] | None,
    "data": Node,
    "media": Node,
    "seed": Seed,
    "device": str,
    "kernels": str,
    "threads": Annotated[int, Range(least=1, most=1024)] | None,
    "run_dir": str,
    "resume": Name,
    "restart": bool,
    "resume_other": bool,
    "init_from": Name,
    "init_map": dict[str, str],
    "init_allow_missing": list[str],
    "init_allow_unused": list[str],
    "model_from": Name,
    "checkpoint": Name,
}

NODES = tuple(key for key, hint in TYPES.items() if Node in (hint, *get_args(hint)))

MODES = ("train", "eval", "predict")

# Keys of ``data`` that vtp.media.transforms.TrainTransform takes by the same names.
AUGMENTATIONS = ("crop_scale", "crop_ratio", "short_side", "decode_size", "flip", "randaugment", "erase")


def modes(text: str) -> list[str]:
    """``"train+eval"`` -> ``["train", "eval"]``.

    Raises:
        ConfigError: for anything but train, eval and predict joined with ``+``.
    """
    parts = [part.strip() for part in str(text).split("+")]
    if unknown := [part for part in parts if part not in MODES]:
        raise ConfigError(
            f"mode={text}: unknown {unknown[0]!r}; join {', '.join(MODES)} with +, for example train+eval"
        )
    return parts


def with_types(config: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved configuration whose numbers are of the types that the core declares: ``train.epochs=3`` as 3.0."""
    out = {key: converted(value, TYPES.get(key)) for key, value in config.items()}
    for node, schema in typed_nodes().items():
        hints = types_of(schema)
        if isinstance(out.get(node), Mapping):
            out[node] = {key: converted(value, hints.get(key)) for key, value in out[node].items()}
    return out


def typed_nodes() -> dict[str, type]:
    """The nodes of the core and their schemas."""
    from vtp.train.config import TrainConfig

    return {"train": TrainConfig, "data": DataConfig, "media": MediaConfig}


@dataclass
class MediaConfig:
    """Decoding of video and sound."""

    backend: str = "auto"  # auto (= pyav), pyav, torchcodec, decord, or one that a plugin offers
    isolate: bool = True  # decode in a child process that can be killed: a hanging or crashing file cannot stop the run
    timeout_s: float = 20.0  # per file; needs isolate
    memory_mb: int = 4096  # address space of the decoding process

    def validate(self) -> list[str]:
        """Everything that is wrong, in words."""
        if misfit := misfits("", vars(self), types_of(MediaConfig)):
            return [f"media.{line}" for line in misfit.values()]
        return [f"media.{line}" for line in self._wrong()]

    def _wrong(self) -> Iterable[str]:
        from vtp.media.backends import find_backend

        try:
            find_backend(self.backend)
        except UserError as error:
            yield str(error).removeprefix("media.")
        if not (self.timeout_s > 0 and math.isfinite(self.timeout_s)):
            yield f"timeout_s={self.timeout_s} must be more than 0 seconds, for example 20"
        if self.memory_mb < 64:
            yield f"memory_mb={self.memory_mb} must be at least 64, for example 4096"


@dataclass
class DataConfig:
    """Loading of samples."""

    workers: Processes = 2  # loader processes; results do not depend on their number
    cache: str | None = None  # folder that `vtp data cache` made: clips are read from it instead of being decoded
    eval_block: int = 16  # rows of a test set that are computed together; the last bits of scores depend on it
    eval_batch: int = 64  # rows whose losses are taken together where these are what is measured (task=pretrain)
    group: int = 1  # training samples about one clip that share a decode and an encoder pass, such as its questions
    augment: bool = True  # random crops and frame positions in training, and what follows; false = as in evaluation
    crop_scale: list[float] = field(default_factory=lambda: [0.5, 1.0])  # share of the picture that a random crop keeps
    crop_ratio: list[float] = field(default_factory=lambda: [3 / 4, 4 / 3])  # width / height of that crop
    short_side: list[int] | None = None  # [256, 320]: scale to a random short side, cut a square, instead of those two
    decode_size: int | None = None  # short side before cropping; null: 8/7 of the encoder's size, 0: as stored
    stills: str = "repeat"  # an image for a video encoder: repeat it as often as frames are wanted, or pad with black
    flip: float = 0.0  # probability of a mirror image; 0 because captions and questions say left and right
    randaugment: list[int] | None = None  # [2, 9]: so many operations of this magnitude, 0 to 30
    erase: float = 0.0  # probability that a box is overwritten with noise
    sampler: str = "auto"  # which frames: auto (by the encoder's stride), uniform, segment, dense, every, or a plugin's
    transforms: dict[str, Any] = field(default_factory=dict)  # {video: [name, ...], audio:, text:}: those of plugins
    train_clips: int = 1  # in training: windows of neighbouring frames of each video, which are encoded one by one
    eval_clips: int = 1  # in evaluation: windows of frames spread over a video; features of all views are averaged
    eval_resize: int | None = None  # in evaluation: short side before the centre crop; null: the encoder's size
    eval_crops: int = 1  # in evaluation: crops along the longer side
    limit_train: float | None = None  # use only so many training samples (>= 1) or this share (< 1)
    limit_eval: float | None = None  # the same for evaluation; the report says so
    max_bad_fraction: float = 0.01  # training fails when more than this share of the files cannot be decoded
    max_missing: float | None = None  # evaluation fails with more misses: a count (>= 1) or a share
    allow_incomplete: bool = False  # exit with 0 although test items could not be evaluated; max_missing=N also says so
    on_leak: str = "refuse"  # clips both in training and test: refuse, or stamp the report with LEAK
    near_duplicates: str | None = None  # report: look for test clips that look like training clips; decodes all once
    drop: list[str] = field(default_factory=list)  # modalities to leave out, for example [audio]
    modality_dropout: dict[str, float] = field(default_factory=dict)  # {audio: 0.3}: in training, withheld so often
    val_share: float = 0.1  # carved from train, by video and with the seed, where a data set has no validation split

    def validate(self) -> list[str]:
        """Everything that is wrong, in words."""
        if misfit := misfits("", vars(self), types_of(DataConfig)):
            return [f"data.{line}" for line in misfit.values()]
        return [f"data.{line}" for line in (*self._wrong(), *self._wrong_augmentation())]

    def _wrong(self) -> Iterable[str]:
        from vtp.media.sampling import find_sampler

        try:
            find_sampler(self.sampler)
        except UserError as error:
            yield str(error).removeprefix("data.")
        for name in ("group", "eval_block", "eval_batch", "train_clips", "eval_clips", "eval_crops"):
            if getattr(self, name) < 1:
                yield f"{name}={getattr(self, name)} must be at least 1"
        if self.eval_resize is not None and self.eval_resize < 1:
            yield f"eval_resize={self.eval_resize} must be a number of pixels, such as 256"
        if self.eval_resize is not None and self.eval_crops > 1:
            yield f"eval_resize={self.eval_resize} is for one centre crop; leave it out where eval_crops are more"
        if self.train_clips > 1 and self.sampler == "every":
            yield f"train_clips={self.train_clips} needs a sampler that takes a set number of frames, not every"
        for name in ("limit_train", "limit_eval"):
            value = getattr(self, name)
            if value is not None and not (0 < value <= 1 or (value > 1 and float(value).is_integer())):
                yield f"{name}={value} must be a share in (0, 1) or a whole number"
        if self.max_missing is not None and not self.max_missing >= 0:
            yield f"max_missing={self.max_missing} must not be negative"
        if not 0 <= self.max_bad_fraction <= 1:
            yield f"max_bad_fraction={self.max_bad_fraction} must be a share in [0, 1]"
        if self.stills not in ("repeat", "pad"):
            yield f"stills={self.stills!r} must be repeat or pad"
        if self.on_leak not in ("refuse", "stamp"):
            yield f"on_leak={self.on_leak!r} must be refuse or stamp"
        if self.near_duplicates not in (None, "report"):
            yield f"near_duplicates={self.near_duplicates!r} must be report, or null"
        if unknown := [m for m in self.drop if m not in ("video", "audio", "text")]:
            yield f"drop: unknown modality {unknown[0]!r}; known: video, audio, text"
        for modality, chosen in self.transforms.items():
            if modality not in ("video", "audio", "text"):
                yield f"transforms: unknown modality {modality!r}; known: video, audio, text"
            elif chosen and modality in self.drop:
                yield f"transforms.{modality}: data.drop leaves {modality} out; name it in one of them"
        for modality, share in self.modality_dropout.items():
            if modality not in ("video", "audio", "text"):
                yield f"modality_dropout: unknown modality {modality!r}; known: video, audio, text"
            elif modality in self.drop:
                yield f"modality_dropout: data.drop leaves {modality} out already; name it in one of them"
            if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share < 1:
                yield f"modality_dropout: {modality}: {share} must be a probability in [0, 1), for example 0.3"
        if not 0 < self.val_share < 1:
            yield f"val_share={self.val_share} must be a share in (0, 1)"

    def _wrong_augmentation(self) -> Iterable[str]:
        if not (len(self.crop_scale) == 2 and 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1):
            yield f"crop_scale={_shown(self.crop_scale)} must be two rising shares in (0, 1], for example [0.5,1.0]"
        if not (len(self.crop_ratio) == 2 and 0 < self.crop_ratio[0] <= self.crop_ratio[1] < math.inf):
            yield f"crop_ratio={_shown(self.crop_ratio)} must be two rising numbers above 0, for example [0.75,1.3333]"
        if self.short_side is not None:
            if not (len(self.short_side) == 2 and 16 <= self.short_side[0] <= self.short_side[1]):
                yield (
                    f"short_side={_shown(self.short_side)} must be two rising numbers of pixels from 16 on, for "
                    "example [256,320]"
                )
            usual = DataConfig()
            for name in ("crop_scale", "crop_ratio", "decode_size"):
                if getattr(self, name) != getattr(usual, name):
                    yield f"{name} has no effect with data.short_side={_shown(self.short_side)}: leave out one of them"
        if self.decode_size is not None and self.decode_size != 0 and self.decode_size < 16:
            yield f"decode_size={self.decode_size} must be at least 16 pixels, 0 for the stored size, or null"
        for name in ("flip", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                yield f"{name}={getattr(self, name)} must be a probability in [0, 1]"
        if self.randaugment is not None and not (
            len(self.randaugment) == 2 and self.randaugment[0] >= 1 and 0 <= self.randaugment[1] <= 30
        ):
            yield (
                f"randaugment={_shown(self.randaugment)} must be a number of operations and a magnitude from 0 to 30, "
                "for example [2,9]"
            )


def _shown(values: Sequence[float]) -> str:
    """As it is written on the command line."""
    return "[" + ",".join(str(value) for value in values) + "]"
