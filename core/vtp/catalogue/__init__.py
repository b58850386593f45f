"""Data sets that are read from annotation files: the base class :class:`Catalogue`, the files that it finds, and the
tables that it gives."""

from vtp.catalogue.annotations import AnnotationFile, Seen, clip_list, reason, text_of
from vtp.catalogue.arrow import NONE, ArrowTable, GroupedTable, Row, Samples, read_rows
from vtp.catalogue.catalogue import SPLITS, Catalogue, Plan, Table, check_choice, check_table, given_or
from vtp.catalogue.media_files import (
    IMAGES,
    SOUNDS,
    VIDEOS,
    Aliases,
    ClipFolders,
    Layouts,
    Media,
    Paths,
    stem_of,
)

__all__ = [
    "IMAGES",
    "NONE",
    "SOUNDS",
    "SPLITS",
    "VIDEOS",
    "Aliases",
    "AnnotationFile",
    "ArrowTable",
    "Catalogue",
    "ClipFolders",
    "GroupedTable",
    "Layouts",
    "Media",
    "Paths",
    "Plan",
    "Row",
    "Samples",
    "Seen",
    "Table",
    "check_choice",
    "check_table",
    "clip_list",
    "given_or",
    "read_rows",
    "reason",
    "stem_of",
    "text_of",
]
