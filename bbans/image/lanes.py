"""How many lanes a message has, and when that changes: the schedule, which is part of the format.

Fresh heads hold 31 bits of nothing each, so a tile starts with few; while its first rows are pushed and words pile up,
the lanes double, the new heads being made from the words. The decoder cannot infer when that happened, so the counts of
pushes at each number of lanes are stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbans.ans import Message
from bbans.errors import BadFile
from bbans.image.loops import compiled_loops
from bbans.image.mixtures import Mixtures, push_row

MOST_LANES = 1 << 12
WORDS_A_HEAD = 2.2  # a head made from the words takes up to 67 bits


def first_lanes(dims: int) -> int:
    """Lanes at the start: 31 bits each are lost, so one for a thumbnail and 64 for a picture."""
    return 1 << min(6, max(0, (dims >> 14).bit_length() - 1))


def most_lanes(dims: int) -> int:
    """Lanes to grow to: about one for 256 symbols, at most 4,096."""
    return max(first_lanes(dims), min(MOST_LANES, 1 << max(0, (dims >> 8).bit_length() - 1)))


class Schedule:
    """The growth of one message. `counts[i]` pushes were made at `first * 2^i` lanes before the next doubling."""

    def __init__(self, dims: int, counts: list[int] | None = None) -> None:
        self.first, self.most = first_lanes(dims), most_lanes(dims)
        self.counts = counts if counts is not None else []
        self._now = 0  # pushes since the last doubling
        if self.first << len(self.counts) > self.most:
            raise BadFile("the tile's schedule of lanes is impossible")

    @property
    def lanes(self) -> int:
        """Lanes at the end of the growth."""
        return self.first << len(self.counts)

    def push(self, message: Message, mixture: Mixtures, x: NDArray[Any]) -> None:
        """Push a row, from its end, doubling the lanes whenever the words suffice."""
        starts, freqs = mixture.interval(x)
        end = len(x)
        while end > 0:
            lanes = len(message.heads)
            start = max(0, end - lanes)
            push_row(message.lanes(np.s_[: end - start]), starts[start:end], freqs[start:end], compiled_loops(0))
            end = start
            self._now += 1
            if 2 * lanes <= self.most and len(message.words) >= WORDS_A_HEAD * lanes + 8:
                message.resize(2 * lanes)
                self.counts.append(self._now)
                self._now = 0

    def parts(self, sizes: list[int]) -> list[list[tuple[int, int, int]]]:
        """What `push` did with rows of these sizes: for each row, in the order of the pushes, (start, end, lanes)."""
        rows = []
        doublings: Iterator[int] = iter(self.counts)
        until, done, lanes = next(doublings, None), 0, self.first
        for size in sizes:
            row, end = [], size
            while end > 0:
                start = max(0, end - lanes)
                row.append((start, end, lanes))
                end = start
                done += 1
                if done == until:
                    until, done, lanes = next(doublings, None), 0, 2 * lanes
            rows.append(row)
        if until is not None:
            raise BadFile("the tile's schedule of lanes does not fit its size")
        return rows

    def pop(self, message: Message, mixture: Mixtures, row: list[tuple[int, int, int]]) -> NDArray[Any]:
        """Undo one `push`; `row` is its entry of `parts`."""
        x = np.empty(len(mixture), np.int32)
        for start, end, lanes in reversed(row):
            message.resize(lanes)
            x[start:end] = mixture[start:end].row_codec().pop(message.lanes(np.s_[: end - start]))
        return x
