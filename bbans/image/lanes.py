"""How many lanes a message has, and when that changes: the schedule, which is part of the format.

Fresh heads hold 31 bits of nothing each, so a tile starts with few; while its first rows are pushed and words pile up,
the lanes double, the new heads being made from the words. The decoder cannot infer when that happened, so the counts of
pushes at each number of lanes are stored.
"""

from __future__ import annotations

import itertools
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
            # as many as there are lanes, or all but what is left over once there are no more to come
            pushes = max(1, end // lanes) if 2 * lanes > self.most else 1
            start = max(0, end - pushes * lanes)
            into = message.lanes(np.s_[: end - start]) if end - start < lanes else message
            push_row(into, starts[start:end], freqs[start:end], compiled_loops(0))
            end = start
            self._now += pushes
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
        for start, end, lanes in _together(row):
            message.resize(lanes)
            of = message.lanes(np.s_[: end - start]) if end - start < lanes else message
            x[start:end] = mixture[start:end].row_codec().pop(of)
        return x


def _together(row: list[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    """Yield the parts of a row in the order of popping; neighbouring parts that fill the same lanes become one."""
    for (lanes, _), parts in itertools.groupby(reversed(row), lambda part: (part[2], part[1] - part[0] == part[2])):
        several = list(parts)
        yield several[0][0], several[-1][1], lanes
