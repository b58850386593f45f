"""Generate a data set once: annotations and clips into a folder that is there as a whole or not at all.

Work happens in ``.<name>.partial`` beside the final place, where a killed run leaves its clips and the next one goes
on; the folder gets its name when everything and ``manifest.json`` are in it. Processes that want the same folder wait
for each other.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from vtp.errors import DataError, RunError
from vtp.machine import cores
from vtp.progress import bar
from vtp.storage import take_lock, write_json_atomic, write_text_atomic
from vtp_datasets.shapes.annotations import SIZES, Blueprint, annotation_files
from vtp_datasets.shapes.world import CATEGORIES

__all__ = ["ensure", "read_manifest"]

log = logging.getLogger("vtp")

MANIFEST = "manifest.json"
BYTES_PER_CLIP = 30_000  # generous; measured 12 to 26 KB


def ensure(root: Path, plan: Blueprint, workers: int | None = None) -> dict[str, Any]:
    """Make ``root`` hold the data set ``plan``; returns its manifest. Does nothing but check when it is there already.

    Args:
        root: final folder.
        plan: what to generate.
        workers: processes that render; None = one per CPU that we may use.

    Raises:
        DataError: ``root`` holds something else, or is damaged.
        RunError: rendering failed, or the disk is full.
    """
    if (root / MANIFEST).is_file():
        return _check(root, plan)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(
            f"{root}: not empty, and not made by shapes (no {MANIFEST}). Choose another dataset.root, or an empty "
            "folder."
        )
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with _locked(root.parent / f".{root.name}.lock"):
            if (root / MANIFEST).is_file():  # another process has made it while we waited
                return _check(root, plan)
            return _generate(root, plan, workers)
    except OSError as error:
        raise RunError(
            f"shapes: cannot write {root}: {error.strerror or error}. Name a place with room for about "
            f"{plan.clips * BYTES_PER_CLIP / 1e6:,.0f} MB with dataset.root=FOLDER or the variable VTP_CACHE."
        ) from error


def read_manifest(root: Path) -> dict[str, Any]:
    """The manifest of a generated folder.

    Raises:
        DataError: it is not JSON.
    """
    try:
        manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{root / MANIFEST}: not JSON ({error}). Delete {root} to generate it again.") from error
    return manifest if isinstance(manifest, dict) else {}


def _check(root: Path, plan: Blueprint) -> dict[str, Any]:
    """Is this the data set ``plan``, and all of it?"""
    manifest = read_manifest(root)
    wanted = plan.record()
    if different := [key for key, value in wanted.items() if manifest.get(key) != value]:
        held = ", ".join(f"{key}={manifest.get(key)}" for key in different)
        asked = ", ".join(f"{key}={wanted[key]}" for key in different)
        raise DataError(
            f"{root}: holds another data set, {held} where {asked} is asked for. Choose another dataset.root, or "
            "delete that folder."
        )
    damage = [name for name, digest in manifest.get("sha256", {}).items() if _sha256(root / name) != digest]
    # Thousands of clips are not hashed at every start: their number and size are compared.
    if not damage and _clip_bytes(root / "videos") != (manifest["clips"], manifest["clip_bytes"]):
        damage = ["videos"]
    if damage:
        raise DataError(
            f"{root}: changed since it was generated ({', '.join(damage)}). Delete the folder to generate it again."
        )
    return manifest


def _generate(root: Path, plan: Blueprint, workers: int | None) -> dict[str, Any]:
    partial = root.parent / f".{root.name}.partial"
    if partial.exists() and read_plan(partial) != plan.record():
        shutil.rmtree(partial)  # the rest of another plan
    videos = partial / "videos"
    videos.mkdir(parents=True, exist_ok=True)
    write_json_atomic(partial / "plan.json", plan.record())
    left = plan.clips - sum(path.suffix == ".mp4" for path in videos.iterdir())
    if shutil.disk_usage(partial).free < left * BYTES_PER_CLIP:
        raise OSError(28, "no space left on the disk")
    log.info("shapes: generating %s clips in %s (once)", f"{plan.clips:,}", root)
    _render(partial, plan, workers or cores(), plan.clips - left)

    for half in videos.glob(".*"):
        half.unlink(missing_ok=True)  # of a process that was killed while it wrote
    files = annotation_files(plan)
    for name, text in files.items():
        write_text_atomic(partial / name, text)
    clips, size = _clip_bytes(videos)
    if clips != plan.clips:
        raise RunError(
            f"shapes: {partial} holds {clips} clips instead of {plan.clips}. Delete that folder and try again."
        )
    manifest = plan.record() | {
        "categories": list(CATEGORIES),
        "splits": SIZES[plan.size],
        "questions": {s: len(json.loads(files[f"{s}_qa.json"])) for s in SIZES[plan.size]},
        "clips": clips,
        "clip_bytes": size,
        "sha256": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in sorted(files.items())},
        "encoder": _encoder(),
    }
    write_json_atomic(partial / MANIFEST, manifest)
    (partial / "plan.json").unlink()
    if root.exists():
        root.rmdir()  # empty, as ensure() has seen
    os.rename(partial, root)
    return manifest


def read_plan(partial: Path) -> object:
    """The plan that a half-done folder was begun with; None if it does not say."""
    try:
        return json.loads((partial / "plan.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _render(partial: Path, plan: Blueprint, workers: int, done: int) -> None:
    """Start the processes and wait for them; they report each clip with a line on one common pipe."""
    if done == plan.clips:
        return
    workers = max(1, min(workers, plan.clips - done))
    worker = [sys.executable, "-P", "-m", "vtp_datasets.shapes.worker"]  # -P: nothing of the working folder is run
    command = [*worker, str(partial / "videos"), plan.size, str(plan.seed)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running: list[subprocess.Popen[bytes]] = []
    with TemporaryFile() as said, bar("rendering clips") as show:
        reading, writing = os.pipe()
        try:
            with open(reading, "rb", buffering=0) as reports:
                try:
                    for shard in range(workers):
                        arguments = [*command, str(shard), str(workers)]
                        running.append(
                            subprocess.Popen(
                                arguments, stdin=subprocess.DEVNULL, stdout=writing, stderr=said, env=environment
                            )
                        )
                finally:
                    os.close(writing)
                for now, _ in enumerate(reports, start=done + 1):  # until the last process has ended
                    show(now, plan.clips)
            codes = [process.wait() for process in running]
        finally:
            for process in running:
                process.kill()
                process.wait()
        if failed := [code for code in codes if code]:
            said.seek(0)
            last = (said.read().decode(errors="replace").strip().splitlines() or ["nothing was said"])[-1]
            raise RunError(
                f"shapes: {len(failed)} of {workers} rendering processes ended with code {failed[0]}: {last}. What is "
                f"done is kept in {partial}; run the same command again to go on."
            )


def _clip_bytes(videos: Path) -> tuple[int, int]:
    """Number of clips and their size together."""
    if not videos.is_dir():
        return 0, 0
    sizes = [entry.stat().st_size for entry in os.scandir(videos) if entry.name.endswith(".mp4")]
    return len(sizes), sum(sizes)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _encoder() -> dict[str, str]:
    import av

    return {"pyav": av.__version__, **{name: ".".join(map(str, v)) for name, v in av.library_versions.items()}}


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path``; the system frees it when a process dies, however it does."""
    with open(path, "w") as file:
        if not take_lock(file.fileno(), wait=False):
            log.info("shapes: waiting for another process that generates this data set")
            take_lock(file.fileno())
        yield
