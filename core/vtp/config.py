"""The typed nodes of the configuration that the core owns. Importing this imports neither torch nor hydra.

``train`` is :class:`vtp.train.config.TrainConfig`. The nodes of components (``dataset``, ``encoder``, ``objectives``,
``task``) have no schema: their keys are the keyword arguments of the component's class, and an unknown one is an error
when it is built.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vtp.errors import ConfigError, UserError

__all__ = ["TOP_LEVEL", "DataConfig", "MediaConfig", "modes"]

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
    "data": "loading: workers, augmentation, limits, what to do with bad files and leaks",
    "media": "decoding",
    "seed": "of everything random",
    "device": "auto, cpu or cuda",
    "kernels": "auto, triton or torch: what computes attention and tube masking",
    "threads": "CPU threads of torch per process; null: the cores that loader workers leave over",
    "profile": "true: record where the time of a training step goes; '20,10,5': steps left alone, timed, traced",
    "run_dir": "folder of this run",
    "resume": "auto, a run folder or a checkpoint: go on exactly where it stopped",
    "restart": "true: with resume, take the weights only and start counting at 0",
    "init_from": "checkpoint whose weights to start from",
    "init_map": "renames of key prefixes for init_from, {old: new}",
    "init_allow_missing": "patterns of the model's parameters that init_from may lack",
    "init_allow_unused": "patterns of what init_from holds and the model has no place for",
    "checkpoint": "what mode=eval and mode=predict use: a run folder or a checkpoint",
}

MODES = ("train", "eval", "predict")


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


@dataclass
class MediaConfig:
    """Decoding of video and sound."""

    backend: str = "auto"  # auto (= pyav), pyav, torchcodec, decord, or one that a plugin offers
    isolate: bool = True  # decode in a child process that can be killed: a hanging or crashing file cannot stop the run
    timeout_s: float = 20.0  # per file; needs isolate
    memory_mb: int = 4096  # address space of the decoding process


@dataclass
class DataConfig:
    """Loading of samples."""

    workers: int = 2  # loader processes; results do not depend on their number
    cache: str | None = None  # folder that `vtp data cache` made: clips are read from it instead of being decoded
    eval_batch: int = 64  # rows per evaluation batch and process
    group: int = 1  # training samples about one clip that share a decode and an encoder pass, such as its questions
    augment: bool = True  # random crops and frame positions in training; false = as in evaluation
    sampler: str = "auto"  # which frames: auto (by the encoder's stride), uniform, segment, dense, every, or a plugin's
    eval_clips: int = 1  # in evaluation: windows of frames spread over a video; features of all views are averaged
    eval_crops: int = 1  # in evaluation: crops along the longer side
    limit_train: float | None = None  # use only so many training samples (>= 1) or this share (< 1)
    limit_eval: float | None = None  # the same for evaluation; the report says so
    max_bad_fraction: float = 0.01  # training fails when more than this share of the files cannot be decoded
    max_missing: float | None = None  # evaluation fails with more misses: a count (>= 1) or a share
    on_leak: str = "refuse"  # clips both in training and test: refuse, or stamp the report with LEAK
    drop: list[str] = field(default_factory=list)  # modalities to leave out, for example [audio]
    val_share: float = 0.1  # carved from train, by video and with the seed, where a data set has no validation split

    def validate(self) -> list[str]:
        """Everything that is wrong, in words."""
        from vtp.media.sampling import find_sampler

        wrong: list[str] = []
        try:
            find_sampler(self.sampler)
        except UserError as error:
            wrong.append(str(error))
        if self.workers < 0:
            wrong.append(f"data.workers={self.workers} must be at least 0")
        if self.group < 1:
            wrong.append(f"data.group={self.group} must be at least 1")
        if self.eval_batch < 1:
            wrong.append(f"data.eval_batch={self.eval_batch} must be at least 1")
        for name in ("eval_clips", "eval_crops"):
            if getattr(self, name) < 1:
                wrong.append(f"data.{name}={getattr(self, name)} must be at least 1")
        for name in ("limit_train", "limit_eval"):
            value: Any = getattr(self, name)
            if value is not None and (value <= 0 or (value > 1 and value != int(value))):
                wrong.append(f"data.{name}={value} must be a share in (0, 1) or a whole number")
        if self.max_missing is not None and self.max_missing < 0:
            wrong.append(f"data.max_missing={self.max_missing} must not be negative")
        if not 0 <= self.max_bad_fraction <= 1:
            wrong.append(f"data.max_bad_fraction={self.max_bad_fraction} must be a share in [0, 1]")
        if self.on_leak not in ("refuse", "stamp"):
            wrong.append(f"data.on_leak={self.on_leak!r} must be refuse or stamp")
        if unknown := [m for m in self.drop if m not in ("video", "audio", "text")]:
            wrong.append(f"data.drop: unknown modality {unknown[0]!r}; known: video, audio, text")
        if not 0 < self.val_share < 1:
            wrong.append(f"data.val_share={self.val_share} must be a share in (0, 1)")
        return wrong
