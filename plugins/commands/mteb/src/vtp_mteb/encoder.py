"""What mteb asks for embeddings: a model of vtp behind mteb's ``EncoderProtocol`` (mteb 2.26).

model = MTEBModel("outputs/DATE/TIME")
mteb.evaluate(model, mteb.get_tasks(["MSRVTTT2V"]))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from vtp.errors import ConfigError
from vtp.types import MODALITIES, Modality, TextSpec
from vtp.use.model import Model
from vtp_mteb.rows import COLUMNS, item, undecoded

__all__ = ["MTEBModel"]

_HELD = 16  # batches of rows that are encoded in one go: their files are in memory


class MTEBModel:
    """A model of vtp as mteb takes it.

    Args:
        model: what :func:`vtp.load` gives, or what it takes.
        revision: of a model on the hub.
        device: as :func:`vtp.load` takes it.
        objective: in whose space, where several objectives compare what a task compares.
        prefer: what is looked at in rows that have a video and a sound; None refuses them.
        name: that results are kept under; None is ``vtp/`` and the last part of what was loaded.
        how: passed on to :func:`vtp.load`.

    Attributes:
        model: the model of vtp.
        mteb_model_meta: what mteb writes beside its results. Its ``revision`` is the fingerprint of the weights, so
            that results of other weights under the same name are not taken for these.
    """

    def __init__(
        self,
        model: Model | str | Path | Sequence[str],
        revision: str | None = None,
        *,
        device: str | None = None,
        objective: str | None = None,
        prefer: Literal["video", "audio"] | None = None,
        name: str | None = None,
        **how: Any,
    ) -> None:
        """
        Raises:
            ConfigError: the model embeds nothing, or not in that space.
            DataError: there is no such model.
        """
        if name is not None and "/" not in name:
            raise ConfigError(f"name={name!r}: mteb keeps results under organisation/name.")
        if not isinstance(model, Model):
            from vtp.use.loading import load

            source = model
            how |= {} if revision is None else {"revision": revision}
            model = load(source, device=device or "auto", **how)
            name = name or _name(source)
        compared = model.compared()
        if not compared or (objective is not None and objective not in compared):
            known = ", ".join(compared) or "none"
            asked = "" if objective is None else f" objective={objective!r} is not one."
            raise ConfigError(f"this model has no objective that embeds (those that do: {known}).{asked}")
        self.model, self.objective, self.prefer = model, objective, prefer
        self._named = name or "vtp/model"

    @cached_property
    def mteb_model_meta(self) -> Any:
        """What mteb writes beside its results."""
        from mteb.models import ModelMeta

        embeds = {*self.model.embeds} if self.objective is None else self.model.compared()[self.objective]
        text = self.model.module.specs().get("text")
        about = {
            "name": self._named,
            "revision": self.model.fingerprint[:16],
            "n_parameters": sum(parameter.numel() for parameter in self.model.module.parameters()),
            "max_tokens": float(text.max_length) if isinstance(text, TextSpec) else None,
            "framework": ["PyTorch"],
            "similarity_fn_name": "cosine",
            "use_instructions": False,
            "modalities": [column for column in ("text", "image", "audio", "video") if COLUMNS[column] in embeds],
        }
        return ModelMeta(**{**ModelMeta.create_empty().model_dump(exclude={"loader"}), "loader": None, **about})

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: Any = None,
        batch_size: int = 32,
        show_progress_bar: bool = False,
        **how: Any,
    ) -> torch.Tensor:
        """Embeddings of the rows of a task, float32 (N, E) of unit length, or (N, n, E) of a model with n vectors per
        clip. Equal texts are encoded once, so that they tie to the last bit.

        Args:
            inputs: ``DataLoader`` whose batches are dicts of lists.
            task_metadata: of the task: which modalities it compares decides the space.

        Raises:
            ConfigError: the model has no embeddings of them, or does not compare them with each other.
            DataError: a file cannot be used. mteb has no word for a gallery in which one is missing.
        """
        space = self._space(task_metadata)
        found: list[Any] = []
        column, held = "", []
        for number, batch in enumerate(undecoded(inputs), start=1):
            column = self._column(batch)
            held += [item(column, value) for value in batch[column]]
            if number % _HELD == 0:
                found.append(self._embedded(column, held, space, batch_size, show_progress_bar))
                held = []
        if held:
            found.append(self._embedded(column, held, space, batch_size, show_progress_bar))
        return torch.from_numpy(np.concatenate(found) if found else np.zeros((0, 0), np.float32))

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """float32 (N, M), as :meth:`vtp.Model.similarity`; a single vector (E,) counts as a row."""
        one, other = (_rows(x) for x in (embeddings1, embeddings2))
        return torch.from_numpy(np.asarray(self.model.similarity(one, other)))

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """float32 (N,): each row with the one at its place."""
        one, other = (_rows(x) for x in (embeddings1, embeddings2))
        pairs = [self.model.similarity(one[i : i + 1], other[i : i + 1])[0, 0] for i in range(len(one))]
        return torch.tensor(np.asarray(pairs, np.float32))

    def _embedded(self, column: str, items: list[Any], space: str, batch_size: int, progress: bool) -> Any:
        modality = COLUMNS[column]
        whole = list(dict.fromkeys(items)) if modality == "text" else items
        lists: dict[str, Any] = {f"{modality}s": whole}
        made = self.model.encode(**lists, objective=space, batch_size=batch_size, progress=progress)
        rows = {"video": made.videos, "audio": made.audios, "text": made.texts}[modality]
        if modality != "text":
            return rows
        place = {text: number for number, text in enumerate(whole)}
        return rows[[place[text] for text in items]]

    def _column(self, batch: Mapping[str, Any]) -> str:
        """Which column of a batch is looked at."""
        there = [column for column in COLUMNS if column in batch]
        if self.prefer is not None and len(there) > 1 and self.prefer in there:
            return self.prefer
        if len(there) != 1:
            told = " and ".join(there) or "nothing that it knows"
            raise ConfigError(
                f"the rows of this task have {told}, and vtp embeds one of them at a time. Say which with "
                'prefer="video" or "audio" (--prefer).'
            )
        return there[0]

    def _space(self, task_metadata: Any) -> str:
        """The objective that compares what a task compares."""
        from mteb.types import PromptType

        asked: set[Modality] = set()
        for side in (PromptType.query, PromptType.document):
            there = task_metadata.get_modalities(side)
            chosen = [self.prefer] if self.prefer in there else there
            asked |= {COLUMNS[column] for column in chosen if column in COLUMNS}
        return self.model.space([modality for modality in MODALITIES if modality in asked], self.objective)


def _rows(embeddings: Any) -> Any:
    found = np.asarray(embeddings, np.float32)
    return found[None] if found.ndim == 1 else found


def _name(source: Any) -> str:
    """``vtp/12-33-51`` of a folder; a name of the hub as it is."""
    if not isinstance(source, (str, Path)):
        return "vtp/model"
    text = str(source)
    if "=" in text:
        return "vtp/" + "".join(sign if sign.isalnum() or sign in "-_." else "-" for sign in text)
    return text if text.count("/") == 1 and not Path(text).exists() else f"vtp/{Path(text).name or 'model'}"
