"""AudioCaps: ten seconds of sound with a caption: one each for training, five each for validation and testing.

Captions   ``train.csv`` (val, test): audiocap_id,youtube_id,start_time,caption; 49,838, 2,475 and 4,875 rows. Version 2
           has the same columns, in ``v2_train.csv`` or ``dataset2.0/train.csv``
Sounds     by YouTube id and start second; the names that common downloaders give are known, see :data:`NAMES`
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from vtp.catalogue import (
    NONE,
    ROW_ERRORS,
    SOUNDS,
    VIDEOS,
    Aliases,
    AnnotationFile,
    Catalogue,
    ClipFolders,
    Ids,
    Plan,
    Row,
    check_choice,
    reason,
    text_of,
)

__all__ = ["NAMES", "AudioCaps"]

AUDIO = ("audio", "audios", "wav", "wavs", "waveforms", "videos", "")
SPLITS_OF_AUDIO = tuple(f"{folder}/{split}" for folder in ("audio", "waveforms") for split in ("train", "val", "test"))
# file names of the clip r1nicOVtvkQ from second 130; of whole videos, the clip is cut out
NAMES = ("{youtube}_{start}", "Y{youtube}_{start}", "{youtube}_{ms}_{ms_end}", "{youtube}_{start}_{end}",
         "{youtube}_{start}.000_{end}.000", "Y{youtube}_{start}.000_{end}.000", "Y{youtube}", "{youtube}")  # fmt: skip
WHOLE = ("Y{youtube}", "{youtube}")
SECONDS = 10
ABOUT = """Where AudioCaps comes from:
  captions: dataset/train.csv, val.csv and test.csv of the release (Kim et al., NAACL 2019), version 2 in dataset2.0/
  sounds: YouTube videos of AudioSet; many are gone from their site, and what is missing counts as a miss"""


class AudioCaps(Catalogue):
    """AudioCaps: one clip each with all its captions.

    Args:
        root: folder with annotations and sounds; None = ``$VTP_DATA/audiocaps``, or ``data/audiocaps`` without that
            variable.
        audio: folder of the sounds, absolute or relative to ``root``; None = the usual ones.
        version: ``v1`` or ``v2`` of the captions.
        video: also give the picture, where the files are videos.
        whole_videos: files that are named by the YouTube id alone are whole videos, from which the ten seconds are cut;
            otherwise they are the ten seconds.
    """

    name = "audiocaps"
    kinds = ("caption", "retrieval")
    folders = ("", "annotations", "audiocaps", "dataset", "annotations/audiocaps")
    about = ABOUT
    clips = "r1nicOVtvkQ_130.wav ... (or .mp4 and other names)"

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        audio: str | Path | None = None,
        version: Literal["v1", "v2"] = "v1",
        video: bool = False,
        whole_videos: bool = False,
    ) -> None:
        check_choice("version", version, ("v1", "v2"))
        super().__init__(root, version=version)
        self.version = version
        self.video = video
        self._whole = WHOLE if whole_videos else ()
        self._audio = audio

    def plan(self, kind: str, split: str) -> Plan:
        second = (f"v2_{split}.csv", f"dataset2.0/{split}.csv", f"v2/{split}.csv")
        return Plan(
            ((f"{split}.csv",) if self.version == "v1" else second,),
            partial(_rows, video=self.video),
            self._media,
            options={"video": self.video},
            group=True,
        )

    def _media(self) -> Aliases:
        files = ClipFolders(self.root, self._audio, AUDIO + SPLITS_OF_AUDIO, SOUNDS | VIDEOS, option="audio")
        return Aliases(files, NAMES, _parts, whole=self._whole)


def _parts(clip: str) -> dict[str, str]:
    youtube, _, start = clip.rpartition("_")
    end = int(start) + SECONDS
    ms, ms_end = f"{1000 * int(start)}", f"{1000 * end}"
    return {"youtube": youtube, "start": start, "end": str(end), "ms": ms, "ms_end": ms_end}


def _rows(file: AnnotationFile, *, video: bool) -> Iterator[Row]:
    ids = Ids()
    for line, row in file.csv(lambda cells: "caption" in cells):
        try:
            name, start = text_of(row, "audiocap_id"), int(row["start_time"])
            clip = f"{text_of(row, 'youtube_id')}_{start}"
            made = Row("", [text_of(row, "caption")], video_id=clip, start=start, end=start + SECONDS, place=line)
            made.id = ids.unique(name, clip, line, made.texts[0])
        except ROW_ERRORS as error:
            file.reject(f"line {line}", reason(error))
            continue
        if not video:
            made.video, made.audio = NONE, clip
        file.rows += 1
        yield made
    file.note_repeated(ids)
