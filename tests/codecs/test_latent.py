from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbans.ans import Message
from bbans.codecs.latent import MAX_BITS, PRECISION, BinnedPosterior, centres, logistic_edges, prior_codec
from bbans.codecs.tables import SCALES, logistic_cdf, logistic_tables
from bbans.errors import BadFile

from .helpers import check_codec

TABLES, EDGES = logistic_tables(), logistic_edges()
PRIOR = 36 + 8 * 4  # the index of the prior's own scale, which is 16 units
BITS = st.integers(1, MAX_BITS)
SEEDS = st.integers(0, 1 << 30)


def posterior(bits: int, means: np.ndarray | list[int], scales: np.ndarray | list[int]) -> BinnedPosterior:
    return BinnedPosterior(TABLES, EDGES, bits, np.array(means, np.int32), np.array(scales, np.int32))


@st.composite
def posteriors(draw: st.DrawFn) -> BinnedPosterior:
    random = np.random.default_rng(draw(SEEDS))
    n, reach = draw(st.integers(1, 12)), draw(st.sampled_from([600, 1 << 15]))
    return posterior(draw(BITS), random.integers(-reach, reach, n), random.integers(0, SCALES, n))


@given(BITS, st.integers(1, 40), st.integers(1, 9))
def test_the_prior_costs_its_bits(bits: int, count: int, lanes: int) -> None:
    check_codec(prior_codec(bits, count), np.arange(count) % (1 << bits), lanes, bits=bits * count)


@given(BITS)
def test_bins_have_equal_prior_mass_and_their_median_inside(bits: int) -> None:
    middles = centres(bits, EDGES)
    expected = (np.arange(1 << bits) + 0.5) / (1 << bits)
    np.testing.assert_allclose(logistic_cdf(middles / 256), expected, atol=6e-4)


@given(posteriors(), SEEDS)
def test_what_is_popped_can_be_pushed(q: BinnedPosterior, seed: int) -> None:
    starts, freqs = zip(*(q.interval(np.full(len(q), i)) for i in range(1 << q.bits)), strict=True)
    assert (np.array(freqs) >= 0).all() and (np.sum(freqs, 0) == 1 << PRECISION).all()
    np.testing.assert_array_equal(np.cumsum(freqs, 0) - freqs, starts)
    bins = q.locate(np.random.default_rng(seed).integers(0, 1 << PRECISION, len(q)))
    check_codec(q.row_codec(), bins, 5, seed=seed)


@pytest.mark.parametrize("bits", [1, 3, 6, 8])  # at 10 bits a bin is one step of the edges, and costs 0.3 % more
def test_a_posterior_that_is_the_prior_costs_what_the_prior_costs(bits: int) -> None:
    n = 4096
    bins = np.random.default_rng(0).integers(0, 1 << bits, n)
    q = posterior(bits, np.zeros(n, int), np.full(n, PRIOR))
    check_codec(q.row_codec(), bins, 64, bits=bits * n)
    assert -q.log2_prob(bins).sum() == pytest.approx(bits * n, rel=1e-3)


@pytest.mark.parametrize(("mean", "scale"), [(0, PRIOR - 8), (300, PRIOR - 20), (-900, PRIOR - 40), (50, PRIOR + 8)])
def test_a_bin_costs_its_probability(mean: int, scale: int) -> None:
    q = posterior(8, [mean] * 256, [scale] * 256)
    ideal = np.exp2(q.log2_prob(np.arange(256)))
    assert ideal.sum() == pytest.approx(1)
    _, freqs = q.interval(np.arange(256))
    likely = ideal > 2.0**-18
    rounded = freqs[likely] / (1 << PRECISION)
    assert abs(float((ideal[likely] * np.log2(ideal[likely] / rounded)).sum())) < 2e-3


def test_a_bin_without_mass_cannot_be_pushed() -> None:
    q = posterior(8, [0, 0], [PRIOR - 40] * 2)
    with pytest.raises(BadFile, match="no mass"):
        q.row_codec().push(Message.empty(1), np.array([128, 0]))
