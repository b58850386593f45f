"""Images with captions: COCO and Flickr30k in the files that people split them by.

``*_karpathy_test.jsonl``     one image per line: {"caption": [...], "image": "coco_dataset/val2014/000.jpg"};
                              a json list of the same; ``caption`` may be one text
``dataset_coco.json``         Karpathy's own: {"images": [{"filepath", "filename", "split", "sentences": [{"raw"}]}]};
                              ``restval`` belongs to training
``captions_train2014.json``   COCO's own (2017, val): {"images": [{"id", "file_name"}], "annotations": [{"image_id",
                              "caption"}]}

Images lie under the path that the annotation gives, or under any end of it, in ``images/`` or the root; names are
unique. An image is a video of one frame without sound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vtp.catalogue import (
    IMAGES,
    NONE,
    ROW_ERRORS,
    AnnotationFile,
    Catalogue,
    Ids,
    Paths,
    Plan,
    Row,
    given_or,
    is_empty,
    reason,
    text_of,
)
from vtp.errors import DataError

__all__ = ["COCO", "Flickr30k"]

IMAGE_FOLDERS = ("images", "", "train2014", "val2014", "train2017", "val2017", "flickr30k-images", "flickr30k_images")


class _Captioned(Catalogue):
    """One image each with all its captions.

    Args:
        root: folder with annotations and images; None = ``$VTP_DATA/<name>``, or ``data/<name>`` without that variable.
        images: folder that paths of images are relative to, absolute or relative to ``root``; None = the usual ones.
        train_file, val_file, test_file: annotation files, absolute or relative to ``root``; None = the usual names.
    """

    kinds = ("caption", "retrieval")
    folders = ("", "annotations", "karpathy", "coco", "flickr30k", "annotations/karpathy")
    clips = "the images, in images/"
    further: Mapping[str, tuple[str, ...]] = {}  # split -> names of files besides Karpathy's

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        images: str | Path | None = None,
        train_file: str | Path | None = None,
        val_file: str | Path | None = None,
        test_file: str | Path | None = None,
    ) -> None:
        super().__init__(root)
        self._given = {"train": train_file, "val": val_file, "test": test_file}
        self._images = IMAGE_FOLDERS if images is None else (images,)

    def plan(self, kind: str, split: str) -> Plan:
        stems = (f"{self.name}_karpathy_{split}", f"{self.name}_{split}", split)
        usual = tuple(f"{stem}{ending}" for stem in stems for ending in (".jsonl", ".json"))
        usual += (f"dataset_{self.name}.json", *self.further.get(split, ()))
        return Plan(
            (given_or(self._given[split], usual),),
            partial(_rows, split=split),
            lambda: Paths((self.root / folder for folder in self._images), IMAGES, flatter=True),
            options={"split": split},
            group=True,
        )


class COCO(_Captioned):
    """COCO captions, about 5 per image."""

    name = "coco"
    further = {split: tuple(f"captions_{split}{year}.json" for year in (2014, 2017)) for split in ("train", "val")}
    about = """Where COCO comes from:
  images and captions: the releases of 2014 and 2017 (Lin et al., ECCV 2014), captions_train2014.json
  split: dataset_coco.json of Karpathy and Fei-Fei (CVPR 2015), or the files that ALBEF and BLIP made of it"""


class Flickr30k(_Captioned):
    """Flickr30k captions, 5 per image."""

    name = "flickr30k"
    about = """Where Flickr30k comes from:
  images: the release (Young et al., TACL 2014)
  captions and split: dataset_flickr30k.json of Karpathy and Fei-Fei (CVPR 2015), or the files that ALBEF and BLIP \
made of it"""


def _rows(file: AnnotationFile, *, split: str) -> Iterator[Row]:
    if file.path.suffix == ".jsonl":
        yield from _lines(file, file.jsonl(), "line")
    elif file.begins_with("["):
        yield from _lines(file, ((position, row) for position, _, row in file.items()), "item")
    else:
        content = file.json()
        lists = [key for key, value in content.items() if isinstance(value, list)] if isinstance(content, dict) else []
        if {"images", "annotations"} <= {*lists}:
            yield from _official(file, content)
        elif "images" in lists:
            yield from _karpathy(file, content["images"], split)
        else:
            raise DataError(f"{file.path}: expected a list of images, or an object with a list images.")


def _lines(file: AnnotationFile, rows: Iterator[tuple[int, Any]], what: str) -> Iterator[Row]:
    for place, row in rows:
        try:
            image, captions = text_of(row, "image"), row["caption"]
            yield _row(file, f"{place}", image, file.texts(captions, "caption"), place)
        except ROW_ERRORS as error:
            file.reject(f"{what} {place}", reason(error))


def _karpathy(file: AnnotationFile, images: list[Any], split: str) -> Iterator[Row]:
    wanted = (split, "restval") if split == "train" else (split,)
    for position, image in enumerate(images):
        try:
            if image["split"] not in wanted:
                continue
            path = "/".join(part for part in (image.get("filepath", ""), image["filename"]) if part)
            texts = file.texts([sentence["raw"] for sentence in image["sentences"]], "caption")
            yield _row(file, f"{position}", path, texts, position)
        except ROW_ERRORS as error:
            file.reject(f"image {position}", reason(error))


def _official(file: AnnotationFile, content: dict[str, Any]) -> Iterator[Row]:
    names: dict[Any, str] = {}
    for position, image in enumerate(content["images"]):
        try:
            names[image["id"]] = text_of(image, "file_name")
        except ROW_ERRORS as error:
            file.reject(f"image {position}", reason(error))
    ids = Ids()
    for position, row in enumerate(content["annotations"]):
        try:
            image, texts = names[row["image_id"]], (text_of(row, "caption"),)
            name = ids.unique(str(position) if is_empty(row.get("id")) else text_of(row, "id"), image, position, texts)
            yield _row(file, name, image, texts, position)
        except ROW_ERRORS as error:
            file.reject(f"annotation {position}", reason(error))
    file.note_repeated(ids)


def _row(file: AnnotationFile, name: str, image: str, texts: Sequence[str], place: int) -> Row:
    file.rows += 1
    clip = image.replace("\\", "/").rsplit("/", 1)[-1]  # the same image in files that name other folders
    return Row(name, texts, video_id=clip, video=image, audio=NONE, place=place)
