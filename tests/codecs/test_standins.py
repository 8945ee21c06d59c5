from __future__ import annotations

import numpy as np
import pytest

from bbans.ans import Message
from bbans.codecs.core import Codec, autoregressive, dependent, from_intervals, over_lanes, serial, substack
from bbans.codecs.discrete import bernoulli, categorical, quantise, uniform
from bbans.codecs.logarithms import UNIT
from bbans.codecs.standins import Given, Recorder, Ruler
from bbans.errors import BadFile

from .helpers import assert_same, random_message

COUNT, PRECISION = 11, 14
RANDOM = np.random.default_rng(0)
TABLE = quantise(RANDOM.integers(1, 1000, (COUNT, 6)), PRECISION)
ODD = np.array([1, 3, 7, 1000, 2, 5, 9, 11, 12, 600, 77])

CODECS: dict[str, Codec] = {
    "categorical": over_lanes(lambda part: categorical(TABLE[part], PRECISION), COUNT),
    "any total": over_lanes(lambda part: uniform(ODD[part]), COUNT),
    "serial": serial([over_lanes(lambda part: categorical(TABLE[part], PRECISION), COUNT), uniform(3)]),
    "dependent": dependent(substack(uniform(5), np.s_[:1]), lambda a: bernoulli(1 + 7 * a[0], 6)),
    "autoregressive": autoregressive(lambda earlier: uniform(2 + sum(earlier)), 4),
}


def drawn(codec: Codec, heads: int, seed: int) -> object:
    return codec.pop(random_message(heads, words=400, seed=seed))


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("heads", [1, 4, 30])
def test_a_ruler_measures_what_a_message_takes(name: str, heads: int) -> None:
    codec = CODECS[name]
    symbols = drawn(codec, heads, seed=1)
    message, ruler = random_message(heads, words=10), Ruler(heads)
    before = message.bits()
    codec.push(message, symbols)
    codec.push(ruler, symbols)
    assert ruler.length / UNIT == pytest.approx(message.bits() - before, abs=0.02)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("heads", [1, 4, 30])
@pytest.mark.parametrize("bits", [16, 24])
def test_numbers_that_are_given_find_the_symbols_whose_intervals_a_recorder_tells(
    name: str, heads: int, bits: int
) -> None:
    codec = CODECS[name]
    given = Given(heads, RANDOM.integers(0, 1 << bits, 200), bits)
    symbols = codec.pop(given)
    recorder = Recorder(heads, bits)
    codec.push(recorder, symbols)
    np.testing.assert_array_equal(recorder.starts, given.starts)
    np.testing.assert_array_equal(recorder.freqs, given.freqs)
    used = given.row[: len(given.starts)]
    assert ((given.starts <= used) & (used < given.starts + given.freqs)).all()
    for edge in (given.starts, given.starts + given.freqs - 1):  # the intervals are no wider and no narrower
        assert_same(codec.pop(Given(heads, edge, bits)), symbols)
    ruler = Ruler(heads)
    codec.push(ruler, symbols)
    assert given.length == pytest.approx(ruler.length, abs=0.5 * UNIT)


def test_given_numbers_do_what_a_message_does() -> None:
    message = random_message(COUNT, words=9)
    row = (message.heads & np.uint64((1 << PRECISION) - 1)).astype(np.int64)
    codec = categorical(TABLE, PRECISION)
    np.testing.assert_array_equal(codec.pop(Given(COUNT, row, PRECISION)), codec.pop(message))


def test_lanes_do_not_matter_to_a_row() -> None:
    codec, row = CODECS["categorical"], RANDOM.integers(0, 1 << 20, COUNT)
    found = [codec.pop(Given(heads, row, 20)) for heads in (1, 3, 1 << 30)]
    assert all(np.array_equal(found[0], other) for other in found)


def test_popping_what_was_not_pushed_is_deterministic_and_counts() -> None:
    """As a prior does that takes bits back itself."""
    ruler, recorder = Ruler(3), Recorder(3, 16)
    np.testing.assert_array_equal(uniform(9).pop(ruler), [4, 4, 4])
    uniform(9).push(ruler, np.arange(3))
    assert ruler.length == 0
    np.testing.assert_array_equal(uniform(9).pop(recorder), [4, 4, 4])
    assert len(recorder.starts) == 3


def test_a_symbol_without_mass_is_damage() -> None:
    """It can't have been popped."""
    nothing = from_intervals(lambda x: (x, 0 * x), lambda cf: cf, 8)
    with pytest.raises(BadFile, match="no mass"):
        nothing.push(Ruler(2), np.array([1, 2]))
    coarse = Recorder(1, 4)
    categorical(quantise([1, 1000], 10), 10).push(coarse, np.array([0]))
    assert coarse.starts == [0]
    categorical(quantise([300, 1, 1699], 10), 10).push(coarse, np.array([1]))
    with pytest.raises(BadFile, match="no mass"):
        _ = coarse.freqs


def test_stand_ins_have_the_lanes_of_a_message() -> None:
    message, ruler = Message.empty((3, 4)), Ruler((3, 4))
    assert ruler.heads.shape == message.heads.shape
    assert ruler.lanes(np.s_[:2]).heads.shape == message.lanes(np.s_[:2]).heads.shape
