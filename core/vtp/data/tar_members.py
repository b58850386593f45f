"""The members of a tar file and where their contents lie, also of a file that is cut off or damaged.

Written for files that somebody else made: nothing is extracted, no header is trusted (a size may be negative or larger
than the file), nothing recurses, and what cannot be read is said and passed over. Python's ``tarfile`` stops at the
first damaged header as if the file ended there.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Gap", "Member", "tar_members"]

_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 20
_LONGEST_HEADER = 1 << 20  # bytes of names and other facts that stand before a header
_MAGIC = (b"ustar", 257)  # the word and its place in a header


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar file.

    Attributes:
        name: as it stands there; bytes that are no UTF-8 are surrogates (``surrogateescape``).
        offset, size: where its content begins and how many bytes it has.
        link: name of the member that has its content instead; empty = it has its own.
        problem: why its content cannot be read in place; empty = it can.
    """

    name: str
    offset: int
    size: int
    link: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Gap:
    """A place where something is wrong.

    Attributes:
        why: in words, with the place.
        lost: whether members may be lost there.
        cut: whether it is the end.
    """

    why: str
    lost: bool = True
    cut: bool = False


def tar_members(file: int) -> Iterator[Member | Gap]:
    """The members of an open tar file (its descriptor) in their order, with gaps where they are.

    Behind a damaged header the next good one is looked for. Behind the end of an archive another one may follow, as
    ``cat a.tar b.tar`` leaves it: it is read, too.

    Raises:
        tarfile.ReadError: the file does not begin with a header.
    """
    length = os.fstat(file).st_size
    at = 0
    facts: dict[str, str] = {}  # what stands before a header about the member that follows
    while True:
        block = os.pread(file, _BLOCK, at)
        if len(block) < _BLOCK:
            if at == 0:
                raise tarfile.ReadError(f"{len(block)} bytes")
            yield Gap(f"it is cut off at byte {at:,}", cut=True)
            return
        if not block.strip(b"\0"):
            after = _first_that_is_not_zero(file, at)
            if after is None:
                return
            following, ended = _next_header(file, after), after - at >= 2 * _BLOCK
            if following is None:
                yield Gap(f"{length - after:,} bytes behind its end at byte {after:,} are no archive", lost=not ended)
                return
            whole = following == after and ended
            yield Gap(f"{'another archive' if whole else 'damage'} at byte {at:,}", lost=not whole)
            at, facts = following, {}
            continue
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            more, size = _more(file, at, info, facts)
        except (tarfile.HeaderError, ValueError) as error:
            if at == 0:
                raise tarfile.ReadError(str(error)) from None
            following = _next_header(file, at + _BLOCK)
            yield Gap(f"the header at byte {at:,} is damaged", cut=following is None)
            if following is None:
                return
            at, facts = following, {}
            continue
        begin = at + _BLOCK * (1 + more)
        end = begin + -(-size // _BLOCK) * _BLOCK
        if begin + size > length:
            following = _next_header(file, begin)
            name = "a header" if info.type in _BEFORE_A_HEADER else _name(info, facts)
            if info.isreg():
                yield Member(name, begin, 0, problem="is cut off" if following is None else "claims more than there is")
            if following is None:
                yield Gap(f"it is cut off at byte {length:,}, in {name}", cut=True)
                return
            yield Gap(f"{name} claims {size:,} bytes, more than there are")
            at, facts = following, {}
            continue
        if info.type in _BEFORE_A_HEADER:
            content = os.pread(file, size, begin)
            try:
                facts |= _facts(info.type, content)
            except ValueError:
                yield Gap(f"the header at byte {at:,} is damaged")
                facts = {}
        else:
            member = _member(info, facts, begin, size)
            if member is not None:
                yield member
            facts = {}
        at = end


_BEFORE_A_HEADER = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK
)  # fmt: skip


def _more(file: int, at: int, info: tarfile.TarInfo, facts: dict[str, str]) -> tuple[int, int]:
    """Further blocks of a header, and the bytes of content that follow.

    Raises:
        ValueError: it cannot be.
    """
    has_content = info.isreg() or info.type not in tarfile.SUPPORTED_TYPES or info.type in _BEFORE_A_HEADER
    size = info.size if has_content else 0
    if has_content and "size" in facts and info.type not in _BEFORE_A_HEADER:
        size = int(facts["size"])
    if size < 0 or (info.type in _BEFORE_A_HEADER and size > _LONGEST_HEADER):
        raise ValueError(f"{size} bytes")
    blocks = 0
    if info.type == tarfile.GNUTYPE_SPARSE:  # a list of holes may go on in blocks of its own
        block, flag = os.pread(file, _BLOCK, at), 482
        while len(block) == _BLOCK and block[flag]:
            blocks += 1
            block, flag = os.pread(file, _BLOCK, at + blocks * _BLOCK), 504
    return blocks, size


def _facts(kind: bytes, content: bytes) -> dict[str, str]:
    """Of a header of its own: a long name, or the records ``LENGTH KEY=VALUE`` of pax.

    Raises:
        ValueError: it is damaged.
    """
    if kind in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
        name = _decoded(content.partition(b"\0")[0])
        return {"path" if kind == tarfile.GNUTYPE_LONGNAME else "linkpath": name}
    if kind == tarfile.XGLTYPE:  # about all members that follow: a comment, as git leaves it
        return {}
    found = {}
    while content.strip(b"\0"):
        length = int(content.partition(b" ")[0])
        record, content = content[:length], content[length:]
        key, equals, value = record.partition(b" ")[2].partition(b"=")
        if length <= 0 or not equals or not value.endswith(b"\n"):
            raise ValueError("no record")
        found[_decoded(key)] = _decoded(value[:-1])
    return found


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _name(info: tarfile.TarInfo, facts: dict[str, str]) -> str:
    return facts.get("GNU.sparse.name") or facts.get("path") or info.name


def _member(info: tarfile.TarInfo, facts: dict[str, str], begin: int, size: int) -> Member | None:
    """What a header is about; None for folders."""
    name = _name(info, facts)
    if info.isdir() or name.endswith("/"):
        return None
    if info.islnk() or info.issym():
        link = facts.get("linkpath") or info.linkname
        if info.issym():
            link = os.path.normpath(os.path.join(os.path.dirname(name), link))
        return Member(name, begin, 0, link)
    if info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse.") for key in facts):
        return Member(name, begin, size, problem="is stored with holes (tar --sparse)")
    if not info.isreg():
        return Member(name, begin, size, problem="is a device or of an unknown type")
    return Member(name, begin, size)


def _first_that_is_not_zero(file: int, at: int) -> int | None:
    """The first block from ``at`` on that holds anything."""
    while chunk := os.pread(file, _CHUNK, at):
        rest = chunk.lstrip(b"\0")
        if rest:
            return at + (len(chunk) - len(rest)) // _BLOCK * _BLOCK
        at += len(chunk)
    return None


def _next_header(file: int, at: int) -> int | None:
    """The first block from ``at`` on that is a good header."""
    word, place = _MAGIC
    while chunk := os.pread(file, _CHUNK, at):
        found = chunk.find(word)
        while found >= 0:
            begin = found - place
            if begin >= 0 and begin % _BLOCK == 0 and _is_header(chunk[begin : begin + _BLOCK]):
                return at + begin
            found = chunk.find(word, found + 1)
        at += len(chunk)
    return None


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True
