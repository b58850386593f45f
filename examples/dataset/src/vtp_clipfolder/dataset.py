"""A folder of clips and index.jsonl, a line per clip; captions, questions and both may be there:

{"clip": "a.mp4", "split": "train", "captions": ["a dog runs"], "questions": [["what runs?", "dog"]]}
"""

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from vtp.errors import DataError
from vtp.types import MediaRef, Sample


class ClipFolder:
    """No tensors, no decoding, nothing filtered: the loader finds missing files and accounts for them."""

    kinds = ("caption", "retrieval", "qa")

    def __init__(self, *, root: str):
        self.root = Path(root).expanduser()
        self.index = self.root / "index.jsonl"
        if not self.index.is_file():
            raise DataError(f"{self.index} is not there. Set dataset.root to the folder that holds it.")

    @cached_property
    def lines(self) -> list[dict[str, Any]]:
        found = []
        for number, line in enumerate(self.index.read_text(encoding="utf-8").rstrip().split("\n"), start=1):
            try:
                found.append(dict(json.loads(line)))
            except (TypeError, ValueError) as error:
                raise DataError(f"{self.index}, line {number}: expected a JSON object ({error}).") from error
            if lacking := {"clip", "split"} - found[-1].keys():
                raise DataError(f"{self.index}, line {number} lacks {' and '.join(sorted(lacking))}.")
            if texts := [k for k in ("captions", "questions") if not isinstance(found[-1].get(k, []), list)]:
                raise DataError(f"{self.index}, line {number}: {texts[0]} must be a list.")
        return found

    def samples(self, kind: str, split: str) -> list[Sample]:
        return [sample for line in self.lines if line["split"] == split for sample in self.rows(kind, line)]

    def rows(self, kind: str, line: dict[str, Any]) -> Iterator[Sample]:
        clip, captions = line["clip"], tuple(line.get("captions", ()))
        ref, extra = MediaRef(str(self.root / clip)), {"video_id": clip}
        if kind == "qa":
            for k, (question, answer) in enumerate(line.get("questions", ())):
                yield Sample(f"{clip}?{k}", ref, ref, (question,), {"answer": answer}, extra)
        elif kind == "caption":
            for k, text in enumerate(captions):
                yield Sample(f"{clip}#{k}", ref, ref, (text,), extra=extra)
        elif captions:
            yield Sample(clip, ref, ref, captions, extra=extra)

    def origin(self) -> dict[str, Any]:
        return {"name": "clipfolder", "files": [{"path": str(self.index), "bytes": self.index.stat().st_size}]}
