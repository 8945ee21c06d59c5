"""log2 and exp2 in integers alone: for weights that a decoder must find again on any machine.

Bits are counted in 1/4096. Tables of 257 entries are found by integers of any size, and are read between by straight
lines, so that both functions are within 1/2048 bit of the truth.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Int64 = NDArray[np.int64]

UNIT = 1 << 12
"""Of `log2`, in one bit."""

ONE_BITS = 24
"""exp2 is in 1/2^24."""

_STEPS = 8  # log2 of the entries of a table


@functools.cache
def _logarithms() -> Int64:
    """[257]: floor(4096 log2(1 + j/256)), which the length of (256 + j)^4096 in binary tells."""
    powers = [((1 << _STEPS) + j) ** UNIT for j in range((1 << _STEPS) + 1)]
    return np.array([power.bit_length() - 1 - _STEPS * UNIT for power in powers], np.int64)


@functools.cache
def _powers() -> Int64:
    """[257]: floor(2^(24 - j/256)), square roots of square roots."""
    roots = [1 << ((ONE_BITS << _STEPS) - j) for j in range((1 << _STEPS) + 1)]
    for _ in range(_STEPS):
        roots = [math.isqrt(root) for root in roots]
    return np.array(roots, np.int64)


def log2(n: ArrayLike) -> Int64:
    """4096 log2 n, of integers 1..2^31; exact for powers of two."""
    x = np.asarray(n, np.int64)
    exponent = np.frexp(x.astype(np.float64))[1].astype(np.int64) - 1
    return (exponent << 12) + _between(_logarithms(), (x << (31 - exponent)) - (1 << 31), 31)


def exp2(minus: ArrayLike) -> Int64:
    """2^24 2^(-minus / 4096), rounded down, of integers that aren't negative."""
    x = np.asarray(minus, np.int64)
    return _between(_powers(), x & (UNIT - 1), 12) >> np.minimum(x >> 12, ONE_BITS + 1)


def _between(table: Int64, x: NDArray[Any], bits: int) -> Int64:
    """The table at x / 2^bits of its length."""
    j, rest = x >> (bits - _STEPS), x & ((1 << (bits - _STEPS)) - 1)
    return table[j] + ((table[j + 1] - table[j]) * rest >> (bits - _STEPS))
