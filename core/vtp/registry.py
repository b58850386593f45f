"""Components by kind and name. Entries hold ``"module:attribute"`` strings: nothing is imported until
:meth:`Entry.load`.

Kinds are ``encoder/text``, ``encoder/video``, ``encoder/audio``, ``encoder/fusion``, ``objective``, ``dataset``,
``task``, ``form``, ``decoder``, ``sampler``, ``transform/video``, ``transform/audio``, ``transform/text``,
``importer``, ``callback`` and ``command``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from vtp.errors import PluginError
from vtp.process import put_back

__all__ = ["Entry", "Registry", "did_you_mean"]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``" Did you mean 'a' or 'b'?"``, or ``""`` when nothing known is close to ``name``."""
    close = difflib.get_close_matches(name, sorted(set(known)), n=2, cutoff=0.6)
    return f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One offer: what it is called, where it lies and who offers it."""

    kind: str
    name: str
    target: str
    plugin: str
    distribution: str
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """``plugin 'snps3' (vtp-plugin-snps3)``, for messages."""
        return f"plugin {self.plugin!r} ({self.distribution})"

    def load(self) -> Any:
        """Import the target.

        Raises:
            PluginError: if the module or the attribute cannot be imported; the cause is kept.
        """
        module_name, _, attribute = self.target.partition(":")
        try:
            with put_back():
                found: Any = import_module(module_name)
            for part in attribute.split("."):
                found = getattr(found, part)
        except Exception as error:  # whatever a plugin's module raises at import is the plugin's fault, not ours
            raise PluginError(
                f"{self.kind} {self.name!r}: {self.origin} names {self.target!r}, which cannot be imported "
                f"({type(error).__name__}: {error}). Update or reinstall {self.distribution}."
            ) from error
        return found


class Registry:
    """All offers. Two offers of one name make that name unusable, so the result never depends on the order of
    loading."""

    def __init__(self, hint: Callable[[str], str] = lambda name: "") -> None:
        self._hint = hint  # says where a name that nobody offers may come from
        self._entries: dict[tuple[str, str], Entry] = {}
        self._conflicts: dict[tuple[str, str], list[Entry]] = {}
        self.notes: list[str] = []  # broken plugins and the like, told when a name is not found

    def add(self, entry: Entry) -> None:
        """Take an offer.

        Raises:
            PluginError: if vtp itself offers that name already; a stranger cannot replace a built-in.
        """
        module_name, colon, attribute = entry.target.partition(":")
        if not (module_name and colon and attribute):
            raise PluginError(
                f"{entry.kind} {entry.name!r}: the target must be 'module:attribute' but is {entry.target!r}"
            )
        key = (entry.kind, entry.name)
        first = self._entries.get(key)
        if first is None:
            self._entries[key] = entry
        elif first.distribution == "vtp-core" and entry.distribution != "vtp-core":
            raise PluginError(
                f"offers {entry.kind} {entry.name!r}, which vtp-core offers already ({first.target}). "
                f"Names must be unique: rename it"
            )
        else:
            self._conflicts.setdefault(key, [first]).append(entry)

    def remove_plugin(self, plugin: str) -> None:
        """Drop everything that ``plugin`` offered, as if it had never been asked."""
        self._entries = {key: entry for key, entry in self._entries.items() if entry.plugin != plugin}
        for key, entries in list(self._conflicts.items()):
            left = [entry for entry in entries if entry.plugin != plugin]
            if len(left) < 2:
                del self._conflicts[key]
            else:
                self._conflicts[key] = left
            if left:
                self._entries[key] = left[0]

    def kinds(self) -> list[str]:
        """Kinds that have at least one component."""
        return sorted({kind for kind, _ in self._entries})

    def entries(self, kind: str | None = None) -> list[Entry]:
        """All offers of a kind, or of all kinds, sorted by kind and name."""
        return [entry for (k, _), entry in sorted(self._entries.items()) if kind is None or k == kind]

    def doubled(self) -> list[Entry]:
        """Offers of a name that somebody else offers, too, which nobody can use."""
        return [entry for entries in self._conflicts.values() for entry in entries]

    def get(self, kind: str, name: str) -> Entry:
        """The component ``name`` of a kind.

        Raises:
            PluginError: if there is none (with suggestions and with the plugins that could not be loaded), or if two
                plugins offer it.
        """
        key = (kind, name)
        if key in self._conflicts:
            offers = " and by ".join(entry.origin for entry in self._conflicts[key])
            raise PluginError(
                f"{kind} {name!r} is offered twice, by {offers}. Switch one off: "
                f"VTP_BLOCK_PLUGINS={self._conflicts[key][-1].distribution} vtp ..."
            )
        if key not in self._entries:
            known = [entry.name for entry in self.entries(kind)]
            notes = "".join(f"\n  note: {note}" for note in self.notes)
            hint = self._hint(name) or did_you_mean(name, known)
            raise PluginError(
                f"no plugin offers {kind} {name!r}.{hint} Known: {', '.join(known) or 'none'}. "
                f"`vtp plugins` lists what is installed.{notes}"
            )
        return self._entries[key]
