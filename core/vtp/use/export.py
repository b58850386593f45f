"""ONNX of the parts of a model: of each tower, from what an encoder takes in to the embedding that similarity compares;
and of all encoders with the fusion encoder and the head behind it.

    OUT/video.onnx   video (B, T, 3, H, W) float32, normalised, or uint8 (B, T, H, W, 3) where the encoder takes bytes
    OUT/text.onnx    token_ids (B, L) int64, attention_mask (B, L) bool
    OUT/audio.onnx   waveform (B, S) float32, lengths (B,) int64
    OUT/fused.onnx   what all encoders take
    OUT/NAME.data    the weights of NAME.onnx where they are more than a file of ONNX holds
    OUT/export.json  what goes in and how it is prepared, and how far onnxruntime's numbers are from torch's
    OUT/assets/      the files of the tokenizer

A tower gives ``embeddings`` (B, E) float32 of unit length. The fused model gives ``logits``: (B, A), a number per
answer or class, or (B, 2), no match and match; where it hears, a row without sound has ``lengths`` 0. B is free, and so
is L.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import vtp
from vtp.config import DataConfig
from vtp.contracts import Objective, Part, member, offers
from vtp.errors import ConfigError
from vtp.model.context import ForwardContext
from vtp.run.check import lacks
from vtp.storage import ELSEWHERE, DirectoryTransaction, write_json_atomic
from vtp.types import MODALITIES, AudioSpec, Batch, Modality, TextSpec, VideoSpec
from vtp.use.model import Model

__all__ = ["FUSED", "TOLERANCE", "Exported", "export", "libraries", "parts_of"]

log = logging.getLogger("vtp")
TOLERANCE = 1e-4  # of an embedding of unit length: the largest difference of one of its numbers
_ROWS = (1, 3)  # batches that are compared; exported is one of 2
_EMBEDDINGS = "embeddings"  # not "embedding": a node of that name is in every text model, and torch renames neither
_LOGITS = "logits"
FUSED = "fused"
_SIZES = {"batch": "the number of rows", "length": "the length of texts"}  # that stay free, as torch.export calls them
WHOLE = 1_900_000_000  # bytes of weights that one file holds: protobuf ends at 2**31
_TEXT = "a dog runs"
_CHOSEN = ("sampler", "eval_clips", "eval_crops", "eval_resize", "stills")  # what decides which pixels are seen
_NAMES: dict[Modality, tuple[str, ...]] = {
    "video": ("video",),
    "audio": ("waveform", "lengths"),
    "text": ("token_ids", "attention_mask"),
}
_NEEDED = ("onnx", "onnxscript", "onnxruntime")


@dataclass(slots=True)
class Exported:
    """What became of one part.

    Attributes:
        part: modality of a tower, or ``fused``.
        error: why there is none; "" if there is.
        difference: largest one between onnxruntime's numbers and torch's.
    """

    part: str
    error: str = ""
    difference: float | None = None


class _Context(ForwardContext):
    """Of some modalities that all rows have, however many they are; sound alone may be lacking."""

    def __init__(self, model: Any, inputs: dict[Modality, dict[str, Tensor]]) -> None:
        super().__init__(model, Batch([], {str(modality): tensors for modality, tensors in inputs.items()}, {}))
        self._rows = next(iter(next(iter(inputs.values())).values()))
        self._views |= {(modality, ""): dict(tensors) for modality, tensors in inputs.items()}  # normalised already
        self._lengths = inputs["audio"]["lengths"] if "audio" in inputs and len(inputs) > 1 else None

    def present(self, modality: str) -> Tensor:
        if modality == "audio" and self._lengths is not None:
            return self._lengths > 0
        return torch.ones(self._rows.shape[0], dtype=torch.bool, device=self._rows.device)

    def _holds(self, modality: str) -> bool:
        return True


class _Part(nn.Module):
    """Tensors of some modalities in, embeddings or logits out.

    Attributes:
        part: modality of a tower, or ``fused``.
        reads: the modalities whose tensors go in, in the order of their names.
        output: name of what comes out.
    """

    def __init__(self, module: Any, objective: str, part: str) -> None:
        super().__init__()
        self.model, self.part, self._objective = module, part, objective
        self.output = _LOGITS if part == FUSED else _EMBEDDINGS
        specs = module.specs()
        wanted: Sequence[str] = (part,)
        if part == FUSED:
            wanted = [*specs]
        elif embeds := member(module.objectives[objective], Objective, "embeds"):
            wanted = embeds.get(part, (part,))
        self.reads = tuple(modality for modality in MODALITIES if modality in wanted and modality in specs)

    def forward(self, *tensors: Tensor) -> Tensor:
        left = iter(tensors)
        ctx = _Context(self.model, {m: {name: next(left) for name in _NAMES[m]} for m in self.reads})
        objective: Any = self.model.objectives[self._objective]
        found: Tensor
        if self.part != FUSED:
            found = objective.embed(ctx, self.part)
        else:
            found = objective.logits(ctx) if offers(objective, "logits") else objective.match_logits(ctx)
        return found.float()

    def example(self, rows: int) -> dict[str, Tensor]:
        """What goes in, by name; with three rows, the last one of several modalities has no sound."""
        found: dict[str, Tensor] = {}
        for modality in self.reads:
            tensors = _example(self.model, modality, rows)
            if modality == "audio" and rows == _ROWS[-1] and len(self.reads) > 1:
                tensors = {name: torch.cat([tensor[:-1], 0 * tensor[-1:]]) for name, tensor in tensors.items()}
            found |= tensors
        return found


def export(
    model: Model,
    folder: Path,
    *,
    objective: str | None = None,
    towers: Sequence[str] = (),
    opset: int = 20,
) -> list[Exported]:
    """Write what exports, and say what became of each part.

    Args:
        folder: new. There is none afterwards if nothing exports.
        objective: whose embeddings or logits; None = the first that embeds, or else that has logits.
        towers: some of the parts: modalities, ``fused``; empty = all that the objective has.
        opset: of ONNX.

    Raises:
        ConfigError: onnx, onnxscript or onnxruntime is not installed, the model has nothing to export, the folder is
            there.
    """
    libraries()
    parts = parts_of(model)
    if not parts or (objective is not None and objective not in parts):
        raise ConfigError(lacks("embeds, answers or matches", objective, parts, model.modalities))
    space = objective or next(iter(parts))
    if lacking := [part for part in towers if part not in parts[space]]:
        raise ConfigError(
            f"{space} has {' and '.join(parts[space])} to export, and no {lacking[0]}."
            + "".join(f" --objective {name} has." for name in parts if lacking[0] in parts[name])
        )
    chosen = [part for part in parts[space] if not towers or part in towers]
    if folder.exists():
        raise ConfigError(f"{folder} is there already. Name a new folder.")
    module = model.module.cpu().float().eval()
    done: list[Exported] = []
    about: dict[str, Any] = {
        "format": 1,
        "vtp": vtp.__version__,
        "objective": space,
        "tolerance": TOLERANCE,
        "towers": {},
    }
    size = 2 * sum(tensor.nbytes for tensor in module.state_dict().values())
    with contextlib.suppress(_NothingError), DirectoryTransaction(folder, size, ELSEWHERE) as inside:
        for name in chosen:
            part, file = _Part(module, space, name).eval(), inside / f"{name}.onnx"
            one = _exported(part, file, opset)
            done.append(one)
            told: dict[str, Any] = {"error": one.error}
            if not one.error:
                told = {"file": file.name, "difference": one.difference, "output": part.output}
                if (data := _data_of(file)).exists():
                    told["data"] = data.name
            about["towers"][name] = told | _inputs_of(model, part)
            if "text" in part.reads and not one.error:
                _assets(module, inside / "assets")
        if all(one.error for one in done):
            raise _NothingError
        write_json_atomic(inside / "export.json", about)
    return done


def parts_of(model: Model) -> dict[str, list[str]]:
    """The objectives of a model of which something can be exported, and what of each: towers, ``fused``. First those
    that embed, in the order of :meth:`Model.compared`."""
    parts = {name: [str(m) for m in MODALITIES if m in compared] for name, compared in model.compared().items()}
    for name, objective in model.module.objectives.items():
        if offers(objective, "logits") or offers(objective, "match_logits"):
            parts.setdefault(name, []).append(FUSED)
    return parts


class _NothingError(Exception):
    """Nothing exports, so that there is no folder to write."""


def libraries() -> None:
    """Refuse where a library of :func:`export` is missing.

    Raises:
        ConfigError: onnx, onnxscript or onnxruntime cannot be imported.
    """
    for package in _NEEDED:
        try:
            import_module(package)
        except ImportError as error:
            raise ConfigError(
                f"export needs the package {package}, which cannot be imported ({error}). Get all of it with: "
                f"pip install {' '.join(_NEEDED)}"
            ) from error


def _exported(part: _Part, file: Path, opset: int) -> Exported:
    """Export one part and compare it."""
    import onnxruntime

    named = part.example(2)
    names, example = [*named], [*named.values()]
    batch = torch.export.Dim("batch", min=1, max=4096)
    free: dict[str, Any] = {name: {0: batch} for name in names}
    if "text" in part.reads:
        length = torch.export.Dim("length", min=2, max=_spec(part.model, "text").max_length)
        free |= {name: {0: batch, 1: length} for name in _NAMES["text"]}
    dynamic = tuple(free.values())
    try:
        with torch.inference_mode(False), torch.no_grad(), _quiet():
            part(*example)  # the checks of the first pass are done with
            # Captured here: torch.onnx.export itself makes a size that does not move into a constant, without a word.
            program = torch.export.export(part, tuple(example), dynamic_shapes=(dynamic,), strict=False)
            weights = sum(
                t.nbytes for t in (*program.state_dict.values(), *program.constants.values()) if _is_tensor(t)
            )
            torch.onnx.export(
                program,
                (),
                str(file),
                input_names=names,
                output_names=[part.output],
                opset_version=opset,
                dynamo=True,
                custom_translation_table=_windows(),
                external_data=weights > WHOLE,
                verbose=False,
            )
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        difference = 0.0
        for rows in _ROWS:
            given = part.example(rows)
            with torch.no_grad():
                want = part(*given.values()).numpy()
            wanted = {entry.name for entry in session.get_inputs()}  # an input that nothing reads is left out
            got = session.run([part.output], {name: one.numpy() for name, one in given.items() if name in wanted})[0]
            difference = max(difference, float(np.abs(got - want).max()))
    except Exception as error:  # of any kind: what cannot be exported is said, and the rest goes on
        _remove(file)
        return Exported(part.part, _reason(error))
    if not difference <= TOLERANCE:
        _remove(file)
        return Exported(part.part, f"onnxruntime gives other numbers: {difference:.2g} apart, allowed {TOLERANCE:g}")
    return Exported(part.part, difference=difference)


def _data_of(file: Path) -> Path:
    """Where torch writes the weights that do not go into a file."""
    return file.with_name(f"{file.name}.data")


def _remove(file: Path) -> None:
    for one in (file, _data_of(file)):
        one.unlink(missing_ok=True)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _windows() -> dict[Any, Any]:
    """Windows of spectrograms, which torch's exporter does not know and ONNX does."""
    op: Any = import_module("onnxscript").opset18

    def hann(window_length: int, periodic: bool = True, **how: Any) -> Any:
        return op.HannWindow(op.Constant(value_int=window_length), periodic=int(periodic))

    return {torch.ops.aten.hann_window.default: hann, torch.ops.aten.hann_window.periodic: hann}


