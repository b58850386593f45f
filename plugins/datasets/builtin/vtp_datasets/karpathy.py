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

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vtp.catalogue.annotations import AnnotationFile, reason, text_of
from vtp.catalogue.arrow import NONE, Row
from vtp.catalogue.catalogue import Catalogue, Plan, given_or, usual_root
from vtp.catalogue.media_files import IMAGES, Paths
from vtp.errors import DataError
from vtp.types import Sample

__all__ = ["COCO", "Flickr30k"]

FOLDERS = ("", "annotations", "karpathy", "coco", "flickr30k", "annotations/karpathy")
IMAGE_FOLDERS = ("images", "", "train2014", "val2014", "train2017", "val2017", "flickr30k-images", "flickr30k_images")
ABOUT = {
    "coco": """Where COCO comes from:
  images and captions: the releases of 2014 and 2017 (Lin et al., ECCV 2014), captions_train2014.json
  split: dataset_coco.json of Karpathy and Fei-Fei (CVPR 2015), or the files that ALBEF and BLIP made of it""",
    "flickr30k": """Where Flickr30k comes from:
  images: the release (Young et al., TACL 2014)
  captions and split: dataset_flickr30k.json of Karpathy and Fei-Fei (CVPR 2015), or the files that ALBEF and BLIP \
made of it""",
}


class COCO:
    """COCO captions, about 5 per image.

    Args:
        root: folder with annotations and images; None = ``$VTP_DATA/coco``, or ``data/coco`` without that variable.
        images: folder that paths of images are relative to, absolute or relative to ``root``; None = the usual ones.
        train_file, val_file, test_file: annotation files, absolute or relative to ``root``; None = the usual names.
    """

    name = "coco"
    media_namespace = "coco"
    kinds = ("caption", "retrieval")

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        images: str | Path | None = None,
        train_file: str | Path | None = None,
        val_file: str | Path | None = None,
        test_file: str | Path | None = None,
    ) -> None:
        self.root = usual_root(self.name, root)
        given = {"train": train_file, "val": val_file, "test": test_file}
        own = {split: tuple(f"captions_{split}{year}.json" for year in (2014, 2017)) for split in ("train", "val")} | {
            "test": ()
        }
        self._catalogue = _catalogue(self.name, self.root, images, given, ("dataset_coco.json",), own)

    def splits(self, kind: str) -> tuple[str, ...]:
        return self._catalogue.splits(kind)

    def samples(self, kind: str, split: str) -> Sequence[Sample]:
        """One image each with all its captions."""
        return self._catalogue.table(kind, split)

    def origin(self) -> dict[str, Any]:
        return self._catalogue.origin()


class Flickr30k:
    """Flickr30k captions, 5 per image.

    Args:
        root: folder with annotations and images; None = ``$VTP_DATA/flickr30k``, or ``data/flickr30k`` without that
            variable.
        images: folder that paths of images are relative to, absolute or relative to ``root``; None = the usual ones.
        train_file, val_file, test_file: annotation files, absolute or relative to ``root``; None = the usual names.
    """

    name = "flickr30k"
    media_namespace = "flickr30k"
    kinds = ("caption", "retrieval")

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        images: str | Path | None = None,
        train_file: str | Path | None = None,
        val_file: str | Path | None = None,
        test_file: str | Path | None = None,
    ) -> None:
        self.root = usual_root(self.name, root)
        given = {"train": train_file, "val": val_file, "test": test_file}
        own: dict[str, tuple[str, ...]] = {"train": (), "val": (), "test": ()}
        self._catalogue = _catalogue(self.name, self.root, images, given, ("dataset_flickr30k.json",), own)

    def splits(self, kind: str) -> tuple[str, ...]:
        return self._catalogue.splits(kind)

    def samples(self, kind: str, split: str) -> Sequence[Sample]:
        """One image each with all its captions."""
        return self._catalogue.table(kind, split)

    def origin(self) -> dict[str, Any]:
        return self._catalogue.origin()


def _catalogue(
    name: str,
    root: Path,
    images: str | Path | None,
    given: dict[str, str | Path | None],
    karpathy: tuple[str, ...],
    own: dict[str, tuple[str, ...]],
) -> Catalogue:
    folders = [root / images] if images is not None else [root / folder for folder in IMAGE_FOLDERS]

    def plan(kind: str, split: str) -> Plan:
        stems = (f"{name}_karpathy_{split}", f"{name}_{split}", split)
        usual = tuple(f"{stem}{ending}" for stem in stems for ending in (".jsonl", ".json")) + karpathy + own[split]
        return Plan(
            (given_or(given[split], usual),),
            partial(_rows, split=split),
            lambda: Paths(folders, IMAGES, flatter=True),
            options={"split": split},
            group=True,
        )

    return Catalogue(
        name, root, FOLDERS, plan, kinds=("caption", "retrieval"), about=ABOUT[name], clips="the images, in images/"
    )


def _rows(file: AnnotationFile, *, split: str) -> Iterator[Row]:
    if file.path.suffix == ".jsonl":
        yield from _lines(file, file.jsonl(), "line")
    elif file.begins_with("["):
        yield from _lines(file, ((position, row) for position, _, row in file.items()), "item")
    else:
        content = file.json()
        if "annotations" in content and "images" in content:
            yield from _official(file, content)
        elif "images" in content:
            yield from _karpathy(file, content["images"], split)
        else:
            raise DataError(f"{file.path}: expected a list of images, or an object with a list images.")


def _lines(file: AnnotationFile, rows: Iterator[tuple[int, Any]], what: str) -> Iterator[Row]:
    for place, row in rows:
        try:
            image, captions = text_of(row, "image"), row["caption"]
            texts = [str(text).strip() for text in (captions if isinstance(captions, list) else [captions])]
            yield _row(file, f"{place}", image, texts, place)
        except (KeyError, ValueError, TypeError) as error:
            file.reject(f"{what} {place}", reason(error))


def _karpathy(file: AnnotationFile, images: list[Any], split: str) -> Iterator[Row]:
    wanted = (split, "restval") if split == "train" else (split,)
    for position, image in enumerate(images):
        try:
            if image["split"] not in wanted:
                continue
            path = "/".join(part for part in (image.get("filepath", ""), image["filename"]) if part)
            yield _row(file, f"{position}", path, [s["raw"].strip() for s in image["sentences"]], position)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            file.reject(f"image {position}", reason(error))


def _official(file: AnnotationFile, content: dict[str, Any]) -> Iterator[Row]:
    names = {image["id"]: image["file_name"] for image in content["images"]}
    for position, row in enumerate(content["annotations"]):
        try:
            yield _row(file, f"{row.get('id', position)}", names[row["image_id"]], [text_of(row, "caption")], position)
        except (KeyError, ValueError, TypeError) as error:
            file.reject(f"annotation {position}", reason(error))


def _row(file: AnnotationFile, name: str, image: str, texts: list[str], place: int) -> Row:
    texts = [text for text in texts if text]
    if not texts:
        raise ValueError("no caption")
    file.rows += 1
    clip = image.replace("\\", "/").rsplit("/", 1)[-1]  # the same image in files that name other folders
    return Row(name, texts, video_id=clip, video=image, audio=NONE, place=place)
