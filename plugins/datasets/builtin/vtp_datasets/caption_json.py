"""Captions as SimVTP reads them: a JSON object {"path of a video": "its caption"}, for any number of videos.

Paths are absolute, or relative to ``root`` (or to ``root/videos``). A caption may also be a list of captions.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from vtp.catalogue import ROW_ERRORS, VIDEOS, AnnotationFile, Catalogue, Ids, Paths, Plan, Row, given_or, reason

__all__ = ["CaptionJson"]

USUAL = {
    "train": ("train.json", "train_9k_miech.json", "webvid_train.json", "captions_train.json", "captions.json"),
    "val": ("val.json", "webvid_val.json", "captions_val.json"),
    "test": ("test.json", "test_1k_miech.json", "webvid_test.json", "captions_test.json"),
}
ABOUT = """The form is that of SimVTP's files (train_9k_miech.json): {"path": "caption"}. dataset.file=FILE names the
training file, dataset.val_file and dataset.test_file those of the other splits."""


class CaptionJson(Catalogue):
    """A JSON object from paths to captions for each split: one video each with its caption.

    Args:
        root: folder that paths are relative to; None = ``$VTP_DATA/caption_json``, or ``data/caption_json`` without
            that variable.
        file, val_file, test_file: the JSON files, absolute or relative to ``root``; None = ``train.json`` and the like;
            of validation and testing only where they are there.
        namespace: data sets with one namespace share their clips, for the leak check; None = ``caption_json:`` and the
            name of ``root``.
    """

    name = "caption_json"
    by_file = True
    kinds = ("caption", "retrieval")
    about = ABOUT
    clips = "the videos, at the paths that the files give"

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        file: str | Path | None = None,
        val_file: str | Path | None = None,
        test_file: str | Path | None = None,
        namespace: str | None = None,
    ) -> None:
        super().__init__(root)
        self.media_namespace = namespace or f"caption_json:{self.root.absolute().name}"
        self._files = {"train": file, "val": val_file, "test": test_file}

    def plan(self, kind: str, split: str) -> Plan | None:
        names = given_or(self._files[split], USUAL[split])
        if split != "train" and self._files[split] is None and self.find(*names) is None:
            return None
        media = Paths([self.root, self.root / "videos"], VIDEOS)
        return Plan((names,), partial(_rows, media=media), lambda: media)


def _rows(file: AnnotationFile, *, media: Paths) -> Iterator[Row]:
    ids = Ids()
    for position, path, value in file.items():
        try:
            if not isinstance(path, str):
                raise TypeError("the file is a list; it should be an object from paths to captions")
            if not path.strip():
                raise ValueError("no path")
            texts = file.texts(value, "caption")
            name = ids.unique(path, path, position, texts)
        except ROW_ERRORS as error:
            file.reject(f"item {position}", reason(error))
            continue
        file.rows += 1
        yield Row(name, texts, video_id=media.clip(path), video=path, place=position)
    file.note_repeated(ids)
