"""UCF101 (13,320 clips of 101 actions, three folds), and data in its form.

Classes    ``classInd.txt``: lines ``1 ApplyEyeMakeup``
Training   ``trainlist01.txt`` (02, 03): lines ``ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1``, the class's number
Test       ``testlist01.txt``: the same without the number; the class is the folder
Clips      at those paths, or all in one folder, with any extension

There is no validation list. Clips of one group (``g08``) are cut from one film, and stand on one side of a fold.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from vtp.catalogue import (
    ROW_ERRORS,
    VIDEOS,
    AnnotationFile,
    Catalogue,
    Paths,
    Plan,
    Row,
    Seen,
    reason,
    stem_of,
    without_extension,
)
from vtp.ranges import Count

__all__ = ["UCF101"]

CLASSES = ("classInd.txt",)
FOLDERS = ("", "ucfTrainTestlist", "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist", "annotations", "lists")
CLIPS = ("UCF-101", "videos", "UCF101", "ucf101", "")
ABOUT = """Where UCF101 comes from:
  clips: UCF101.rar of the Center for Research in Computer Vision, University of Central Florida (Soomro, Zamir and \
Shah, "UCF101: A Dataset of 101 Human Actions Classes From Videos in The Wild", CRCV-TR-12-01, 2012)
  lists: UCF101TrainTestSplits-RecognitionTask.zip beside it: classInd.txt, trainlist01.txt, testlist01.txt, ..."""


class UCF101(Catalogue):
    """UCF101: one clip each, its class in ``labels["answer"]`` and no text but an empty one.

    Args:
        root: folder with lists and clips; None = ``$VTP_DATA/ucf101``, or ``data/ucf101`` without that variable.
        fold: which of the three divisions into training and test clips.
        videos: folder of the clips, absolute or relative to ``root``; None = the usual ones.
    """

    name = "ucf101"
    kinds = ("classification",)
    folders = FOLDERS
    about = ABOUT
    clips = "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi ..., in UCF-101/ or videos/"

    def __init__(self, *, root: str | Path | None = None, fold: Count = 1, videos: str | Path | None = None) -> None:
        super().__init__(root, fold=fold)
        self.fold = fold
        self._videos = videos

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of their numbers; empty without ``classInd.txt``."""
        path = self.find(*CLASSES)
        return () if path is None else tuple(_classes(AnnotationFile(path)).values())

    def plan(self, kind: str, split: str) -> Plan | None:
        if split == "val":
            return None
        files: tuple[tuple[str, ...], ...] = ((f"{split}list{self.fold:02}.txt",), CLASSES)
        return Plan(files, _rows, self._media, options={"fold": self.fold, "split": split})

    def _media(self) -> Paths:
        names = CLIPS if self._videos is None else (str(self._videos),)
        return Paths([self.root / name for name in names], VIDEOS, flatter=True)


def _classes(file: AnnotationFile) -> dict[int, str]:
    """Number -> class, in the order of the numbers."""
    found: dict[int, str] = {}
    for line, text in file.lines():
        number, _, name = text.partition(" ")
        if number.isdecimal() and name.strip() and int(number) not in found:
            found[int(number)] = name.strip()
            file.rows += 1
        else:
            file.reject(f"line {line}", f"{text!r} is no new number with a class")
    return dict(sorted(found.items()))


def _rows(listed: AnnotationFile, classes: AnnotationFile) -> Iterator[Row]:
    names = _classes(classes)
    seen = Seen()
    for line, text in listed.lines():
        try:
            path, number = _parted(text)
            clip = stem_of(path)
            name = Path(path).parent.name if number is None else names[number]
            if name not in names.values():
                raise ValueError(f"{path} is in no folder of a class")
            if not seen.add(clip):
                raise ValueError(f"{clip} is there already")
        except ROW_ERRORS as error:
            listed.reject(f"line {line}", reason(error))
            continue
        listed.rows += 1
        yield Row(clip, ("",), video=without_extension(path), answer=name, place=line)


def _parted(text: str) -> tuple[str, int | None]:
    """Path and number of the class, where a line has one; a path may hold blanks."""
    path, blank, number = text.rpartition(" ")
    return (path.strip(), int(number)) if blank and number.isdecimal() else (text, None)
