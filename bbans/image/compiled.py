"""The coder's loops over symbols, compiled by Numba. They compute the integers of `bbans.image.mixtures`.

Network outputs are int32 [n, 3K]: the parameters of a symbol lie side by side. Importing this module compiles the
loops; Numba caches them on disk.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numba import njit, types

from bbans.ans import HEAD_MIN
from bbans.codecs.mixture import PRECISION, WEIGHT_BITS
from bbans.codecs.tables import PRECISION as TABLE_PRECISION
from bbans.codecs.tables import SCALE_OF_ONE, SCALES, UNIT

_I32 = types.int32
_SECANTS = 6  # secant steps before the search falls back to bisection
_WHOLE = 1 << WEIGHT_BITS
_FULL = HEAD_MIN.bit_length() - 1 - PRECISION + 32  # a head spills a word from frequency << _FULL on
_LOW = (1 << 32) - 1
_SURPLUS = TABLE_PRECISION + WEIGHT_BITS - PRECISION  # bits that a sum of weighted table entries has too many


def _read(dtype: Any, dims: int, layout: Literal["A", "C"] = "C") -> Any:
    return types.Array(dtype, dims, layout, readonly=True)


def _jit(*arguments: Any, returns: Any = types.void) -> Any:
    return njit(returns(*arguments), cache=True, nogil=True, error_model="numpy")


_TABLES = (
    _read(types.uint32, 1),  # exp2
    _read(types.uint64, 1),  # of `Pairs`: values, firsts, lasts, origins, shifts
    *[_read(_I32, 1)] * 4,
)
_MIXTURES = _read(_I32, 2, "A"), _read(_I32, 1, "A"), _I32, _I32  # outputs, centres, lo, hi
_SYMBOLS = _read(_I32, 1, "A")
_FOUND = types.Array(_I32, 2, "A")
_HEADS = types.Array(types.uint64, 1, "A")


@_jit(
    _read(types.uint8, 2),
    _read(types.int16, 2),
    _read(_I32, 1),
    _read(_I32, 1),
    _I32,
    _I32,
    types.Array(_I32, 2, "C"),
)
def last_layer(features, weight, bias, shift, lowest, highest, outputs):  # type: ignore[no-untyped-def]
    """Compute outputs [n, out] from features [n, in]: `clamp((weight x + bias) >> shift)`."""
    for i in range(len(features)):
        for o in range(len(weight)):
            total = np.int32(0)  # kept to 32 bits, or LLVM does not vectorise the sum
            for j in range(features.shape[1]):
                total = np.int32(total + np.int32(np.int32(weight[o, j]) * np.int32(features[i, j])))
            outputs[i, o] = min(max((total + bias[o]) >> shift[o], lowest), highest)


@njit(inline="always")
def _place(k, count, outputs, centre, origins, shifts, firsts, lasts, lo, place):  # type: ignore[no-untyped-def]
    """Fill place[:, k] and return the mean of component k.

    place: the index in `Pairs` of the lower end of symbol `lo`, before the shift; the shift; the first and the last
    entry of the component's table.
    """
    scale = np.uint64(min(max(outputs[2 * count + k] + SCALE_OF_ONE, 0), SCALES - 1))
    mean = outputs[count + k] + centre
    place[0, k] = origins[scale] + UNIT * lo - UNIT // 2 - mean
    place[1, k], place[2, k], place[3, k] = shifts[scale], firsts[scale], lasts[scale]
    return mean


@njit(inline="always")
def _weigh(count, outputs, exp2, weights):  # type: ignore[no-untyped-def]
    """Fill the weights of the components, which add up to 2^12."""
    largest = outputs[0]
    for k in range(1, count):
        largest = max(largest, outputs[k])
    total = np.uint32(0)
    best = 0
    for k in range(count - 1, -1, -1):
        below = largest - outputs[k]
        best = k if below == 0 else best
        weights[k] = exp2[np.uint64(min(below, len(exp2) - 1))]
        total += np.uint32(weights[k])
    factor = np.uint64(_LOW / np.float64(total))
    rest = np.uint64(_WHOLE)
    for k in range(count):
        weights[k] = (weights[k] * factor) >> np.uint64(32 - WEIGHT_BITS)
        rest -= weights[k]
    weights[best] += rest


@njit(inline="always")
def _both(x, count, place, weights, values):  # type: ignore[no-untyped-def]
    """Return the CDF at both ends of symbol x (counted from `lo`), packed in 64 bits, before rounding."""
    both = np.uint64(0)
    for k in range(count):
        at = max(min((place[0, k] + UNIT * x) >> place[1, k], place[3, k]), place[2, k])
        both += weights[k] * values[np.uint64(at)]
    return both


@_jit(*_TABLES, *_MIXTURES, _SYMBOLS, _FOUND)
def interval(exp2, values, firsts, lasts, origins, shifts, outputs, centres, lo, hi, symbols, found):  # type: ignore[no-untyped-def]
    """Fill found [2, n] with the starts and ends of symbols [n]."""
    count = outputs.shape[1] // 3
    place, weights = np.empty((4, count), np.int64), np.full(count, _WHOLE, np.uint64)
    for i in range(len(symbols)):
        for k in range(count):
            _place(k, count, outputs[i], centres[i], origins, shifts, firsts, lasts, lo, place)
        if count > 1:
            _weigh(count, outputs[i], exp2, weights)
        x = np.int64(symbols[i]) - lo
        both = _both(x, count, place, weights, values)
        found[0, i] = np.int64((both & np.uint64(_LOW)) >> np.uint64(_SURPLUS)) + x if x > 0 else 0
        found[1, i] = np.int64(both >> np.uint64(32 + _SURPLUS)) + x + 1 if x < hi - lo else 1 << PRECISION


@_jit(*_TABLES, *_MIXTURES, _HEADS, _read(types.uint32, 1), types.Array(_I32, 1, "C"), returns=types.int64)
def pop(exp2, values, firsts, lasts, origins, shifts, outputs, centres, lo, hi, heads, words, symbols):  # type: ignore[no-untyped-def]
    """Pop symbols [n] over all heads in turn. Returns the number of words taken, or -1 if the stack has too few.

    The search for a symbol starts at the mean and takes secant steps inside the bracket found so far.
    """
    count, top = outputs.shape[1] // 3, np.int64(hi - lo)
    place, weights = np.empty((4, count), np.int64), np.full(count, _WHOLE, np.uint64)
    used, lane = 0, 0
    for i in range(len(symbols)):
        if count > 1:
            _weigh(count, outputs[i], exp2, weights)
        mean = np.int64(0)
        for k in range(count):
            of_k = _place(k, count, outputs[i], centres[i], origins, shifts, firsts, lasts, lo, place)
            mean += np.int64(of_k) * np.int64(weights[k])
        head = heads[lane]
        cf = np.int64(head & np.uint64((1 << PRECISION) - 1))
        x = (mean + _WHOLE * UNIT // 2) // (_WHOLE * UNIT) - lo
        low, high = np.int64(0), top  # where the symbol lies
        tries = 0
        while True:
            x = min(max(x, low), high)
            both = _both(x, count, place, weights, values)
            start = np.int64((both & np.uint64(_LOW)) >> np.uint64(_SURPLUS)) + x if x > 0 else 0
            stop = np.int64(both >> np.uint64(32 + _SURPLUS)) + x + 1 if x < top else 1 << PRECISION
            if cf < start:
                high = x - 1
            elif cf >= stop:
                low = x + 1
            else:
                break
            tries += 1
            if tries <= _SECANTS:
                x += np.int64(np.floor(np.float32(cf - start) / np.float32(stop - start)))
            else:
                x = (low + high) >> 1
        symbols[i] = x + lo
        head = (head >> np.uint64(PRECISION)) * np.uint64(stop - start) + np.uint64(cf - start)
        if head < np.uint64(HEAD_MIN):
            if used == len(words):
                return -1
            head = (head << np.uint64(32)) | np.uint64(words[used])
            used += 1
        heads[lane] = head
        lane = lane + 1 if lane + 1 < len(heads) else 0
    return used


@_jit(_HEADS, _read(_I32, 1, "A"), _read(_I32, 1, "A"), types.Array(types.uint32, 1, "C"), returns=types.int64)
def push(heads, starts, freqs, words):  # type: ignore[no-untyped-def]
    """Push intervals [n] over all heads in turn, the last first. Spilled words fill the end of words [n]; returns where
    they begin."""
    lanes, top = len(heads), len(words)
    for begin in range((len(starts) - 1) // lanes * lanes, -1, -lanes):
        end = min(begin + lanes, len(starts))
        full = 0
        for i in range(begin, end):
            full += heads[i - begin] >= np.uint64(freqs[i]) << np.uint64(_FULL)
        top -= full
        at = top
        for i in range(begin, end):
            head, freq = heads[i - begin], np.uint64(freqs[i])
            if head >= freq << np.uint64(_FULL):
                words[at] = np.uint32(head & np.uint64(_LOW))
                at += 1
                head >>= np.uint64(32)
            quotient = head // freq
            heads[i - begin] = (quotient << np.uint64(PRECISION)) + (head - quotient * freq) + np.uint64(starts[i])
    return top
