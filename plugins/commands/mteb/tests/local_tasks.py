"""Tasks of mteb over files of this disk: nothing comes from the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

__all__ = ["retrieval"]

_KIND = {"t": "text", "v": "video", "a": "audio"}
_FEATURE = {"video": datasets.Video, "audio": datasets.Audio}


def retrieval(name: str, category: str, queries: dict[str, Sequence[Any]], corpus: dict[str, Sequence[Any]]) -> Any:
    """A retrieval task whose query ``q0`` is answered by the document ``d0``, and so on.

    Args:
        category: such as ``t2v``.
        queries, corpus: column -> values; files by their paths.
    """
    sides = category.split("2")

    class Local(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=name,
            description="Clips of a test.",
            reference=None,
            dataset={"path": "local", "revision": "1"},
            type="Any2AnyRetrieval",
            category=category,
            modalities=sorted({_KIND[sign] for side in sides for sign in side}),
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
            date=None,
            domains=None,
            task_subtypes=None,
            license=None,
            annotations_creators=None,
            dialect=None,
            sample_creation=None,
            bibtex_citation=None,
        )

        def load_data(self, **how: Any) -> None:
            count = len(next(iter(queries.values())))
            split = {
                "queries": _table("q", queries),
                "corpus": _table("d", corpus),
                "relevant_docs": {f"q{number}": {f"d{number}": 1} for number in range(count)},
                "top_ranked": None,
            }
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return Local()


def _table(letter: str, columns: dict[str, Sequence[Any]]) -> Any:
    count = len(next(iter(columns.values())))
    values = {
        name: [str(value) if isinstance(value, Path) else value for value in column] for name, column in columns.items()
    }
    table = datasets.Dataset.from_dict({"id": [f"{letter}{number}" for number in range(count)], **values})
    for name in set(columns) & set(_FEATURE):
        table = table.cast_column(name, _FEATURE[name]())
    return table
