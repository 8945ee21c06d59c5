"""Stacks that stand in for a `Message`, so that any codec can be asked what it would do.

A codec that pushes to a `Ruler` measures its symbols; one that pops from `Given` numbers maps them to symbols, whatever
its structure; one that pushes to a `Recorder` tells the intervals of its symbols. They have of a message what codecs
use: `heads`, of which only the shape counts, `lanes`, `push`, `pop` and those of any total. All is integers.

`Given` numbers, and the intervals that it and a `Recorder` tell, are out of 2^bits, whatever the codec's total. A
symbol's are those u for which floor(u total / 2^bits) lies in the codec's interval [start, end):

    ceil(start 2^bits / total) <= u < ceil(end 2^bits / total)

So they are those of a coarser distribution, if 2^bits is less than the total, in which a symbol may have none.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bbans.codecs.logarithms import log2
from bbans.errors import BadFile

Int64 = NDArray[np.int64]
Commit = Callable[[ArrayLike, ArrayLike], None]

Self = TypeVar("Self", bound="StandIn")


class StandIn:
    """Heads that hold nothing. What is told of symbols lies in `told`, which lanes share."""

    def __init__(self, shape: int | tuple[int, ...]) -> None:
        self.heads = np.broadcast_to(np.uint64(0), shape)
        self.told: list[Any] = []

    def lanes(self: Self, view: Any) -> Self:
        """As `Message.lanes`."""
        some = copy.copy(self)
        some.heads = self.heads[view]
        return some

    def push(self, starts: ArrayLike, freqs: ArrayLike, precision: ArrayLike) -> None:
        """As `Message.push`."""
        self.push_total(starts, freqs, _power(precision))

    def pop(self, precision: ArrayLike) -> tuple[NDArray[np.uint64], Commit]:
        """As `Message.pop`."""
        return self.pop_total(_power(precision))

    def push_total(self, starts: ArrayLike, freqs: ArrayLike, total: ArrayLike) -> None:
        """As `Message.push_total`. Raises `BadFile` for a symbol without an interval."""
        raise NotImplementedError

    def pop_total(self, total: ArrayLike) -> tuple[NDArray[np.uint64], Commit]:
        """As `Message.pop_total`."""
        raise NotImplementedError

    def _median(self, total: ArrayLike) -> NDArray[np.uint64]:
        return (self._each(total) >> 1).astype(np.uint64)

    def _each(self, x: ArrayLike) -> Int64:
        """For each head."""
        return np.broadcast_to(np.asarray(x).astype(np.int64, copy=False), self.heads.shape)


class Ruler(StandIn):
    """Measures what is pushed to it, less what is popped: medians, as if they had been there."""

    def push_total(self, starts: ArrayLike, freqs: ArrayLike, total: ArrayLike) -> None:
        self.told.append(self._length(freqs, total))

    def pop_total(self, total: ArrayLike) -> tuple[NDArray[np.uint64], Commit]:
        return self._median(total), lambda starts, freqs: self.told.append(-self._length(freqs, total))

    @property
    def length(self) -> int:
        """−log2(freq / total), added up, in 1/4096 bit (`logarithms.UNIT`)."""
        return sum(self.told)

    def _length(self, freqs: ArrayLike, total: ArrayLike) -> int:
        return int((log2(self._each(total)) - log2(_checked(self._each(freqs)))).sum())


class Recorder(StandIn):
    """Tells the intervals of what is pushed to it, or popped: medians."""

    def __init__(self, shape: int | tuple[int, ...], bits: int) -> None:
        super().__init__(shape)
        self.bits = bits

    def push_total(self, starts: ArrayLike, freqs: ArrayLike, total: ArrayLike) -> None:
        self.told.insert(0, self._interval(starts, freqs, total))

    def pop_total(self, total: ArrayLike) -> tuple[NDArray[np.uint64], Commit]:
        return self._popped(self._median(total), total)

    @property
    def starts(self) -> Int64:
        """[n]: of all symbols, in the order of popping them."""
        return np.concatenate([np.zeros(0, np.int64), *(starts for starts, _ in self.told)])

    @property
    def freqs(self) -> Int64:
        """[n]: likewise. Raises `BadFile` where a symbol has none."""
        return _checked(np.concatenate([np.zeros(0, np.int64), *(freqs for _, freqs in self.told)]))

    @property
    def length(self) -> int:
        """As that of a `Ruler`, by these intervals."""
        return int((log2(1 << self.bits) - log2(self.freqs)).sum())

    def _popped(self, cf: NDArray[np.uint64], total: ArrayLike) -> tuple[NDArray[np.uint64], Commit]:
        return cf, lambda starts, freqs: self.told.append(self._interval(starts, freqs, total))

    def _interval(self, starts: ArrayLike, freqs: ArrayLike, total: ArrayLike) -> tuple[Int64, Int64]:
        start, freq, whole = self._each(starts), self._each(freqs), self._each(total)
        first, end = (-((-edge << self.bits) // whole) for edge in (start, start + freq))
        return first.ravel(), (end - first).ravel()


class Given(Recorder):
    """Pops find the numbers of a row [n], out of 2^bits, in order, and their symbols' intervals are told."""

    def __init__(self, shape: int | tuple[int, ...], row: Int64, bits: int) -> None:
        super().__init__(shape, bits)
        self.row = row

    def pop_total(self, total: ArrayLike) -> tuple[NDArray[np.uint64], Commit]:
        at = sum(len(starts) for starts, _ in self.told)
        u = self.row[at : at + self.heads.size].reshape(self.heads.shape)
        return self._popped((u * self._each(total) >> self.bits).astype(np.uint64), total)


def _power(precision: ArrayLike) -> Int64:
    return np.int64(1) << np.asarray(precision, np.int64)


def _checked(freqs: Int64) -> Int64:
    if (freqs <= 0).any():
        raise BadFile("a symbol lies where its distribution has no mass, so the message is damaged")
    return freqs
