"""What pictures in an archive are called: which names are taken, how many are held as few, what they are extracted as.

Knows text only; refuses to know the file system and the bytes on disk. A name is a relative path with `/` between its
parts, as in a zip file, and can't lead out of the folder that it is extracted into.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from bbans.image.files import LOSSLESS_SUFFIXES

MAX_NAME_BYTES = 1024
MAX_DIGITS = 18
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f]")  # Unicode's category Cc


@dataclass(frozen=True)
class Numbered:
    """`count` names: the prefix, and numbers from `start` with at least so many digits."""

    prefix: str
    start: int
    count: int
    digits: int

    def __iter__(self) -> Iterator[str]:
        return (f"{self.prefix}{i:0{self.digits}}" for i in range(self.start, self.start + self.count))

    def part(self, start: int, stop: int) -> Numbered:
        """The names from `start` to before `stop`, counted from 0."""
        return replace(self, start=self.start + start, count=stop - start)

    def summary(self) -> str:
        """The first and the last name."""
        return " to ".join(dict.fromkeys([*self.part(0, 1), *self.part(self.count - 1, self.count)]))


@dataclass(frozen=True)
class Listed:
    """Names as they are."""

    names: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def part(self, start: int, stop: int) -> Listed:
        """The names from `start` to before `stop`, counted from 0."""
        return Listed(self.names[start:stop])

    def summary(self) -> str:
        """All names."""
        return ", ".join(self.names)


Names = Numbered | Listed


def join(parts: Iterable[Names]) -> tuple[Names, ...]:
    """The same names, neighbours put together where they go on from one another."""
    joined: list[Names] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(last, Listed) and isinstance(part, Listed):
            joined[-1] = Listed(last.names + part.names)
        elif isinstance(last, Numbered) and last.part(last.count, last.count + part.count) == part:
            joined[-1] = replace(last, count=last.count + part.count)
        else:
            joined.append(part)
    return tuple(joined)


def flaw(names: Names) -> str | None:
    """What is wrong with the first bad name, or None: all may be extracted."""
    ends = [*names.part(0, 1), *names.part(names.count - 1, names.count)] if isinstance(names, Numbered) else names
    return next((f"the name {name[:80]!r} {why}" for name in ends if (why := _flaw(name))), None)


def target(name: str) -> str:
    """The file that a picture is extracted as: its name, with .png behind it unless that names a lossless format."""
    return name if PurePosixPath(name).suffix.lower() in LOSSLESS_SUFFIXES else f"{name}.png"


def clash(targets: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """The first two names (of pairs name, target) that can't both be extracted: one file, or a file and a folder."""
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for name, path in targets:
        if path in files:
            return files[path], name
        if path in folders:
            return folders[path], name
        files[path] = name
        for folder in _folders(path):
            if folder in files:
                return files[folder], name
            if folder in folders:
                break  # and so are those above it
            folders[folder] = name
    return None


def chosen_by(name: str, wanted: set[str]) -> set[str]:
    """Which of the wanted names and folders are the picture's."""
    return {name, *_folders(name)} & wanted


def _folders(path: str) -> Iterator[str]:
    """a/b and a, for a/b/c."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _flaw(name: str) -> str | None:
    try:
        size = len(name.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return "is no text"
    if size > MAX_NAME_BYTES:
        return f"has more than {MAX_NAME_BYTES} bytes"
    if _CONTROL.search(name):
        return "holds a control character"
    if "\\" in name:
        return "holds a backslash"
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        return "is an absolute path"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "holds an empty part, '.' or '..'"
    return None
