from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bbans.codecs.discrete import bernoulli, beta_binomial, categorical, quantise, uniform

from .helpers import check_codec

SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, max_side=4)
SEEDS = st.integers(0, 1 << 30)


@given(SHAPES, st.integers(1, 1 << 31), SEEDS)
def test_uniform_costs_the_log_of_its_total(shape: tuple[int, ...], total: int, seed: int) -> None:
    x = np.random.default_rng(seed).integers(0, total, shape)
    # a head holds few units of a large total: up to 1 bit is lost at 2^31 - 1
    bits = None if total > 1 << 24 else x.size * math.log2(total)
    check_codec(uniform(total), x, shape, bits=bits, seed=seed)


def test_uniform_takes_a_total_for_each_head() -> None:
    check_codec(uniform([1, 2, 7]), np.array([0, 1, 6]), 3, bits=np.log2(14))


@given(SHAPES, st.integers(1, 24), SEEDS)
def test_bernoulli_costs_the_log_of_its_frequency(shape: tuple[int, ...], precision: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    one = random.integers(1, 1 << precision, shape)
    x = random.integers(0, 2, shape)
    p = np.where(x, one, (1 << precision) - one) / (1 << precision)
    check_codec(bernoulli(one, precision), x, shape, bits=-np.log2(p).sum(), seed=seed)


@given(SHAPES, st.integers(1, 300), st.integers(9, 24), SEEDS)
def test_quantised_weights_make_a_categorical(shape: tuple[int, ...], size: int, precision: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    weights = random.integers(0, 1 << random.integers(1, 20), (*shape, size)) + 1
    freqs = quantise(weights, precision)
    assert (freqs >= 1).all() and (freqs.sum(-1) == 1 << precision).all()
    x = random.integers(0, size, shape)
    p = np.take_along_axis(freqs, x[..., None], -1) / (1 << precision)
    check_codec(categorical(freqs, precision), x, shape, bits=-np.log2(p).sum(), seed=seed)


def test_quantise_follows_the_weights_and_forgets_no_symbol() -> None:
    assert quantise([1, 0, 3], 16).tolist() == [16384, 1, 49151]
    assert quantise([0, 1, 0, 0], 3).tolist() == [1, 5, 1, 1]
    assert quantise([7], 8).tolist() == [256]


def test_one_distribution_may_serve_all_heads() -> None:
    check_codec(categorical([1, 2, 5], 3), np.array([[0, 1], [2, 2]]), (2, 2), bits=3 + 2 + 2 * np.log2(8 / 5))


@given(st.integers(0, 255), st.integers(1, 1 << 16), st.integers(1, 1 << 16), SEEDS)
def test_beta_binomial_costs_its_probability(n: int, alpha: int, beta: int, seed: int) -> None:
    x = np.random.default_rng(seed).integers(0, n + 1, 3)
    a, b = alpha / 256, beta / 256

    def log_beta(p: float, q: float) -> float:
        return math.lgamma(p) + math.lgamma(q) - math.lgamma(p + q)

    log_p = [math.log(math.comb(n, k)) + log_beta(k + a, n - k + b) - log_beta(a, b) for k in x]
    took = check_codec(beta_binomial(n, alpha, beta, 24), x, 3, seed=seed)
    if min(log_p) > math.log(2.0**-14):  # where frequencies are no longer rounded to few units
        assert took == pytest.approx(-sum(log_p) / math.log(2), rel=0.01, abs=0.03)


def test_beta_binomial_takes_parameters_for_each_head() -> None:
    flat = 256  # alpha = beta = 1 is uniform
    codec = beta_binomial(3, np.array([flat, flat, 1]), np.array([flat, flat, 1 << 20]), 16)
    check_codec(codec, np.array([0, 3, 0]), 3, bits=4)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: bernoulli(0, 8), "at least 1"),
        (lambda: bernoulli([3, 256], 8), "at least 1"),
        (lambda: quantise([1, -1], 8), "non-negative"),
        (lambda: quantise([0, 0], 8), "not all 0"),
        (lambda: quantise([1] * 256, 8), "fit the precision"),
        (lambda: quantise([1 << 60, 1], 8), "fit the precision"),
        (lambda: categorical([1, 2], 2), "sum to"),
        (lambda: categorical([4, 0], 2), "positive"),
        (lambda: beta_binomial(2, 0, 1, 16), "positive"),
    ],
)
def test_impossible_parameters_are_refused(make: object, why: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=why):
        make()
