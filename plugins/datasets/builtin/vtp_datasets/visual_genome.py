"""Visual Genome: images with phrases about their regions, for pre-training.

Phrases   ``region_descriptions.json``: [{"id": 1, "regions": [{"region_id", "image_id", "phrase", "x", "y", "width",
          "height"}, ...]}]
Images    ``VG_100K/1.jpg`` and ``VG_100K_2/1.jpg``, or all in ``images``
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vtp.catalogue import NONE, ROW_ERRORS, AnnotationFile, Catalogue, Ids, Layouts, Plan, Row, reason, text_of

__all__ = ["VisualGenome"]

ABOUT = """Where Visual Genome comes from:
  phrases: region_descriptions.json of the release (Krishna et al., IJCV 2017)
  images: images.zip and images2.zip of the same"""


class VisualGenome(Catalogue):
    """Visual Genome: one image each with the phrases about all its regions. There is no split but training.

    Args:
        root: folder with phrases and images; None = ``$VTP_DATA/visual_genome``, or ``data/visual_genome`` without that
            variable.
        images: folder of the images, absolute or relative to ``root``; None = the usual ones.
    """

    name = "visual_genome"
    kinds = ("caption", "retrieval")
    folders = ("", "annotations", "visual_genome")
    about = ABOUT
    clips = "VG_100K/1.jpg ... and VG_100K_2/"

    def __init__(self, *, root: str | Path | None = None, images: str | Path | None = None) -> None:
        super().__init__(root)
        self._images = images

    def plan(self, kind: str, split: str) -> Plan | None:
        return Plan((("region_descriptions.json",),), _rows, self._media) if split == "train" else None

    def _media(self) -> Layouts:
        names = (self._images,) if self._images is not None else ("VG_100K", "VG_100K_2", "images", "")
        patterns = ("{name}.jpg", "VG_100K/{name}.jpg", "VG_100K_2/{name}.jpg")
        return Layouts([self.root / name for name in names], patterns)


def _rows(file: AnnotationFile) -> Iterator[Row]:
    """``file.rows`` counts phrases."""
    ids = Ids()
    for position, _, image in file.items():
        try:
            regions, number = image["regions"], text_of(image, "id")
            if not isinstance(regions, list):
                raise TypeError("regions are no list")
        except ROW_ERRORS as error:
            file.reject(f"item {position}", reason(error))
            continue
        phrases = []
        for place, region in enumerate(regions):
            try:
                phrases.append(text_of(region, "phrase"))
            except ROW_ERRORS as error:
                file.reject(f"item {position}, region {place}", reason(error))
        file.rows += len(phrases)
        if phrases:
            yield Row(
                ids.unique(number, number, position, position), phrases, video_id=number, audio=NONE, place=position
            )
    file.note_repeated(ids)
