"""Padding, presence and labels of a batch."""

from __future__ import annotations

import numpy as np
import torch

from vtp.data import Example, collate
from vtp.types import AudioSpec, TextSpec, VideoSpec

TEXT = TextSpec(lambda texts: [[1]] * len(texts), 9, 3, 1, 2, (9,), 30, 8)


def test_rows_are_padded_and_marked() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 2, 4, 4, 3), dtype=np.uint8)
    examples = [
        Example("a", frames[0], np.array([0.5, -0.5], np.float32), [5, 6, 7]),
        Example("b", None, None, [5]),
        Example("c", frames[1], np.arange(9, dtype=np.float32), None),
    ]
    batch = collate(examples, {"video": VideoSpec(2, 4), "audio": AudioSpec(10, 0.6), "text": TEXT})
    assert batch.ids == ["a", "b", "c"] and batch.global_rows == 3
    assert {m: p.tolist() for m, p in batch.present.items()} == {
        "video": [True, False, True],
        "audio": [True, False, True],
        "text": [True, True, False],
    }
    assert torch.equal(batch.inputs["video"]["frames"][[0, 2]], torch.from_numpy(frames))
    assert batch.inputs["video"]["frames"].dtype == torch.uint8 and not batch.inputs["video"]["frames"][1].any()
    assert batch.inputs["audio"]["waveform"].tolist() == [[0.5, -0.5, 0, 0, 0, 0], [0] * 6, [0, 1, 2, 3, 4, 5]]
    assert batch.inputs["audio"]["lengths"].tolist() == [2, 0, 6]
    assert batch.inputs["text"]["token_ids"].tolist() == [[5, 6, 7], [5, 9, 9], [9, 9, 9]]
    assert batch.inputs["text"]["attention_mask"].tolist() == [[True] * 3, [True, False, False], [False] * 3]


def test_a_modality_that_no_row_has_keeps_its_shape() -> None:
    batch = collate([Example("a"), Example("b")], {"video": VideoSpec(2, 4), "audio": AudioSpec(10, 0.6), "text": TEXT})
    assert batch.inputs["video"]["frames"].shape == (2, 2, 4, 4, 3)
    assert batch.inputs["audio"]["waveform"].shape == (2, 6)
    assert batch.inputs["text"]["token_ids"].shape == (2, 1)
    assert not any(present.any() for present in batch.present.values())


def test_labels_and_extras_are_by_row() -> None:
    examples = [
        Example("a", labels={"answer": 3, "score": 0.5}, extra={"text": "x"}),
        Example("b", labels={"flag": True, "many": [1, 0]}),
        Example("c", labels={"answer": np.int64(4), "score": 2}),
    ]
    batch = collate(examples, {})
    assert batch.labels["answer"].tolist() == [3, -100, 4] and batch.labels["answer"].dtype == torch.int64
    assert batch.labels["score"].dtype == torch.float32 and batch.labels["score"].isnan().tolist() == [
        False,
        True,
        False,
    ]
    assert batch.labels["flag"].tolist() == [-100, 1, -100]
    assert batch.labels["many"].tolist() == [[-100, -100], [1, 0], [-100, -100]]
    assert batch.extra == {"text": ["x", None, None]}


def test_several_views_get_an_axis() -> None:
    views = np.zeros((3, 2, 4, 4, 3), np.uint8)
    batch = collate([Example("a", views), Example("b")], {"video": VideoSpec(2, 4)})
    assert batch.inputs["video"]["frames"].shape == (2, 3, 2, 4, 4, 3)
