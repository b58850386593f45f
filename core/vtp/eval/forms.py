"""Forms of tasks: what one item of a table is, as a line of canonical text. A protocol recognises a benchmark by these.

Plugins offer forms with the hook ``vtp_register_forms``; their functions build lines from :func:`canonical_text` and
:func:`vtp.data.table.media_id`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from vtp.data.table import media_id
from vtp.registry import Entry
from vtp.types import Sample

__all__ = ["Form", "canonical_text", "sha256_lines"]


def canonical_text(text: str) -> str:
    """``"What is  he doing ?"`` -> ``"what is he doing"``."""
    return " ".join(text.lower().split()).rstrip("?").rstrip()


def sha256_lines(lines: Iterable[str]) -> str:
    """sha256 of the sorted lines, each ended by LF."""
    digest = hashlib.sha256()
    for line in sorted(lines):
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Form:
    """A form of task, as a plugin offers it: which table of a data set it reads, and what is counted in it.

    Attributes:
        entry: the offer; its name is the ``kind`` of the table, its fact ``counted`` a plural noun.
    """

    entry: Entry

    @classmethod
    def find(cls, kind: str) -> Form:
        """The form of tables of this kind. Imports plugin modules, but not the form's own.

        Raises:
            PluginError: no plugin offers it; lists what there is.
        """
        from vtp.plugins import host

        return cls(host().registry.get("form", kind))

    @property
    def counted(self) -> str:
        """What its items are called: ``queries``."""
        return str(self.entry.facts["counted"])

    def lines(self, samples: Sequence[Sample]) -> dict[str, list[str]]:
        """The canonical lines of a table, by what they are: ``videos``, each clip once, and the items; repeated ones
        stay."""
        lines_of: Callable[[Sample], Iterable[str]] = self.entry.load()
        return {
            "videos": sorted({media_id(sample) for sample in samples}),
            self.counted: [line for sample in samples for line in lines_of(sample)],
        }
