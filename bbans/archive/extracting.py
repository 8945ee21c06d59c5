"""Takes pictures out of an archive: into a folder, into one array, or to nothing but the certainty that it works.

Knows the order of things: what was asked for, what can be known to fail beforehand, then group by group. Without
`keep_going` the first thing wrong is raised, damage before anything is written. With it what is wrong is noted, and
the rest is done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from bbans.archive import names, targets
from bbans.archive.coding import Finder, decode
from bbans.archive.format import Header
from bbans.archive.reading import Archive, Entry, Group
from bbans.errors import BadFile, BadOutput, BbansError
from bbans.image.files import atomic_file, check_output
from bbans.image.picture import Picture
from bbans.workers import ordered

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Loss:
    """What went wrong, and the names of the pictures that this cost, as far as they are known."""

    what: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """Pictures that came out, and what was lost. Nothing is lost unless that was put up with (`keep_going`)."""

    images: int
    losses: tuple[Loss, ...]


def extract(
    archive: Archive,
    folder: Path,
    wanted: Iterable[str] = (),
    *,
    force: bool = False,
    keep_going: bool = False,
    jobs: int = 1,
    search: Path | None = None,
    tell: Callable[[Entry, Path], None] | None = None,
) -> Outcome:
    """Write pictures to image files in a folder (see `names.target` and `targets`), which need not exist.

    wanted: names of pictures and of folders in the archive; all if there are none. force: overwrite. jobs: processes;
    scripts must guard their own work, see `create`. search: a folder to look for models in. tell: called after each
    picture.

    Raises `BadFile`, `BadOutput`, `ModelMissing` and `DecodedDiffers`.
    """
    task = _Task.of(archive, wanted, keep_going)
    chosen = [(entry.name, names.target(entry.name)) for part in task.parts for _, entry in part.wanted]
    if both := names.clash(chosen):
        raise BadFile(f"{archive.path}: is refused: {both[0]!r} and {both[1]!r} would be extracted to the same place")
    targets.check(folder, (target for _, target in chosen), force=force)
    images = 0
    with contextlib.closing(task.decoded(jobs, search)) as results:
        for part, pixels in results:
            for i, entry in part.wanted:
                path = targets.write(folder, names.target(entry.name), Picture(pixels[i], entry.mode), force=force)
                images += 1
                if tell:
                    tell(entry, path)
    return Outcome(images, tuple(task.losses))


def extract_array(
    archive: Archive,
    path: Path,
    wanted: Iterable[str] = (),
    *,
    force: bool = False,
    keep_going: bool = False,
    jobs: int = 1,
    search: Path | None = None,
) -> Outcome:
    """Write pictures, which must be of one size and mode, as one array in an .npy file, group by group.

    That is uint8 [n, h, w] of mode L, [n, h, w, 3] of RGB, and bool [n, h, w] of mode 1. Otherwise as `extract`.
    """
    check_output(path, force=force)
    task = _Task.of(archive, wanted, keep_going)
    task.check_payloads()
    headers = [part.group.header for part in task.parts]
    if len({(header.height, header.width, header.mode) for header in headers}) > 1:
        raise BadOutput(f"{path}: the pictures are not of one size and mode, as those of an array are")
    if not headers:
        raise BadFile(f"{archive.path}: nothing is left to extract")
    first = headers[0]
    order = sorted(entry.position for part in task.parts for _, entry in part.wanted)
    rank = {position: i for i, position in enumerate(order)}
    shape = (len(order), first.height, first.width, *((3,) if first.channels == 3 else ()))
    with atomic_file(path, force=force) as file, contextlib.closing(task.decoded(jobs, search)) as results:
        kind = "|b1" if first.mode == "1" else "|u1"
        npy.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
        begin, size = file.tell(), first.height * first.width * first.channels
        images = 0
        for part, pixels in results:
            for i, entry in part.wanted:
                file.seek(begin + size * rank[entry.position])
                file.write(np.ascontiguousarray(pixels[i]).data)
            images += len(part.wanted)
        if images < len(order):  # decoded wrongly: there is no way to leave out rows that have others behind them
            raise BadFile(f"{archive.path}: {task.losses[-1].what}")
    return Outcome(images, tuple(task.losses))


def check(archive: Archive, *, keep_going: bool = False, jobs: int = 1, search: Path | None = None) -> Outcome:
    """Decode all pictures, compare all checksums, write nothing. As `extract`."""
    task = _Task.of(archive, (), keep_going)
    with contextlib.closing(task.decoded(jobs, search)) as results:
        images = sum(len(part.wanted) for part, _ in results)
    return Outcome(images, tuple(task.losses))


@dataclass(frozen=True)
class _Part:
    """What is wanted of a group: (number in the group, picture)."""

    group: Group
    wanted: list[tuple[int, Entry]]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(entry.name for _, entry in self.wanted)

    def summary(self) -> str:
        """The names in few words, or else all of them."""
        parts = self.group.header.names
        whole = len(self.wanted) == self.group.header.count
        return ", ".join(part.summary() for part in parts) if whole else ", ".join(self.names)


@dataclass
class _Task:
    """What there is to do, and what was lost on the way."""

    archive: Archive
    parts: list[_Part]
    keep_going: bool
    losses: list[Loss] = field(default_factory=list)
    checked: bool = False

    @classmethod
    def of(cls, archive: Archive, wanted: Iterable[str], keep_going: bool) -> _Task:
        """Raises `BadFile` when something wanted is not there."""
        parts, missing = _choose(archive, list(wanted))
        task = cls(archive, parts, keep_going, [Loss(what) for what in archive.damage])
        for name in missing:
            task.fail(BadFile(f"has no picture or folder {name!r}"))
        return task

    def fail(self, error: BbansError, part: _Part | None = None) -> None:
        """Note what was lost. Raises the error instead, with the archive's name, unless to be kept going in spite."""
        what = f"group {part.group.number}: {error}" if part else str(error)
        if not self.keep_going:
            hint = " (--keep-going takes what is whole)" if part and isinstance(error, BadFile) else ""
            raise type(error)(f"{self.archive.path}: {what}{hint}") from error
        self.losses.append(Loss(f"{what}: lost {part.summary()}", part.names) if part else Loss(what))

    def check_payloads(self) -> None:
        """Leaves out, or raises, what is known to be damaged before it is decoded."""
        good = []
        for part in self.parts:
            try:
                self.archive.payload(part.group)
            except BadFile as error:
                self.fail(error, part)
            else:
                good.append(part)
        self.parts, self.checked = good, True

    def decoded(self, jobs: int, search: Path | None) -> Generator[tuple[_Part, Pixels]]:
        """The pixels [n, h, w, c] of each group that is whole, once all payloads have been checked, and all models."""
        if not self.checked:
            self.check_payloads()
        finder = Finder(search=search)
        lacking: dict[bytes, BbansError] = {}
        for model_id in dict.fromkeys(part.group.header.model_id for part in self.parts):
            try:
                finder.check(model_id)
            except BbansError as error:
                lacking[model_id] = error
        good = []
        for part in self.parts:
            if part.group.header.model_id in lacking:
                self.fail(lacking[part.group.header.model_id], part)
            else:
                good.append(part)
        if not good:
            return
        work = partial(decode, finder)
        tasks = self._payloads(good)
        with contextlib.closing(ordered(work, tasks, min(jobs, len(good)))) as results:
            for part, result in zip(good, results, strict=True):
                if isinstance(result, BbansError):
                    self.fail(result, part)
                else:
                    yield part, result

    def _payloads(self, parts: Iterable[_Part]) -> Iterator[tuple[Header, bytes]]:
        for part in parts:
            yield part.group.header, self.archive.payload(part.group)


def _choose(archive: Archive, wanted: list[str]) -> tuple[list[_Part], list[str]]:
    """What is wanted of each group, all if nothing is named; and which of the names are of no picture or folder."""
    unseen = dict.fromkeys(path.rstrip("/") for path in wanted)
    paths = set(unseen)
    groups = {group.number: _Part(group, []) for group in archive.groups}
    seen = dict.fromkeys(groups, 0)
    for entry in archive.entries:
        chosen_by = names.chosen_by(entry.name, paths)
        if chosen_by or not paths:
            groups[entry.group].wanted.append((seen[entry.group], entry))
            for path in chosen_by:
                unseen.pop(path, None)
        seen[entry.group] += 1
    return [part for part in groups.values() if part.wanted], list(unseen)
