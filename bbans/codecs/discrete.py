"""Codecs of small alphabets, from integer parameters: uniform, Bernoulli, categorical, beta-binomial.

One symbol for each head; parameters are arrays that broadcast to the heads' shape, with the alphabet, where there is
one, on the last axis.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bbans.ans import Message
from bbans.codecs.core import Codec, from_intervals

Int64 = NDArray[np.int64]


def uniform(total: ArrayLike) -> Codec:
    """Equal probabilities on 0..total-1; total at most 2^31, a power of two or not."""

    def pop(message: Message) -> NDArray[Any]:
        x, commit = message.pop_total(total)
        commit(x, 1)
        return x.astype(np.int64)

    return Codec(lambda message, x: message.push_total(x, 1, total), pop)


def bernoulli(freq_of_one: ArrayLike, precision: int) -> Codec:
    """P(1) = freq_of_one / 2^precision, with 0 < freq_of_one < 2^precision."""
    one = np.asarray(freq_of_one, np.int64)
    if (one <= 0).any() or (one >= 1 << precision).any():
        raise ValueError("both symbols need a frequency of at least 1")
    zero = (1 << precision) - one
    return from_intervals(
        lambda x: (np.where(x, zero, 0), np.where(x, one, zero)),
        lambda cf: (cf >= zero).astype(np.int64),
        precision,
    )


def quantise(weights: ArrayLike, precision: int) -> Int64:
    """Integer frequencies [..., A], each at least 1, that sum to 2^precision and follow non-negative integer weights.

    Scales into 2^precision - A, adds 1 to each, gives what is left to the first largest: never fails for A <
    2^precision. Weights must sum to at most 2^(62 - precision).
    """
    w = np.asarray(weights, np.int64)
    alphabet = w.shape[-1]
    sums = w.sum(-1, keepdims=True)
    if alphabet >= 1 << precision or (w < 0).any() or (sums <= 0).any() or (sums > 1 << (62 - precision)).any():
        raise ValueError("weights must be non-negative, not all 0, and fit the precision")
    freqs = w * ((1 << precision) - alphabet) // sums + 1
    left = (1 << precision) - freqs.sum(-1)
    largest = freqs.argmax(-1)[..., None]
    np.put_along_axis(freqs, largest, np.take_along_axis(freqs, largest, -1) + left[..., None], -1)
    return freqs


def categorical(freqs: ArrayLike, precision: int) -> Codec:
    """Symbols 0..A-1 with the given frequencies [..., A], each positive, which sum to 2^precision (`quantise`)."""
    f = np.asarray(freqs, np.int64)
    if (f <= 0).any() or (f.sum(-1) != 1 << precision).any():
        raise ValueError(f"frequencies must be positive and sum to 2^{precision}")
    ends = np.cumsum(f, -1)

    def interval(x: NDArray[Any]) -> tuple[Int64, Int64]:
        at = np.asarray(x, np.int64)[..., None]
        shape = (*at.shape[:-1], f.shape[-1])
        freq = np.take_along_axis(np.broadcast_to(f, shape), at, -1)[..., 0]
        return np.take_along_axis(np.broadcast_to(ends, shape), at, -1)[..., 0] - freq, freq

    return from_intervals(interval, lambda cf: (ends <= cf[..., None]).sum(-1), precision)


def beta_binomial(n: int, alpha: ArrayLike, beta: ArrayLike, precision: int) -> Codec:
    """Beta-binomial on 0..n with positive parameters alpha, beta in 1/256 (integers).

    The table comes from the ratio of neighbouring probabilities, (n - k)(k + a) / ((k + 1)(n - k - 1 + b)), by single
    IEEE multiplications and divisions, which round alike on every machine (no exp, no gamma function, no sums).
    """
    a, b = np.broadcast_arrays(np.asarray(alpha, np.int64), np.asarray(beta, np.int64))
    if (a <= 0).any() or (b <= 0).any():
        raise ValueError("alpha and beta must be positive")
    mantissa, exponent = np.ones(a.shape), np.zeros(a.shape, np.int64)
    mantissas, exponents = [mantissa], [exponent]
    for k in range(n):
        ratio = ((n - k) * (256 * k + a)) / ((k + 1) * (256 * (n - k - 1) + b))
        mantissa, shift = np.frexp(mantissa * ratio)
        exponent = exponent + shift
        mantissas.append(mantissa)
        exponents.append(exponent)
    e = np.stack(exponents, -1)
    scaled = np.ldexp(np.stack(mantissas, -1), np.maximum(e - e.max(-1, keepdims=True), -60) + 30)
    return categorical(quantise(np.floor(scaled).astype(np.int64), precision), precision)
