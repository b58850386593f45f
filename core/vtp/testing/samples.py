"""What every data set and every task promises about its samples."""

from __future__ import annotations

import inspect
import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vtp.contracts import Dataset, Table, Task, member, offers, reads_of
from vtp.data.table import media_id
from vtp.errors import DataError, SampleTypeError
from vtp.eval.task import SELECTION_RULES
from vtp.testing.checks import Check, ContractError, construct, expect, keeps_members, run, some
from vtp.types import Sample

__all__ = ["check_dataset", "check_task"]

FEW = 50  # rows of a table that are looked at one by one


def check_dataset(
    cls: Callable[..., Any],
    options: Mapping[str, Any] | None = None,
    *,
    kinds: Sequence[str] | None = None,
    skip: Mapping[str, str] | None = None,
) -> None:
    """Check a data set. Its annotations must be where the options say, those of one split at least; its media need not
    be there.

    Args:
        cls: the class.
        options: keyword arguments.
        kinds: which tables; None = all kinds. At least one of them must have rows.
        skip: checks to leave out, with the reason.

    Checks: members, tables, samples, bulk, determinism, origin, workers.

    Raises:
        ContractError: with every check that failed.

    Example::

        def test_my_data(tmp_path):
            write_a_few_annotations(tmp_path)
            check_dataset(MyData, {"root": str(tmp_path)}, kinds=["qa"])
    """
    trial = _Tables(cls, options or {}, kinds)
    checks: dict[str, Check] = {
        "members": trial.members,
        "tables": trial.exist,
        "samples": trial.samples,
        "bulk": trial.bulk,
        "determinism": trial.determinism,
        "origin": trial.origin,
        "workers": trial.workers,
    }
    run(f"{cls.__module__}.{cls.__name__}", checks, skip)


class _Tables:
    """The tables of a data set."""

    def __init__(self, cls: Callable[..., Any], options: Mapping[str, Any], kinds: Sequence[str] | None) -> None:
        self.cls = cls
        self.options = options
        self.kinds = kinds

    def all(self) -> dict[str, Sequence[Sample]]:
        """Every table that has rows and files, as ``qa train``."""
        dataset = construct(self.cls, self.options)
        kinds = self.kinds if self.kinds is not None else member(dataset, Dataset, "kinds")
        found = {}
        for kind in kinds:
            for split in member(dataset, Dataset, "splits")(kind):
                try:
                    table = dataset.samples(kind, split)
                except SampleTypeError:
                    raise
                except DataError:  # the files of this table are not here
                    continue
                sized = all(offers(table, name) for name in ("__len__", "__getitem__"))
                told = f"samples({kind!r}, {split!r}) must give a sequence (a list will do), got {type(table).__name__}"
                expect(sized, told)
                if len(table):
                    found[f"{kind} {split}"] = table
        return found

    def members(self) -> None:
        dataset = construct(self.cls, self.options)
        keeps_members(dataset, Dataset)
        kinds = member(dataset, Dataset, "kinds")
        expect(kinds and all(isinstance(kind, str) for kind in kinds), f"kinds must name its tables, got {kinds!r}")
        strange = sorted(set(self.kinds or ()) - set(kinds))
        expect(not strange, f"kinds={some(strange)} is asked for, but kinds names {some(kinds)}")
        name = member(dataset, Dataset, "name")
        expect(isinstance(name, str) and name, f"name must be a string that is not empty, got {name!r}")

    def exist(self) -> None:
        tables = self.all()
        expect(tables, "at least one split of one kind must have rows")
        for name, table in tables.items():
            expect(
                isinstance(table[0], Sample), f"{name}: a row must be a vtp.types.Sample, got {type(table[0]).__name__}"
            )

    def samples(self) -> None:
        for name, table in self.all().items():
            ids = [table[row].id for row in range(len(table))]
            twice = sorted({one for one in ids if ids.count(one) > 1}) if len(ids) < 5000 else []
            expect(not twice and len(set(ids)) == len(ids), f"{name}: ids must be unique; twice there is {some(twice)}")
            for row in range(min(len(table), FEW)):
                problem = _sample_problem(table[row])
                expect(not problem, f"{name}, row {row} ({table[row].id!r}): {problem}")

    def bulk(self) -> None:
        for name, table in self.all().items():
            count = min(len(table), FEW)
            rows = np.arange(count)[::-1].copy()
            chosen = member(table, Table, "select")(rows)
            same = [chosen[i].id for i in range(len(chosen))] == [table[int(row)].id for row in rows]
            expect(same, f"{name}: select(rows) must give these rows in this order")
            texts = [text for row in range(len(table)) for text in table[row].texts]
            if offers(table, "all_texts"):
                expect(
                    list(member(table, Table, "all_texts")()) == texts,
                    f"{name}: all_texts must be the texts of all rows",
                )
            if offers(table, "video_ids"):
                ids = [media_id(table[row]) for row in range(len(table))]
                expect(
                    list(member(table, Table, "video_ids")()) == ids, f"{name}: video_ids must be media_id of every row"
                )
            if (numbers := member(table, Table, "media_numbers")) is not None:
                _check_numbers(name, table, np.asarray(numbers()))
            if (order := member(table, Table, "epoch_order")) is not None:
                drawn = [np.asarray(order(np.random.default_rng(3))).tolist() for _ in range(2)]
                expect(sorted(drawn[0]) == list(range(len(table))), f"{name}: epoch_order must hold every row once")
                expect(drawn[0] == drawn[1], f"{name}: epoch_order must depend on the generator alone")

    def determinism(self) -> None:
        for (name, table), again in zip(self.all().items(), self.all().values(), strict=True):
            same = [table[row].id for row in range(len(table))] == [again[row].id for row in range(len(again))]
            expect(same, f"{name}: two instances must give the same rows in the same order")

    def origin(self) -> None:
        dataset = construct(self.cls, self.options)
        origin = member(dataset, Dataset, "origin")()
        try:
            json.dumps(origin)
        except TypeError as error:
            raise ContractError(f"origin() must be plain JSON: {error}") from None
        files = origin.get("files", []) if isinstance(origin, dict) else None
        told = isinstance(files, list) and all(isinstance(one, dict) and "path" in one for one in files)
        expect(told, f'origin() must be a dict, and its "files" a list of {{"path": ...}}, got {origin}')
        namespace = member(dataset, Dataset, "media_namespace")
        expect(isinstance(namespace, str), f"media_namespace must be a string, got {namespace!r}")
        if not namespace:
            names = [media_id(table[0]) for table in self.all().values()]
            bare = [name for name in names if ":" not in name]
            expect(not bare, f"without a media_namespace, clips must be named namespace:clip, got {some(bare)}")

    def workers(self) -> None:
        for name, table in self.all().items():
            try:
                again = pickle.loads(pickle.dumps(table))
            except Exception as error:
                raise ContractError(f"{name}: a table must travel to loader workers by pickle ({error})") from None
            rows = range(min(len(table), FEW))
            same = len(again) == len(table) and all(again[row] == table[row] for row in rows)
            expect(same, f"{name}: a table must give the same rows in a loader worker")


