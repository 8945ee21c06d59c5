"""What of a picture is wanted: a region, or every so many-th pixel, and which tiles hold it.

Coarse levels come first in a tile's payload: C of the finest level are the even pixels of the even rows, its own C
every fourth, and so on. So a preview is what is left when decoding stops early. Knows rectangles; refuses to know what
is decoded. Rectangles are (x, y, width, height), in pixels of the whole picture.
"""

from __future__ import annotations

from dataclasses import dataclass

from bbans.errors import BbansError

Rectangle = tuple[int, int, int, int]
MOST_LEVELS = 10  # then a tile of 1,024 pixels is a single one


@dataclass(frozen=True)
class View:
    """region: None for all; preview: K, for every 2^K-th pixel of every 2^K-th row of it."""

    region: Rectangle | None = None
    preview: int = 0

    @property
    def step(self) -> int:
        """Pixels of the picture from one that is seen to the next."""
        return 1 << self.preview

    def check(self, width: int, height: int, tile: int) -> None:
        """Raises `BbansError` unless a picture of this size, in tiles of that side (0: in one), has such a view."""
        if not 0 <= self.preview <= MOST_LEVELS:
            raise BbansError(f"has no preview of {self.preview} levels less; 0 to {MOST_LEVELS} are possible")
        if tile % self.step:
            raise BbansError(f"has no preview of {self.preview} levels less: its tiles have {tile} pixels a side")
        x, y, w, h = self.region or (0, 0, width, height)
        if min(x, y) < 0 or min(w, h) < 1 or x + w > width or y + h > height:
            raise BbansError(f"has no region {x},{y},{w},{h}: it has {width} x {height} pixels")
        if 0 in self.size(width, height):
            raise BbansError(f"has nothing to see in so small a region with --preview {self.preview}")

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of what is seen of such a picture."""
        x, y, w, h = self.region or (0, 0, width, height)
        return len(_seen(x, w, self.step)), len(_seen(y, h, self.step))

    def of_tile(self, tile: Rectangle) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
        """(rows, columns) of the same pixels in what is seen and in the preview of the tile; None if there are none."""
        x, y, w, h = self.region or (0, 0, tile[0] + tile[2], tile[1] + tile[3])
        rows = _overlap((y, h), (tile[1], tile[3]), self.step)
        columns = _overlap((x, w), (tile[0], tile[2]), self.step)
        return ((rows[0], columns[0]), (rows[1], columns[1])) if rows and columns else None


ALL = View()


def _seen(begin: int, length: int, step: int) -> range:
    """Numbers of the pixels that are seen of a row, divided by the step."""
    return range(-(-begin // step), -(-(begin + length) // step))


def _overlap(region: tuple[int, int], tile: tuple[int, int], step: int) -> tuple[slice, slice] | None:
    """Where the pixels that both have are in what is seen of each; each is (begin, length)."""
    mine, its = _seen(*region, step), _seen(*tile, step)
    begin, end = max(mine.start, its.start), min(mine.stop, its.stop)
    if begin >= end:
        return None
    return slice(begin - mine.start, end - mine.start), slice(begin - its.start, end - its.start)
