"""Data sets that are read from annotation files: the base class :class:`Catalogue`, the files that it finds, and the
tables that it gives."""

from vtp.catalogue.annotations import AnnotationFile, clip_list
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
    without_extension,
)
from vtp.catalogue.texts import ROW_ERRORS, Ids, Seen, answer_text, is_empty, list_in, plain_text, reason, text_of

__all__ = [
    "Aliases",
    "AnnotationFile",
    "ArrowTable",
    "Catalogue",
    "ClipFolders",
    "GroupedTable",
    "IMAGES",
    "Ids",
    "Layouts",
    "Media",
    "NONE",
    "Paths",
    "Plan",
    "ROW_ERRORS",
    "ROW_ERRORS",
    "Row",
    "SOUNDS",
    "SPLITS",
    "Samples",
    "Seen",
    "Table",
    "VIDEOS",
    "answer_text",
    "check_choice",
    "check_table",
    "clip_list",
    "given_or",
    "is_empty",
    "list_in",
    "plain_text",
    "read_rows",
    "reason",
    "stem_of",
    "text_of",
    "without_extension",
]