def _check_numbers(name: str, table: Sequence[Sample], numbers: Any) -> None:
    """``media_numbers`` may part what has one file, never join what has not."""
    expect(numbers.shape == (len(table),), f"{name}: media_numbers must have one number per row")
    firsts: dict[int, str] = {}
    for row in range(len(table)):
        clip = media_id(table[row])
        joined = firsts.setdefault(int(numbers[row]), clip) == clip
        expect(joined, f"{name}: media_numbers joins {firsts[int(numbers[row])]!r} and {clip!r}")


def _is_label(value: object) -> bool:
    """Whether it is a number, or a list of numbers that is not empty."""
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(one, (int, float)) for one in value)
    return isinstance(value, (int, float))


def _sample_problem(sample: Sample) -> str:
    """What is wrong with a sample, or nothing; Sample itself refuses wrong types."""
    if not sample.id:
        return "id must be a string that is not empty"
    if sample.video is None and sample.audio is None and not sample.texts:
        return "it has neither media nor texts"
    return ""


def check_task(
    cls: Callable[..., Any],
    options: Mapping[str, Any] | None = None,
    *,
    dataset: Any,
    skip: Mapping[str, str] | None = None,
) -> None:
    """Check what a task says about its samples. How it scores is for its own tests, with a model.

    Args:
        cls: the class.
        options: the keys under ``task:``.
        dataset: a built data set with training and test rows.
        skip: checks to leave out, with the reason.

    Checks: members, samples, answers, labels, texts, determinism, workers.

    Raises:
        ContractError: with every check that failed.

    Example::

        def test_my_task():
            check_task(MyTask, {"answers": 10}, dataset=MyData(root="tests/data"))
    """
    trial = _Samples(cls, options or {}, dataset)
    checks: dict[str, Check] = {
        "members": trial.members,
        "samples": trial.samples,
        "answers": trial.answers,
        "labels": trial.labels,
        "texts": trial.texts,
        "determinism": trial.determinism,
        "workers": trial.workers,
    }
    run(f"{cls.__module__}.{cls.__name__}", checks, skip)


