"""Mixtures of discretised location-scale distributions (logistic, normal), with parameters for every symbol.

P(x) = sum over k of w_k [F((x + 1/2 - m_k) / s_k) - F((x - 1/2 - m_k) / s_k)], with open ends at lo and hi: Salimans
et al. 2017 (PixelCNN++), eq. 1-2. All integers, and no table of the alphabet for each symbol: a symbol's interval is
the difference of two values of the CDF.

Popping must find the symbol whose interval holds a number. A binary search in single precision, on the real CDF,
guesses it; the integer CDF that pushes checks the guess, proposes a better one where it was wrong, and is searched for
what is missed again. So what is popped depends on integers only, and takes about twice as long as pushing.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbans.ans import Message
from bbans.codecs.core import Codec, over_lanes
from bbans.codecs.tables import MASS, SCALES, UNIT, ScaleTables, scale_of
from bbans.codecs.tables import PRECISION as TABLE_PRECISION

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]

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

    def interval(self, x: NDArray[Any]) -> tuple[Int32, Int32]:
        """(starts, freqs) out of 2^24 of symbols x [n]. Every freq is at least 1."""
        found = np.empty((2, len(x)), np.int32)
        for part in _blocks(len(x)):
            _, found[0, part], found[1, part] = _Cdf(self[part]).bounds((x[part] - self.lo).astype(np.int32))
        found[1] -= found[0]
        return found[0], found[1]

    def locate(self, cf: NDArray[Any]) -> tuple[Int32, Int32, Int32]:
        """(x, starts, freqs) of the symbols whose intervals hold cf [n]."""
        found = np.empty((3, len(cf)), np.int32)
        for part in _blocks(len(cf)):
            cdf, wanted = _Cdf(self[part]), cf[part].astype(np.int32)
            found[:, part] = _located(cdf, cdf.near(wanted), wanted)
        found[0] += np.int32(self.lo)
        found[2] -= found[1]
        return found[0], found[1], found[2]

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

    def mean(self) -> NDArray[np.float64]:
        """The means [n] of the distributions as they are coded: made of the intervals, and so the same everywhere.

        E[x] = lo + the sum of P(X >= x) over x > lo. It takes some hundred times as long as `interval`.
        """
        above = np.zeros(len(self), np.int64)
        for part in _blocks(len(self)):
            cdf = _Cdf(self[part])
            for x in range(1, cdf.count):
                above[part] += (1 << PRECISION) - cdf.bounds(np.full(len(above[part]), x, np.int32))[1]
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


class _Cdf:
    """The CDF of mixtures at symbols, with what does not depend on the symbols computed once.

    Symbols count from lo here. places: int32 [4, K, n], of each component: where the lower end of the symbol lo lies in
    `Pairs`, before the shift; the shift; the first and the last entry of the table. weights: uint64 [K, n].
    """

    def __init__(self, mixture: Mixture) -> None:
        pairs = mixture.tables.pairs
        self.mixture, self.values, self.count = mixture, pairs.values, mixture.hi - mixture.lo + 1
        self.index = index = mixture.scales.astype(np.intp)
        self.places = np.empty((4, *index.shape), np.int32)
        origins = pairs.origins + np.int32(UNIT * mixture.lo - UNIT // 2)
        for table, row in zip((origins, pairs.shifts, pairs.firsts, pairs.lasts), self.places, strict=True):
            _look_up(table, index, row)
        self.places[0] -= mixture.means
        self.weights = mixture.weights.astype(np.uint64)

    def pick(self, i: NDArray[np.intp]) -> _Cdf:
        """Those of some of the mixtures."""
        picked = copy.copy(self)
        picked.places, picked.weights = self.places.take(i, -1), self.weights.take(i, -1)
        return picked

    def bounds(self, x: Int32) -> Int32:
        """x, F(x) and F(x + 1) [3, ..., n]: the ends of the interval of x [..., n]; x in 0..count-1.

        Sums of 32 bits, two in 64: weights of all components add up to at most 2^12, entries to less than 2^20.
        """
        (origins, shifts, firsts, lasts), weights = self.places, self.weights
        if x.ndim > 1:
            origins, shifts, firsts, lasts, weights = (row[:, None] for row in (*self.places, weights))
        at = origins + x * _UNIT
        at >>= shifts
        np.minimum(at, lasts, out=at)
        np.maximum(at, firsts, out=at)
        both = _look_up(self.values, at)
        both *= weights
        total = np.add.reduce(both, 0)
        found = np.empty((3, *x.shape), np.int32)
        found[0] = x
        _, start, stop = found
        halves = total.view(np.uint32).reshape(*x.shape, 2)
        np.right_shift(halves[..., _LOW_HALF], _SURPLUS, out=start.view(np.uint32))
        np.right_shift(halves[..., 1 - _LOW_HALF], _SURPLUS, out=stop.view(np.uint32))
        start += x
        stop += x
        stop += _STEP
        np.copyto(start, 0, where=x == 0)
        np.copyto(stop, 1 << PRECISION, where=x == self.count - 1)
        return found

    def near(self, cf: Int32) -> Int32:
        """The x of `search`, on the real-valued CDF of logistics: F(x) = x + sum of w (1 + tanh((x - m) / 2s)) / 2.

        999 of 1,000 are right. Halves what is left eight or nine times, which is quick, for it looks nothing up; of one
        component there is an inverse.
        """
        pairs, index = self.mixture.tables.pairs, self.index
        slopes = _look_up(_SLOPES, index)
        steps = self.places[0] >> self.places[1]
        steps -= _look_up(pairs.middles, index)
        offsets = steps.astype(np.float32)
        offsets *= _look_up(_SLOPES / (UNIT >> pairs.shifts).astype(np.float32), index)
        weights = self.weights.astype(np.float32)
        weights *= _HALF_MASS
        if len(weights) == 1:
            return self._inverse(cf.astype(np.float32), slopes[0], offsets[0], weights[0])
        target = cf.astype(np.float32) - np.add.reduce(weights, 0)
        x, terms = np.zeros(len(cf), np.float32), np.empty_like(slopes)
        for step in _halvings(self.count):
            middle = x + step
            np.multiply(slopes, middle, out=terms)
            terms += offsets
            np.tanh(terms, out=terms)
            terms *= weights
            middle += np.add.reduce(terms, 0)
            x += step * (middle <= target)
        return _clipped(x, self.count)

    def _inverse(self, cf: Float32, slopes: Float32, offsets: Float32, weights: Float32) -> Int32:
        """`near` of one component; what is added for each symbol, x, is taken to be that of a first result."""
        weights = np.maximum(weights, _ONE_UNIT)
        x: Float32 | None = None
        for _ in range(2):
            t = (cf if x is None else cf - x) / weights
            t -= _ONE_UNIT
            np.minimum(t, _WITHIN, out=t)
            np.maximum(t, -_WITHIN, out=t)
            x = np.arctanh(t, out=t)
            x -= offsets
            x /= slopes
            np.maximum(x, np.float32(0), out=x)
            np.minimum(x, np.float32(self.count - 1), out=x)
        assert x is not None
        return x.astype(np.int32)

    def search(self, cf: Int32) -> Int32:
        """`bounds` of the x with F(x) <= cf < F(x + 1): looks at 16 places, from 0 or the best on, 16 times closer each
        time."""
        x, step, all_ = np.zeros_like(cf), 1, np.arange(len(cf))
        while step * _WAYS < self.count:
            step *= _WAYS
        while True:
            tried = np.int32(step) * np.arange(_WAYS, dtype=np.int32)[:, None] + x
            np.minimum(tried, np.int32(self.count - 1), out=tried)
            found = self.bounds(tried)
            last = np.count_nonzero(found[1] <= cf, 0) - 1
            if step == 1:
                return found[:, last, all_]
            x, step = tried[last, all_], step // _WAYS


def _located(cdf: _Cdf, x: Int32, cf: Int32) -> Int32:
    """`bounds` of the symbols whose intervals hold cf; x: guesses; wrong ones only cost time."""
    found = here = cdf.bounds(x)
    where: NDArray[np.intp] | None = None
    for tries_left in reversed(range(_SECANTS + 1)):
        missed = np.flatnonzero((cf - here[1]).view(np.uint32) >= (here[2] - here[1]).view(np.uint32))
        if not missed.size:
            break
        where = missed if where is None else where.take(missed)
        cdf, cf = cdf.pick(missed), cf.take(missed)
        here = cdf.bounds(_secant(here.take(missed, 1), cf, cdf.count)) if tries_left else cdf.search(cf)
        for row, mine in zip(found, here, strict=True):
            row[where] = mine
    return found


def _secant(bounds: Int32, cf: Int32, count: int) -> Int32:
    """Where the CDFs reach cf if they go on as logistics do that have these values (`_Cdf.bounds`)."""
    x = bounds[0].astype(np.float32)
    bounds[0] = cf
    wanted, below, above = _logit(bounds)
    wanted -= below
    above -= below
    np.maximum(above, _LEAST, out=above)
    wanted /= above
    x += wanted
    return _clipped(x, count)


def _logit(cf: Int32) -> Float32:
    """ln(p / (1 - p)) of p = cf / 2^24, finite at both ends."""
    odds = cf.astype(np.float32)
    odds += _HALF
    np.minimum(odds, _MOST, out=odds)
    odds /= _ONE - odds
    return np.log(odds, out=odds)


def _clipped(x: Float32, count: int) -> Int32:
    np.maximum(x, np.float32(0), out=x)
    np.minimum(x, np.float32(count - 1), out=x)
    return x.astype(np.int32)


def _look_up(table: NDArray[Any], index: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
    """table[index], all within it: "wrap" costs the least."""
    return table.take(index, mode="wrap", out=out)


def _halvings(count: int) -> list[NDArray[np.float32]]:
    """The steps of a binary search among so many."""
    return [np.array(1 << bit, np.float32) for bit in reversed(range((count - 1).bit_length()))]


_WAYS = 16  # of the search
_SECANTS = 1  # steps towards symbols that were missed, before they are searched
_LOW_HALF = int(sys.byteorder == "big")  # of a uint64 as two uint32
_HALF_MASS = np.float32(MASS / 2 / (1 << TABLE_PRECISION + WEIGHT_BITS - PRECISION))  # of a component of weight 1
_SLOPES = (0.5 / scale_of(np.arange(SCALES))).astype(np.float32)
_ONE_UNIT, _WITHIN = np.float32(1), np.float32(1 - 2**-22)
# arrays: NumPy takes scalars less quickly
_UNIT, _STEP = np.array(UNIT, np.int32), np.array(1, np.int32)
_SURPLUS = np.array(TABLE_PRECISION + WEIGHT_BITS - PRECISION, np.uint32)
_HALF, _ONE, _MOST, _LEAST = (np.array(x, np.float32) for x in (0.5, 1 << PRECISION, (1 << PRECISION) - 1, 1e-6))
