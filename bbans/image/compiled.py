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
    """Fill place[:, k]; return the mean and the scale of component k.

    place: the index in `Pairs` of the lower end of symbol `lo`, before the shift; the shift; the first and the last
    entry of the component's table.
    """
    scale = np.uint64(min(max(outputs[2 * count + k] + SCALE_OF_ONE, 0), SCALES - 1))
    mean = outputs[count + k] + centre
    place[0, k] = origins[scale] + UNIT * lo - UNIT // 2 - mean
    place[1, k], place[2, k], place[3, k] = shifts[scale], firsts[scale], lasts[scale]
    return mean, scale


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


@njit(inline="always")
def _start(both, x):  # type: ignore[no-untyped-def]
    return np.int64((both & np.uint64(_LOW)) >> np.uint64(_SURPLUS)) + x if x > 0 else 0


@njit(inline="always")
def _stop(both, x, top):  # type: ignore[no-untyped-def]
    return np.int64(both >> np.uint64(32 + _SURPLUS)) + x + 1 if x < top else 1 << PRECISION


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
        found[0, i], found[1, i] = _start(both, x), _stop(both, x, hi - lo)


@_jit(*_TABLES, *_MIXTURES, _FOUND)
def prepare(exp2, values, firsts, lasts, origins, shifts, outputs, centres, lo, hi, prepared):  # type: ignore[no-untyped-def]
    """Fill prepared [n, 2K + 3] with what `pop` needs for each symbol: the weight << 16 | scale of each component, the
    place of each component (see `_place`), the symbol at the mean, counted from `lo`, and its interval."""
    count, top = outputs.shape[1] // 3, np.int64(hi - lo)
    place, weights = np.empty((4, count), np.int64), np.full(count, _WHOLE, np.uint64)
    for i in range(len(outputs)):
        if count > 1:
            _weigh(count, outputs[i], exp2, weights)
        mean = np.int64(0)
        for k in range(count):
            of_k, scale = _place(k, count, outputs[i], centres[i], origins, shifts, firsts, lasts, lo, place)
            mean += np.int64(of_k) * np.int64(weights[k])
            prepared[i, k] = (np.int64(weights[k]) << 16) | np.int64(scale)
            prepared[i, count + k] = place[0, k]
        x = min(max((mean + _WHOLE * UNIT // 2) // (_WHOLE * UNIT) - lo, np.int64(0)), top)
        both = _both(x, count, place, weights, values)
        prepared[i, 2 * count] = x
        prepared[i, 2 * count + 1] = _start(both, x)
        prepared[i, 2 * count + 2] = _stop(both, x, top)


@_jit(
    *(_read(types.uint64, 1), *[_read(_I32, 1)] * 3),
    *(types.Array(_I32, 2, "C"), _I32, _I32, _HEADS, _read(types.uint32, 1), types.Array(_I32, 1, "C")),
    returns=types.int64,
)
def pop(values, firsts, lasts, shifts, prepared, lo, hi, heads, words, symbols):  # type: ignore[no-untyped-def]
    """Pop symbols [n] over all heads in turn. Returns the number of words taken, or -1 if the stack has too few.

    The search for a symbol starts at the mean and takes secant steps inside the bracket found so far. All heads take
    a step before any takes the next, so that no branch depends on a single symbol, which CPUs would predict wrongly.
    `prepared` is overwritten.
    """
    count, lanes, top = (prepared.shape[1] - 3) // 2, len(heads), np.int64(hi - lo)
    guess, start, stop = 2 * count, 2 * count + 1, 2 * count + 2
    brackets, searching = np.empty((lanes, 2), np.int32), np.empty(lanes, np.int32)
    used = 0
    for begin in range(0, len(symbols), lanes):
        size = min(lanes, len(symbols) - begin)
        left = 0
        for lane in range(size):
            mine = prepared[begin + lane]
            cf = np.int32(heads[lane] & np.uint64((1 << PRECISION) - 1))
            brackets[lane, 0], brackets[lane, 1] = 0, top
            searching[left] = lane
            left += (cf < mine[start]) | (cf >= mine[stop])
        tries = 0
        while left:
            tries += 1
            still = 0
            for at in range(left):
                lane = searching[at]
                mine = prepared[begin + lane]
                cf = np.int64(heads[lane] & np.uint64((1 << PRECISION) - 1))
                x, before, after = np.int64(mine[guess]), np.int64(mine[start]), np.int64(mine[stop])
                low, high = np.int64(brackets[lane, 0]), np.int64(brackets[lane, 1])
                above = cf >= after
                low, high = (x + 1, high) if above else (low, x - 1)
                if tries <= _SECANTS:
                    x += np.int64(np.floor(np.float32(cf - before) / np.float32(after - before)))
                else:
                    x = (low + high) >> 1
                x = min(max(x, low), high)
                both = np.uint64(0)
                for k in range(count):
                    scale, weight = np.uint64(mine[k] & 0xFFFF), np.uint64(mine[k] >> 16)
                    entry = (np.int64(mine[count + k]) + UNIT * x) >> np.int64(shifts[scale])
                    entry = max(min(entry, np.int64(lasts[scale])), np.int64(firsts[scale]))
                    both += weight * values[np.uint64(entry)]
                before, after = _start(both, x), _stop(both, x, top)
                mine[guess], mine[start], mine[stop] = x, before, after
                brackets[lane, 0], brackets[lane, 1] = low, high
                searching[still] = lane
                still += (cf < before) | (cf >= after)
            left = still
        for lane in range(size):
            mine = prepared[begin + lane]
            head = heads[lane]
            cf = np.int64(head & np.uint64((1 << PRECISION) - 1))
            head = (head >> np.uint64(PRECISION)) * np.uint64(mine[stop] - mine[start]) + np.uint64(cf - mine[start])
            if head < np.uint64(HEAD_MIN):
                if used == len(words):
                    return -1
                head = (head << np.uint64(32)) | np.uint64(words[used])
                used += 1
            heads[lane] = head
            symbols[begin + lane] = mine[guess] + lo
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
