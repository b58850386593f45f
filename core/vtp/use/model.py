"""A model to use: embeddings, similarities, answers and captions of files, and its way to a folder and to the hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from vtp.config import DataConfig, MediaConfig
from vtp.contracts import Encoder, Objective, member, offers
from vtp.errors import ConfigError, DataError
from vtp.eval.embedding import compare_embeddings, compared_by, embedding
from vtp.eval.evaluator import Collected, Evaluator
from vtp.media.given import GivenReader
from vtp.model.model import VTPModel
from vtp.model.weights import CONFIG, WEIGHTS, save_weights
from vtp.ranges import Count
from vtp.run.check import contrast
from vtp.run.data import RunData
from vtp.shown import one_line
from vtp.storage import ELSEWHERE, DirectoryTransaction, write_text_atomic
from vtp.types import MODALITIES, Modality, TextSpec
from vtp.use.ahead import Ahead
from vtp.use.inputs import Items, array_of, text_of
from vtp.values import fits, spell

__all__ = ["Answer", "Encoded", "Model"]

_NAMED = 5  # bad files that an error names
# What of ``data`` decides what a model is shown.
_SHOWN = ("sampler", "eval_clips", "eval_crops", "eval_resize", "stills", "drop", "transforms", "train_clips")
_ABILITIES = {
    "logits": ("answers questions", "task=qa objective=[qa]"),
    "generate": ("writes captions", "objective=[caption]"),
}
_PLURAL = {"video": "videos", "audio": "sounds", "text": "texts"}


@dataclass(frozen=True, slots=True)
class Encoded:
    """Embeddings of unit length, a row for each item in its order.

    Attributes:
        videos, texts, audios: float32 (N, E), or (N, n, E) of a model with n vectors per clip; None where no list was
            given. Rows of items that cannot be used are NaN.
        bad: item -> why it cannot be used: a path with its span, or ``videos[3]``.
    """

    videos: Any = None
    texts: Any = None
    audios: Any = None
    bad: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a question.

    Attributes:
        text: the likeliest of the model's list.
        probability: of it, among all answers of the list.
        ranking: the first answers with their probabilities, likeliest first.
    """

    text: str
    probability: float
    ranking: tuple[tuple[str, float], ...] = ()


class _NoTask:
    """Stands where a run has its task: nothing is labelled."""

    name = "use"


