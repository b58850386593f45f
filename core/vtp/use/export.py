"""ONNX of the towers of a model: from what an encoder takes in to the embedding that similarity compares.

    OUT/video.onnx   video (B, T, 3, H, W) float32, normalised, or uint8 (B, T, H, W, 3) where the encoder takes bytes
    OUT/text.onnx    token_ids (B, L) int64, attention_mask (B, L) bool
    OUT/audio.onnx   waveform (B, S) float32, lengths (B,) int64
    OUT/export.json  what goes in and how it is prepared, and how far onnxruntime's numbers are from torch's
    OUT/assets/      the files of the tokenizer

Each gives ``embeddings`` (B, E) float32 of unit length; B is free, and so is L.
"""

from __future__ import annotations

import contextlib
import io
import logging
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
from vtp.contracts import Part, member
from vtp.errors import ConfigError
from vtp.eval.embedding import embedding
from vtp.model.context import ForwardContext
from vtp.storage import ELSEWHERE, DirectoryTransaction, write_json_atomic
from vtp.types import MODALITIES, AudioSpec, Batch, Modality, TextSpec, VideoSpec
from vtp.use.model import Model, lacks

__all__ = ["TOLERANCE", "Exported", "export", "libraries"]

log = logging.getLogger("vtp")
TOLERANCE = 1e-4  # of an embedding of unit length: the largest difference of one of its numbers
_ROWS = (1, 3)  # batches that are compared; exported is one of 2
_OUTPUT = "embeddings"  # not "embedding": a node of that name is in every text model, and torch renames neither
_TEXT = "a dog runs"
_CHOSEN = ("sampler", "eval_clips", "eval_crops", "eval_resize", "stills")  # what decides which pixels are seen
_NEEDED = ("onnx", "onnxscript", "onnxruntime")


@dataclass(slots=True)
class Exported:
    """What became of one tower.

    Attributes:
        modality: of it.
        error: why there is none; "" if there is.
        difference: largest one between onnxruntime's numbers and torch's.
    """

    modality: Modality
    error: str = ""
    difference: float | None = None


class _Context(ForwardContext):
    """Of one modality that all rows have, however many they are."""

    def __init__(self, model: Any, modality: Modality, tensors: dict[str, Tensor]) -> None:
        super().__init__(model, Batch([], {modality: tensors}, {}))
        self._rows = next(iter(tensors.values()))
        self._views[modality, ""] = dict(tensors)  # as the encoder takes them: video is normalised already

    def present(self, modality: str) -> Tensor:
        return torch.ones(self._rows.shape[0], dtype=torch.bool, device=self._rows.device)

    def _holds(self, modality: str) -> bool:
        return True


class _Tower(nn.Module):
    """Tensors of one modality in, embedding out."""

    def __init__(self, model: Any, modality: Modality, space: str, names: list[str]) -> None:
        super().__init__()
        self.model = model
        self._modality, self._names = modality, names
        self._embed = embedding(space, modality)

    def forward(self, *tensors: Tensor) -> Tensor:
        found = self._embed(_Context(self.model, self._modality, dict(zip(self._names, tensors, strict=True))))
        return found["embedding"].float()


def export(
    model: Model,
    folder: Path,
    *,
    objective: str | None = None,
    towers: Sequence[Modality] = (),
    opset: int = 20,
) -> list[Exported]:
    """Write what exports, and say what became of each tower.

    Args:
        folder: new. There is none afterwards if no tower exports.
        objective: in whose space; None = the first that embeds.
        towers: some of them; empty = all that the objective compares.
        opset: of ONNX.

    Raises:
        ConfigError: onnx, onnxscript or onnxruntime is not installed, the model embeds nothing, the folder is there.
    """
    libraries()
    compared = model.compared()
    if not compared or (objective is not None and objective not in compared):
        raise ConfigError(lacks("embeds", objective, compared, model.modalities))
    space = objective or next(iter(compared))
    there = [m for m in MODALITIES if m in compared[space]]
    if lacking := [m for m in towers if m not in there]:
        raise ConfigError(f"{space} compares {' and '.join(there)}, and there is no tower of {lacking[0]} to export.")
    chosen = [m for m in there if not towers or m in towers]
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
        for modality in chosen:
            one = _exported(module, modality, space, inside / f"{modality}.onnx", opset)
            done.append(one)
            told = {"error": one.error} if one.error else {"file": f"{modality}.onnx", "difference": one.difference}
            about["towers"][modality] = {**told, **_preparing(model, modality)}
            if modality == "text" and not one.error:
                _assets(module, inside / "assets")
        if all(one.error for one in done):
            raise _NothingError
        write_json_atomic(inside / "export.json", about)
    return done


