from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bbans.codecs.logarithms import ONE_BITS, UNIT, _logarithms, _powers, exp2, log2


def test_tables_are_floors() -> None:
    """By their definitions: 2^L <= (1 + j/256)^4096 < 2^(L + 1), and E^256 <= 2^(6144 - j) < (E + 1)^256."""
    for j in (1, 2, 77, 128, 255):
        power, low = Fraction(256 + j, 256) ** UNIT, int(_logarithms()[j])
        assert 2**low <= power < 2 ** (low + 1)
        root = int(_powers()[j])
        assert root**256 <= 2 ** (256 * ONE_BITS - j) < (root + 1) ** 256
    assert (_logarithms()[[0, -1]] == [0, UNIT]).all()
    assert (_powers()[[0, -1]] == [1 << ONE_BITS, 1 << (ONE_BITS - 1)]).all()


@given(st.integers(1, 1 << 31))
def test_log2_is_near(n: int) -> None:
    assert abs(int(log2(n)) - UNIT * math.log2(n)) < 2


def test_log2_of_powers_of_two_is_exact() -> None:
    np.testing.assert_array_equal(log2(1 << np.arange(32)), UNIT * np.arange(32))


@given(st.integers(0, 40 * UNIT))
def test_exp2_is_near(minus: int) -> None:
    exact = 2.0 ** (ONE_BITS - minus / UNIT)
    assert abs(int(exp2(minus)) - exact) < 1 + 1e-5 * exact


def test_exp2_of_anything_is_0_at_last() -> None:
    assert exp2(0) == 1 << ONE_BITS
    assert not exp2(np.array([(ONE_BITS + 1) * UNIT, 1 << 40])).any()


def test_the_tables_are_part_of_the_format() -> None:
    assert log2([3, 5, 1000, 12345678]).tolist() == [6492, 9510, 40819, 96491]
    assert exp2([1, 100, 2048, 50000]).tolist() == [16774380, 16495702, 11863283, 3548]
