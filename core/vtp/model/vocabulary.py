"""Whether the rows of a checkpoint stand for the same words and answers as those of a model.

A word has its row by its id, an answer by its place in the list. Both come from the training data where a tokenizer is
built from texts and a list counted; those of other data have other places, and nothing in the shapes shows it.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vtp.contracts import Part, member
from vtp.errors import DataError
from vtp.model.model import VTPModel

__all__ = ["Misplaced", "misplaced"]

log = logging.getLogger("vtp.model")

_TOKENIZER = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class Misplaced:
    """Tensors whose rows stand for other things in a checkpoint than in a model.

    Attributes:
        what: ``words`` or ``answers``.
        names: the names of each tensor.
        folder: the checkpoint.
    """

    what: str
    names: list[list[str]]
    folder: Path

    def line(self, option: str) -> str:
        """What is wrong and what to do; ``option`` is how the checkpoint was given, such as ``init_from``."""
        first = [names[0] for names in self.names]
        shown = ", ".join(first[:4]) + (", ..." if len(first) > 4 else "")
        line = (
            f"{self.folder}: its {self.what} have other places than those of this model, which come from the data set "
            f"or a tokenizer, so that the rows of {shown} would be taken for those of other {self.what}. To keep the "
            f"{self.what} of the checkpoint add model={self.folder}"
        )
        if option == "init_from":
            return f"{line}; to learn these rows anew, init_allow_missing=[{','.join(first)}]."
        return f"{line}."


def misplaced(model: nn.Module, folder: Path, names: Collection[str]) -> list[Misplaced]:
    """The tensors of a model that must not be taken by position from a checkpoint.

    Args:
        model: as it was built.
        folder: of the checkpoint. Where its assets or its configuration are not there, a warning says so.
        names: of its tensors, as they are called in the model.

    Raises:
        DataError: a file of its tokenizer cannot be read.
    """
    if not isinstance(model, VTPModel):
        return []
    found = []
    text = model.specs().get("text")
    vocabulary = int(getattr(text, "vocab_size", 0) or 0)
    save = member(model.encoders["text"], Part, "save_assets") if vocabulary else None
    rows = _with_rows(model, vocabulary, names) if save is not None else []
    if rows and save is not None:
        theirs = folder / "assets" / "encoders" / "text"
        if not theirs.is_dir():
            log.warning("%s has no %s: whether its words have the ids that they have here is not known", folder, theirs)
        else:
            with tempfile.TemporaryDirectory() as ours:
                save(Path(ours))
                if not _agree(_vocabularies(theirs), _vocabularies(Path(ours))):
                    found.append(Misplaced("words", rows, folder))
    answers = _answers(folder)
    if model.answers and answers and list(model.answers) != answers:
        heads = [group for group in _with_rows(model, len(model.answers), names) if group[0].startswith("objectives.")]
        found += [Misplaced("answers", heads, folder)] if heads else []
    return found


def _with_rows(model: nn.Module, rows: int, names: Collection[str]) -> list[list[str]]:
    """All names of each tensor with that many rows that the checkpoint has: embeddings, and layers that predict."""
    groups: dict[int, list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.ndim and tensor.shape[0] == rows:
            groups.setdefault(id(tensor), []).append(name)
    return [group for group in groups.values() if any(name in names for name in group)]


def _vocabularies(folder: Path) -> dict[str, Any]:
    """What the files of a text encoder say about words; its settings are left out."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if "config" in path.name or path.name == "special_tokens_map.json" or path.suffix == ".jinja":
            continue
        try:
            content: Any = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error}). Copy the checkpoint again.") from error
        if path.suffix == ".json":
            with suppress(ValueError, RecursionError):  # then it is compared as it is
                content = json.loads(content)
        if path.name == _TOKENIZER and isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
            added = content.get("added_tokens") or ()
            ids = {token.get("content"): token.get("id") for token in added if isinstance(token, Mapping)}
            words = content["model"].get("vocab")
            content = {**words, **ids} if isinstance(words, Mapping) else [words, ids]
        found[name] = content
    return found


def _agree(theirs: dict[str, Any], ours: dict[str, Any]) -> bool:
    """By the files that both have: which ones are written beside tokenizer.json depends on versions."""
    common = [_TOKENIZER] if _TOKENIZER in theirs and _TOKENIZER in ours else sorted(theirs.keys() & ours.keys())
    return all(theirs[name] == ours[name] for name in common) and (bool(common) or not (theirs or ours))


def _answers(folder: Path) -> list[str]:
    """The answer list of a checkpoint; none where it has none or cannot be read."""
    try:
        spec = json.loads((folder / "config.json").read_text(encoding="utf-8"))["spec"]
        return list(spec.get("answers") or ())
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []
