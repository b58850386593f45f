"""The decoders by name, and the two functions that read one file in this process.

A decoder is what :class:`vtp.contracts.Decoder` says. ``auto`` is ``pyav``, which is always there. Plugins add more
with the hook ``vtp_register_decoders``; nothing is imported before it is chosen.
"""

from __future__ import annotations

from importlib import import_module

from vtp.contracts import Decoder, unfit
from vtp.errors import ConfigError, PluginError
from vtp.media.info import MediaInfo
from vtp.media.request import EVERYTHING, Wanted
from vtp.registry import did_you_mean
from vtp.types import Clip, MediaRef

__all__ = ["BACKENDS", "DEFAULT", "find_backend", "load_backend", "probe", "read_clip", "why_not"]

BACKENDS = {
    "pyav": "vtp.media.pyav:PyavDecoder",
    "torchcodec": "vtp.media.torchcodec:TorchcodecDecoder",
    "decord": "vtp.media.decord:DecordDecoder",
}
_CAUSES = ("cannot open shared object file", "undefined symbol", "image not found", "Library not loaded")
DEFAULT = "pyav"  # what "auto" stands for: it is always installed, and right about the most files


def find_backend(name: str) -> str:
    """The ``"module:Class"`` of a decoder.

    Raises:
        ConfigError: for an unknown name.
    """
    if name == "auto":
        name = DEFAULT
    if name in BACKENDS:
        return BACKENDS[name]
    from vtp.plugins import addon_hint, host  # only now: it reads the metadata of all installed packages

    offers = {entry.name: entry.target for entry in host().registry.entries("decoder")}
    if name not in offers:
        known = ["auto", *BACKENDS, *sorted(offers)]
        hint = addon_hint(name) or did_you_mean(name, known)
        raise ConfigError(f"media.backend={name}: no such decoder.{hint} Known: {', '.join(known)}.")
    return offers[name]


def load_backend(target: str) -> Decoder:
    """Import and build the decoder behind ``"module:Class"``.

    Raises:
        PluginError: if its library is missing or broken, or it lacks what a decoder must have.
    """
    module, _, attribute = target.partition(":")
    try:
        decoder: Decoder = getattr(import_module(module), attribute)()
    except Exception as error:  # a decoder's native library may fail to load in any way
        raise PluginError(
            f"the decoder {target} cannot be used: {why_not(error)}. "
            "Install its library, or leave media.backend=auto, which needs nothing more."
        ) from error
    if problems := unfit(decoder, Decoder):
        raise PluginError(f"the decoder {target} {problems[0]}")
    return decoder


def why_not(error: Exception) -> str:
    """Why a library does not load, in one line: the first line of what it says, and the one that names the cause, which
    torchcodec puts below a page of advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    causes = [line for line in lines[1:] if any(word in line for word in _CAUSES)]
    # It tries one FFmpeg after the other. Those that are not there say so; one that is there says what it lacks.
    causes.sort(key=lambda line: any(f"lib{name}." in line for name in ("avutil", "avcodec", "avformat", "avdevice")))
    cause = f" ({causes[0][:200]})" if causes else ""
    return f"{type(error).__name__}: {lines[0][:200].rstrip('.')}{cause}"


def read_clip(ref: MediaRef, wanted: Wanted = EVERYTHING, *, backend: str = "auto") -> Clip:
    """Decode frames and sound of one file, in one open, in this process. For files that cannot be trusted use
    :class:`vtp.media.MediaReader`.

    Stills are videos of one frame, an animated gif is a short video. Rotation flags and edit lists are applied.

    Args:
        ref: the file (or its bytes) and the span of it in seconds.
        wanted: which frames, at which size, and whether with sound; by default all frames as they are stored.
        backend: a name for :func:`find_backend`.

    Returns:
        A Clip. What the file does not have is None and named in ``missing``; ``waveform`` starts with the first sound
        in the span.

    Raises:
        MediaError: if nothing of what was asked for is there, or the file cannot be used.
    """
    return load_backend(find_backend(backend)).read(ref, wanted)


def probe(ref: MediaRef, *, backend: str = "auto") -> MediaInfo:
    """Streams, frame times and rotation of a file, in this process.

    Raises:
        MediaError: if there is neither picture nor sound in it.
    """
    return load_backend(find_backend(backend)).probe(ref)
