from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbans.ans import Message
from bbans.codecs.core import Codec, autoregressive, dependent, from_intervals, over_lanes, repeat, serial, substack
from bbans.codecs.discrete import uniform

from .helpers import assert_same, check_codec, random_message

STARTS, FREQS = np.array([0, 1, 4]), np.array([1, 3, 4])  # three symbols out of 2^3


def thirds() -> Codec:
    return from_intervals(
        lambda x: (STARTS[x], FREQS[x]), lambda cf: np.searchsorted(STARTS, cf, side="right") - 1, precision=3
    )


def test_a_codec_from_its_intervals_costs_its_information() -> None:
    check_codec(thirds(), np.array([0, 1, 2]), 3, bits=3 + np.log2(8 / 3) + 1)


def test_serial_pops_in_order() -> None:
    codecs, symbols = [uniform(8), uniform(3), uniform(1 << 20)], [np.array([7]), np.array([2]), np.array([99])]
    check_codec(serial(codecs), symbols, 1, bits=3 + np.log2(3) + 20)
    message = Message.empty(1)
    serial(codecs).push(message, symbols)
    assert_same([codec.pop(message) for codec in codecs], symbols)


def test_serial_wants_one_symbol_for_each_codec() -> None:
    with pytest.raises(ValueError):
        serial([uniform(2)]).push(Message.empty(1), [np.array([0]), np.array([1])])


def test_repeat_is_the_same_codec_in_series() -> None:
    check_codec(repeat(uniform(10), 3), [np.array([i, 9 - i]) for i in range(3)], 2, bits=6 * np.log2(10))


def test_substack_leaves_the_other_lanes_alone() -> None:
    codec = substack(uniform(1 << 30), np.s_[2:4])
    check_codec(codec, np.array([5, 6]), 5, bits=60)
    message = random_message(5)
    before = message.heads.copy()
    codec.push(message, np.array([5, 6]))
    assert (message.heads != before).tolist() == [False, False, True, True, False]


def test_dependent_knows_the_first_symbol() -> None:
    codec = dependent(uniform(4), lambda a: uniform(a + 1))
    check_codec(codec, (np.array([0, 3]), np.array([0, 2])), 2, bits=2 + 2 + 0 + 2)


def test_autoregressive_knows_all_earlier_symbols() -> None:
    codec = autoregressive(lambda earlier: uniform(2 + sum(int(x[0]) for x in earlier)), 4)
    check_codec(codec, [np.array([x]) for x in (1, 2, 4, 8)], 1, bits=np.log2(2 * 3 * 5 * 9))
    check_codec(autoregressive(lambda earlier: uniform(2), 0), [], 1, bits=0)


@given(st.integers(0, 50), st.integers(1, 20))
def test_over_lanes_takes_a_row_of_any_length(count: int, lanes: int) -> None:
    totals = np.arange(1, count + 1)
    codec = over_lanes(lambda part: uniform(totals[part]), count)
    check_codec(codec, totals // 2, lanes, bits=np.log2(totals).sum())
