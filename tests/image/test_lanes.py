from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bbans.ans import Message
from bbans.codecs.mixture import Mixture
from bbans.codecs.tables import logistic_tables
from bbans.errors import BadFile
from bbans.image.lanes import Schedule, first_lanes, most_lanes

LOGISTIC = logistic_tables()
SEED = 7


def mixture(n: int, scale: int) -> Mixture:
    ones = np.ones((1, n), np.int32)
    return Mixture(LOGISTIC, 4096 * ones.astype(np.uint32), 16 * 128 * ones, scale * ones, 0, 255)


def pushed(dims: int, sizes: list[int], scale: int) -> tuple[Message, Schedule, list[np.ndarray]]:
    message, schedule, random = Message.empty(first_lanes(dims), seed=SEED), Schedule(dims), np.random.default_rng(0)
    rows = [random.integers(120, 137, n) for n in sizes]
    for x in rows:
        schedule.push(message, mixture(len(x), scale), x)
    return message, schedule, rows


def test_lanes_follow_the_size() -> None:
    assert [(first_lanes(d), most_lanes(d)) for d in (3, 1 << 14, 768 * 512 * 3, 1 << 24)] == [
        (1, 1),
        (1, 64),
        (64, 4096),
        (64, 4096),
    ]


@settings(max_examples=30)
@given(
    st.integers(1 << 10, 1 << 18), st.lists(st.integers(0, 1000), min_size=1, max_size=3), st.sampled_from([0, 36, 60])
)
def test_the_counts_are_all_a_decoder_needs(dims: int, sizes: list[int], scale: int) -> None:
    message, schedule, rows = pushed(dims, sizes, scale)
    assert len(message.heads) == schedule.lanes
    received = Schedule(dims, list(schedule.counts))
    parts = received.parts(sizes)
    for x, part in zip(reversed(rows), reversed(parts), strict=True):
        np.testing.assert_array_equal(received.pop(message, mixture(len(x), scale), part), x)
    message.resize(received.first)
    assert message.is_initial(SEED)


def test_the_lanes_of_a_picture_grow_and_those_of_a_flat_one_do_not() -> None:
    dims = 1 << 18
    assert pushed(dims, [1 << 15], 44)[1].lanes == most_lanes(dims) == 1024
    message, schedule = Message.empty(first_lanes(dims)), Schedule(dims)
    schedule.push(message, mixture(1 << 15, 0), np.full(1 << 15, 128))
    assert schedule.lanes == first_lanes(dims) and not schedule.counts


def test_growing_costs_no_bits() -> None:
    dims, n = 1 << 18, 1 << 15
    message, _, (x,) = pushed(dims, [n], 44)
    assert message.words.padding == 0
    message.resize(first_lanes(dims))
    _, freqs = mixture(n, 44).interval(x)
    ideal = 24 * n - np.log2(freqs).sum()
    assert message.bits() - 31 * first_lanes(dims) == pytest.approx(ideal, rel=1e-3)


@pytest.mark.parametrize("counts", [[0], [1, 0], [1, 100], [1] * 3])
def test_counts_that_cannot_be_are_refused(counts: list[int]) -> None:
    with pytest.raises(BadFile, match="schedule"):
        Schedule(1 << 10, counts).parts([64])
