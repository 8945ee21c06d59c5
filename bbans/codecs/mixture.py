"""Mixtures of discretised location-scale distributions (logistic, normal), with parameters for every symbol.

P(x) = sum over k of w_k [F((x + 1/2 - m_k) / s_k) - F((x - 1/2 - m_k) / s_k)], with open ends at lo and hi: Salimans
et al. 2017 (PixelCNN++), eq. 1-2. All integers; popping is a binary search on the same integer CDF that pushes, so
that the two can't disagree, and there is no table of the alphabet for each symbol.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbans.ans import Message
from bbans.codecs.core import Codec, over_lanes
from bbans.codecs.tables import MASS, UNIT, ScaleTables, scale_of
from bbans.codecs.tables import PRECISION as TABLE_PRECISION

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

PRECISION = 24
WEIGHT_BITS = 12
MAX_SYMBOLS = 1024
_BLOCK = 1 << 11  # symbols worked on at a time, so that what they need stays in the cache
_SAMPLE = 128  # symbols by which the width of brackets is judged


@dataclass(frozen=True)
class Mixture:
    """n independent mixtures of K components.

    weights: uint32 [K, n], summing to at most 2^12 for each symbol, and not to 0; means: int32 [K, n] in 1/16, within
    ±2^20; scales: int32 [K, n], indices of `tables`; symbols are lo..hi, at most 1,024 of them.
    """

    tables: ScaleTables
    weights: NDArray[np.uint32]
    means: Int32
    scales: Int32
    lo: int
    hi: int

    def __len__(self) -> int:
        return self.means.shape[1]

    def __getitem__(self, part: slice) -> Mixture:
        """The mixtures of some symbols."""
        return Mixture(self.tables, self.weights[:, part], self.means[:, part], self.scales[:, part], self.lo, self.hi)

    def interval(self, x: NDArray[Any]) -> tuple[Int64, Int64]:
        """(starts, freqs) out of 2^24 of symbols x [n]. Every freq is at least 1."""
        starts, freqs = np.empty(len(x), np.int64), np.empty(len(x), np.int64)
        for part in _blocks(len(x)):
            search, symbols = _Search(self[part]), (x[part] - self.lo).astype(np.int32)
            starts[part] = search.cdf(symbols)
            freqs[part] = search.cdf(symbols + np.int32(1)) - starts[part]
        return starts, freqs

    def locate(self, cf: NDArray[Any]) -> tuple[Int32, Int32, Int32]:
        """(x, starts, freqs) of the symbols whose intervals hold cf [n]."""
        found = np.empty((3, len(cf)), np.int32)
        found[:] = np.array([[0], [0], [1 << PRECISION]])
        steps = (self.hi - self.lo).bit_length()
        for part in _blocks(len(cf)):
            _Search(self[part]).bisect(cf[part].astype(np.int32), found[:, part], steps)
        return found[0] + np.int32(self.lo), found[1], found[2] - found[1]

    def codec(self) -> Codec:
        """One symbol for each head of a message with n heads."""
        return self.part_codecs()(slice(0, len(self)))

    def row_codec(self) -> Codec:
        """All n symbols over the lanes of a message, whatever their number."""
        return over_lanes(self.part_codecs(), len(self))

    def part_codecs(self) -> Callable[[slice], Codec]:
        """Codecs of parts of the symbols.

        Popping searches a bracket around the middle of each heaviest component, made for all parts at once, and then
        everywhere for the symbols that lie outside.
        """
        brackets: list[_Brackets] = []

        def codec_of(part: slice) -> Codec:
            def push(message: Message, x: NDArray[Any]) -> None:
                message.push(*self[part].interval(x), PRECISION)

            def pop(message: Message) -> Int32:
                if not brackets:
                    brackets.append(_Brackets.best(self))
                cf, commit = message.pop(PRECISION)
                x, starts, freqs = brackets[0].locate(part, cf)
                missed = np.flatnonzero((cf < starts) | (cf >= starts + freqs))
                if missed.size:
                    x[missed], starts[missed], freqs[missed] = self._pick(part.start + missed).locate(cf[missed])
                commit(starts, freqs)
                return x

            return Codec(push, pop)

        return codec_of

    def _pick(self, i: NDArray[Any]) -> Mixture:
        """The mixtures of scattered symbols."""
        weights, means, scales = self.weights.take(i, 1), self.means.take(i, 1), self.scales.take(i, 1)
        return Mixture(self.tables, weights, means, scales, self.lo, self.hi)

    def log2_prob(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """log2 P(x) with real-valued probabilities of the same parameters: what `elbo` counts.

        The floor under every frequency is part of the model, 2^-24 for each symbol; so is that `hi` gets what the
        tables leave over.
        """
        inverse = 1.0 / scale_of(self.scales)
        centred = x - self.means / UNIT
        upper = np.where(x >= self.hi, np.inf, (centred + 0.5) * inverse)
        lower = np.where(x <= self.lo, -np.inf, (centred - 0.5) * inverse)
        # the mass between two points is taken on the side where the tails are small, lest it cancel
        flip = lower > 0
        upper, lower = np.where(flip, -lower, upper), np.where(flip, -upper, lower)
        p = (self.weights * _mass(lower, upper)).sum(0) / self.weights.sum(0)
        left_over = 1 - MASS / 2**TABLE_PRECISION - (self.hi - self.lo + 1) * 2.0**-PRECISION
        floor = 2.0**-PRECISION + left_over * (x >= self.hi)
        return np.log2(p * (MASS / 2**TABLE_PRECISION) + floor)


@dataclass(frozen=True)
class _Brackets:
    """For each symbol 2^width neighbours that probably hold it: the first, counted from lo, and their interval."""

    mixture: Mixture
    width: int
    first: Int32
    starts: Int32
    ends: Int32

    @classmethod
    def of(cls, mixture: Mixture, width: int) -> _Brackets:
        count, size = len(mixture), 1 << width
        symbols = mixture.hi - mixture.lo + 1
        if size >= symbols:
            return cls(mixture, width, *(np.full(count, v, np.int32) for v in (0, 0, 1 << PRECISION)))
        heaviest = mixture.weights.argmax(0)[None]
        middle = (np.take_along_axis(mixture.means, heaviest, 0)[0] + UNIT // 2) // UNIT - mixture.lo
        first = np.clip(middle - size // 2, 0, symbols - size).astype(np.int32)
        starts, ends = np.empty_like(first), np.empty_like(first)
        for part in _blocks(len(first)):
            search = _Search(mixture[part])
            starts[part] = search.cdf(first[part])
            ends[part] = search.cdf(first[part] + np.int32(size))
        return cls(mixture, width, first, starts, ends)

    @classmethod
    def best(cls, mixture: Mixture) -> _Brackets:
        """Brackets of the width that takes the least time, in evaluations of the CDF, judged by a sample.

        Making them takes two; to search again for symbols outside takes three at least, and four times as long for a
        scattered symbol as for neighbours.
        """
        steps = (mixture.hi - mixture.lo).bit_length()
        if len(mixture) < 4 * _SAMPLE:
            return cls.of(mixture, steps)
        sample = mixture[:: len(mixture) // _SAMPLE]

        def evaluations(width: int) -> float:
            if width == steps:
                return width
            brackets = cls.of(sample, width)
            outside = 1 - float((brackets.ends - brackets.starts).mean()) / (1 << PRECISION)
            return 5 + width + outside * 4 * (steps + 3)

        return cls.of(mixture, min((0, 2, steps), key=evaluations))

    def locate(self, part: slice, cf: NDArray[Any]) -> tuple[Int32, Int32, Int32]:
        """As `Mixture.locate`, for the symbols of a part; right for those that their brackets hold."""
        found = np.stack([self.first[part], self.starts[part], self.ends[part]])
        for block in _blocks(len(cf)):
            piece = slice(part.start + block.start, part.start + block.stop)
            if self.width:
                _Search(self.mixture[piece]).bisect(cf[block].astype(np.int32), found[:, block], self.width)
        return found[0] + np.int32(self.mixture.lo), found[1], found[2] - found[1]


def _blocks(count: int) -> list[slice]:
    return [slice(i, min(i + _BLOCK, count)) for i in range(0, count, _BLOCK)]


def _mass(lower: NDArray[np.float64], upper: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mass of the standard logistic between two points, the lower of which is at most 0; accurate in the tail."""
    with np.errstate(over="ignore", invalid="ignore"):
        el, eu = np.exp(np.minimum(lower, 0.0)), np.exp(-np.abs(upper))
        below = el / (1.0 + el)
        above = np.where(upper > 0, 1.0 / (1.0 + eu), eu / (1.0 + eu))
    return above - below


