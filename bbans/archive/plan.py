"""Which pictures go into one group: those of one size and mode, in their order, up to a number and a size.

Knows sources and limits; refuses to know models and bytes. A plan holds no pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bbans.archive import names
from bbans.archive.format import CHAIN, FILE, MAX_COUNT, MAX_NAME_BYTES, MAX_PICTURES, Run
from bbans.archive.names import Listed, Names
from bbans.archive.sources import Pixels, Source
from bbans.errors import BadImage
from bbans.image.container import ONE_TILE
from bbans.image.modes import MODES

GROUP = 1000
"""Pictures in a group at the most. With more, the initial bits and the header would hardly weigh less (they are below
0.1 % for MNIST), while one picture would take longer to get, and one wrong bit would cost more pictures."""

GROUP_SAMPLES = 4 * ONE_TILE
"""Samples in a group at the most, unless one picture has more: memory is that of one large RGB picture, not more."""


@dataclass(frozen=True)
class Piece:
    """Pictures `start` to before `stop` of a source; the first of them is at `position` in the archive."""

    source: Source
    start: int
    stop: int
    position: int

    @property
    def names(self) -> Names:
        return self.source.names.part(self.start, self.stop)


@dataclass(frozen=True)
class Group:
    """Pictures that are coded together."""

    kind: str
    height: int
    width: int
    mode: str
    pieces: tuple[Piece, ...]

    @property
    def names(self) -> tuple[Names, ...]:
        return names.join(piece.names for piece in self.pieces)

    @property
    def runs(self) -> tuple[Run, ...]:
        runs: list[Run] = []
        for piece in self.pieces:
            count = piece.stop - piece.start
            if runs and runs[-1].position + runs[-1].count == piece.position:
                runs[-1] = Run(runs[-1].position, runs[-1].count + count)
            else:
                runs.append(Run(piece.position, count))
        return tuple(runs)

    @property
    def first(self) -> str:
        """The name of the first picture."""
        return next(iter(self.pieces[0].names))

    def read(self) -> Pixels:
        """The pixels of all pictures [n, h, w, c]. Raises `BadImage`."""
        count = sum(piece.stop - piece.start for piece in self.pieces)
        pixels = np.empty((count, self.height, self.width, MODES[self.mode].channels), np.uint8)
        at = 0
        for piece in self.pieces:
            end = at + piece.stop - piece.start
            pixels[at:end] = piece.source.read(piece.start, piece.stop)
            at = end
        return pixels


@dataclass
class _Open:
    """A group that isn't full yet."""

    pieces: list[Piece] = field(default_factory=list)
    count: int = 0
    name_bytes: int = 0


def plan(sources: Sequence[Source], group: int = GROUP) -> list[Group]:
    """The groups of an archive, in the order of their first pictures. Raises `BadImage` when two names clash."""
    if not 0 < group <= MAX_COUNT:
        raise ValueError(f"a group has 1 to {MAX_COUNT} pictures")
    _check_names(sources)
    filling: dict[tuple[str, int, int, str], _Open] = {}
    full: list[Group] = []
    position = 0
    for source in sources:
        pixels = source.height * source.width
        kind = CHAIN if pixels <= ONE_TILE else FILE
        most = min(group, max(1, GROUP_SAMPLES // (pixels * MODES[source.mode].channels))) if kind == CHAIN else 1
        key = (kind, source.height, source.width, source.mode)
        name_bytes = _name_bytes(source.names)
        start = 0
        while start < source.names.count:
            open_ = filling.setdefault(key, _Open())
            if open_.name_bytes + name_bytes > MAX_NAME_BYTES:
                full.append(Group(*key, tuple(filling.pop(key).pieces)))
                continue
            stop = min(source.names.count, start + most - open_.count)
            open_.pieces.append(Piece(source, start, stop, position + start))
            open_.count += stop - start
            open_.name_bytes += name_bytes
            start = stop
            if open_.count == most:
                full.append(Group(*key, tuple(filling.pop(key).pieces)))
        position += source.names.count
    full += [Group(*key, tuple(open_.pieces)) for key, open_ in filling.items()]
    return sorted(full, key=lambda group: group.pieces[0].position)


def _name_bytes(given: Names) -> int:
    if isinstance(given, Listed):
        return sum(4 * len(name) + 1 for name in given)
    return 4 * len(given.prefix) + 32


def _check_names(sources: Sequence[Source]) -> None:
    if sum(source.names.count for source in sources) > MAX_PICTURES:
        raise BadImage(f"an archive takes up to {MAX_PICTURES} pictures")
    targets = ((name, names.target(name)) for source in sources for name in source.names)
    if both := names.clash(targets):
        one, other = both
        if one == other:
            raise BadImage(f"{one}: two pictures have this name")
        raise BadImage(f"{other}: it and {one} would be extracted to the same place; rename one of them")