def _example(module: Any, modality: Modality, rows: int) -> dict[str, Tensor]:
    """What goes in, by name, of ``rows`` rows."""
    spec, draw = _spec(module, modality), torch.Generator().manual_seed(rows)
    if isinstance(spec, VideoSpec):
        shape = (rows, spec.frames, spec.size, spec.size, 3)
        frames = torch.randint(256, shape, generator=draw, dtype=torch.uint8)
        return {"video": module.normalize_video(frames)}
    if isinstance(spec, AudioSpec):
        lengths = torch.full((rows,), spec.samples, dtype=torch.int64)
        return {"waveform": 0.1 * torch.randn(rows, spec.samples, generator=draw), "lengths": lengths}
    texts = ["a dog runs over the grass", "two", "a ball", "red boxes move"][:rows]
    ids = [row[: spec.max_length] for row in spec.tokenize(texts)]
    length = max(4, *map(len, ids))
    token_ids = torch.tensor([row + [spec.pad_id] * (length - len(row)) for row in ids])
    mask = torch.tensor([[place < len(row) for place in range(length)] for row in ids])
    return {"token_ids": token_ids, "attention_mask": mask}


def _inputs_of(model: Model, part: _Part) -> dict[str, Any]:
    """How what goes into a part is made; of several modalities by modality."""
    told = {modality: _preparing(model, modality) for modality in part.reads}
    if part.part in told and len(told) == 1:
        return told[part.reads[0]]
    inputs = {name: shape for one in told.values() for name, shape in one.pop("inputs").items()}
    answers = {"answers": [*model.module.answers]} if part.part == FUSED and model.module.answers else {}
    return {"inputs": inputs, "reads": told, **answers}


