"""``vtp doctor``: what works on this machine, part by part, and what to do about what does not."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from vtp.cli.arguments import Parser
from vtp.storage import cache_root

__all__ = ["Finding", "main"]


class Finding(NamedTuple):
    """One line of the report. ``level``: ok, note (works without it) or fault (something will fail)."""

    level: str
    part: str
    text: str


def main(arguments: list[str]) -> int:
    """Print the report; exit code 1 when there is a fault."""
    parser = Parser(
        prog="vtp doctor",
        description="Check versions, devices, kernels, media decoders, plugins and disk space. Exit code 1 when "
        "something that vtp needs, or a plugin, is broken; a missing optional part is only a note.",
    )
    parser.parse_args(arguments)
    findings: list[Finding] = []
    for check in (_python, _libraries, _devices, _kernels, _decoders, _plugins, _disk):
        try:
            findings += list(check())
        except Exception as error:  # a check that fails is a finding; the other checks still run
            findings.append(Finding("fault", check.__name__.strip("_"), f"{type(error).__name__}: {error}"))
    marks = {"ok": "ok   ", "note": "note ", "fault": "FAULT"}
    for finding in findings:
        print(f"{marks[finding.level]}  {finding.part:<12} {finding.text}")
    faults = [f for f in findings if f.level == "fault"]
    print(f"\n{len(faults)} fault(s)" if faults else "\nno faults")
    return 1 if faults else 0


def _python() -> Iterator[Finding]:
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    text = f"{platform.python_version()} on {machine} ({sys.executable})"
    yield Finding(
        "ok" if supported else "note", "python", text if supported else f"{text}; vtp is tested on 3.11 to 3.13"
    )


def _libraries() -> Iterator[Finding]:
    """Import each library: a torchvision or torchaudio built for another torch breaks only then, and takes transformers
    along."""
    needed = (
        "torch",
        "torchvision",
        "numpy",
        "transformers",
        "timm",
        "hydra",
        "pluggy",
        "av",
        "safetensors",
        "tokenizers",
    )
    optional = ("torchaudio", "triton")
    for name in (*needed, *optional):
        distribution = {"hydra": "hydra-core"}.get(name, name)
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            level = "note" if name in optional else "fault"
            yield Finding(level, name, "not installed" + ("" if level == "note" else f": pip install {distribution}"))
            continue
        try:
            __import__(name)
        except Exception as error:
            advice = f"{version} cannot be imported ({type(error).__name__}: {str(error).splitlines()[0][:120]}). "
            advice += "Install builds that belong together, see constraints.txt"
            yield Finding("fault", name, advice)
        else:
            yield Finding("ok", name, version)


def _devices() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        yield Finding("note", "device", f"cpu only, {torch.get_num_threads()} threads (no CUDA device)")
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        yield Finding("ok", "device", f"cuda:{index} {facts.name}, {facts.total_memory / 2**30:.0f} GiB")


def _kernels() -> Iterator[Finding]:
    try:
        version = importlib.metadata.version("vtp-kernels")
    except importlib.metadata.PackageNotFoundError:
        if importlib.util.find_spec("vtp_kernels") is None:
            yield Finding("note", "kernels", "vtp-kernels is not installed: attention runs on torch's own kernels")
            return
        version = "of the source tree"
    import torch

    where = "Triton on CUDA" if torch.cuda.is_available() else "their torch fallback (no CUDA device)"
    yield Finding("ok", "kernels", f"vtp-kernels {version}, running on {where}")


def _decoders() -> Iterator[Finding]:
    import av

    from vtp.media.backends import why_not

    yield Finding("ok", "decoder", f"pyav {av.__version__} (default), FFmpeg {av.ffmpeg_version_info}")
    for name in ("torchcodec", "decord"):
        if importlib.util.find_spec(name) is None:
            yield Finding("note", "decoder", f"{name} not installed (optional, media.backend={name})")
            continue
        try:
            __import__(name)
        except Exception as error:  # installed, and built for other libraries than are here
            advice = "docs/data.md says which torchcodec goes with which torch" if name == "torchcodec" else ""
            text = f"{name} is installed and cannot be used: {why_not(error)}"
            yield Finding("note", "decoder", f"{text}. {advice}".rstrip(". "))
        else:
            yield Finding("ok", "decoder", f"{name} usable with media.backend={name}")


def _plugins() -> Iterator[Finding]:
    from vtp.plugins import host

    for info in host().infos:
        faulty = info.status in ("broken", "incompatible", "refused")
        text = (
            info.summary()
            if faulty
            else f"{info.point.name} ({info.point.distribution} {info.point.version}) {info.status}"
        )
        yield Finding("fault" if faulty else "ok", "plugin", text)


def _disk() -> Iterator[Finding]:
    places: dict[str, Callable[[], Path]] = {
        "working folder": Path.cwd,
        "cache": cache_root,
        "shared memory": lambda: Path("/dev/shm"),
    }
    for name, where in places.items():
        path = where()
        existing = next((p for p in (path, *path.parents) if p.exists()), None)
        if existing is None:
            continue
        free = shutil.disk_usage(existing).free / 2**30
        writable = os.access(existing, os.W_OK)
        low = free < (0.5 if name == "shared memory" else 2)
        text = f"{name} {path}: {free:.1f} GiB free" + ("" if writable else ", NOT writable")
        yield Finding("fault" if not writable else "note" if low else "ok", "disk", text)
