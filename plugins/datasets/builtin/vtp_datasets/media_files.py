"""Where the clips of a data set lie: found by stem, because their extensions differ from one copy to the next."""

from __future__ import annotations

import os
from pathlib import Path

from vtp.errors import DataError

__all__ = ["EXTENSIONS", "ClipFolders"]

_NAMES = "mp4 avi mkv webm mov mpg mpeg m4v 3gp 3g2 wmv flv ts mts m2ts ogv gif"
EXTENSIONS = frozenset(f".{name}" for name in _NAMES.split())


class ClipFolders:
    """An index over the media files of some folders.

    Args:
        root: of the data set.
        given: the folder that the user named, absolute or relative to ``root``; None = look in ``usual``.
        usual: folders relative to ``root``, most specific first; of two files with one stem the first folder's counts.
    """

    def __init__(self, root: Path, given: str | Path | None, usual: tuple[str, ...]) -> None:
        self.looked_in = [root / given] if given is not None else [root / name for name in usual]
        self.folders = [folder for folder in self.looked_in if folder.is_dir()]
        if given is not None and not self.folders:
            raise DataError(
                f"dataset.videos={given}: there is no folder {self.looked_in[0].absolute()}. Name the folder that "
                f"holds the clips, absolute or relative to dataset.root={root}."
            )
        self._files: dict[str, str] = {}
        for folder in self.folders:
            with os.scandir(folder) as entries:
                for entry in entries:
                    stem, extension = os.path.splitext(entry.name)
                    if extension.lower() in EXTENSIONS:
                        self._files.setdefault(stem, entry.path)

    def __len__(self) -> int:
        return len(self._files)

    def path(self, stem: str) -> str:
        """The file of a clip; where it should be if it is missing, so that reading it says what is not there."""
        found = self._files.get(stem)
        return found if found is not None else str((self.folders or self.looked_in)[0] / f"{stem}.mp4")

    def __contains__(self, stem: str) -> bool:
        return stem in self._files