def _preparing(model: Model, modality: Modality) -> dict[str, Any]:
    """How what goes in is made."""
    spec = _spec(model.module, modality)
    if isinstance(spec, TextSpec):
        # What stands around a text, such as an instruction, is no part of the tokenizer's files.
        return {
            "example": {"text": _TEXT, "token_ids": spec.tokenize([_TEXT])[0]},
            "inputs": {"token_ids": ["batch", "length"], "attention_mask": ["batch", "length"]},
            "max_length": spec.max_length,
            "pad_id": spec.pad_id,
            "tokenizer": "assets/encoders/text",
        }
    told: dict[str, Any] = asdict(spec)
    if isinstance(spec, AudioSpec):
        return {"inputs": {"waveform": ["batch", spec.samples], "lengths": ["batch"]}, **told}
    picture = [3, spec.size, spec.size] if spec.layout == "float" else [spec.size, spec.size, 3]
    data = DataConfig(**model.shown())
    chosen = {key: getattr(data, key) for key in _CHOSEN}
    return {
        "inputs": {"video": ["batch", spec.frames, *picture]},
        **told,
        **chosen,
        "range": "0 to 1 before mean and std",
    }


def _spec(module: Any, modality: Modality) -> Any:
    return module.specs()[modality]


def _assets(module: Any, folder: Path) -> None:
    """The files of the text encoder."""
    save_assets = member(module.encoders["text"], Part, "save_assets")
    if save_assets is not None and not folder.exists():  # several parts may read texts
        (folder / "encoders" / "text").mkdir(parents=True)
        save_assets(folder / "encoders" / "text")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter writes pages on the screen."""
    before = {name: logging.getLogger(name).level for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")}
    for name in before:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _reason(error: BaseException) -> str:
    """The innermost cause, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if fixed := re.match(r"Constraints violated \((.*?)\)", lines[0] if lines else ""):
        sizes = " and ".join(_SIZES.get(name, name) for name in fixed[1].split(", "))
        return f"torch.export makes a constant of {sizes}, which must stay free"
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
