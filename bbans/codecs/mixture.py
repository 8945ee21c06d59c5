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
        for i in range(0, len(x), _BLOCK):
            part = slice(i, i + _BLOCK)
            search, symbols = _Search(self[part]), x[part].astype(np.int32)
            starts[part] = search.cdf(symbols)
            freqs[part] = search.cdf(symbols + np.int32(1)) - starts[part]
        return starts, freqs

    def locate(self, cf: NDArray[Any]) -> Int32:
        """The symbols x [n] whose intervals hold cf [n]."""
        x = np.empty(len(cf), np.int32)
        for i in range(0, len(cf), _BLOCK):
            part = slice(i, i + _BLOCK)
            x[part] = _Search(self[part]).locate(cf[part].astype(np.int32))
        return x

    def codec(self) -> Codec:
        """One symbol for each head of a message with n heads."""
        return self.part_codecs()(slice(0, len(self)))

    def row_codec(self) -> Codec:
        """All n symbols over the lanes of a message, whatever their number."""
        return over_lanes(self.part_codecs(), len(self))

    def part_codecs(self) -> Callable[[slice], Codec]:
        """Codecs of parts of the symbols, which share guesses.

        Popping tries a guess for each symbol, made for all at once, and searches only for those that it missed. In
        flat pictures it rarely does.
        """
        guesses: list[_Guesses] = []

        def codec_of(part: slice) -> Codec:
            def push(message: Message, x: NDArray[Any]) -> None:
                message.push(*self[part].interval(x), PRECISION)

            def pop(message: Message) -> Int32:
                if not guesses:
                    guesses.append(_Guesses.of(self))
                cf, commit = message.pop(PRECISION)
                x, starts, freqs = guesses[0].part(part)
                # below the start, the difference wraps around and is large
                missed = np.flatnonzero(cf.astype(np.uint32) - starts >= freqs)
                if missed.size:
                    mixture = self._pick(part.start + missed)
                    x[missed] = found = mixture.locate(cf[missed])
                    starts[missed], freqs[missed] = mixture.interval(found)
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

        The floor under every frequency is part of the model: a uniform component of weight 2^-24 for each symbol.
        """
        inverse = 1.0 / scale_of(self.scales)
        centred = x - self.means / UNIT
        upper = np.where(x >= self.hi, np.inf, (centred + 0.5) * inverse)
        lower = np.where(x <= self.lo, -np.inf, (centred - 0.5) * inverse)
        # the mass between two points is taken on the side where the tails are small, lest it cancel
        flip = lower > 0
        upper, lower = np.where(flip, -lower, upper), np.where(flip, -upper, lower)
        p = (self.weights * _mass(lower, upper)).sum(0) / self.weights.sum(0)
        return np.log2(p * (MASS / 2**TABLE_PRECISION) + 2.0**-PRECISION)


@dataclass(frozen=True)
class _Guesses:
    """A guess for each symbol, the middle of its heaviest component, and its interval."""

    x: Int32
    starts: NDArray[np.uint32]
    freqs: NDArray[np.uint32]

    @classmethod
    def of(cls, mixture: Mixture) -> _Guesses:
        heaviest = mixture.weights.argmax(0)[None]
        middle = (np.take_along_axis(mixture.means, heaviest, 0)[0] + UNIT // 2) // UNIT
        x = np.clip(middle, mixture.lo, mixture.hi).astype(np.int32)
        starts, freqs = mixture.interval(x)
        return cls(x, starts.astype(np.uint32), freqs.astype(np.uint32))

    def part(self, part: slice) -> tuple[Int32, NDArray[np.uint32], NDArray[np.uint32]]:
        """Copies, to be corrected."""
        return self.x[part].copy(), self.starts[part].copy(), self.freqs[part].copy()


def _mass(lower: NDArray[np.float64], upper: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mass of the standard logistic between two points, the lower of which is at most 0; accurate in the tail."""
    with np.errstate(over="ignore", invalid="ignore"):
        el, eu = np.exp(np.minimum(lower, 0.0)), np.exp(-np.abs(upper))
        below = el / (1.0 + el)
        above = np.where(upper > 0, 1.0 / (1.0 + eu), eu / (1.0 + eu))
    return above - below


class _Search:
    """The CDF of mixtures at symbols, with what does not depend on the symbols computed once. 32-bit throughout."""

    def __init__(self, mixture: Mixture) -> None:
        tables, index = mixture.tables, mixture.scales
        self.lo, self.hi = mixture.lo, mixture.hi
        self.weights = mixture.weights
        self.shifts = tables.shifts[index]
        self.most = tables.halves[index]
        self.least = -self.most
        self.middles = tables.middles[index]
        self.values = tables.values
        self.means = mixture.means + (UNIT // 2 - tables.roundings)[index]
        self._at = np.empty_like(self.means)
        self._looked_up = np.empty(self.means.shape, np.uint32)

    def cdf(self, x: Int32) -> Int32:
        """F(x): the start of x's interval; x in lo..hi + 1."""
        at, looked_up = self._at, self._looked_up
        np.subtract(UNIT * x, self.means, out=at)
        np.right_shift(at, self.shifts, out=at)
        np.minimum(at, self.most, out=at)
        np.maximum(at, self.least, out=at)
        np.add(at, self.middles, out=at)
        np.take(self.values, at, mode="clip", out=looked_up)
        np.multiply(looked_up, self.weights, out=looked_up)
        total = (np.add.reduce(looked_up, 0, dtype=np.uint32) >> _SURPLUS).astype(np.int32)
        total += x - self.lo
        total[x <= self.lo] = 0
        total[x > self.hi] = 1 << PRECISION
        return total

    def locate(self, cf: Int32) -> Int32:
        """The x with F(x) <= cf < F(x + 1), by bisection: 8 steps for 256 symbols, 9 for 511."""
        below = np.full(len(cf), self.lo, np.int32)
        span = 1 << (self.hi - self.lo).bit_length()
        while span := span >> 1:
            middle = np.minimum(below + np.int32(span), np.int32(self.hi + 1))
            np.copyto(below, middle, where=self.cdf(middle) <= cf)
        return below


_SURPLUS = np.uint32(TABLE_PRECISION + WEIGHT_BITS - PRECISION)
