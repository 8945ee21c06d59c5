"""The one round trip that every codec must survive."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bbans.ans import HEAD_MIN, Message
from bbans.codecs.core import Codec


def random_message(heads: int | tuple[int, ...], words: int = 0, seed: int = 0) -> Message:
    """A message in the middle of its life: heads log-uniform on [2^31, 2^63), over random words."""
    random = np.random.default_rng(seed)
    shifts = random.integers(0, 32, heads).astype(np.uint64)
    lows = random.integers(HEAD_MIN, 2 * HEAD_MIN, heads, np.uint64) << shifts
    fills = random.integers(0, HEAD_MIN, heads, np.uint64) & ((np.uint64(1) << shifts) - np.uint64(1))
    flat = random.integers(0, 1 << 32, words, np.uint32)
    message = Message.empty(heads)
    message.heads[...] = lows | fills
    message.words.extend(flat)
    return message


def check_codec(
    codec: Codec,
    symbols: Any,
    heads: int | tuple[int, ...],
    *,
    bits: float | None = None,
    rel: float = 1e-3,
    seed: int = 0,
) -> float:
    """Push, pop, and find the symbols and, bit for bit, the message of before. Returns the bits the symbols took.

    bits: what they should take, within `rel` or 0.01 bits a head.
    """
    message = random_message(heads, words=16 * int(np.prod(heads)) + 100, seed=seed)
    start, before = message.flatten(), message.bits()
    codec.push(message, symbols)
    took = message.bits() - before
    assert_same(codec.pop(message), symbols)
    np.testing.assert_array_equal(message.flatten(), start)
    if bits is not None:
        assert took == pytest.approx(bits, rel=rel, abs=0.01 * math.prod(np.atleast_1d(heads)))
    return took


def assert_same(a: Any, b: Any) -> None:
    """Symbols are arrays, or lists and tuples of symbols."""
    if isinstance(b, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        np.testing.assert_array_equal(a, b)
