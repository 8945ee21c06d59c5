"""Cumulative distribution functions of a location-scale family as integers: one table for each of 96 scales.

A decoder must not compute exp, so the tables are made once, when a model is exported, and shipped with it. Locations
are integers in 1/16 of a unit; scales are 2^((i - 36) / 8) units, i = 0..95 (0.044 to 166).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]

UNIT = 16  # steps of a location within one unit
PRECISION = 20  # of a table; products with 12-bit weights then fit 32 bits
SCALES = 96
PER_OCTAVE = 8
SCALE_OF_ONE = 36  # the index of scale 1
MASS = (1 << PRECISION) - 64  # a table ends here: in 24 bits, room for a floor of 1 under up to 1,024 symbols


def scale_of(index: NDArray[Any]) -> NDArray[np.float64]:
    """Scales, in units, of indices. For accounting and for guesses only."""
    return np.exp2((np.asarray(index) - SCALE_OF_ONE) / PER_OCTAVE)


@dataclass(frozen=True)
class ScaleTables:
    """values: uint32 [n], all tables end to end; halves: int32 [96], entries on either side of each table's middle;
    shifts: int32 [96], by how many bits a location is shortened before the lookup.

    Large scales do not need 1/16 of a unit, so a table is `scale/16` or 1/16 unit wide a step, whichever is coarser,
    but never over one unit: then neighbouring integers are a whole number of steps apart and no jitter arises.
    """

    values: NDArray[np.uint32]
    halves: Int32
    shifts: Int32

    @classmethod
    def build(cls, cdf: Callable[[NDArray[np.float64]], NDArray[np.float64]], reach: float) -> ScaleTables:
        """Tables of the standard, symmetric CDF `cdf`, cut at ±reach scales, where it is within 2^-20 of 0 and 1."""
        scales = scale_of(np.arange(SCALES))
        shifts = np.clip(np.floor(np.log2(scales)), 0, 4).astype(np.int32)
        steps = (1 << shifts) / UNIT
        halves = np.ceil(reach * scales / steps).astype(np.int32)
        rows = []
        for scale, step, half in zip(scales, steps, halves, strict=True):
            row = np.rint(cdf(np.arange(half + 1) * step / scale) * MASS)
            row[0], row[-1] = MASS // 2, MASS
            rows.append(np.maximum.accumulate(row).astype(np.uint32))
        return cls.from_upper(np.concatenate(rows), halves, shifts)

    @classmethod
    def from_upper(cls, upper: NDArray[np.uint32], halves: Int32, shifts: Int32) -> ScaleTables:
        """Tables from their upper halves, middles included, end to end: a symmetric CDF has F(-x) = 1 - F(x)."""
        rows = np.split(upper, np.cumsum(halves + 1)[:-1])
        return cls(np.concatenate([r for row in rows for r in (MASS - row[:0:-1], row)]), halves, shifts)

    def upper(self) -> NDArray[np.uint32]:
        """What `from_upper` takes."""
        rows = np.split(self.values, np.cumsum(2 * self.halves + 1)[:-1])
        return np.concatenate([row[half:] for row, half in zip(rows, self.halves, strict=True)])

    @cached_property
    def roundings(self) -> Int32:
        """Half a step of each table: added to a location, its shortening rounds to nearest."""
        return ((1 << self.shifts) >> 1).astype(np.int32)

    @cached_property
    def middles(self) -> Int32:
        """Where in `values` each table has its location 0."""
        sizes = 2 * self.halves + 1
        return (np.cumsum(sizes, dtype=np.int32) - sizes + self.halves).astype(np.int32)

    @cached_property
    def pairs(self) -> Pairs:
        """What `values` say a unit apart."""
        return Pairs.of(self)

    def interpolated(self, location: Int32, index: Int32, more_bits: int) -> NDArray[np.int64]:
        """The CDF, 0..MASS * 2^more_bits, at `location` (in 1/16 unit) of the distribution with scale `index` around 0.

        Linear between the entries, for symbols that are closer to one another than a table's steps: without it their
        masses would jitter between none and double.
        """
        half, shift, middle = self.halves[index], self.shifts[index], self.middles[index]
        step = location >> shift
        at = np.clip(step, -half, half)
        low = self.values[middle + at].astype(np.int64) << more_bits
        high = self.values[middle + np.minimum(at + 1, half)].astype(np.int64) << more_bits
        fraction = np.where(step == at, location - (step << shift), 0)
        return low + ((high - low) * fraction >> shift)


@dataclass(frozen=True)
class Pairs:
    """The CDF at two locations a unit apart, of all tables end to end: one lookup for both ends of a symbol.

    values: uint64 [n], the CDF at the higher location << 32 | that at the lower; firsts, lasts, middles: int32 [96],
    where each table begins and ends, that entry included, and has its location 0. The entry of a lower location l is at
    (l + origins) >> shifts, rounded to nearest, if it is clamped to the table: beyond it the CDF is 0 or MASS at both.
    """

    values: NDArray[np.uint64]
    firsts: Int32
    lasts: Int32
    middles: Int32
    origins: Int32
    shifts: Int32

    @classmethod
    def of(cls, tables: ScaleTables) -> Pairs:
        """Made of tables."""
        steps = UNIT >> tables.shifts
        rows, sizes = [], 2 * tables.halves + 1 + steps
        for half, middle, step in zip(tables.halves, tables.middles, steps, strict=True):
            lower = np.arange(-half - step, half + 1)
            ends = (tables.values[middle + np.clip(at, -half, half)] for at in (lower, lower + step))
            low, high = (end.astype(np.uint64) for end in ends)
            rows.append((high << np.uint64(32)) | low)
        lasts = np.cumsum(sizes) - 1
        middles = lasts - tables.halves
        origins = (middles << tables.shifts) + tables.roundings
        firsts, lasts, middles, origins = (x.astype(np.int32) for x in (lasts + 1 - sizes, lasts, middles, origins))
        return cls(np.concatenate(rows), firsts, lasts, middles, origins, tables.shifts)


def logistic_cdf(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-t)). For building tables and for accounting only."""
    return 0.5 * (1.0 + np.tanh(0.5 * t))


def logistic_tables() -> ScaleTables:
    """Tables of the logistic distribution, computed on this machine."""
    return ScaleTables.build(logistic_cdf, 14.5)


def normal_tables() -> ScaleTables:
    """Tables of the normal distribution, computed on this machine."""
    return ScaleTables.build(np.vectorize(lambda t: 0.5 * math.erfc(-t / math.sqrt(2.0)), otypes=[float]), 5.0)
