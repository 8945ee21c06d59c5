"""Opens an archive: finds its groups, by the index or, when that is damaged, by looking for them.

Knows where the bytes lie and which pictures there are; refuses to decode any. Headers are read, payloads when they are
asked for. An archive is all right when its groups' pictures are the positions 0, 1, 2, ..., each once.
"""

from __future__ import annotations

import itertools
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bbans.archive.format import (
    MAGIC,
    MARKER,
    MAX_HEADER_BYTES,
    MAX_PICTURES,
    START,
    TAIL,
    VERSION,
    Header,
    Index,
    header_size,
    index_size,
)
from bbans.errors import BadFile, TooLarge, UnsupportedVersion
from bbans.image import container
from bbans.image.container import checksum
from bbans.image.files import naming, open_regular

MAX_NAME_BYTES = 1 << 28
"""Of all names that aren't numbered: what is packed small may be large."""

SEARCHED = 64
"""How often a damaged file may make the search for groups read what is as long as it, by what markers claim."""


@dataclass(frozen=True)
class Entry:
    """What is known of a picture without decoding it. group: the number of its group, from 0, as are positions."""

    position: int
    name: str
    height: int
    width: int
    mode: str
    group: int
    kind: str
    model_id: bytes


@dataclass(frozen=True)
class Group:
    """A group of an archive; `offset` is where its payload begins."""

    number: int
    offset: int
    header: Header


@dataclass(frozen=True)
class Archive:
    """An archive that was opened. size: in bytes; damage: what is wrong with it, none unless that was put up with."""

    path: Path
    size: int
    groups: tuple[Group, ...]
    damage: tuple[str, ...]

    @property
    def images(self) -> int:
        """Pictures whose header is whole."""
        return sum(group.header.count for group in self.groups)

    @property
    def dims(self) -> int:
        """Samples of these pictures."""
        return sum(group.header.dims for group in self.groups)

    @property
    def entries(self) -> Iterator[Entry]:
        """All these pictures, in their order."""
        names = {group.number: itertools.chain.from_iterable(group.header.names) for group in self.groups}
        runs = ((run, group) for group in self.groups for run in group.header.runs)
        for run, group in sorted(runs, key=lambda pair: pair[0].position):
            header = group.header
            for position in range(run.position, run.position + run.count):
                name = next(names[group.number])
                yield Entry(
                    position, name, header.height, header.width, header.mode, group.number, header.kind, header.model_id
                )

    def payload(self, group: Group) -> bytes:
        """Its payload. Raises `BadFile`."""
        if group.offset + group.header.size > self.size:
            raise BadFile("is truncated")
        with naming(self.path), open_regular(self.path, BadFile) as file:
            file.seek(group.offset)
            payload = file.read(group.header.size)
        if len(payload) < group.header.size:
            raise BadFile("is truncated")
        if checksum(payload) != group.header.payload_sum:
            raise BadFile("is damaged: its checksum does not match")
        return payload


def read(path: str | os.PathLike[str], *, keep_going: bool = False) -> Archive:
    """Open an archive. Nothing is decoded, and no model needed.

    keep_going: find what there is also in a damaged one. Else raises `BadFile`, `UnsupportedVersion`, `TooLarge`; the
    message begins with the path.
    """
    path = Path(path)
    with naming(path), open_regular(path, BadFile) as file:
        size = os.fstat(file.fileno()).st_size
        begin = file.read(START)
        damage: list[str] = []
        unlike: BadFile | None = None
        try:
            _check_begin(begin)
        except BadFile as error:
            if not keep_going or not size:
                raise
            unlike = error
            damage.append(str(error))
        try:
            groups, pictures = _by_index(file, size, damage)
        except BadFile as error:
            damage.append(f"is damaged or truncated: {error}")
            groups, pictures = [], None
            if keep_going:
                groups = _by_markers(file)
                if not groups:
                    raise (unlike or BadFile(damage[0])) from error
        groups, more = _consistent(groups, pictures)
        damage += more
        if not groups and not damage:
            raise BadFile("holds no pictures")
        if damage and not keep_going:
            raise BadFile(f"{damage[0]} (--keep-going takes what is whole)")
    return Archive(path, size, tuple(groups), tuple(damage))


def _check_begin(begin: bytes) -> None:
    if not begin:
        raise BadFile("is empty")
    if begin.startswith(container.MAGIC):
        raise BadFile("is no archive, but one picture: bbans decompress takes it")
    if not begin.startswith(MAGIC[: len(begin)]):
        raise BadFile("is not a bbans archive")
    if len(begin) < START:
        raise BadFile("is truncated")
    if begin[-1] > VERSION:
        raise UnsupportedVersion(f"has archive version {begin[-1]}; this bbans knows {VERSION}: it needs a newer bbans")


