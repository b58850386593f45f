"""Data as simple-multimodal (VAT) reads them: ``train.csv`` with columns audio,text,video, each a path, and for
classification a column label, or labels for several.

Sound       wav, mp3 or m4a, relative to ``audio_root``
Text        a file, relative to ``text_root``: of ``.json`` the text inside (or in ``text``, ``caption`` or ``title``),
            of others the whole content. Some copies end the title with ``#`` tags: ``tags=false`` drops them
Video       mp4, relative to ``video_root``
Classes     ``label``: that of a clip; ``labels``: all of them, as a list or parted by ``|``. A text may then be lacking
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vtp.catalogue import (
    NONE,
    ROW_ERRORS,
    SOUNDS,
    VIDEOS,
    AnnotationFile,
    Catalogue,
    Paths,
    Plan,
    Row,
    reason,
    without_extension,
)
from vtp.catalogue.json_items import json_value
from vtp.errors import DataError
from vtp.types import Sample
from vtp_datasets.own import classified

__all__ = ["VAT"]

ABOUT = """The form is that of simple-multimodal: ROOT/train.csv (val.csv, test.csv) with columns audio,text,video, and
the folders audio/, text/ and video/ that their paths are relative to (dataset.audio_root and so on name others).
For classification there is a column label besides, or labels."""
LABELS = ("label", "labels")


class VAT(Catalogue):
    """One clip each with its text; sound and text are files of their own. ``classification``: one row each, its
    class or classes, and its text or an empty one.

    Args:
        root: folder with the csv files; None = ``$VTP_DATA/vat``, or ``data/vat`` without that variable.
        audio_root, text_root, video_root: what the paths of each column are relative to, absolute or relative to
            ``root``; None = ``audio``, ``text`` or ``video`` under ``root``, or ``root``.
        tags: keep what follows the first ``#`` of a text.
        namespace: data sets with one namespace share their clips, for the leak check; None = ``vat:`` and the name of
            ``root``.
    """

    name = "vat"
    by_file = True
    folders = ("",)
    about = ABOUT
    clips = "the files that train.csv names, in audio/, text/ and video/"

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        audio_root: str | Path | None = None,
        text_root: str | Path | None = None,
        video_root: str | Path | None = None,
        tags: bool = True,
        namespace: str | None = None,
    ) -> None:
        super().__init__(root, tags=tags)
        self.tags = tags
        self.media_namespace = namespace or f"vat:{self.root.absolute().name}"
        self._given = {"audio": audio_root, "text": text_root, "video": video_root}

    @property
    def kinds(self) -> tuple[str, ...]:
        """What the columns allow; without a file, everything."""
        file = self.find("train.csv", "val.csv", "test.csv")
        columns = LABELS if file is None else AnnotationFile(file).header()
        return ("caption", "retrieval", *(("classification",) if {*LABELS} & {*columns} else ()))

    def samples(self, kind: str, split: str) -> Sequence[Sample]:
        """As every data set; classes need their column."""
        if kind == "classification" and kind not in self.kinds:
            raise DataError(
                f"{self.root / 'train.csv'}: there is no column that says the class of a clip. Add label (one each) or "
                "labels (several), in every csv: audio,text,video,label."
            )
        return super().samples(kind, split)

    def plan(self, kind: str, split: str) -> Plan | None:
        name = f"{split}.csv"
        if split != "train" and self.find(name) is None:
            return None
        media, sound = Paths(self._folders("video"), VIDEOS), Paths(self._folders("audio"), SOUNDS | VIDEOS)
        texts, labelled = Paths(self._folders("text")), kind == "classification"
        return Plan(
            ((name,),),
            partial(_rows, texts=texts, tags=self.tags, media=media, sound=sound, labelled=labelled),
            lambda: media,
            lambda: sound,
            options={"labelled": labelled},
            keep=False,  # the texts lie in further files, whose changes nobody would see
        )

    def _folders(self, column: str) -> list[Path]:
        given = self._given[column]
        return [self.root / given] if given is not None else [self.root / column, self.root / f"{column}s", self.root]


def _rows(
    file: AnnotationFile, *, texts: Paths, tags: bool, media: Paths, sound: Paths, labelled: bool
) -> Iterator[Row]:
    for line, row in file.csv(lambda cells: bool({"audio", "text", "video"} & {*cells})):
        try:
            video, audio = row.get("video", "").strip(), row.get("audio", "").strip()
            if not video and not audio:
                raise ValueError("neither video nor audio")
            name = (row.get("text", "") if labelled else row["text"]).strip()
            text = "" if labelled and not name else _text(str(texts.ref(name).path))
            text = (text if tags else text.partition("#")[0]).strip()
            if not text and not labelled:
                raise ValueError(f"no text in {name}")
            clip = without_extension((media if video else sound).clip(video or audio))
            made = Row(str(line), [text], video_id=clip, video=video or NONE, audio=audio or None, place=line)
            if labelled:
                made = classified(made, file, _classes(row))
                made.texts = [text]
        except (*ROW_ERRORS, OSError) as error:
            why = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else reason(error)
            file.reject(f"line {line}", why)
            continue
        file.rows += 1
        yield made


def _classes(row: dict[str, str]) -> dict[str, str]:
    """The cells that say the class of a clip, as :func:`classified` calls them; an empty one is not known."""
    found = {"answer": row.get("label", ""), "labels": row.get("labels", "")}
    return {name: cell for name, cell in found.items() if cell.strip()}


def _text(path: str) -> str:
    content = Path(path).read_text(encoding="utf-8-sig")
    if not path.endswith(".json"):
        return content
    value: Any = json_value(content)
    if isinstance(value, dict):
        value = next((value[key] for key in ("text", "caption", "title") if key in value), None)
    if not isinstance(value, str):
        raise ValueError(f"{path}: neither a text nor an object with text, caption or title")
    return value
