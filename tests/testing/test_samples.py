"""A good data set and a good task pass, and for every check there is a faulty one that it catches."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from vtp.data.table import media_id
from vtp.testing import ContractError, check_dataset, check_task
from vtp.types import MediaRef, Sample


class Clips:
    """A data set as small as the contract allows."""

    def __init__(self, *, rows: int = 6) -> None:
        self.rows = rows

    def row(self, split: str, number: int) -> Sample:
        name = f"{split}{number}"
        labels = {"answer": ("red", "blue")[number % 2]}
        return Sample(name, MediaRef(f"{name}.mp4"), texts=(f"what is {name}?",), labels=labels)

    def samples(self, kind: str, split: str) -> list[Sample]:
        return [self.row(split, number) for number in range(self.rows)] if split != "val" else []


class Misspelt(Clips):
    def orgin(self):
        return {}


class Empty(Clips):
    def samples(self, kind, split):
        return []


class Twice(Clips):
    def samples(self, kind, split):
        return super().samples(kind, split) * 2


class ListOfTexts(Clips):
    def row(self, split, number):
        return Sample(f"{split}{number}", MediaRef("a.mp4"), texts=["a text"])


class Table(list):
    def __init__(self, rows, fault=""):
        super().__init__(rows)
        self.fault = fault

    def select(self, rows):
        return [self[row] for row in sorted(rows)] if self.fault == "select" else [self[row] for row in rows]

    def all_texts(self):
        return iter(["one"]) if self.fault == "texts" else (text for one in self for text in one.texts)

    def video_ids(self):
        return [one.id for one in self] if self.fault == "ids" else [media_id(one) for one in self]

    def media_numbers(self):
        return np.zeros(len(self), int) if self.fault == "numbers" else np.arange(len(self))

    def epoch_order(self, generator):
        return np.zeros(len(self), int) if self.fault == "order" else generator.permutation(len(self))


class Bulk(Clips):
    def __init__(self, *, fault: str = "") -> None:
        super().__init__()
        self.fault = fault

    def samples(self, kind, split):
        return Table(super().samples(kind, split), self.fault)


class Moody(Clips):
    made = 0

    def __init__(self, *, rows: int = 6):
        super().__init__(rows=rows)
        Moody.made += 1
        self.shift = Moody.made

    def row(self, split, number):
        return super().row(split, number + self.shift)


class PathsInItsOrigin(Clips):
    def origin(self):
        return {"files": [Path("a.json")]}


class NamesInItsOrigin(Clips):
    def origin(self):
        return {"files": ["a.json"]}


class Unpicklable(Clips):
    def samples(self, kind, split):
        found = Table(super().samples(kind, split))
        found.open = lambda: None
        return found


@pytest.mark.parametrize(
    "check, cls, options, words",
    [
        ("members", Misspelt, {}, "`orgin`.*`origin`"),
        ("tables", Empty, {}, "at least one split of one kind must have rows"),
        ("samples", Twice, {}, "ids must be unique; twice there is train0"),
        ("samples", ListOfTexts, {}, r"texts=\[.a text.\] must be a tuple of strings"),
        ("bulk", Bulk, {"fault": "select"}, "select.rows. must give these rows in this order"),
        ("bulk", Bulk, {"fault": "texts"}, "all_texts must be the texts of all rows"),
        ("bulk", Bulk, {"fault": "ids"}, "video_ids must be media_id of every row"),
        ("bulk", Bulk, {"fault": "numbers"}, "media_numbers joins"),
        ("bulk", Bulk, {"fault": "order"}, "epoch_order must hold every row once"),
        ("determinism", Moody, {}, "two instances must give the same rows"),
        ("origin", PathsInItsOrigin, {}, "origin.. must be plain JSON"),
        ("origin", NamesInItsOrigin, {}, 'its "files" a list of {"path": ...}'),
        ("workers", Unpicklable, {}, "must travel to loader workers by pickle"),
    ],
)
def test_a_faulty_data_set_is_caught(check, cls, options, words):
    with pytest.raises(ContractError) as error:
        check_dataset(cls, options, kinds=["qa"])
    assert re.search(rf"^  (?:[\w, -]+, )?{check}(?:, [\w, -]+)?: .*{words}", str(error.value), re.M), str(error.value)


def test_good_data_sets_pass():
    check_dataset(Clips, {"rows": 3})
    check_dataset(Bulk, kinds=["qa", "retrieval"])


# -- tasks -------------------------------------------------------------------------------------------------------------


class Colours:
    """A task as small as the contract allows, with answers."""

    name, kind, monitor = "colours", "qa", ("accuracy", "max")

    def __init__(self, *, dataset: object, most: int = 2) -> None:
        self.dataset = dataset
        self.answers = ("red", "blue")[:most]

    def use_answers(self, answers):
        self.answers = tuple(answers)

    def train_samples(self):
        return self.dataset.samples("qa", "train")

    def samples(self, split):
        return self.dataset.samples("qa", split)

    def labels(self, sample):
        return {"answer": self.answers.index(sample.labels["answer"])}

    def evaluate(self, evaluator, split="test", *, detail=True):
        raise NotImplementedError

    def predict(self, evaluator, split="test"):
        raise NotImplementedError


class Undirected(Colours):
    monitor = ("accuracy", "up")


class Untrained(Colours):
    def train_samples(self):
        return []


class Stubborn(Colours):
    def use_answers(self, answers):
        pass


class Words(Colours):
    def labels(self, sample):
        return {"answer": sample.labels["answer"]}


class Ragged(Colours):
    def labels(self, sample):
        return {"tags": [1] * (1 + sample.id.endswith("1"))}


class Beyond(Colours):
    def labels(self, sample):
        return {"answer": 2}


class Silent(Colours):
    def texts(self):
        return [3]


class Alternating(Colours):
    made = 0

    def __init__(self, *, dataset, most: int = 2):
        super().__init__(dataset=dataset, most=most)
        Alternating.made += 1
        self.answers = self.answers[:: -1 if Alternating.made % 2 else 1]


class Tied(Colours):
    def __init__(self, *, dataset, most: int = 2):
        super().__init__(dataset=dataset, most=most)
        self.hook = lambda: None


@pytest.mark.parametrize(
    "check, cls, words",
    [
        ("members", Undirected, "monitor must be a metric and max or min"),
        ("samples", Untrained, "train_samples must not be empty"),
        ("answers", Stubborn, "after use_answers, answers must be those of the checkpoint"),
        ("labels", Words, "labels of 'train0' must be numbers by name"),
        ("labels", Ragged, "a label must be as long in every sample"),
        ("labels", Beyond, "a label must be a place in answers .there are 2., got 2"),
        ("texts", Silent, "texts must give the training texts, as strings"),
        ("determinism", Alternating, "answers must not vary"),
        ("workers", Tied, "labels must travel to loader workers by pickle"),
    ],
)
def test_a_faulty_task_is_caught(check, cls, words):
    with pytest.raises(ContractError) as error:
        check_task(cls, dataset=Clips())
    assert re.search(rf"^  (?:[\w, -]+, )?{check}(?:, [\w, -]+)?: .*{words}", str(error.value), re.M), str(error.value)


def test_a_good_task_passes():
    check_task(Colours, {"most": 2}, dataset=Clips())


class Once:
    def samples(self, kind, split):
        return iter([Sample("a", texts=("a dog",))])


def test_the_cause_is_told_once_and_not_what_follows_from_it():
    with pytest.raises(ContractError) as error:
        check_dataset(Once, kinds=["caption"])
    (told,) = str(error.value).splitlines()[1:]
    where, _, what = told.partition(": ")
    assert where == "  tables, samples, bulk, determinism, workers"
    assert what == "samples('caption', 'train') must give a sequence (a list will do), got list_iterator"
