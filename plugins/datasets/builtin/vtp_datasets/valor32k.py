"""VALOR-32K: ten seconds of a video with its sound, and one caption that tells of both (arXiv:2304.08345).

Captions   ``desc_train.json`` (val, test): [{"video_id": "CEfOX4fYlsY_20.000_30.000", "desc": "..."}]. Other copies
           call them ``descs_ret_train.json`` or ``descs_cap_train.json``, with further keys, which are not read
Clips      by YouTube id and seconds; the names that common downloaders give are known, see :data:`NAMES`
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from vtp.catalogue import (
    ROW_ERRORS,
    SOUNDS,
    VIDEOS,
    Aliases,
    AnnotationFile,
    Catalogue,
    ClipFolders,
    Plan,
    Row,
    Seen,
    reason,
    text_of,
)

__all__ = ["NAMES", "VALOR32K"]

FOLDERS = ("videos", "clips", "raw_videos", "videos/train", "videos/val", "videos/test", "")
# file names of the clip CEfOX4fYlsY_20.000_30.000; of whole videos, the clip is cut out
NAMES = ("{name}", "{youtube}_{start}_{end}", "{youtube}_{ms}_{ms_end}", "{youtube}_{start}", "Y{name}",
         "{youtube}")  # fmt: skip
WHOLE = ("{youtube}",)
ABOUT = """Where VALOR-32K comes from:
  captions: desc_train.json, desc_val.json and desc_test.json of the release (Chen et al., arXiv:2304.08345)
  clips: YouTube videos of AudioSet; many are gone from their site, and what is missing counts as a miss"""


class VALOR32K(Catalogue):
    """VALOR-32K: one clip each with its caption.

    Args:
        root: folder with captions and clips; None = ``$VTP_DATA/valor32k``, or ``data/valor32k`` without that variable.
        videos: folder of the clips, absolute or relative to ``root``; None = the usual ones.
        audio: folder of sound files of the same names, absolute or relative to ``root``; None = the sound of the clips.
        whole_videos: files that are named by the YouTube id alone are whole videos, from which the ten seconds are cut;
            otherwise they are the ten seconds.
    """

    name = "valor32k"
    kinds = ("caption", "retrieval")
    folders = ("", "annotations", "valor-32k-annotations", "VALOR-32K-annotations", "valor32k")
    about = ABOUT
    clips = "CEfOX4fYlsY_20.000_30.000.mp4 ... (and other names), in videos/"

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        videos: str | Path | None = None,
        audio: str | Path | None = None,
        whole_videos: bool = False,
    ) -> None:
        super().__init__(root)
        self._videos, self._audio = videos, audio
        self._whole = WHOLE if whole_videos else ()

    def plan(self, kind: str, split: str) -> Plan:
        names = tuple(f"{stem}_{split}.json" for stem in ("desc", "descs_ret", "descs_cap"))
        apart = self._audio is not None
        return Plan(
            (names,),
            partial(_rows, apart=apart),
            lambda: self._files(self._videos, FOLDERS, VIDEOS, "videos"),
            (lambda: self._files(self._audio, (), SOUNDS | VIDEOS, "audio")) if apart else None,
            options={"apart": apart},
            group=True,
        )

    def _files(self, given: str | Path | None, usual: tuple[str, ...], kinds: frozenset[str], option: str) -> Aliases:
        return Aliases(ClipFolders(self.root, given, usual, kinds, option=option), NAMES, _parts, whole=self._whole)


def _parts(clip: str) -> dict[str, str]:
    """Id and seconds of ``CEfOX4fYlsY_20.000_30.000``; none of them of a clip that is called otherwise."""
    pieces = clip.rsplit("_", 2)
    try:
        youtube, start, end = pieces[0], float(pieces[1]), float(pieces[2])
    except (IndexError, ValueError):
        return {}
    ms, ms_end = (f"{round(1000 * second)}" for second in (start, end))
    return {"youtube": youtube, "start": f"{start:g}", "end": f"{end:g}", "ms": ms, "ms_end": ms_end}


def _rows(file: AnnotationFile, *, apart: bool) -> Iterator[Row]:
    seen = Seen()
    for position, _, row in file.items():
        try:
            clip = text_of(row, "video_id")
            texts = file.texts(row["desc"], "desc")
            parts = _parts(clip)
            span = (float(parts["start"]), float(parts["end"])) if parts else (None, None)
            if not seen.add(f"{clip}\0{texts}"):
                raise ValueError(f"{clip} is there already with this caption")
        except ROW_ERRORS as error:
            file.reject(f"item {position}", reason(error))
            continue
        file.rows += 1
        sound = clip if apart else None
        yield Row(str(position), texts, video_id=clip, audio=sound, start=span[0], end=span[1], place=position)
