"""Counts of all captions: cut into chunks, counted in several processes, and added up.

What a chunk counts is kept in a folder under the hash of its captions and of what decides the counts, until all are
counted: the same command again goes on where it was stopped, however it was. Sums do not depend on who counted what, so
the counts are the same for any number of processes.
"""

from __future__ import annotations

import gc
import hashlib
import json
import multiprocessing
import re
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from vtp.errors import RunError, VtpError
from vtp.prepare import GO_ON
from vtp.storage import LOCK, replacing
from vtp_snps3.mining.taggers import CHUNK, Count, Counts, make_counter
from vtp_univl.parts_of_speech import Tagger

__all__ = ["Corpus", "How", "corpus_hash", "count_words", "remove_parts", "without_empty"]

_PART = re.compile(r"[0-9a-f]{32}\.json")
_ALONE = 4  # chunks that are counted without starting processes for them


@dataclass(frozen=True, slots=True)
class How:
    """What decides the counts of captions.

    Attributes:
        tagger: which one.
        lower: whether captions are counted in lower case.
        facts: versions of the tagger and its data.
        chunk: captions that are counted together; decides nothing.
    """

    tagger: Tagger
    lower: bool
    facts: Mapping[str, str] = field(default_factory=dict)
    chunk: int = 0

    def key(self, chunk: list[str]) -> str:
        """A name for what a chunk counts."""
        said = json.dumps([self.tagger, self.lower, sorted(self.facts.items()), len(chunk)])
        return hashlib.sha256(said.encode() + _bytes(chunk)).hexdigest()[:32]


@dataclass(slots=True)
class Corpus:
    """What was counted.

    Attributes:
        words: word -> how often it is a verb, a noun, an adjective, anything else.
        captions: how many.
        sha256: of the captions, a line each.
    """

    words: dict[str, list[int]] = field(default_factory=dict)
    captions: int = 0
    sha256: str = ""


