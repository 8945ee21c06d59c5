"""Normals on a uniform grid: real-valued latents of any prior, and samples under a discretised normal.

Bins of equal prior mass (`bbans.codecs.latent`) need one prior that is known beforehand. Here the bins are of equal
width instead, and every distribution, prior and posterior alike, gives a bin the difference of two values of its CDF:
so priors may be learnt, conditional, or mixtures. A latent costs the same bits either way, once bins are narrow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbans.codecs.core import Codec, from_intervals, over_lanes
from bbans.codecs.tables import MASS, UNIT, ScaleTables, scale_of
from bbans.codecs.tables import PRECISION as TABLE_PRECISION
from bbans.errors import BadFile

Int32 = NDArray[np.int32]

PRECISION = 24


@dataclass(frozen=True)
class GridNormals:
    """n independent normals on the bins first + step i .. first + step (i + 1), i in 0..count-1, the ends being open.

    means: int32 [n], and first, step: in 1/16 of the unit of `tables`; scales: int32 [n], indices of `tables`, which
    are of the normal; floor: the least frequency of a bin, 0 or 1. With 0, bins in the tails have no mass: such a
    distribution may be popped, as posteriors are, but pushing what it could not pop raises `BadFile`.
    """

    tables: ScaleTables
    means: Int32
    scales: Int32
    first: int
    step: int
    count: int
    floor: int = 0

    def __len__(self) -> int:
        return len(self.means)

    def __getitem__(self, part: slice) -> GridNormals:
        some = self.means[part], self.scales[part]
        return GridNormals(self.tables, *some, self.first, self.step, self.count, self.floor)

    def cdf(self, i: NDArray[Any]) -> NDArray[np.int64]:
        """The start of bin i's interval; i in 0..count."""
        edges = (self.first + self.step * i).astype(np.int32) - self.means
        mass = self.tables.interpolated(edges, self.scales, PRECISION - TABLE_PRECISION)
        # tables end at MASS; what they lack would lie in the last bin, where no latent should be popped
        whole = (1 << PRECISION) - self.floor * self.count
        mass = mass * whole // (MASS << PRECISION - TABLE_PRECISION)
        if self.floor:
            mass += i
        mass[i <= 0] = 0
        mass[i >= self.count] = 1 << PRECISION
        return mass

    def interval(self, i: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(starts, freqs) out of 2^24 of bins i [n]."""
        start = self.cdf(i)
        return start, self.cdf(i + 1) - start

    def locate(self, cf: NDArray[Any]) -> Int32:
        """The bin whose interval holds cf."""
        below = np.zeros(len(cf), np.int32)
        for bit in reversed(range((self.count - 1).bit_length())):
            middle = np.minimum(below + np.int32(1 << bit), self.count)
            np.copyto(below, middle, where=(self.cdf(middle) <= cf) & (middle < self.count))
        return below

    def row_codec(self) -> Codec:
        """All n symbols over the lanes of a message."""

        def codec_of(part: slice) -> Codec:
            mine = self[part]

            def interval(i: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
                starts, freqs = mine.interval(i.astype(np.int32))
                if not freqs.all():
                    raise BadFile("a latent lies where its posterior has no mass, so the message is damaged")
                return starts, freqs

            return from_intervals(interval, mine.locate, PRECISION)

        return over_lanes(codec_of, len(self))

    def mean(self) -> NDArray[np.float64]:
        """The bin [n] in which each mean lies, real-valued: of a bin's middle, its number."""
        return np.clip((self.means - self.first) / self.step - 0.5, 0, self.count - 1)

    def log2_prob(self, i: NDArray[Any]) -> NDArray[np.float64]:
        """log2 of the bins' probabilities, real-valued, of the same parameters: what `elbo` counts."""
        inverse = 1 / (UNIT * scale_of(self.scales))
        lower = np.where(i <= 0, -np.inf, (self.first + self.step * i - self.means) * inverse)
        upper = np.where(i >= self.count - 1, np.inf, (self.first + self.step * (i + 1) - self.means) * inverse)
        # the mass between two points is taken on the side where the tails are small, lest it cancel
        flip = lower > 0
        lower, upper = np.where(flip, -upper, lower), np.where(flip, -lower, upper)
        mass = normal_cdf(upper) - normal_cdf(lower)
        if self.floor:
            mass = mass * (1 - self.count * 2.0**-PRECISION) + 2.0**-PRECISION
        return np.log2(np.maximum(mass, 2.0**-60))


def normal_cdf(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the standard normal, to a relative 1.2e-7 in the lower tail, too. For accounting only.

    Numerical Recipes' Chebyshev fit of erfc (Press et al. 1992, section 6.2), since NumPy has no erfc.
    """
    x = np.abs(t) / math.sqrt(2.0)
    s = 1 / (1 + 0.5 * np.minimum(x, 30.0))
    coefficients = (
        0.17087277,
        -0.82215223,
        1.48851587,
        -1.13520398,
        0.27886807,
        -0.18628806,
        0.09678418,
        0.37409196,
        1.00002368,
        -1.26551223,
    )
    polynomial = np.zeros_like(x)
    for c in coefficients:
        polynomial = polynomial * s + c
    tail = 0.5 * s * np.exp(polynomial - np.minimum(x, 30.0) ** 2)
    return np.where(t > 0, 1 - tail, tail)
