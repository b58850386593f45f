"""The data of a run: what decodes it, which of it is on the disk, and the loaders of both modes."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from vtp import distributed
from vtp.components import refuse
from vtp.config import AUGMENTATIONS, DataConfig, MediaConfig
from vtp.contracts import Read, Table, Task, joined_reads, member, reads_of
from vtp.errors import ConfigError, DataError
from vtp.types import MediaRef, Modality, Sample

__all__ = ["RunData"]

log = logging.getLogger("vtp")
_PROBED = 1000  # rows in which a table without any media is noticed


class RunData:
    """Samples of a task, decoded into batches.

    Args:
        data, media: the typed nodes of the configuration.
        task: gives samples and labels.
        seed: of shuffling and augmentation.
        folder: for ``bad_samples.jsonl``; None keeps that list in memory.
        wanted: video and audio, as far as the model has an encoder for them and ``data.drop`` leaves them in.
        reader: decodes, in place of what ``media`` and ``data.cache`` say.
    """

    def __init__(
        self,
        data: DataConfig,
        media: MediaConfig,
        task: Any,
        *,
        seed: int,
        folder: Path | None,
        wanted: Sequence[Modality],
        reader: Any = None,
    ) -> None:
        self.data = data
        self.media = media
        self.task = task
        self.seed = seed
        self.folder = folder
        self.wanted = wanted
        self._reader = reader
        self._surveyed: set[str] = set()
        self._loader: Any = None  # of training

    def near_duplicates(self, split: str, warnings: list[str]) -> dict[str, Any] | None:
        """What :mod:`vtp.run.near_duplicates` finds, with a line among the warnings; None where nobody asked."""
        if self.data.near_duplicates is None:
            return None
        from vtp.run.near_duplicates import line, near_duplicates

        found = near_duplicates(
            self.task.train_samples, self.task.samples(split), self._file_reader, max(1, self.data.workers)
        )
        warnings += [text] if (text := line(found)) else []
        return found

    def _file_reader(self) -> Any:
        from vtp.media import MediaReader

        if self._reader is not None:
            return self._reader
        media = self.media
        return MediaReader(
            backend=media.backend, timeout_s=media.timeout_s, isolate=media.isolate, memory_mb=media.memory_mb
        )

    @cached_property
    def reader(self) -> Any:
        """Decodes files, or reads them from ``data.cache``."""
        reader = self._file_reader()
        if self.data.cache is None:
            return reader
        from vtp.media.cache import CachedReader, ClipCache

        return CachedReader(reader, ClipCache(self.data.cache))

    @cached_property
    def bad(self) -> Any:
        """Accounts for files that cannot be used."""
        from vtp.data import BadFiles

        path = None if self.folder is None else self.folder / "bad_samples.jsonl"
        return BadFiles(path, self.data.max_bad_fraction)

    @cached_property
    def _train_samples(self) -> Sequence[Sample]:
        samples: Sequence[Sample] = self.task.train_samples()
        return samples

    @cached_property
    def on_disk(self) -> Any:
        """Which training files are there, as the first process sees the disk."""
        from vtp.data.presence import look, on_disk

        cache = None if self.data.cache is None else self.reader.cache  # what is in it needs no original

        def media(sample: Sample) -> MediaRef | None:  # a sample without its picture is lost, without its sound not
            found = (sample.video if modality == "video" else sample.audio for modality in self.wanted)
            return next((ref for ref in found if ref is not None), None)

        def there(path: str) -> bool:
            return on_disk(path) or (cache is not None and cache.path(path).exists())

        found: Any = look(self._train_samples, media, there) if distributed.is_main() else None
        found = distributed.broadcast_object(found)
        if found.absent and found.usable and distributed.is_main():  # with none, the error says it
            log.warning(found.line())
        if self.wanted and not found.files and distributed.is_main():
            rows = range(min(len(self._train_samples), _PROBED))
            if rows and all(media(self._train_samples[row]) is None for row in rows):  # bytes name no file either
                log.warning("no training sample names a file of %s, which the model takes", " or ".join(self.wanted))
        return found

    @cached_property
    def train_table(self) -> Sequence[Sample]:
        """The training samples that are on the disk, cut to ``data.limit_train``, evenly spaced."""
        from vtp.data.table import evenly
        from vtp.eval.ledger import count_or_share

        samples: Sequence[Sample] = self.on_disk.take(self._train_samples)
        if self.data.limit_train is None:
            return samples
        count = min(len(samples), max(1, count_or_share(self.data.limit_train, len(samples), "data.limit_train")))
        return evenly(samples, count)

    def train_loader(
        self, specs: Mapping[Modality, Any], global_batch: int, reads: Mapping[str, Read] | None = None
    ) -> Any:
        """Batches of this process for ever, shuffled.

        Args:
            specs: those of the encoders.
            global_batch: rows of a step.
            reads: what batches must hold in ``extra`` and ``fields``.

        Raises:
            DataError: no training sample has one of ``reads``.
            ConfigError: ``data.modality_dropout`` or ``data.transforms`` is about what the model does not take in.
        """
        from vtp.data import TrainLoader

        reads = joined_reads(self._task_reads, reads or {})
        self._refuse_unknown(reads)
        self._refuse_no_slot("modality_dropout", self.data.modality_dropout, specs)
        pipeline = self._pipeline(specs, train=True, reads=reads)
        self._survey_cache(self.train_table, pipeline, "training")
        self._loader = TrainLoader(
            self.train_table,
            pipeline,
            global_batch=global_batch,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
            workers=self.data.workers,
            seed=self.seed,
            bad=self.bad,
            group=self.data.group,
            modality_dropout=self.data.modality_dropout,
        )
        return self._loader

    def parts(self) -> list[str]:
        """A line for each of several tables that are trained on together, for people."""
        mixture = member(self.train_table, Table, "mixture")
        if mixture is None:
            return []
        named = member(self._train_samples, Table, "mixture").names
        gone = [f"{name}: data.limit_train leaves nothing of it" for name in named if name not in mixture.names]
        return [*mixture.lines(), *gone]

    def tried(self) -> dict[str, Any]:
        """How many samples all processes tried in training, before it was resumed too, and how many could not be
        decoded, for the report; by part of the table where it has some. Every process calls it."""
        every = distributed.gather_objects({} if self._loader is None else self._loader.tried())
        parts = {
            name: {"tried": sum(one[name][0] for one in every), "not_decoded": sum(one[name][1] for one in every)}
            for name in every[0]
        }
        total = {key: sum(part[key] for part in parts.values()) for key in ("tried", "not_decoded")}
        return total if "" in parts or not parts else {**total, "parts": parts}

    def eval_loader(
        self,
        specs: Mapping[Modality, Any],
        samples: Sequence[Sample],
        drop: tuple[Modality, ...] = (),
        whole_batches: bool = False,
        reads: Mapping[str, Read] | None = None,
        skip: Collection[str] = (),
        views: int | None = None,
    ) -> Any:
        """This process's share of ``samples``, once, in order, without the modalities in ``drop``, and with ``reads``
        and those of the task in ``batch.extra`` and ``batch.fields``. ``views`` takes the place of eval_clips.

        Batches are blocks of ``data.eval_block`` rows of the table, or of ``data.eval_batch`` with ``whole_batches``,
        for any number of processes: how many rows a matrix product has decides the last bits of each.
        """
        from vtp.data import EvalLoader

        pipeline = self._pipeline(
            specs, train=False, drop=drop, reads=joined_reads(self._task_reads, reads or {}), views=views
        )
        self._survey_cache(samples, pipeline, "evaluation")
        if self.data.eval_batch < self.data.eval_block and not whole_batches and "blocks" not in self._surveyed:
            self._surveyed.add("blocks")
            log.info(
                "data.eval_batch=%d: test items are computed in blocks of data.eval_block=%d all the same, so that "
                "results do not depend on it; set data.eval_block where memory is short",
                *(self.data.eval_batch, self.data.eval_block),
            )
        return EvalLoader(
            samples,
            pipeline,
            batch_size=self.data.eval_batch if whole_batches else self.data.eval_block,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
            workers=self.data.workers,
            bad=self.bad,
            whole_batches=True,
            skip=skip,
        )

    @cached_property
    def _task_reads(self) -> dict[str, Read]:
        return reads_of(self.task, Task, f"task {member(self.task, Task, 'name')}")

    def _refuse_unknown(self, reads: Mapping[str, Read]) -> None:
        from vtp.data.pipeline import GIVEN
        from vtp.data.table import names_lacking

        for name in names_lacking(self.train_table, reads.keys() - GIVEN) if self.train_table else ():
            known = sorted(self.train_table[0].extra)
            raise DataError(
                f"{reads[name].owner} reads {name!r}, and no training sample has it. The first one has: "
                f"{', '.join(known) or 'nothing'}. Choose a data set that gives it in Sample.extra."
            )

    @staticmethod
    def _refuse_no_slot(key: str, named: Iterable[str], specs: Mapping[Modality, Any]) -> None:
        if strange := [modality for modality in named if modality not in specs]:
            raise ConfigError(
                f"data.{key}: the model takes in {', '.join(specs)}, and no {strange[0]}. "
                f"Leave it out, or fill that slot (encoder/{strange[0]}=...)."
            )

    @cached_property
    def _transforms(self) -> Mapping[Modality, Any]:
        from vtp.data.transforms import chosen_transforms

        if not any(self.data.transforms.values()):
            return {}
        problems: list[str] = []
        chosen = chosen_transforms(self.data.transforms, problems)
        refuse(problems)
        return chosen

    def _pipeline(
        self,
        specs: Mapping[Modality, Any],
        *,
        train: bool,
        drop: Sequence[Modality] = (),
        reads: Mapping[str, Read] | None = None,
        views: int | None = None,
    ) -> Any:
        from vtp.data import Pipeline
        from vtp.data.transforms import own_transforms
        from vtp.media.multi_view import InWindows, View, Windows
        from vtp.media.sampling import dense, find_sampler
        from vtp.media.transforms import TrainTransform, eval_transform

        video = specs.get("video")
        sampler: Any = find_sampler(self.data.sampler)
        transform: Any = None
        clips, crops = (self.data.train_clips, 1) if train else (views or self.data.eval_clips, self.data.eval_crops)
        if self.data.train_clips > 1 and sampler is None:
            sampler = dense  # neighbouring frames, in evaluation as in training
        if video is not None and train and self.data.augment:
            transform = TrainTransform(video.size, **{name: getattr(self.data, name) for name in AUGMENTATIONS})
        if video is not None and not train and (resize := self.data.eval_resize) is not None:
            if resize < video.size:
                raise ConfigError(
                    f"data.eval_resize={resize} is less than the {video.size} pixels that the video encoder takes: the "
                    "crop would be larger than the picture. Give more, such as 8/7 of it, or null."
                )
            transform = eval_transform(video, resize)
        elif video is not None and not train and clips > 1 and crops == 1:
            transform = eval_transform(video)
        if video is not None and clips * crops > 1:
            transform = View(video.size, clips, crops) if transform is None else InWindows(transform, clips)
            sampler = Windows(clips, sampler if self.data.train_clips > 1 else None)
        self._refuse_no_slot("transforms", self._transforms, specs)
        return Pipeline(
            specs,
            train=train and self.data.augment,
            transforms=own_transforms(self._transforms, specs, train=train and self.data.augment),
            seed=self.seed,
            labels=member(self.task, Task, "labels"),
            reads=reads or {},
            reader=self.reader,
            drop=tuple({*self.data.drop, *drop}),
            sampler=sampler,
            transform=transform,
            clips=clips,
            views=clips * crops,
            stills=self.data.stills,  # type: ignore[arg-type]  # checked by DataConfig
        )

    def wait_hint(self, dataset: Mapping[str, Any], loader: Any) -> Any:
        """A callback that says once what helps when training waits for data; ``dataset`` is that node."""
        from vtp.train.wait_hint import WaitHint, advice

        kind = "" if self.data.cache is None else self.reader.cache.settings.kind
        transform = loader.pipeline.transform
        size = None if transform is None else transform.decode_size
        return WaitHint(advice(dataset, size, self.data.cache, kind))

    # -- the cache ---------------------------------------------------------------------------------------------------

    def _survey_cache(self, samples: Sequence[Sample], pipeline: Any, what: str) -> None:
        """Say once per table how much of it comes from the cache."""
        if self.data.cache is None or what in self._surveyed or not distributed.is_main():
            return
        from vtp.data.presence import cache_line

        self._surveyed.add(what)
        log.info(cache_line(self.reader.cache, samples, pipeline, what))

    def cache_record(self) -> Any:
        """What the report says about ``data.cache``; None without one."""
        return None if self.data.cache is None else self.reader.cache.record()

    def say_what_was_cached(self) -> None:
        """How many reads of this process and its workers came from ``data.cache``."""
        if self.data.cache is not None and "reader" in self.__dict__:
            log.info(self.reader.line())