def _by_index(file: BinaryIO, size: int, damage: list[str]) -> tuple[list[Group], int]:
    """The groups that the index names, and how many pictures there are; a header that isn't whole is damage.

    Raises `BadFile` when there is no good index, and `TooLarge`.
    """
    file.seek(max(0, size - TAIL.size))
    length = index_size(file.read())
    if START + length > size:
        raise BadFile("its index is missing")
    file.seek(size - length)
    index = Index.parse(file.read(), size)
    groups: list[Group] = []
    totals = _Totals()
    at = START
    for number, (header_bytes, payload_bytes) in enumerate(index.sizes):
        try:
            if header_bytes > MAX_HEADER_BYTES:
                raise BadFile("its header is too long")
            file.seek(at)
            header = Header.parse(file.read(header_bytes))
            if header.size != payload_bytes:
                raise BadFile("the index says otherwise")
        except (BadFile, TooLarge) as error:
            damage.append(f"group {number} is lost: {error}")
        else:
            totals.add(header)
            groups.append(Group(number, at + header_bytes, header))
        at += header_bytes + payload_bytes
    return groups, index.pictures


def _by_markers(file: BinaryIO) -> list[Group]:
    """All groups whose headers are whole, wherever they are. Raises `TooLarge`, and `BadFile` when that would take too
    long."""
    groups: list[Group] = []
    totals = _Totals()
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        left = SEARCHED * max(len(data), 1 << 20)
        at = data.find(MARKER)
        while at >= 0:
            group, size = _group_at(data, at, len(groups))
            left -= size
            if left < 0:
                raise BadFile("is so damaged that its groups can't be told from what looks like them")
            if group:
                totals.add(group.header)
                groups.append(group)
            at = data.find(MARKER, _end(data, group) if group else at + 1)
    return groups


def _group_at(data: mmap.mmap, at: int, number: int) -> tuple[Group | None, int]:
    """The group that begins there, if one does; and how many bytes it is to be looked at."""
    size = 0
    try:
        size = header_size(data[at : at + 16])
        header = Header.parse(data[at : at + size])
    except (BadFile, TooLarge):
        return None, size
    return Group(number, at + size, header), min(size + header.size, len(data))


def _end(data: mmap.mmap, group: Group) -> int:
    """Where to look for the next group: behind a payload that is whole; within one that isn't, bytes may be missing."""
    end = min(group.offset + group.header.size, len(data))
    return end if checksum(data[group.offset : end]) == group.header.payload_sum else group.offset


class _Totals:
    """What all headers take in memory, for which each alone is small enough."""

    def __init__(self) -> None:
        self.pictures = self.name_bytes = 0

    def add(self, header: Header) -> None:
        """Raises `TooLarge`."""
        self.pictures += header.count
        self.name_bytes += header.name_bytes
        if self.pictures > MAX_PICTURES:
            raise TooLarge(f"has more than {MAX_PICTURES} pictures, which is all that bbans takes")
        if self.name_bytes > MAX_NAME_BYTES:
            raise TooLarge("has names that are too long, all together")


def _consistent(groups: list[Group], pictures: int | None) -> tuple[list[Group], list[str]]:
    """The groups without those that claim positions of others, and what is wrong: with these, or with what is missing.

    pictures: how many there should be, if that is known.
    """
    runs = sorted(((run, group) for group in groups for run in group.header.runs), key=lambda pair: pair[0].position)
    end = 0
    claimed: set[int] = set()
    for run, group in runs:
        if run.position < end:
            claimed.add(group.number)
        end = max(end, run.position + run.count)
    damage = [f"group {number} is lost: it has pictures of another group" for number in sorted(claimed)]
    expected = 0
    for run, group in runs:
        if group.number in claimed:
            continue
        if run.position > expected:
            damage.append(_lost(expected, run.position))
        expected = run.position + run.count
    if pictures is not None and expected < pictures:
        damage.append(_lost(expected, pictures))
    if pictures is not None and expected > pictures:
        damage.append(f"is damaged: its index knows {pictures} pictures, its groups have {expected}")
    return [group for group in groups if group.number not in claimed], damage


def _lost(start: int, stop: int) -> str:
    which = f"picture {start} is" if stop == start + 1 else f"pictures {start} to {stop - 1} are"
    return f"{which} lost, name and all"
