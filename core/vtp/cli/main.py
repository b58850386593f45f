"""``vtp COMMAND ...``: picks the command and imports only its module. Commands of plugins come after the built-in ones,
and a broken plugin stops none of them."""

from __future__ import annotations

import os
import sys

from vtp import __version__

__all__ = ["COMMANDS", "main"]

# command -> (module with main(arguments) -> exit code, what it does)
COMMANDS = {
    "run": ("vtp.cli.run", "train, evaluate or predict: vtp run task=msrvtt_qa dataset=shapes"),
    "plugins": ("vtp.cli.plugins", "what is installed, what is broken and why; vtp plugins check looks closely"),
    "list": ("vtp.cli.components", "components of a kind: vtp list objective"),
    "show": ("vtp.cli.components", "one component with its options: vtp show objective vtc"),
    "data": ("vtp.cli.data", "check a data set, cache decoded clips, pack shards: vtp data check msvd root=DIR"),
    "embed": (
        "vtp.cli.embed",
        "embeddings of a folder of media, a table for search: vtp embed clips index --model RUN",
    ),
    "search": ("vtp.cli.search", 'find a moment by a text, a clip or a sound: vtp search index "a dog runs"'),
    "ask": ("vtp.cli.ask", 'a question about a video: vtp ask clip.mp4 "what colour is the ball" --model RUN'),
    "caption": ("vtp.cli.ask", "a sentence about a video: vtp caption clip.mp4 --model RUN"),
    "export": ("vtp.cli.export", "ONNX of the towers, compared with torch: vtp export RUN OUT"),
    "protocols": ("vtp.cli.protocols", "what benchmarks evaluate, to the last item: vtp protocols show msvd"),
    "compare": ("vtp.cli.compare", "is one run better, and could it be seen: vtp compare RUN_A RUN_B, or RUN alone"),
    "verify": ("vtp.cli.verify", "compute a report again from its predictions, bit by bit: vtp verify RUN"),
    "import": ("vtp.cli.importing", "convert a checkpoint of another program: vtp import simvtp FILE OUT"),
    "doctor": ("vtp.cli.doctor", "versions, devices, kernels, decoders, disk: what works on this machine"),
    "new-plugin": (
        "vtp.cli.new_plugin",
        "write a plugin package that works at once: vtp new-plugin my_loss --kind objective",
    ),
    "completion": ("vtp.cli.completion", "completion with the TAB key: source <(vtp completion bash), zsh, fish"),
    "install": ("vtp.cli.install", "install plugins with pip into this Python"),
    "uninstall": ("vtp.cli.install", "uninstall plugins, broken ones too"),
}
SHARED = ("list", "show", "install", "uninstall", "ask", "caption")  # two in a module, which is told which one it is

USAGE = """vtp {version}: models of video, text and audio. Every method is a plugin.

usage: vtp COMMAND [...]      vtp COMMAND --help explains a command

{commands}

start here:
  vtp run task=msrvtt_qa dataset=shapes       train and evaluate on a generated data set, nothing to download
  vtp run --help                              tasks, data sets, models, objectives and every setting
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 the run failed, 2 the user's mistake."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE.format(version=__version__, commands=_listing()))
        return 0
    if arguments[0] in ("-V", "--version", "version"):
        print(f"vtp {__version__}")
        return 0
    import logging
    from importlib import import_module

    from vtp.errors import VtpError
    from vtp.shown import Formatter, one_line, printable

    if logging.lastResort is not None:  # where a command sets up no log
        logging.lastResort.setFormatter(Formatter())
    command, rest = arguments[0], arguments[1:]
    try:
        if command in COMMANDS:
            function = import_module(COMMANDS[command][0]).main
            return int(function([command, *rest] if command in SHARED else rest))
        if command == "__complete":  # what the scripts of `vtp completion` call
            from vtp.cli.completion import complete

            return complete(rest)
        return _plugin_command(command, rest)
    except VtpError as error:
        told = f"vtp {command}: {error}"
        for given in filter(None, arguments):  # a name with a line break makes no second line
            told = told.replace(given, one_line(given))
        print(printable(told), file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        sys.stderr.close()
        return 0
    except Exception as error:
        from vtp.faults import fault_of, system_fault

        failure = system_fault(error) or fault_of(error)
        if failure is None or os.environ.get("VTP_TRACEBACK", "") not in ("", "0"):
            raise
        print(printable(f"vtp {command}: {failure} VTP_TRACEBACK=1 shows the traceback."), file=sys.stderr)
        return failure.exit_code
    except KeyboardInterrupt as error:
        print(f"vtp {command}: interrupted {error}".rstrip(), file=sys.stderr)
        return 130


def _listing() -> str:
    """The commands, a line each: the built-in ones, then those of plugins with the plugin's name."""
    from vtp.cli.listing import plugin_commands

    commands = {name: text for name, (_, text) in COMMANDS.items()}
    note = ""
    try:
        commands |= {name: text for name, text in plugin_commands().items() if name not in commands}
    except Exception as error:  # VTP_STRICT_PLUGINS
        from vtp.errors import PluginError

        if not isinstance(error, PluginError):
            raise
        note = f"\n\n{error}"
    width = max(map(len, commands))
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in commands.items()) + note


def _plugin_command(command: str, rest: list[str]) -> int:
    """A command that a plugin offers; plugins are only loaded when no built-in command has that name."""
    import inspect

    from vtp.errors import PluginError
    from vtp.faults import title
    from vtp.plugins import host, missing_addons
    from vtp.registry import did_you_mean

    registry = host().registry
    offered = [entry.name for entry in registry.entries("command")]
    if command not in offered:
        hint = did_you_mean(command, [*COMMANDS, *offered])
        absent = [f"not installed: {distribution}" for distribution in missing_addons().values()]
        notes = "".join(f"\n  note: {note}" for note in [*registry.notes, *absent])
        raise PluginError(f"there is no such command.{hint} `vtp --help` lists them.{notes}")
    function, who = registry.get("command", command).load(), title("command", command)
    try:
        inspect.signature(function).bind(rest)
    except TypeError as error:
        raise PluginError(
            f"{who} cannot be called with the list of arguments: {error}. Expected f(arguments)"
        ) from error
    code = function(rest)
    if not (code is None or isinstance(code, int)):
        raise PluginError(f"{who} returned {type(code).__name__}, expected the exit code: an int, or None for 0")
    return code or 0


if __name__ == "__main__":
    sys.exit(main())
