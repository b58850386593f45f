"""Protocols as data: what exactly a benchmark evaluates, in a YAML file with counts and hashes, so that a name on a
number means one thing.

What a protocol states binds: with other items, another split, metric, tie rule, number of frames or option of the task,
a run is reported under another name and says why.

A protocol does not carry the annotations, it recognises them. Hashes are sha256 over canonical lines, sorted, each
ended by LF, in UTF-8: unique clip ids for the videos, and what the form of the task says for the items, such as clip id
TAB caption. File order, file format (csv or json) and question marks do not matter, every clip, word and answer does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import yaml

from vtp.errors import ConfigError, PluginError
from vtp.eval.forms import Form, sha256_lines
from vtp.eval.metrics import TIE_RULES
from vtp.registry import did_you_mean
from vtp.types import Sample
from vtp.values import fits, spell

if TYPE_CHECKING:
    from vtp.plugins import PluginPoint

__all__ = [
    "OWN_DATA",
    "Match",
    "Measured",
    "Protocol",
    "offered_protocols",
    "protocol_files",
    "readable_protocols",
]

OWN_DATA = "own data"  # name of the protocol of data that nobody else has
_CUT = ("title", "rule", "without", "counts", "sha256", "circulates", "source")
_RULES = ("sound", "readable", "first_caption", "without")


def protocol_files() -> dict[str, tuple[str, Path]]:
    """Name -> (plugin, file) of every protocol that the active plugins bring: the YAML files in a folder ``protocols``
    beside their folder ``conf``. Imports no plugin. Of two that bring one name the first counts, built-in ones before
    all others; :meth:`Protocol.find` and `vtp plugins check` tell of the second.
    """
    return {name: (point.name, path) for name, [(point, path), *_] in offered_protocols().items()}


def offered_protocols() -> dict[str, list[tuple[PluginPoint, Path]]]:
    """Every protocol file by its name, built-in ones first."""
    from vtp.plugins import Host, config_dir

    found: dict[str, list[tuple[PluginPoint, Path]]] = {}
    for point in Host().active_points():
        folder = config_dir(point)
        for path in sorted((folder.parent / "protocols").glob("*.yaml")) if folder else ():
            found.setdefault(path.stem, []).append((point, path))
    return found


def readable_protocols() -> tuple[dict[str, Protocol], dict[str, str]]:
    """All protocols, and what is wrong with those whose file cannot be used: ``{name: reason}``."""
    good: dict[str, Protocol] = {}
    wrong: dict[str, str] = {}
    for name, (plugin, path) in sorted(protocol_files().items()):
        try:
            good[name] = Protocol.load(path)
        except ConfigError as error:
            wrong[name] = f"plugin {plugin!r}: {error}"
    return good, wrong


@dataclass(frozen=True, slots=True)
class Measured:
    """How a result was measured, as far as a protocol may fix it.

    Attributes:
        metrics: names of what is reported, headline first.
        ties: tie rule; None where the measure knows no ties.
        frames: how many frames of a clip the model sees; None without a picture.
        limit: ``data.limit_eval`` if it left items out, else None.
        options: those options of the task that change the number, with their values; None = it cannot be told.
    """

    metrics: Sequence[str] = ()
    ties: str | None = None
    frames: int | None = None
    limit: int | float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Protocol:
    """A benchmark's definition, as read from YAML. A run that differs in anything stated here, but for titles, training
    lists, notes and sources, is not the benchmark.

    Attributes:
        name: for example ``msrvtt_1ka``.
        title: one line for people.
        dataset: name of the data set whose annotations are the official ones.
        kind: which table of the data set; a form that a plugin offers: ``retrieval``, ``qa``, ``mc`` (multiple choice).
        split: the split that is official.
        counts: expected number of ``videos`` and of what the form counts (``queries``); what is not known is left out.
        sha256: hash of the canonical lines of each of them; what could not be computed is left out.
        metrics: what must be reported, headline first.
        ties: tie rule of the official numbers in vtp.
        frames: how many frames of a clip the model sees at test time; None where the benchmark leaves it to the method.
        frames_note: what there is to say about them, in words.
        options: options of the task that change the number, and the value that is official, such as ``v2t: any``.
        train_lists: name -> {videos, sha256} of the known training lists.
        cuts: smaller sets that circulate under its name: name -> {title, rule, without, counts, sha256, circulates
            (numbers of clips that were published), source}. The rules are the task's; a cut without one
            can only be told.
        notes: what one must know before comparing.
        source: which files the hashes were computed from.
    """

    name: str
    title: str
    dataset: str
    kind: str
    split: str
    counts: Mapping[str, int]
    sha256: Mapping[str, str] = field(default_factory=dict)
    metrics: Sequence[str] = ()
    ties: str = "expected"
    frames: int | None = None
    frames_note: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    train_lists: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cuts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    source: str = ""

    @classmethod
    def load(cls, path: Path | str) -> Protocol:
        """Read a protocol file.

        Raises:
            ConfigError: no such file, not YAML, a key that is missing or unknown, or a value that could bind nothing.
        """
        path = Path(path)
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"protocol {path}: cannot be read: {' '.join(str(error).split())}") from error
        known = {f.name for f in fields(cls)}
        required = ("name", "title", "dataset", "kind", "split", "counts")
        if not isinstance(content, dict) or (
            bad := [*(set(content) - known), *(k for k in required if k not in content)]
        ):
            faults = ", ".join(sorted(bad)) if isinstance(content, dict) else "not a mapping"
            raise ConfigError(
                f"protocol {path}: keys missing or unknown: {faults}. Needed: {', '.join(required)}; known: "
                f"{', '.join(sorted(known))}."
            )
        if wrong := list(cls._wrong(content)):
            raise ConfigError(f"protocol {path}: {' '.join(wrong)}")
        return cls(**content)

    @classmethod
    def _wrong(cls, content: Mapping[str, Any]) -> Iterator[str]:
        """What is wrong with the values of a file, in words: what cannot be compared would silently bind nothing."""
        for key, hint in get_type_hints(cls).items():
            if key in content and key != "frames" and not fits(content[key], hint):
                yield f"{key}: expected {spell(hint)}, got {content[key]!r}."
                return  # the rest would be about a value of the wrong type
        try:
            known = ("videos", Form.find(content["kind"]).counted)
        except PluginError as error:
            yield f"kind: {content['kind']}: {error}"
            return
        for section in ("counts", "sha256"):
            for what in content.get(section, ()):
                if what not in known:
                    hint = did_you_mean(what, known)
                    yield f"{section}: {what}: of this kind, {' and '.join(known)} are counted.{hint}"
        for what, found in content.get("sha256", {}).items():
            if not re.fullmatch("[0-9a-f]{64}", found):
                yield f"sha256: {what}: expected 64 hexadecimal digits, got {found!r}."
        for name, cut in content.get("cuts", {}).items():
            if unknown := sorted(set(cut) - set(_CUT)):
                yield f"cuts.{name}: unknown {', '.join(unknown)}; known: {', '.join(_CUT)}."
            if not cut.get("title"):
                yield f"cuts.{name}: title is lacking: one line for people."
            if cut.get("rule") not in (None, *_RULES):
                yield f"cuts.{name}.rule: {cut['rule']!r} must be one of {', '.join(_RULES)}, or left out."
        if content["name"] == OWN_DATA:
            yield f"name: {OWN_DATA} is what data without a protocol are called."
        frames = content.get("frames")
        if frames is not None and (isinstance(frames, bool) or not isinstance(frames, int) or frames < 1):
            yield (
                f"frames: {frames!r} must be the number that the benchmark fixes, or null where it leaves it to the "
                "method; words belong under frames_note."
            )
        if content.get("ties", "expected") not in TIE_RULES:
            yield f"ties: {content['ties']!r} must be one of {', '.join(TIE_RULES)}."

    @classmethod
    def find(cls, name: str) -> Protocol:
        """The protocol ``name`` of any plugin; a name that ends in ``.yaml`` is a path of the user's own.

        Raises:
            ConfigError: there is none; lists what there is.
            PluginError: two plugins bring it.
        """
        if name.endswith((".yaml", ".yml")):
            return cls.load(name)
        files = offered_protocols()
        if name not in files:
            raise ConfigError(
                f"task.protocol={name}: there is no such protocol.{did_you_mean(name, files)} Known: "
                f"{', '.join(sorted(files))}; or give the path of a YAML file, or null for data of your own."
            )
        (first, path), *others = files[name]
        if others and not first.builtin:  # a built-in one is never replaced
            raise PluginError(
                f"the protocol {name} is offered by {first.name} and {others[0][0].name}. "
                f"Switch one off: VTP_BLOCK_PLUGINS={others[0][0].name}"
            )
        return cls.load(path)

    @classmethod
    def own(cls, dataset: str, kind: str) -> Protocol:
        """What stands in for a protocol where there is none: counts and hashes are told, and nothing is official."""
        title = "data of one's own: comparable with results on exactly these items, which the hashes recognise"
        return cls(name=OWN_DATA, title=title, dataset=dataset, kind=kind, split="test", counts={})

    @property
    def form(self) -> Form:
        """The form of its tables."""
        return Form.find(self.kind)

    def match(self, samples: Sequence[Sample], dataset: str, split: str, measured: Measured | None = None) -> Match:
        """Compare what was evaluated, and how, with the official definition.

        Args:
            samples: every item that the result counts, missing media included.
            dataset: name of the data set the table comes from.
            split: which split it is.
            measured: how; None compares the table alone.
        """
        lines = self.form.lines(samples)
        counts = {what: len(found) for what, found in lines.items()}
        hashes = {what: sha256_lines(found) for what, found in lines.items()}
        differences = []
        if dataset != self.dataset:
            differences.append(f"the data set is {dataset}, not {self.dataset}")
        if split != self.split:
            differences.append(f"the split is {split}, not {self.split}")
        for what in lines:
            if what in self.counts and counts[what] != self.counts[what]:
                differences.append(f"{counts[what]:,} {what} instead of {self.counts[what]:,}")
            elif what in self.sha256 and hashes[what] != self.sha256[what]:
                differences.append(
                    f"the {what} are not the official ones (sha256 {hashes[what][:12]}, official "
                    f"{self.sha256[what][:12]})"
                )
        if not {*self.counts, *self.sha256} & lines.keys():
            differences.append("the protocol states neither a count nor a hash that could tell its items from others")
        unknown: tuple[str, ...] = ()
        if measured is not None:
            differences += self._measured_otherwise(measured)
            unknown = tuple(name for name in self.options if measured.options.get(name, "") is None)
        found = () if self.name == OWN_DATA else tuple(differences)
        return Match(self, dataset, split, counts, hashes, found, unknown)

    def _measured_otherwise(self, measured: Measured) -> Iterator[str]:
        """What makes a number on the official items another number, in words."""
        if measured.limit is not None:
            yield f"only a part of the split was evaluated (data.limit_eval={measured.limit:g})"
        if self.metrics and (not measured.metrics or measured.metrics[0] != self.metrics[0]):
            yield f"the headline is {measured.metrics[0] if measured.metrics else 'missing'}, not {self.metrics[0]}"
        if absent := [name for name in self.metrics if name not in measured.metrics]:
            more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
            yield f"not reported: {', '.join(absent[:3])}{more}"
        if measured.ties not in (None, self.ties):
            yield f"the tie rule is {measured.ties}, not {self.ties}"
        if self.frames is not None and measured.frames != self.frames:
            yield f"the model sees {measured.frames or 'no'} frames of a clip, not {self.frames}"
        for name, official in self.options.items():
            found = measured.options.get(name, "not an option of this task")
            if found not in (None, official):
                yield f"task.{name} is {found}, not {official}"

    def train_list(self, media: Iterable[str]) -> str | None:
        """Name of the known training list that consists of exactly these clips, or None."""
        longest = max((facts.get("videos", math.inf) for facts in self.train_lists.values()), default=0)
        clips: set[str] = set()
        for name in media:  # millions of names are none of the lists, and are not collected to find that out
            clips.add(name)
            if len(clips) > longest:
                return None
        found = sha256_lines(clips)
        return next((name for name, facts in self.train_lists.items() if facts.get("sha256") == found), None)


@dataclass(frozen=True, slots=True)
class Match:
    """Whether what was evaluated is the protocol.

    Attributes:
        protocol: the official definition.
        dataset, split: where the table comes from.
        counts, sha256: of the evaluated table, by canonical form.
        differences: in words; empty = official.
        unknown: options that the protocol fixes and of which nobody knows what they were.
    """

    protocol: Protocol
    dataset: str
    split: str
    counts: Mapping[str, int]
    sha256: Mapping[str, str]
    differences: tuple[str, ...]
    unknown: tuple[str, ...] = ()

    @property
    def own(self) -> bool:
        """Whether there is no published protocol to compare with."""
        return self.protocol.name == OWN_DATA

    @property
    def official(self) -> bool:
        return not self.differences and not self.own

    @property
    def name(self) -> str:
        """The protocol's name if it is the official one, else ``name@dataset`` with the split where it is not the
        official one; ``own data`` where there is no protocol."""
        if self.official or self.own:
            return self.protocol.name
        return f"{self.protocol.name}@{self.dataset}" + ("" if self.split == self.protocol.split else f":{self.split}")

    def unverified(self) -> list[str]:
        """Parts of the official table that the protocol file cannot recognise by a hash, and options nobody knows."""
        return [*(what for what in self.counts if what not in self.protocol.sha256), *self.unknown]

    def line(self) -> str:
        """One line for tables: the name, and if it is not the official protocol, why; for own data what it is."""
        if self.own:
            what = self.protocol.form.counted
            return (
                f"protocol {OWN_DATA} ({self.dataset} {self.split}: {self.counts['videos']:,} videos, "
                f"{self.counts[what]:,} {what}, sha256 {self.sha256[what][:12]})"
            )
        if self.official:
            return f"protocol {self.name}: the official {self.split} set"
        return f"protocol {self.name}: NOT the official {self.protocol.name} ({'; '.join(self.differences)})"

    def record(self) -> dict[str, Any]:
        """What report.json stores."""
        return {
            "name": self.name,
            "official": self.official,
            "official_name": None if self.own else self.protocol.name,
            "title": self.protocol.title,
            "split": self.split,
            "differences": list(self.differences),
            "unverified": self.unverified(),
            "counts": dict(self.counts),
            "official_counts": dict(self.protocol.counts),
            "sha256": dict(self.sha256),
            "official_sha256": dict(self.protocol.sha256),
            "metrics": list(self.protocol.metrics),
            "ties": self.protocol.ties,
            "frames": self.protocol.frames,
            "frames_note": self.protocol.frames_note,
            "options": dict(self.protocol.options),
            "notes": list(self.protocol.notes),
        }