class _Samples:
    """What a task says about a data set."""

    def __init__(self, cls: Callable[..., Any], options: Mapping[str, Any], dataset: Any) -> None:
        self.cls = cls
        self.options = options
        self.dataset = dataset

    def task(self) -> Any:
        return construct(self.cls, self.options, dataset=self.dataset, seed=0, val_share=0.1)

    def train(self, task: Any) -> list[Sample]:
        table = task.train_samples()
        return [table[row] for row in range(min(len(table), FEW))]

    def members(self) -> None:
        task = self.task()
        keeps_members(task, Task)
        for name in ("name", "kind"):
            value = member(task, Task, name)
            expect(isinstance(value, str) and value, f"{name} must be a string that is not empty, got {value!r}")
        metric, direction = member(task, Task, "monitor")
        expect(isinstance(metric, str) and direction in ("max", "min"), "monitor must be a metric and max or min")
        selection = member(task, Task, "selection")
        reads_of(task, Task, "the task")
        expect(selection in SELECTION_RULES, f"selection must be one of {some(SELECTION_RULES)}, got {selection!r}")
        missing = {"evaluator", "split"} - set(inspect.signature(task.evaluate).parameters)
        expect(not missing, f"evaluate must take evaluator and split; {some(sorted(missing))} is not there")

    def samples(self) -> None:
        task = self.task()
        expect(len(task.train_samples()), "train_samples must not be empty for a data set with training rows")
        for split in ("val", "test"):
            table = task.samples(split)
            expect(
                all(isinstance(table[row], Sample) for row in range(min(len(table), FEW))), f"{split}: rows are Samples"
            )
        expect(len(task.samples("test")), "samples('test') must not be empty for a data set with test rows")

    def answers(self) -> None:
        task = self.task()
        answers = tuple(member(task, Task, "answers"))
        expect(all(isinstance(one, str) for one in answers), f"answers must be strings, got {answers[:3]!r}")
        expect(len(set(answers)) == len(answers), "no answer may be in the list twice")
        if answers:
            member(task, Task, "use_answers")(answers[:1])
            now = tuple(member(task, Task, "answers"))
            expect(now == answers[:1], f"after use_answers, answers must be those of the checkpoint, got {now!r}")

    def labels(self) -> None:
        task = self.task()
        samples = self.train(task)
        found = [member(task, Task, "labels")(sample) for sample in samples]
        for sample, labels in zip(samples, found, strict=True):
            plain = all(isinstance(name, str) and _is_label(value) for name, value in labels.items())
            expect(plain, f"labels of {sample.id!r} must be numbers by name, or lists of numbers, got {labels!r}")
        names = {tuple(sorted(labels)) for labels in found}
        expect(len(names) <= 1, f"every sample must have the same labels (-100 = none), got {some(sorted(names))}")
        shapes = sorted({(name, np.shape(value)) for labels in found for name, value in labels.items()})
        expect(
            len(shapes) <= len(found[0] if found else ()),
            f"a label must be as long in every sample, got {some(shapes)}",
        )
        answers = member(task, Task, "answers")
        places = [labels.get("answer", 0) for labels in found if np.shape(labels.get("answer", 0)) == ()]
        beyond = [place for place in places if answers and place >= len(answers)]
        expect(not beyond, f"a label must be a place in answers (there are {len(answers)}), got {some(beyond)}")

    def texts(self) -> None:
        texts = list(member(self.task(), Task, "texts")())
        expect(texts and all(isinstance(text, str) for text in texts), "texts must give the training texts, as strings")

    def determinism(self) -> None:
        one, two = self.task(), self.task()
        for split in ("val", "test"):
            tables = [task.samples(split) for task in (one, two)]
            ids = [[table[row].id for row in range(len(table))] for table in tables]
            expect(ids[0] == ids[1], f"{split}: two instances must give the same rows in the same order")
        expect(tuple(member(one, Task, "answers")) == tuple(member(two, Task, "answers")), "answers must not vary")

    def workers(self) -> None:
        task = self.task()
        labels = member(task, Task, "labels")
        try:
            again = pickle.loads(pickle.dumps(labels))
        except Exception as error:
            raise ContractError(f"labels must travel to loader workers by pickle ({error})") from None
        same = all(again(sample) == labels(sample) for sample in self.train(task))
        expect(same, "labels must be the same in a loader worker")
