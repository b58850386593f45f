"""Embedding many files into a table: windows of time, a few hundred at a time, and each file is noted when it is done.

Several programs may work on one table, as under torchrun: each takes its share of the files, and adds to the table by
itself. None of them forks: a process that is forked where lancedb is in use may wait for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vtp.errors import ConfigError, DataError
from vtp.media.info import MediaError, MediaInfo
from vtp.media.isolation import MediaReader
from vtp.prepare.threads import results
from vtp.run.check import lacks
from vtp.types import MODALITIES, Modality, Sample
from vtp.use.inputs import Items
from vtp.use.model import Model
from vtp.use.table import Table
from vtp.use.windows import Source, Window, sources, windows

__all__ = ["Done", "embed_into"]

AT_ONCE = 512  # windows between two additions to the table: what a killed program loses
_LOOKED_AT = 64  # files whose lengths are looked up together
_NO_NAME = "its name is no UTF-8, and a table holds no other; rename the file"
_LOOKERS = 2  # threads, each with a decoding process of its own


@dataclass(slots=True)
class Done:
    """What :func:`embed_into` did.

    Attributes:
        files: of this program's share.
        kept: of them, those that were done before.
        noted: those that are done now.
        windows: that were added.
        bad: file or window -> why it could not be used, of this call and of those before. Names that no table holds go
            first.
        unnamed: how many of them these are.
    """

    files: int = 0
    kept: int = 0
    noted: int = 0
    windows: int = 0
    bad: dict[str, str] = field(default_factory=dict)
    unnamed: int = 0


def embed_into(
    place: str,
    samples: Iterable[Sample],
    model: Model,
    *,
    source: str = "",
    objective: str | None = None,
    window: float = 10.0,
    stride: float | None = None,
    batch_size: int = 32,
    share: tuple[int, int] = (0, 1),
    retry: bool = False,
    progress: Callable[[Done, int], None] | None = None,
) -> tuple[Table, Done]:
    """Embed every window of the files of samples that is not in the table yet.

    Args:
        place: of the table.
        source: what the model was loaded from, for those who search.
        objective: in whose space; None = the first of the model that embeds videos or sounds.
        window, stride: seconds; a window of 0 is the whole file, no stride is half a window.
        share: (number, count): this program takes the files whose place is ``number`` modulo ``count``.
        retry: embed files again of which something could not be used.
        progress: called with what is done so far and the number of files, after every addition.

    Raises:
        ConfigError: the model embeds neither, has loader workers, or the table was made with something else.
        DataError: there are no files.
    """
    if model.workers:
        raise ConfigError(f"a model with workers={model.workers} forks; load it with workers=0 to embed into a table.")
    space, modalities = _space(model, objective)
    stride = (window / 2) if stride is None else stride
    _check(window, stride)
    every = sources(samples)
    if not every:
        raise DataError("there is no file to embed.")
    mine = every[share[0] :: share[1]]
    about = {
        "model": source,
        "fingerprint": model.fingerprint,
        "objective": space,
        "modalities": list(modalities),
        "window": float(window),
        "stride": float(stride),
        "width": _width(model, space),
    }
    table = Table.make(place, about)
    done = Done(len(mine))
    done.bad = {source.key: _NO_NAME for source in mine if not _is_utf8(source.key)}
    done.unnamed = len(done.bad)
    mine = [source for source in mine if source.key not in done.bad]
    rest = table.rest(mine, retry)
    done.kept = len(mine) - len(rest)
    done.bad |= _noted(table, {source.key for source in mine} - {source.key for source in rest})
    for part in _parts(model, rest, modalities, window, stride):
        _embed(table, part, model, space, batch_size, done)
        if progress is not None:
            progress(done, len(rest))
    return table, done


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _space(model: Model, objective: str | None) -> tuple[str, tuple[Modality, ...]]:
    """The objective, and what it embeds besides text."""
    found = {name: {*modalities} - {"text"} for name, modalities in model.compared().items()}
    able = [name for name, modalities in found.items() if modalities]
    if not able or (objective is not None and objective not in able):
        raise ConfigError(lacks("embeds videos or sounds", objective, able, model.modalities))
    name = objective or able[0]
    return name, tuple(modality for modality in MODALITIES if modality in found[name])


def _check(window: float, stride: float) -> None:
    if not (0 <= window < float("inf")) or (window and not 0 < stride <= window):
        raise ConfigError(
            f"--window {window:g} --stride {stride:g}: a window must be 0 (the whole file) or more seconds, and the "
            "stride more than 0 and at most the window, so that nothing is lost."
        )


def _width(model: Model, space: str) -> int:
    """E of the embeddings, found by embedding a text or a grey picture."""
    compared = model.compared()[space]
    if "text" in compared:
        rows, reasons = model.embed(Items.of("text", ["a"]), "text", space)
    elif "video" in compared:
        rows, reasons = model.embed(Items.of("video", [np.full((1, 64, 64, 3), 128, np.uint8)]), "video", space)
    else:
        rows, reasons = model.embed(Items.of("audio", [(np.zeros(16000, np.float32), 16000)]), "audio", space)
    if reasons:
        raise DataError(f"this model cannot be used: {reasons[0]}.")
    if rows.ndim == 3 and rows.shape[1] > 1:
        raise ConfigError("this model gives several vectors for a clip, and a row of the table has one.")
    return int(rows.shape[-1])


@dataclass(slots=True)
class _Part:
    """Some files with their windows."""

    windows: list[Window] = field(default_factory=list)
    bad: dict[Source, list[dict[str, Any]]] = field(default_factory=dict)


def _parts(
    model: Model, rest: Sequence[Source], modalities: Sequence[Modality], window: float, stride: float
) -> Iterator[_Part]:
    """Files whose windows are added together, in their order."""
    part = _Part()
    for place in range(0, len(rest), _LOOKED_AT):
        some = rest[place : place + _LOOKED_AT]
        found = dict(_lengths(model, some))
        for source in some:
            info = found[source.key]
            part.bad[source] = []
            if isinstance(info, MediaInfo):
                cut = list(windows(source, info, modalities, window, stride))
                part.windows += cut
                reason = "" if cut else f"it has no {' and no '.join(modalities)}"
            else:
                reason = info
            if reason:
                part.bad[source].append({"start": None, "end": None, "modality": None, "reason": reason})
            if len(part.windows) >= AT_ONCE:
                yield part
                part = _Part()
    if part.bad:
        yield part


def _lengths(model: Model, some: Sequence[Source]) -> Iterator[tuple[str, MediaInfo | str]]:
    """What is in each file, or why that cannot be told."""

    def look(reader: MediaReader, source: Source) -> tuple[str, MediaInfo | str]:
        try:
            return source.key, reader.probe(source.ref)
        except MediaError as error:
            return source.key, error.reason

    with results(look, some, model.reader, _LOOKERS, lambda source: source.key) as found:
        yield from found


def _embed(table: Table, part: _Part, model: Model, space: str, batch_size: int, done: Done) -> None:
    """Embed the windows of some files, add them, and note the files."""
    rows: list[tuple[Window, Any]] = []
    for modality in MODALITIES:
        chosen = [window for window in part.windows if window.modality == modality]
        if not chosen:
            continue
        items = Items.of(modality, [window.ref for window in chosen])
        vectors, reasons = model.embed(items, modality, space, batch_size=batch_size)
        for place, window in enumerate(chosen):
            if place in reasons:
                part.bad[window.source].append(
                    {"start": window.start, "end": window.end, "modality": modality, "reason": reasons[place]}
                )
            else:
                rows.append((window, vectors[place].reshape(-1)))
    order = {source: place for place, source in enumerate(part.bad)}
    rows.sort(key=lambda row: (order[row[0].source], row[0].start, row[0].modality))
    table.add(rows, part.bad)
    done.windows += len(rows)
    done.noted += len(part.bad)
    for source, found in part.bad.items():
        done.bad |= {_called(source.key, one): one["reason"] for one in found}


def _noted(table: Table, kept: set[str]) -> dict[str, str]:
    """What could not be used of files that an earlier call has done."""
    found = sorted(((key, one) for key, one in table.bad() if key in kept), key=lambda pair: pair[0])
    return {_called(key, one): one["reason"] for key, one in found}


def _called(key: str, bad: Mapping[str, Any]) -> str:
    if bad["modality"] is None:
        return key
    return f"{key} ({bad['modality']}, {bad['start']:g} to {bad['end']:g} s)"