class _Search:
    """The CDF of mixtures at symbols, with what does not depend on the symbols computed once. 32-bit throughout.

    Symbols count from lo here. A symbol is a whole number of table steps, so (16 x - m) >> shift is
    (16 >> shift) x + ((-m) >> shift).
    """

    def __init__(self, mixture: Mixture) -> None:
        tables, index = mixture.tables, mixture.scales.astype(np.intp)
        self.count = mixture.hi - mixture.lo + 1
        self.weights, self.values = mixture.weights, tables.values
        self.steps = (UNIT >> tables.shifts).take(index)
        self.first = (tables.middles - tables.halves).take(index)
        self.last = (tables.middles + tables.halves).take(index)
        self.base = (tables.roundings + (UNIT * mixture.lo - UNIT // 2)).take(index)
        self.base -= mixture.means
        self.base >>= tables.shifts.take(index)
        self.base += tables.middles.take(index)
        self._at = np.empty_like(self.base)
        self._looked_up = np.empty(self.base.shape, np.uint32)

    def cdf(self, x: Int32) -> Int32:
        """F(x): the start of x's interval; x in 0..count."""
        total = self._inside(x)
        total[x <= 0] = 0
        total[x >= self.count] = 1 << PRECISION
        return total

    def _inside(self, x: Int32) -> Int32:
        """F(x) for x in 1..count - 1."""
        at, looked_up = self._at, self._looked_up
        np.multiply(self.steps, x, out=at)
        np.add(at, self.base, out=at)
        np.maximum(at, self.first, out=at)
        np.minimum(at, self.last, out=at)
        np.take(self.values, at, mode="clip", out=looked_up)
        np.multiply(looked_up, self.weights, out=looked_up)
        total = looked_up[0]
        for row in looked_up[1:]:
            total += row
        total >>= _SURPLUS
        return np.add(total.view(np.int32), x)

    def bisect(self, cf: Int32, found: Int32, steps: int) -> None:
        """Narrow brackets of 2^steps symbols to the x with F(x) <= cf < F(x + 1).

        found: the rows x, F(x) and F of the bracket's end, before and after. Brackets may reach past the last symbol.
        """
        below, start, end = found
        largest = int(below.max(initial=0)) + (1 << steps)
        for step in reversed(range(steps)):
            middle = below + np.int32(1 << step)
            value = self._inside(middle)
            if largest - (1 << step) >= self.count:
                value[middle >= self.count] = 1 << PRECISION
            right = value <= cf
            np.copyto(below, middle, where=right)
            np.copyto(start, value, where=right)
            np.copyto(end, value, where=~right)


_SURPLUS = np.uint32(TABLE_PRECISION + WEIGHT_BITS - PRECISION)