class Model:
    """What :func:`vtp.load` gives.

    Args:
        module: the composed model, filled.
        provenance: what its checkpoint says of where it comes from.
        device, precision: of the forward pass.
        workers: processes that decode; 0 decodes in this one.

    Attributes:
        module: the ``nn.Module``, in evaluation mode on ``device``.
        provenance: as given.
    """

    def __init__(
        self,
        module: VTPModel,
        provenance: Mapping[str, Any] | None = None,
        *,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        workers: int = 2,
    ) -> None:
        self.module = module.to(device).eval()
        self.device = torch.device(device)
        self.precision = precision
        self.workers = workers
        self.provenance = dict(provenance or {})

    @classmethod
    def from_pretrained(cls, name: str | Path, **how: Any) -> Model:
        """:func:`vtp.load` of a folder or of ``organisation/name`` on the hub, by the name that people look for."""
        from vtp.use.loading import load

        return load(name, **how)

    def __repr__(self) -> str:
        parts = ", ".join(f"{slot}={options['name']}" for slot, options in self._slots().items())
        objectives = ", ".join(self.module.objectives) or "none"
        return f"<vtp.Model {parts}; objectives: {objectives}; {self.device}>"

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What it takes in."""
        return tuple(modality for modality in MODALITIES if modality in self.module.specs())

    @property
    def embeds(self) -> tuple[Modality, ...]:
        """What :meth:`encode` has embeddings of."""
        able = [one for one in self.module.objectives.values() if offers(one, "embed")]
        found = {modality for objective in able for modality in compared_by(objective)}
        return tuple(modality for modality in MODALITIES if modality in found)

    @property
    def tasks(self) -> tuple[Literal["encode", "answer", "caption"], ...]:
        """Which of the methods of these names it can do."""
        objectives, specs = self.module.objectives, self.module.specs()
        read = [n for n in self._able("logits") if "text" in member(objectives[n], Objective, "needs")]
        spoken = isinstance(text := specs.get("text"), TextSpec) and text.detokenize is not None
        can = {
            "encode": self.embeds,
            "answer": read and self.module.answers,
            "caption": spoken and self._able("generate"),
        }
        return tuple(name for name, able in can.items() if able)  # type: ignore[misc]

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of what it is made of and of every tensor: equal for models that compute the same."""
        total = hashlib.sha256(json.dumps([self.module.spec, self.shown()], sort_keys=True).encode())
        for name, tensor in sorted(self.module.state_dict().items()):
            data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            total.update(data.numpy())
        return total.hexdigest()

    # -- embeddings ----------------------------------------------------------------------------------------------------

    def encode(
        self,
        videos: Iterable[Any] | None = None,
        texts: Iterable[str] | None = None,
        audios: Iterable[Any] | None = None,
        *,
        batch_size: int = 32,
        objective: str | None = None,
        on_bad: Literal["raise", "nan"] = "raise",
        tensors: Literal["numpy", "torch"] = "numpy",
        progress: bool = True,
    ) -> Encoded:
        """Embed lists of videos, texts and sounds, each on its own, in the space in which the model compares them.

        Args:
            videos: paths (images are videos of one frame), spans ``(path, start, end)`` in seconds, bytes of files, or
                frames as uint8 (T, H, W, 3) RGB. A model that hears what it sees reads the sound of the file as well.
            texts: strings.
            audios: paths of sounds or of videos with sound, spans, bytes, or ``(waveform, sample rate)`` with floats
                (S,) or (channels, S) in [-1, 1].
            batch_size: items at a time.
            objective: whose space it is, where several objectives embed what is given.
            on_bad: what happens when files cannot be used: ``raise`` names them, after all have been tried; ``nan``
                fills their rows with NaN and names them in ``bad``.
            tensors: what is returned, arrays of NumPy or tensors of torch on the CPU.
            progress: show a bar on a terminal.

        Raises:
            DataError: an item is of the wrong kind, or files cannot be used.
            ConfigError: the model has no embeddings of one of the three.
        """
        if on_bad not in ("raise", "nan") or tensors not in ("numpy", "torch"):
            raise ConfigError(f"encode: on_bad={on_bad!r} must be raise or nan, tensors={tensors!r} numpy or torch.")
        _check("encode", batch_size=(batch_size, Count))
        given = {"videos": videos, "texts": texts, "audios": audios}
        lists: dict[Modality, Any] = {m: given[f"{m}s"] for m in MODALITIES if given[f"{m}s"] is not None}
        if not lists:
            raise ConfigError("encode: give at least one of videos=[...], texts=[...], audios=[...].")
        space = self.space([*lists], objective)
        found: dict[str, Any] = {}
        bad: dict[str, str] = {}
        for modality, items in lists.items():
            listed = Items.of(modality, items)
            rows, reasons = self.embed(listed, modality, space, batch_size=batch_size, progress=progress)
            bad |= {listed.names[place]: reason for place, reason in reasons.items()}
            if reasons and (on_bad == "raise" or len(reasons) == len(listed.samples)):
                raise DataError(self._bad(reasons, listed, f"{modality}s"))
            found[f"{modality}s"] = torch.from_numpy(rows) if tensors == "torch" else rows
        return Encoded(**found, bad=bad)

    def embed(
        self, items: Items, modality: Modality, space: str, *, batch_size: int = 32, progress: bool = False
    ) -> tuple[Any, dict[int, str]]:
        """What :meth:`encode` does with one list, whatever is wrong with its files.

        Args:
            items: of ``modality``.
            space: the objective that embeds.

        Returns:
            float32 (N, E) or (N, n, E), NaN in rows that cannot be used, and place -> reason of those. (N, 0) where
            there is no good one.
        """
        drop = self._unread(space, modality)
        how: dict[str, Any] = {"batch_size": batch_size, "progress": progress, "what": f"{modality}s"}
        collected = self._run(items, embedding(space, modality), drop=drop, **how)
        reasons = {int(place): reason for place, reason in collected.misses.items()}
        if not len(collected.rows):
            return np.zeros((len(items.samples), 0), np.float32), reasons
        rows = collected.full("embedding", np.nan)
        there = collected.present.get(modality, np.ones(len(collected.rows), bool))
        reasons |= {int(row): f"it has no {modality}" for row in collected.rows[~there]}
        rows[[*reasons]] = np.nan
        wrong = ~np.isfinite(rows.reshape(len(rows), -1)).all(1)
        reasons |= {int(r): "its embedding is no number" for r in np.flatnonzero(wrong) if int(r) not in reasons}
        return rows, dict(sorted(reasons.items()))

    def similarity(self, a: Any, b: Any) -> Any:
        """float32 (N, M): how alike each row of ``a`` is to each of ``b``, which are embeddings of :meth:`encode`.

        The cosine; of several vectors per clip, the logarithm of the sum of the exponentials of their cosines, as
        evaluation ranks them. NaN where a row is. A tensor of torch where ``a`` is one.
        """
        try:
            one, other = (array_of(x).astype(np.float32) for x in (a, b))
        except (TypeError, ValueError):
            raise DataError(
                f"similarity: expected two lists of encode(), such as found.texts and found.videos, got a "
                f"{type(a).__name__} and a {type(b).__name__}."
            ) from None
        wrong = one.ndim not in (2, 3) or other.ndim not in (2, 3) or one.shape[-1] != other.shape[-1]
        if wrong:
            raise DataError(
                f"similarity: expected embeddings (N, E) and (M, E), got {one.shape} and {other.shape}. Give two lists "
                "of encode(), such as found.texts and found.videos."
            )
        scores = compare_embeddings(one, other)
        return torch.from_numpy(scores) if isinstance(a, torch.Tensor) else scores

    # -- answers and captions ------------------------------------------------------------------------------------------

    def answer(self, video: Any, question: str, *, top: int = 5) -> Answer:
        """Answer a question about a video, or about a sound where the model takes no video.

        Args:
            video: an item as :meth:`encode` takes it.
            question: a text.
            top: answers in ``ranking``.

        Raises:
            DataError: the file cannot be used.
            ConfigError: the model answers no questions.
        """
        _check("answer", top=(top, Count))
        text_of("question", question)
        name = self._objective("logits")
        answers = self.module.answers
        if not answers:
            raise ConfigError("answer: this model has no answer list. It comes with task=qa and its like.")
        logits = self._alone(video, lambda ctx: {"x": ctx.model.objectives[name].logits(ctx)}, (question,))
        probabilities = torch.from_numpy(logits["x"]).softmax(0)
        best = probabilities.sort(descending=True, stable=True).indices[:top].tolist()
        ranking = tuple((answers[place], float(probabilities[place])) for place in best)
        return Answer(*ranking[0], ranking)

    def caption(self, video: Any, *, beams: int = 5, length_penalty: float = 1.0, max_length: int | None = None) -> str:
        """A sentence about a video, or about a sound where the model takes no video.

        Args:
            video: an item as :meth:`encode` takes it.
            beams: width of the beam search; 1 is greedy.
            length_penalty: 0 prefers short sentences, more than 1 long ones.
            max_length: tokens at most; None = as many as the model was trained with.

        Raises:
            DataError: the file cannot be used.
            ConfigError: the model writes no captions.
        """
        _check("caption", beams=(beams, Count), length_penalty=(length_penalty, float))
        _check("caption", max_length=(max_length, Count | None))
        name = self._objective("generate")
        detokenize = member(self.module.encoders["text"], Encoder, "spec").detokenize
        if detokenize is None:
            raise ConfigError("caption: the tokenizer of this model cannot turn ids into words.")
        search: dict[str, Any] = {"beams": beams, "length_penalty": length_penalty, "max_length": max_length}

        def write(ctx: Any) -> dict[str, torch.Tensor]:
            return {"x": ctx.model.objectives[name].generate(ctx, **search)[0]}

        return str(detokenize(self._alone(video, write, None)["x"].tolist()))

    # -- to folders and to the hub -------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write it into a folder that :func:`vtp.load` reads again, to the last bit: ``model.safetensors``,
        ``config.json``, ``provenance.json``, the files of its tokenizers, and a model card, ``README.md``.

        Raises:
            ConfigError: the folder holds something else.
        """
        from vtp.use.card import model_card

        folder = Path(folder)
        if folder.exists() and not (folder.is_dir() and ({*_names(folder)} >= {WEIGHTS, CONFIG} or not _names(folder))):
            raise ConfigError(f"{folder} holds something else than a saved model. Name a new folder.")
        size = sum(tensor.nbytes for tensor in self.module.state_dict().values())
        with DirectoryTransaction(folder, size, ELSEWHERE) as inside:
            save_weights(inside, self.module, self.provenance)
        # Not part of the manifest: people write in it, and the rest stays whole.
        write_text_atomic(folder / "README.md", model_card(self, folder.resolve().name))
        return folder

    def push_to_hub(
        self,
        name: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        message: str = "Upload a vtp model",
    ) -> str:
        """Upload what :meth:`save` writes to ``organisation/name`` on the hub, which is made if it is not there; gives
        its address. A model card that is there already stays.

        Args:
            private: of a new repository; None is what the organisation has as default.
            token: None takes that of ``hf auth login``.
            revision: branch.
            message: of the commit.

        Raises:
            ConfigError: ``name`` is none of the hub.
            RunError: the hub cannot be reached, or does not want it.
        """
        from vtp.use.upload import upload

        return upload(self, name, private=private, token=token, revision=revision, message=message)

    # -- inside --------------------------------------------------------------------------------------------------------

    def reader(self) -> Any:
        """A reader of media with the limits of this model's; decodes in a process of its own."""
        from vtp.media import MediaReader

        media = self._media
        return MediaReader(media.backend, timeout_s=media.timeout_s, isolate=media.isolate, memory_mb=media.memory_mb)

    @cached_property
    def _reader(self) -> Any:
        """Stays for the next call."""
        return self.reader()

    @cached_property
    def _media(self) -> MediaConfig:
        return MediaConfig()

    def shown(self) -> dict[str, Any]:
        """What of the configuration that it was trained with decides what it is shown."""
        data = (self.provenance.get("config") or {}).get("data") or {}
        return {key: data[key] for key in _SHOWN if key in data}

    def _slots(self) -> dict[str, Any]:
        """The options of the filled slots."""
        slots = self.module.spec.get("encoders") or {}
        return {slot: options for slot, options in slots.items() if (options or {}).get("name")}

    def _able(self, ability: Literal["embed", "logits", "generate"]) -> list[str]:
        """The objectives that can do something, first that which the model was measured with."""
        task = (self.provenance.get("config") or {}).get("task")
        first = [task.get(key) for key in ("objective", "embed_objective")] if isinstance(task, dict) else []
        objectives = dict(self.module.objectives.items())
        named = [name for name in dict.fromkeys([*first, *objectives]) if name in objectives]
        return [str(name) for name in named if offers(objectives[name], ability)]

    def _objective(self, ability: Literal["logits", "generate"]) -> str:
        able = self._able(ability)
        if ability == "logits":  # a question must be read: classes are given without one
            able = [n for n in able if "text" in member(self.module.objectives[n], Objective, "needs")]
        if not able:
            raise self._lacks(*_ABILITIES[ability])
        return able[0]

    def _lacks(self, what: str, advice: str) -> ConfigError:
        there = ", ".join(self.module.objectives) or "none"
        return ConfigError(
            f"this model has no objective that {what} (it has: {there}). Train one with {advice}, or load a model that "
            "has it."
        )

    def compared(self) -> dict[str, set[str]]:
        """The objectives that embed, each with the modalities that it compares; first that which the model was measured
        with."""
        return {name: compared_by(self.module.objectives[name]) for name in self._able("embed")}

    def space(self, modalities: Sequence[Modality], given: str | None = None) -> str:
        """The objective that embeds all of ``modalities``: embeddings of two of them cannot be compared.

        Args:
            given: the one that is asked for.

        Raises:
            ConfigError: there is none, or nobody can tell which of several.
        """
        compared = self.compared()
        for modality in modalities:
            if not any(modality in found for found in compared.values()):
                raise self._lacks(f"embeds {_PLURAL[modality]}", contrast({*self.modalities, modality}))
        able = [name for name, found in compared.items() if found >= {*modalities}]
        told = "; ".join(f"{name}: {', '.join(m for m in MODALITIES if m in f)}" for name, f in compared.items())
        asked = " and ".join(_PLURAL[modality] for modality in modalities)
        if given is not None and given not in able:
            raise ConfigError(f"encode: objective={given!r} does not embed {asked}. What is embedded by {told}.")
        if not able:
            raise ConfigError(
                f"encode: no objective of this model compares {asked} with each other. What is embedded by {told}. "
                "Encode them in calls of their own, with objective=..."
            )
        task = (self.provenance.get("config") or {}).get("task")
        measured = isinstance(task, dict) and able[0] in (task.get("objective"), task.get("embed_objective"))
        if given is None and len(able) > 1 and not measured and len({frozenset(compared[name]) for name in able}) > 1:
            raise ConfigError(
                f"encode: {asked} alone have several embeddings, by {told}. Say which with objective=..., or give them "
                "together with what they are to be compared with."
            )
        return given or able[0]

    def _unread(self, objective: str, modality: Modality) -> tuple[Modality, ...]:
        """The modalities that are not looked at when ``modality`` is embedded."""
        scorer = self.module.objectives[objective]
        embeds = member(scorer, Objective, "embeds")
        reads = embeds.get(modality, (modality,)) if embeds else member(scorer, Objective, "needs")
        return tuple(m for m in self.modalities if m not in reads or (m == "text") != (modality == "text"))

    def _run(
        self,
        items: Items,
        f: Callable[[Any], Mapping[str, torch.Tensor]],
        *,
        drop: Sequence[Modality] = (),
        batch_size: int = 1,
        progress: bool = False,
        what: str = "items",
    ) -> Collected:
        """``f(ctx)`` of every item, with the loader and the forward pass of an evaluation."""
        media = {"video", "audio"} - {*drop}
        workers = self.workers if media and len(items.samples) > batch_size else 0
        data = DataConfig(**{**self.shown(), "eval_block": batch_size, "eval_batch": batch_size, "workers": workers})
        reader = GivenReader(self._reader, items.frames, items.sounds)
        source = RunData(data, self._media, _NoTask(), seed=0, folder=None, wanted=(), reader=reader)
        specs = self.module.specs()

        def loader(samples: Any, dropped: tuple[Modality, ...], **how: Any) -> Any:
            loader = source.eval_loader(specs, samples, dropped, reads=self.module.reads(), **how)
            return Ahead(loader) if media and not workers and len(items.samples) > batch_size else loader

        evaluator = Evaluator(self.module, loader, self.device, self.precision, progress=progress)
        return evaluator.run(items.samples, f, drop=tuple(drop), what=what)

    def _alone(self, item: Any, f: Callable[[Any], Mapping[str, torch.Tensor]], texts: tuple[str] | None) -> Any:
        """``f(ctx)`` of one video or sound, with or without a text."""
        modality: Modality = "video" if "video" in self.modalities else "audio"
        items = Items.of(modality, [item], texts)
        collected = self._run(items, f, drop=("text",) if texts is None else ())
        reasons = {int(place): reason for place, reason in collected.misses.items()}
        if not reasons and not any(collected.present[m][0] for m in self.modalities if m != "text"):
            reasons = {0: "it has nothing that this model takes in"}
        if reasons:
            raise DataError(self._bad(reasons, items, "videos"))
        return {name: values[0] for name, values in collected.arrays.items()}

    @staticmethod
    def _bad(reasons: Mapping[int, str], items: Items, what: str) -> str:
        first = "; ".join(f"{items.names[place]}: {reasons[place]}" for place in sorted(reasons)[:_NAMED])
        more = f"; and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
        advice = "" if len(items.samples) == 1 else " on_bad='nan' goes on without them and names them in .bad."
        return one_line(f"{len(reasons)} of {len(items.samples)} {what} cannot be used: {first}{more}.{advice}")


def _check(method: str, **given: tuple[Any, Any]) -> None:
    """
    Args:
        given: name of a number -> what it is, and its type.

    Raises:
        ConfigError: one is none of its type.
    """
    for name, (value, hint) in given.items():
        if not fits(value.item() if isinstance(value, np.generic) else value, hint):
            raise ConfigError(f"{method}: {name}={value!r} must be {spell(hint)}.")


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]