def count_words(
    captions: Iterable[str],
    how: How,
    folder: Path,
    *,
    workers: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> Corpus:
    """Count all words.

    Args:
        captions: read once, in chunks; all of them need not fit into memory, their distinct words must.
        folder: for the counts of chunks; made here, and left for whoever is done with all.
        workers: processes.
        progress: is told how many captions are counted.

    Raises:
        ConfigError: the tagger or its data are not installed.
        RunError: a process ended on its own, or the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    corpus, digest = Corpus(), hashlib.sha256()
    source = iter(captions)
    size = how.chunk or CHUNK[how.tagger]

    def chunks() -> Iterator[list[str]]:
        while chunk := list(islice(source, size)):
            digest.update(_bytes(chunk))
            corpus.captions += len(chunk)
            yield chunk

    def counted() -> Iterator[tuple[int, Counts]]:
        """The counts of each chunk, and its captions; those that are kept are not counted again."""
        rest = chunks()
        first = list(islice(rest, _ALONE + 1))
        few = workers < 2 or len(first) <= _ALONE
        with _here(how) if few else _processes(how, workers) as submit:
            waiting: list[tuple[Path, int]] = []
            while chunk := first.pop(0) if first else next(rest, []):
                file = folder / f"{how.key(chunk)}.json"
                if (kept := _kept(file)) is not None:
                    yield len(chunk), kept
                    continue
                waiting.append((file, len(chunk)))
                for job, counts in submit(len(waiting) - 1, chunk):
                    _keep(waiting[job][0], counts)
                    yield waiting[job][1], counts
            for job, counts in submit(-1, None):
                _keep(waiting[job][0], counts)
                yield waiting[job][1], counts

    done = 0
    for number, counts in counted():
        for word, (verb, noun, adj, other) in counts.items():
            row = corpus.words.setdefault(word, [0, 0, 0, 0])
            row[0] += verb
            row[1] += noun
            row[2] += adj
            row[3] += other
        done += number
        progress(done)
    corpus.sha256 = digest.hexdigest()
    return corpus


def remove_parts(folder: Path) -> None:
    """Remove the counts of chunks, and the folder if nothing else is in it."""
    for file in folder.iterdir():
        if _PART.fullmatch(file.name) or file.name == LOCK:
            file.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


@contextmanager
def without_empty(folder: Path) -> Iterator[None]:
    """Where the block fails before anything was counted, the folder goes again."""
    try:
        yield
    except BaseException:
        if folder.is_dir() and not any(file.name != LOCK for file in folder.iterdir()):
            remove_parts(folder)
        raise


def corpus_hash(captions: Iterable[str]) -> str:
    """``Corpus.sha256`` of captions that need not be counted."""
    source, digest = iter(captions), hashlib.sha256()
    while chunk := list(islice(source, 4096)):
        digest.update(_bytes(chunk))
    return digest.hexdigest()


def _bytes(captions: list[str]) -> bytes:
    return ("\n".join(captions) + "\n").encode("utf-8", "surrogatepass")


def _kept(file: Path) -> Counts | None:
    """What an earlier command counted; None where there is no such file, or a broken one."""
    try:
        content: Counts = {word: tuple(row) for word, row in json.loads(file.read_bytes()).items()}
        return content if all(len(row) == 4 for row in content.values()) else None
    except (OSError, ValueError, AttributeError, TypeError):
        return None


def _keep(file: Path, counts: Counts) -> None:
    data = json.dumps(counts, separators=(",", ":")).encode()
    with replacing(file, len(data), GO_ON) as out:
        out.write(data)


def _count(count: Count, how: How, chunk: list[str]) -> Counts:
    """Equal captions are tagged once."""
    times = Counter(map(str.lower, chunk) if how.lower else chunk)
    return count(list(times), list(times.values()))


# A function of (job, chunk) that gives (job, counts) of chunks that are counted by now; without a chunk, of all others.
Submit = Callable[[int, list[str] | None], Iterable[tuple[int, Counts]]]


@contextmanager
def _here(how: How) -> Iterator[Submit]:
    """In this process; the tagger is loaded for the first chunk that is not kept."""
    made: list[Count] = []

    def submit(job: int, chunk: list[str] | None) -> Iterator[tuple[int, Counts]]:
        if chunk is not None:
            if not made:
                made.append(make_counter(how.tagger, "tagger"))
            yield job, _count(made[0], how, chunk)

    yield submit


@contextmanager
def _processes(how: How, workers: int) -> Iterator[Submit]:
    """In processes of their own, a chunk at a time each. However this one ends, they end with it: their pipes close."""
    context = multiprocessing.get_context("spawn")  # a fork would keep the pipes of its elders open
    idle: list[Connection] = []
    busy: dict[Connection, int] = {}
    started: list[tuple[Any, Connection]] = []

    def collect() -> Iterator[tuple[int, Counts]]:
        for pipe in wait(list(busy)):
            assert isinstance(pipe, Connection)
            try:
                answer: Counts | VtpError = pipe.recv()
            except (EOFError, OSError):
                raise RunError(
                    "a process that counted words has ended on its own; perhaps the system killed it for its memory. "
                    "Give the same command again, with fewer workers: what was counted is kept."
                ) from None
            if isinstance(answer, VtpError):
                raise answer
            job = busy.pop(pipe)
            idle.append(pipe)
            yield job, answer

    def submit(job: int, chunk: list[str] | None) -> Iterator[tuple[int, Counts]]:
        if chunk is None:
            while busy:
                yield from collect()
            return
        if not idle and len(started) < workers:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, how), daemon=True)
            process.start()
            started.append((process, ours))
            theirs.close()
            idle.append(ours)
        while not idle:
            yield from collect()
        pipe = idle.pop()
        with suppress(OSError):  # a process that has ended is told of when its answer is read
            pipe.send(chunk)
        busy[pipe] = job

    try:
        yield submit
    finally:
        for process, pipe in started:
            pipe.close()
            process.join(timeout=5)
            if process.is_alive():
                process.kill()
                process.join()


def _serve(pipe: Any, how: How) -> None:
    """What a process does: counts of the chunks that come, until no more can."""
    gc.disable()  # nothing here makes cycles
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the whole group: the parent tells
    count: Count | None = None
    with suppress(EOFError, OSError):
        while True:
            chunk: list[str] = pipe.recv()
            try:
                count = count or make_counter(how.tagger, "tagger")
                answer: Counts | VtpError = _count(count, how, chunk)
            except VtpError as error:
                answer = error
            except Exception as error:  # a fault of the tagger's code, with where it was
                answer = RunError(f"{how.tagger} failed on a caption: {error!r}.")
                answer.add_note(traceback.format_exc())
            pipe.send(answer)
