"""A folder of media and one file, index.jsonl: clip, split, captions, questions, tags."""

import json
from pathlib import Path

from vtp.errors import DataError
from vtp.types import MediaRef, Sample


class FolderSet:
    kinds = ("caption", "retrieval", "qa", "tags")

    def __init__(self, *, root: str):
        self.index = Path(root) / "index.jsonl"
        if not self.index.is_file():
            raise DataError(f"{self.index} is not there. Set dataset.root to the folder that holds it.")
        self.media = Path(root) / "media"

    def samples(self, kind, split):
        lines = (json.loads(line) for line in self.index.read_text(encoding="utf-8").splitlines())
        return [sample for line in lines if line["split"] == split for sample in self.rows(kind, line)]

    def rows(self, kind, line):
        clip = line["clip"]
        ref = MediaRef(str(self.media / clip))
        extra = {"video_id": clip, "tags": line["tags"], "size": [len(line["captions"]), len(line["tags"])]}
        if kind == "qa":
            for k, (question, answer) in enumerate(line["questions"]):
                yield Sample(f"{clip}?{k}", ref, ref, (question,), {"answer": answer}, extra)
        elif kind == "caption":
            for k, text in enumerate(line["captions"]):
                yield Sample(f"{clip}#{k}", ref, ref, (text,), extra=extra)
        else:
            yield Sample(clip, ref, ref, tuple(line["captions"]), {"tags": line["tags"]}, extra)

    def origin(self):
        return {"files": [str(self.index)]}
