"""Mixtures of discretised location-scale distributions (logistic, normal), with parameters for every symbol.

P(x) = sum over k of w_k [F((x + 1/2 - m_k) / s_k) - F((x - 1/2 - m_k) / s_k)], with open ends at lo and hi: Salimans
et al. 2017 (PixelCNN++), eq. 1-2. All integers, and no table of the alphabet for each symbol: a symbol's interval is
the difference of two values of the CDF.

Popping must find the symbol whose interval holds a number. A binary search in single precision, on the real CDF,
guesses it; the integer CDF that pushes then checks the guess, and is searched itself for the few symbols that were
missed. So what is popped depends on integers only, and takes two to three times as long as pushing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbans.ans import Message
from bbans.codecs.core import Codec, over_lanes
from bbans.codecs.tables import MASS, SCALES, UNIT, ScaleTables, scale_of
from bbans.codecs.tables import PRECISION as TABLE_PRECISION

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

PRECISION = 24
WEIGHT_BITS = 12
MAX_SYMBOLS = 1024
_BLOCK = 1 << 12  # symbols worked on at a time, so that what they need stays in the cache


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
        for part in _blocks(len(cf)):
            found[:, part] = self[part]._found(cf[part].astype(np.int32))
        return found[0] + np.int32(self.lo), found[1], found[2] - found[1]

    def _found(self, cf: Int32) -> Int32:
        """x - lo, F(x) and F(x + 1) [3, n] of one block."""
        search = _Search(self)
        x = search.guess(cf)
        found = np.stack([x, search.cdf(x), search.cdf(x + np.int32(1))])
        missed = np.flatnonzero((cf < found[1]) | (cf >= found[2]))
        if missed.size:
            found[:, missed] = _Search(self._pick(missed)).bisect(cf[missed])
        return found

    def codec(self) -> Codec:
        """One symbol for each head of a message with n heads."""

        def push(message: Message, x: NDArray[Any]) -> None:
            message.push(*self.interval(x), PRECISION)

        def pop(message: Message) -> Int32:
            cf, commit = message.pop(PRECISION)
            x, starts, freqs = self.locate(cf)
            commit(starts, freqs)
            return x

        return Codec(push, pop)

    def row_codec(self) -> Codec:
        """All n symbols over the lanes of a message, whatever their number."""
        return over_lanes(lambda part: self[part].codec(), len(self))

    def _pick(self, i: NDArray[Any]) -> Mixture:
        """The mixtures of scattered symbols."""
        weights, means, scales = self.weights.take(i, 1), self.means.take(i, 1), self.scales.take(i, 1)
        return Mixture(self.tables, weights, means, scales, self.lo, self.hi)

    def mean(self) -> NDArray[np.float64]:
        """The means [n] of the distributions as they are coded: made of the intervals, and so the same everywhere.

        E[x] = lo + the sum of P(X >= x) over x > lo. It takes some hundred times as long as `interval`.
        """
        above = np.zeros(len(self), np.int64)
        for part in _blocks(len(self)):
            search = _Search(self[part])
            for x in range(1, search.count):
                above[part] += (1 << PRECISION) - search.cdf(np.full(len(above[part]), x, np.int32))
        return self.lo + above / (1 << PRECISION)

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
        self.tables, self.index = mixture.tables, mixture.scales.astype(np.intp)
        self.count = mixture.hi - mixture.lo + 1
        self.weights = mixture.weights
        shifts = self.tables.shifts.take(self.index)
        self.steps = UNIT >> shifts
        self.base = self.tables.roundings.take(self.index)  # of the symbol lo's location, in steps
        self.base += np.int32(UNIT * mixture.lo - UNIT // 2)
        self.base -= mixture.means
        self.base >>= shifts
        self.middles, self.halves = self.tables.middles.take(self.index), self.tables.halves.take(self.index)
        self.lowest = -self.halves

    def cdf(self, x: Int32) -> Int32:
        """F(x): the start of x's interval; x in 0..count."""
        at = self.steps * x
        at += self.base
        np.minimum(at, self.halves, out=at)
        np.maximum(at, self.lowest, out=at)
        at += self.middles
        looked_up = self.tables.values.take(at, mode="clip")
        looked_up *= self.weights
        total = looked_up.sum(0, dtype=np.uint32)
        total >>= _SURPLUS
        total += x.view(np.uint32)
        total[x <= 0] = 0
        total[x >= self.count] = 1 << PRECISION
        return total.view(np.int32)

    def bisect(self, cf: Int32) -> tuple[Int32, Int32, Int32]:
        """The x with F(x) <= cf < F(x + 1), F(x) and F(x + 1)."""
        x = np.zeros_like(cf)
        for step in _halvings(self.count):
            middle = x + np.int32(step)
            x += np.int32(step) * (self.cdf(np.minimum(middle, self.count)) <= cf)
        return x, self.cdf(x), self.cdf(x + np.int32(1))

    def guess(self, cf: Int32) -> Int32:
        """`bisect` on the real-valued CDF of logistics, F(x) = x + sum of w (1 + tanh((x - m) / 2s)) / 2: nearly right.

        Twice as fast, for it looks nothing up.
        """
        slopes = _SLOPES.take(self.index)
        offsets = self.base.astype(np.float32)
        offsets /= self.steps.astype(np.float32)
        offsets *= slopes
        weights = self.weights.astype(np.float32)
        weights *= _HALF
        target = cf.astype(np.float32) - weights.sum(0)
        x = np.zeros(len(cf), np.float32)
        terms = np.empty_like(slopes)
        for step in _halvings(self.count):
            middle = x + np.float32(step)
            np.multiply(slopes, middle, out=terms)
            terms += offsets
            np.tanh(terms, out=terms)
            terms *= weights
            middle += terms.sum(0)
            x += np.float32(step) * (middle <= target)
        return np.minimum(x, np.float32(self.count - 1)).astype(np.int32)


def _halvings(count: int) -> list[int]:
    """The steps of a binary search among so many."""
    return [1 << bit for bit in reversed(range((count - 1).bit_length()))]


_SURPLUS = np.uint32(TABLE_PRECISION + WEIGHT_BITS - PRECISION)
_HALF = np.float32(MASS / 2 / (1 << int(_SURPLUS)))  # of the mass of a component of weight 1
_SLOPES = (0.5 / scale_of(np.arange(SCALES))).astype(np.float32)