class _NothingError(Exception):
    """No tower exports, so that there is no folder to write."""


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


def _exported(module: Any, modality: Modality, space: str, file: Path, opset: int) -> Exported:
    """Export one tower and compare it."""
    import onnxruntime

    names, example = _example(module, modality, 2)
    tower = _Tower(module, modality, space, names).eval()
    batch = torch.export.Dim("batch", min=1, max=4096)
    length = torch.export.Dim("length", min=2, max=_spec(module, "text").max_length) if modality == "text" else None
    dynamic = tuple({0: batch, 1: length} if length is not None else {0: batch} for _ in names)
    try:
        with torch.inference_mode(False), torch.no_grad(), _quiet():
            tower(*example)  # the checks of the first pass are done with
            # Captured here: torch.onnx.export itself makes a size that does not move into a constant, without a word.
            program = torch.export.export(tower, tuple(example), dynamic_shapes=(dynamic,), strict=False)
            torch.onnx.export(
                program,
                (),
                str(file),
                input_names=names,
                output_names=[_OUTPUT],
                opset_version=opset,
                dynamo=True,
                custom_translation_table=_windows(),
                external_data=False,
                verbose=False,
            )
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        difference = 0.0
        for rows in _ROWS:
            _, given = _example(module, modality, rows)
            with torch.no_grad():
                want = tower(*given).numpy()
            fed = {name: tensor.numpy() for name, tensor in zip(names, given, strict=True)}
            wanted = {entry.name for entry in session.get_inputs()}  # an input that nothing reads is left out
            got = session.run([_OUTPUT], {name: value for name, value in fed.items() if name in wanted})[0]
            difference = max(difference, float(np.abs(got - want).max()))
    except Exception as error:  # of any kind: what cannot be exported is said, and the rest goes on
        file.unlink(missing_ok=True)
        return Exported(modality, _reason(error))
    if not difference <= TOLERANCE:
        file.unlink()
        return Exported(modality, f"onnxruntime gives other numbers: {difference:.2g} apart, allowed {TOLERANCE:g}")
    return Exported(modality, difference=difference)


def _windows() -> dict[Any, Any]:
    """Windows of spectrograms, which torch's exporter does not know and ONNX does."""
    op: Any = import_module("onnxscript").opset18

    def hann(window_length: int, periodic: bool = True, **how: Any) -> Any:
        return op.HannWindow(op.Constant(value_int=window_length), periodic=int(periodic))

    return {torch.ops.aten.hann_window.default: hann, torch.ops.aten.hann_window.periodic: hann}


def _example(module: Any, modality: Modality, rows: int) -> tuple[list[str], list[Tensor]]:
    """What goes in, by name, of ``rows`` rows."""
    spec, draw = _spec(module, modality), torch.Generator().manual_seed(rows)
    if isinstance(spec, VideoSpec):
        shape = (rows, spec.frames, spec.size, spec.size, 3)
        frames = torch.randint(256, shape, generator=draw, dtype=torch.uint8)
        return ["video"], [module.normalize_video(frames)]
    if isinstance(spec, AudioSpec):
        lengths = torch.full((rows,), spec.samples, dtype=torch.int64)
        return ["waveform", "lengths"], [0.1 * torch.randn(rows, spec.samples, generator=draw), lengths]
    texts = ["a dog runs over the grass", "two", "a ball", "red boxes move"][:rows]
    ids = [row[: spec.max_length] for row in spec.tokenize(texts)]
    length = max(4, *map(len, ids))
    token_ids = torch.tensor([row + [spec.pad_id] * (length - len(row)) for row in ids])
    mask = torch.tensor([[place < len(row) for place in range(length)] for row in ids])
    return ["token_ids", "attention_mask"], [token_ids, mask]


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
    if save_assets is not None:
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
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
