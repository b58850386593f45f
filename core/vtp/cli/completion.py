"""``vtp completion SHELL`` prints what a shell sources; ``vtp __complete LINE`` then gives the words that may follow.

    source <(vtp completion bash)      # in ~/.bashrc; zsh: the same in ~/.zshrc; fish: vtp completion fish | source

Commands, what they take, groups, options, keys and choices of ``vtp run``. No component is imported for it.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable

from vtp.cli.arguments import Parser

__all__ = ["candidates", "complete", "main"]

SHELLS = {
    "bash": """_vtp() {
    local line="${COMP_LINE:0:$COMP_POINT}"
    local word="${line##* }" IFS=$'\\n'
    local skip="${word%"${COMP_WORDS[COMP_CWORD]}"}"
    [ "${COMP_WORDS[COMP_CWORD]}" = "=" ] && skip="$word"
    COMPREPLY=($(vtp __complete "$line" 2>/dev/null))
    COMPREPLY=("${COMPREPLY[@]#"$skip"}")
    [[ ${COMPREPLY[0]} == *[=.,[] ]] && compopt -o nospace
}
complete -o default -F _vtp vtp
""",
    "zsh": """#compdef vtp
_vtp() {
    local -a found
    found=("${(@f)$(vtp __complete "${BUFFER[1,CURSOR]}" 2>/dev/null)}")
    [[ -n "${found[1]}" ]] && compadd -S '' -- "${found[@]}"
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _vtp vtp
""",
    "fish": """function __vtp_complete
    vtp __complete (commandline -cp) 2>/dev/null
end
complete -c vtp -f -a '(__vtp_complete)'
""",
}
SUBCOMMANDS = {
    "plugins": ("list", "check", "why", "--json", "--verbose", "--quick"),
    "data": ("check", "cache", "pack"),
    "protocols": ("show",),
    "completion": tuple(SHELLS),
    "new-plugin": ("--kind", "--out"),
}


def main(arguments: list[str]) -> int:
    """Print the script of a shell."""
    parser = Parser(
        prog="vtp completion",
        description="Completion of commands, groups, options and keys with the TAB key.",
        epilog="bash: source <(vtp completion bash); zsh: source <(vtp completion zsh); "
        "fish: vtp completion fish | source",
    )
    parser.add_argument("shell", choices=tuple(SHELLS))
    print(SHELLS[parser.parse_args(arguments).shell], end="")
    return 0


def complete(arguments: list[str]) -> int:
    """``vtp __complete LINE``: a word per line. Whatever goes wrong, the shell is left alone."""
    line = arguments[0] if arguments else ""
    words = [re.sub(r"\\(.)|['\"]", r"\1", word) for word in line.split()[1:]]  # as the shell will hand them over
    current = "" if line[-1:].isspace() or not words else words.pop()
    for word in candidates(words, current):
        print(word)
    return 0


def candidates(before: list[str], current: str) -> list[str]:
    """Words that may stand where ``current`` is being written.

    Args:
        before: the words between ``vtp`` and it.
        current: its beginning, "" for a new word.
    """
    found = _commands() if not before else _of_run(before[1:], current) if before[0] == "run" else _others(before)
    return sorted({word for word in found if word.startswith(current) and word != current})


def _commands() -> Iterable[str]:
    from vtp.cli.main import COMMANDS
    from vtp.plugins import host

    return [*COMMANDS, *(entry.name for entry in host().registry.entries("command"))]


def _others(before: list[str]) -> Iterable[str]:
    """What the other commands take."""
    from vtp.options import below, option_files
    from vtp.plugins import host, missing_addons

    command, *given = before
    if command in ("list", "show"):
        from vtp.cli.components import PLAIN

        kinds = {*option_files(), *PLAIN}
        if not given:
            return kinds
        names = [entry.name for kind in PLAIN for entry in host().registry.entries(kind) if kind == given[0]]
        return [*below(option_files(), given[0]), *names] if command == "show" and len(given) == 1 else ()
    if command == "new-plugin" and given[-1:] == ["--kind"]:
        from vtp.cli.new_plugin import KINDS

        return KINDS
    if command == "import" and not given:
        return [entry.name for entry in host().registry.entries("importer")]
    if command == "install":
        return missing_addons()
    if command == "uninstall" or (command == "plugins" and given[:1] in (["check"], ["why"])):
        return [info.point.name for info in host().infos if command != "uninstall" or not info.point.builtin]
    if command == "data" and given[:1] in (["check"], ["cache"]) and len(given) == 1:
        return option_files().get("dataset", ())
    if command == "protocols" and given == ["show"]:
        from vtp.eval.protocol import protocol_files

        return protocol_files()
    return SUBCOMMANDS.get(command, ()) if not given else ()


def _of_run(before: list[str], current: str) -> Iterable[str]:
    """Groups, options and keys of ``vtp run``."""
    from vtp.options import below, option_files

    groups = option_files()
    sign = current[:1] if current[:1] in "+~" else ""
    key, is_choice, value = current.removeprefix(sign).partition("=")
    if not is_choice:
        words = [f"{group}=" for group in _roots(groups)] + _keys(before, groups)
        return [*(f"{sign}{word}" for word in words), "--help", "--cfg", "-m"]
    start = re.match(r"\[?(?:[^,\]]+,)*", value)
    written = start[0] if start else ""
    options = [*below(groups, key)] if key in _roots(groups) else _choices(key)
    taken = written.strip("[").split(",")
    return [f"{sign}{key}={written}{option}" for option in options if option not in taken]


def _roots(groups: Iterable[str]) -> set[str]:
    """Groups that are chosen from: ``objective``, ``encoder/video``."""
    return {group if group.startswith("encoder/") else group.partition("/")[0] for group in groups}


def _keys(before: list[str], groups: typing.Any) -> list[str]:
    """Keys of the configuration, those of what has been chosen before included."""
    from vtp.config import TOP_LEVEL, typed_nodes
    from vtp.options import below, read_options

    keys = [f"{name}=" for name in TOP_LEVEL if name not in ("train", "data", "media")]
    keys += [f"{node}.{name}=" for node, schema in typed_nodes().items() for name in typing.get_type_hints(schema)]
    for word in before:
        group, _, value = word.lstrip("+").partition("=")
        for option in re.findall(r"[^\[\],]+", value) if group in _roots(groups) else ():
            for _, file in below(groups, group).get(option, ())[:1]:
                content = read_options(file)
                inner = content.get(group, content) if isinstance(content.get(group, content), dict) else content
                name = {"objective": f"objectives.{option.rpartition('/')[2]}"}.get(group, group.replace("/", "."))
                keys += [f"{name}.{key}=" for key in inner if key not in ("name", "defaults")]
    return keys


def _choices(key: str) -> Iterable[str]:
    """Values of a key whose type lists them."""
    from vtp.config import typed_nodes

    node, _, name = key.partition(".")
    schema = typed_nodes().get(node)
    hint = typing.get_type_hints(schema).get(name) if schema is not None else None
    known = {
        "mode": ("train", "eval", "predict", "train+eval"),
        "resume": ("auto",),
        "kernels": ("auto", "torch", "triton"),
    }
    if hint is bool or key in ("restart", "profile"):
        return ("true", "false")
    literals = [hint, *typing.get_args(hint)]
    found = [
        str(one) for part in literals if typing.get_origin(part) is typing.Literal for one in typing.get_args(part)
    ]
    return found or known.get(key, ())
