"""Conceptual Captions 3M: images of the web with one caption each, for pre-training.

Captions   ``Train_GCC-training.tsv`` and ``Validation_GCC-1.1.0-Validation.tsv``: caption TAB url, without a header
Images     named by the position of their line, counted from 0: ``00012/000123456.jpg``, as img2dataset lays them (ten
           thousand to a folder), or ``123456.jpg``; under ``images/`` or ``images/train`` (``val``)
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from vtp.catalogue import NONE, AnnotationFile, Catalogue, Layouts, Plan, Row, reason, text_of

__all__ = ["CC3M"]

NAMES = {
    "train": ("Train_GCC-training.tsv", "Train_GCC-training_output.csv", "cc3m_train.tsv", "train.tsv"),
    "val": ("Validation_GCC-1.1.0-Validation.tsv", "cc3m_val.tsv", "val.tsv"),
}
PATTERNS = ("{shard}/{key}.jpg", "{name}.jpg", "{key}.jpg", "{name}")
ABOUT = """Where Conceptual Captions comes from:
  captions: Train_GCC-training.tsv and Validation_GCC-1.1.0-Validation.tsv of the release (Sharma et al., ACL 2018)
  images: downloaded from the urls in those files, for example with img2dataset"""


class CC3M(Catalogue):
    """Conceptual Captions 3M: one image and its caption each. There is no test split.

    Args:
        root: folder with captions and images; None = ``$VTP_DATA/cc3m``, or ``data/cc3m`` without that variable.
        images: folder of the images, absolute or relative to ``root``; None = the usual ones.
    """

    name = "cc3m"
    kinds = ("caption", "retrieval")
    folders = ("", "annotations", "cc3m")
    about = ABOUT
    clips = "images/00000/000000000.jpg ..."

    def __init__(self, *, root: str | Path | None = None, images: str | Path | None = None) -> None:
        super().__init__(root)
        self._images = images

    def plan(self, kind: str, split: str) -> Plan | None:
        if split not in NAMES:
            return None
        return Plan((NAMES[split],), partial(_rows, split=split), partial(self._media, split), options={"split": split})

    def _media(self, split: str) -> Layouts:
        base = self.root / (self._images or "images")
        other = {"train": "training", "val": "validation"}[split]
        return Layouts([base / split, base / other, base, self.root / split], PATTERNS)


def _rows(file: AnnotationFile, *, split: str) -> Iterator[Row]:
    # A caption is no csv cell: quotation marks in it are characters.
    for position, (line, text) in enumerate(file.numbered_lines()):
        caption, tab, url = text.partition("\t")
        try:
            if not tab or not url.strip() or "\t" in url:
                raise ValueError(f"{text.count(chr(9)) + 1} cells instead of caption and url")
            made = Row(f"{split}/{position}", [text_of({"caption": caption}, "caption")], video=str(position))
        except ValueError as error:
            file.reject(f"line {line}", reason(error))
            continue
        made.place, made.audio, made.extra = line, NONE, {"url": url.strip()}
        file.rows += 1
        yield made
