"""``vtp protocols [show NAME]``: what exactly each benchmark evaluates, and by which hashes it is recognised."""

from __future__ import annotations

import json
import sys

from vtp.cli.arguments import Parser
from vtp.errors import ConfigError
from vtp.eval.protocol import Protocol, protocol_files, readable_protocols
from vtp.registry import did_you_mean

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """List the protocols, or show one of them."""
    parser = Parser(
        prog="vtp protocols",
        description="Protocols: counts, hashes, metrics, tie rule and known training lists of each benchmark.",
    )
    parser.add_argument("action", nargs="?", choices=("list", "show"), default="list")
    parser.add_argument("name", nargs="?", help="of a protocol, or the path of a YAML file, for show")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args(arguments)
    if (options.action == "show") != (options.name is not None):
        raise ConfigError("`vtp protocols` lists them, `vtp protocols show NAME` shows one; for example show msvd.")
    return _show(options.name, options.json) if options.action == "show" else _list(options.json)


def _list(as_json: bool) -> int:
    files = protocol_files()
    found, wrong = readable_protocols()
    for reason in wrong.values():
        print(f"vtp protocols: left out: {reason}", file=sys.stderr)
    if as_json:
        print(json.dumps([_record(protocol) for protocol in found.values()], indent=2))
        return 0
    width = max(map(len, found), default=0)
    for name, protocol in found.items():
        counts = ", ".join(f"{count:,} {what}" for what, count in protocol.counts.items())
        print(f"{name:<{width}}  {protocol.title}  ({counts})  [{files[name][0]}]")
    print("\n`vtp protocols show NAME` prints the rest; task.protocol=NAME or =FILE.yaml chooses one.")
    return 0


def _show(name: str, as_json: bool) -> int:
    files = protocol_files()
    if not name.endswith((".yaml", ".yml")) and name not in files:
        raise ConfigError(f"no protocol {name!r}.{did_you_mean(name, files)} Known: {', '.join(sorted(files))}.")
    plugin, path = files.get(name, ("yours", name))
    protocol = Protocol.load(path)
    if as_json:
        print(json.dumps(_record(protocol), indent=2))
        return 0
    print(f"{protocol.name}: {protocol.title}\n")
    print("binding (a run that differs is reported under another name and says why):")
    print(f"  data set   {protocol.dataset}, table {protocol.kind}, split {protocol.split}, all of it")
    for what in ("videos", protocol.form.counted):
        count = f"{protocol.counts[what]:,}" if what in protocol.counts else "number not known"
        print(f"  {what:<9}  {count:<10}  {_hash(protocol.sha256.get(what))}")
    if protocol.metrics:
        print(
            f"  metrics    {protocol.metrics[0]} (the headline){''.join(f', {name}' for name in protocol.metrics[1:])}"
        )
    print(f"  ties       {protocol.ties}")
    for option, value in protocol.options.items():
        print(f"  {'option':<9}  task.{option}={value}")
    if protocol.frames is not None:
        print(f"  frames     {protocol.frames} of a clip" + (protocol.frames_note and f": {protocol.frames_note}"))
    print("\nto know:")
    if protocol.frames is None:
        print("  frames     left to the method" + (protocol.frames_note and f": {protocol.frames_note}"))
    for train_list, facts in protocol.train_lists.items():
        print(f"  trained on {train_list}: {facts.get('videos', 0):,} videos  {_hash(facts.get('sha256'))}")
    for cut, facts in protocol.cuts.items():
        seen = ", ".join(f"{count:,}" for count in facts.get("circulates", ()))
        rule = f"rule {facts['rule']}" if facts.get("rule") else "no rule: told, not scored"
        print(f"  cut        {cut}: {facts['title']} ({rule}{f'; seen with {seen} clips' if seen else ''})")
    for note in protocol.notes:
        print(f"  note       {note}")
    print(f"  source     {protocol.source or 'not stated'}")
    print(f"  file       {path} ({plugin})")
    return 0


def _hash(sha256: str | None) -> str:
    return f"sha256 {sha256}" if sha256 else "no hash: reported as unverified"


def _record(protocol: Protocol) -> dict[str, object]:
    return {name: getattr(protocol, name) for name in Protocol.__dataclass_fields__}
