"""What is read of samples as tensors: padded, stacked, or by a function, in batches of both loaders."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from number_files import pipeline, take

from vtp.contracts import Read, joined_reads
from vtp.data import EvalLoader, TrainLoader
from vtp.errors import DataError, PluginError
from vtp.types import Batch, Field, MediaRef, Sample

DOCS = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
BOXES = [[[1, 2, 3, 4]], [], None, [[5, 6, 7, 8], [9, 10, 11, 12]]]


def samples(**extra: list[Any]) -> list[Sample]:
    """4 rows; None leaves the key out."""
    return [
        Sample(
            f"s{k}",
            video=MediaRef(f"/v/{k}"),
            texts=(f"{k} 0", f"{k} 1"),
            labels={"answer": k},
            extra={name: values[k] for name, values in extra.items() if values[k] is not None},
        )
        for k in range(4)
    ]


def lengths_of(values: list[Any]) -> torch.Tensor:
    return torch.tensor([-1 if value is None else len(value) for value in values])


def several(values: list[Any]) -> dict[str, torch.Tensor]:
    return {"first": torch.zeros(len(values)), "second": lengths_of(values)}


def batch_of(reads: dict[str, Any], rows: list[Sample], workers: int = 0) -> Batch:
    asked = {name: Read("objective det", how is None, how) for name, how in reads.items()}
    loader = EvalLoader(rows, pipeline(train=False, reads=asked), batch_size=4, workers=workers)
    return next(iter(loader))


@pytest.mark.parametrize("workers", [0, 1])
def test_lists_are_padded_and_numbers_stacked(workers: int) -> None:
    rows = samples(
        boxes=BOXES, score=[0.5, None, 2, 3], ids=[[3], [4, 5], [6], []], pair=[(1, 2), None, (3, 4), (5, 6)]
    )
    reads = {"boxes": Field((None, 4)), "score": Field(), "ids": Field((None,), "int64"), "pair": Field((2,), "uint8")}
    fields = batch_of(reads, rows, workers).fields
    want = np.zeros((4, 2, 4))
    want[0, 0], want[3] = [1, 2, 3, 4], [[5, 6, 7, 8], [9, 10, 11, 12]]
    assert fields["boxes"].dtype == torch.float32 and fields["boxes"].tolist() == want.tolist()
    assert fields["boxes.lengths"].tolist() == [1, 0, 0, 2]
    assert fields["boxes.present"].tolist() == [True, True, False, True]
    assert fields["score"].tolist() == [0.5, 0, 2, 3] and fields["score.present"].tolist() == [True, False, True, True]
    assert fields["ids"].dtype == torch.int64 and fields["ids"].tolist() == [[3, 0], [4, 5], [6, 0], [0, 0]]
    assert fields["pair"].dtype == torch.uint8 and fields["pair"].tolist() == [[1, 2], [0, 0], [3, 4], [5, 6]]
    assert "score.lengths" not in fields


def test_shapes_do_not_depend_on_luck() -> None:
    """A batch in which no row has it."""
    fields = batch_of({"boxes": Field((None, 4)), "pair": Field((2,))}, samples()).fields
    assert fields["boxes"].shape == (4, 1, 4) and not fields["boxes.present"].any() and not fields["boxes"].any()
    assert fields["pair"].shape == (4, 2)


def test_arrays_come_as_they_are() -> None:
    arrays = [np.arange(6, dtype=np.float16).reshape(2, 3) + k for k in range(4)]
    fields = batch_of({"feature": Field((2, 3), "float16")}, samples(feature=arrays)).fields
    assert fields["feature"].dtype == torch.float16
    np.testing.assert_array_equal(fields["feature"].numpy(), np.stack(arrays))


def test_a_function_makes_one_tensor_or_several() -> None:
    batch = batch_of({"texts": lengths_of, "asr": several, "source": None}, samples(asr=["ab", None, "c", ""]))
    assert batch.fields["texts"].tolist() == [2, 2, 2, 2]
    assert batch.fields["asr.second"].tolist() == [2, -1, 1, 0] and batch.fields["asr.first"].tolist() == [0] * 4
    assert "source" in batch.extra and "asr" not in batch.extra


def test_what_the_row_is_about_can_be_read_too() -> None:
    batch = batch_of({"text": lengths_of, "video_id": lengths_of}, samples())
    assert batch.fields["text"].tolist() == [3] * 4 and batch.fields["video_id"].tolist() == [len("/v/0")] * 4
    assert batch.extra["text"] == ["0 0", "1 0", "2 0", "3 0"]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([[1, 2]], r"int64 \(1, 2\)"),
        ([1, 2, 3, 4], r"int64 \(4,\)"),
        (3, r"int64 \(\)"),
        ("abcd", "no numbers of one shape"),
        ([[1, 2, 3, 4], [5]], "no numbers of one shape"),
        ([["a", "b", "c", "d"]], "no numbers of one shape"),
    ],
)
def test_another_shape_is_told_with_its_sample(value: Any, told: str) -> None:
    match = rf"^sample 's2': 'boxes' holds {told}, expected float32 \(any, 4\), as objective det reads it\.$"
    with pytest.raises(DataError, match=match):
        batch_of({"boxes": Field((None, 4))}, samples(boxes=[None, None, value, None]))


@pytest.mark.parametrize("value", [[0.5], [300], [float("nan")]])
def test_numbers_that_the_type_cannot_hold_are_told(value: Any) -> None:
    with pytest.raises(DataError, match=r"^sample 's0': 'ids' holds .* \(1,\), expected uint8 \(any,\), as"):
        batch_of({"ids": Field((None,), "uint8")}, samples(ids=[value, None, None, None]))


@pytest.mark.parametrize(
    ("function", "got"),
    [
        (lambda values: torch.zeros(3), r"shape \(3,\) for 'asr'"),
        (lambda values: torch.zeros(()), r"shape \(\) for 'asr'"),
        (lambda values: values, "list for 'asr'"),
        (lambda values: {"a": torch.zeros(4), "b": 3}, "int for 'asr.b'"),
    ],
)
def test_a_function_that_gives_something_else_is_told(function: Any, got: str) -> None:
    with pytest.raises(PluginError, match=rf"^objective det: .* gave {got}, expected a tensor with 4 rows"):
        batch_of({"asr": function}, samples(asr=["a"] * 4))


def test_micro_batches_and_processes_have_their_rows() -> None:
    rows = samples(boxes=[[[k, k, k, k]] * k for k in range(4)])
    reads = {"boxes": Read("objective det", False, Field((None, 4)))}
    whole = take(TrainLoader(rows, pipeline(reads=reads), global_batch=4), 3)
    for batch in whole:
        assert batch.fields["boxes.lengths"].tolist() == [int(name[1:]) for name in batch.ids]
        part = batch.rows(1, 3)
        assert part.fields["boxes"].equal(batch.fields["boxes"][1:3])
        assert part.fields["boxes.present"].shape == (2,)
        assert batch.map(lambda tensor: tensor + 1).fields["boxes"].equal(batch.fields["boxes"] + 1)
    halves = [take(TrainLoader(rows, pipeline(reads=reads), global_batch=4, rank=r, world_size=2), 3) for r in range(2)]
    for step, batch in enumerate(whole):
        lengths = [part[step].fields["boxes.lengths"].tolist() for part in halves]
        assert lengths[0] + lengths[1] == batch.fields["boxes.lengths"].tolist()


def test_one_may_want_a_list_where_another_wants_a_tensor() -> None:
    one, two = {"a": Read("objective one")}, {"a": Read("objective two", False, Field()), "b": Read("objective two")}
    both = joined_reads(one, two)
    assert both == joined_reads(two, one) | {"a": both["a"]}
    assert (both["a"].listed, both["a"].how) == (True, Field()) and both["b"] == two["b"]
    batch = batch_of({}, samples())
    assert batch.fields == {} and "a" not in batch.extra
    other = {"a": Read("task three", False, Field((2,)))}
    with pytest.raises(PluginError, match=r"^objective two reads 'a' as Field.*, and task three as Field"):
        joined_reads(one, two, other)


@pytest.mark.parametrize("shape", [(3, None), (0,), 3, [3], (2.0,), (True,)])
def test_a_field_says_what_its_shape_may_be(shape: Any) -> None:
    with pytest.raises(PluginError, match="must be a tuple of sizes"):
        Field(shape)


def test_a_field_says_what_its_type_may_be() -> None:
    with pytest.raises(PluginError, match="dtype='float' must be one of float32, float16"):
        Field((), "float")


def test_the_example_of_the_docs() -> None:
    source = next(block for block in re.findall(r"```python\n(.*?)```", DOCS, re.S) if "class Boxes" in block)
    made: dict[str, Any] = {"Objective": object, "load_asr": lengths_of}
    exec(source, made)
    rows = samples(source=["a"] * 4, score=[1] * 4, boxes=BOXES, ids=[[1]] * 4, asr=["abc"] * 4)
    batch = batch_of(made["Boxes"].reads, rows)
    assert batch.extra["source"] == ["a"] * 4 and batch.fields["asr"].tolist() == [3] * 4
    assert batch.fields["score"].shape == (4,) and batch.fields["boxes"].shape == (4, 2, 4)
