from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bbans.codecs.mixture as mixture_module
from bbans.codecs.mixture import MAX_SYMBOLS, PRECISION, WEIGHT_BITS, Mixture, _Cdf
from bbans.codecs.tables import SCALES, UNIT, ScaleTables, logistic_tables, normal_tables

from .helpers import check_codec

LOGISTIC, NORMAL = logistic_tables(), normal_tables()
WHOLE = 1 << WEIGHT_BITS
RANGES = st.sampled_from([(0, 255), (-255, 255), (0, 0), (0, 1), (-3, MAX_SYMBOLS - 4)])
SEEDS = st.integers(0, 1 << 30)


def make(weights: list[int], means: list[float], scales: list[int], n: int = 1, lo: int = 0, hi: int = 255) -> Mixture:
    """The same mixture n times, its means in units."""
    return Mixture(
        LOGISTIC,
        np.repeat(np.array(weights, np.uint32)[:, None], n, 1),
        np.repeat(np.rint(np.array(means) * UNIT).astype(np.int32)[:, None], n, 1),
        np.repeat(np.array(scales, np.int32)[:, None], n, 1),
        lo,
        hi,
    )


@st.composite
def mixtures(draw: st.DrawFn) -> Mixture:
    """Any mixtures that are allowed: the ends of the scales, far-out means, weights that are 0 or add up to little."""
    lo, hi = draw(RANGES)
    k, n = draw(st.integers(1, 5)), draw(st.integers(1, 20))
    random = np.random.default_rng(draw(SEEDS))
    weights = random.integers(0, WHOLE // k + 1, (k, n), np.uint32) * random.integers(0, 2, (k, n), np.uint32)
    weights[0] += weights.sum(0) == 0
    reach = draw(st.sampled_from([300 * UNIT, 1 << 20]))
    means = random.integers(-reach, reach + 1, (k, n)).astype(np.int32)
    scales = random.choice([0, 1, 36, 60, SCALES - 1], (k, n)).astype(np.int32)
    tables = draw(st.sampled_from([LOGISTIC, NORMAL]))
    return Mixture(tables, weights, means, scales, lo, hi)


def frequencies(mixture: Mixture) -> np.ndarray:
    """[symbols, n]; checks that the intervals lie end to end."""
    symbols, n = np.arange(mixture.lo, mixture.hi + 1), len(mixture)
    columns = [np.tile(a, (1, len(symbols))) for a in (mixture.weights, mixture.means, mixture.scales)]
    intervals = Mixture(mixture.tables, *columns, mixture.lo, mixture.hi).interval(np.repeat(symbols, n))
    starts, freqs = (a.reshape(-1, n) for a in intervals)
    np.testing.assert_array_equal(np.cumsum(freqs, 0) - freqs, starts)
    return freqs


@given(mixtures(), SEEDS)
def test_any_parameters_any_symbols(mixture: Mixture, seed: int) -> None:
    freqs = frequencies(mixture)
    assert (freqs >= 1).all() and (freqs.sum(0) == 1 << PRECISION).all()
    random = np.random.default_rng(seed)
    n = len(mixture)
    for x in (np.full(n, mixture.lo), np.full(n, mixture.hi), random.integers(mixture.lo, mixture.hi + 1, n)):
        bits = PRECISION * n - np.log2(freqs[x - mixture.lo, np.arange(n)]).sum()
        check_codec(mixture.codec(), x, n, bits=bits, seed=seed)


@given(mixtures(), SEEDS)
def test_every_integer_belongs_to_one_symbol(mixture: Mixture, seed: int) -> None:
    cf = np.random.default_rng(seed).integers(0, 1 << PRECISION, len(mixture))
    x, starts, freqs = mixture.locate(cf)
    assert all(np.array_equal(a, b) for a, b in zip(mixture.interval(x), (starts, freqs), strict=True))
    assert ((starts <= cf) & (cf < starts + freqs)).all()


def plausible(tables: ScaleTables, lo: int = 0, n: int = 20_000) -> Mixture:
    """Mixtures such as a network puts out, of five components."""
    random = np.random.default_rng(1)
    weights = (random.dirichlet(np.full(5, 0.7), n).T * (WHOLE - 1)).astype(np.uint32)
    weights[0] += 1
    means = random.integers(lo * UNIT, 256 * UNIT, n) + random.normal(0, 2 * UNIT, (5, n))
    scales = random.integers(4, 84, n) + random.integers(-4, 12, (5, n))
    return Mixture(tables, np.ascontiguousarray(weights), means.astype(np.int32), scales.astype(np.int32), lo, 255)


@pytest.mark.parametrize("lo", [0, -255])
def test_guesses_are_nearly_always_right(lo: int) -> None:
    mixture = plausible(LOGISTIC, lo)
    cf = np.random.default_rng(0).integers(0, 1 << PRECISION, len(mixture), np.int32)
    x, _, _ = mixture.locate(cf)
    assert np.count_nonzero(_Cdf(mixture).near(cf) + lo != x) <= 1e-3 * len(mixture)


@pytest.mark.parametrize("tables", [LOGISTIC, NORMAL])
@pytest.mark.parametrize("part", ["near", "_secant"])
def test_what_is_popped_does_not_depend_on_the_guess(
    tables: ScaleTables, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the guess is in real numbers, which differ from machine to machine."""
    mixture, random = plausible(tables, -255), np.random.default_rng(2)
    cf = random.integers(0, 1 << PRECISION, len(mixture))
    found = mixture.locate(cf)

    def anything(*arguments: np.ndarray) -> np.ndarray:
        return random.integers(0, 511, len(arguments[1]), np.int32)

    owner = _Cdf if part == "near" else mixture_module
    monkeypatch.setattr(owner, part, anything)
    np.testing.assert_array_equal(mixture.locate(cf), found)


EXTREMES = np.array([0, 1, 2, (1 << PRECISION) // 2, (1 << PRECISION) - 2, (1 << PRECISION) - 1])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("lo", [0, -255])
@pytest.mark.parametrize(
    ("weights", "means", "scales"),
    [
        ([WHOLE], [128], [0]),  # a spike
        ([WHOLE], [128], [SCALES - 1]),  # nearly uniform
        ([WHOLE // 2] * 2, [0, 255], [0, 0]),  # far apart, with nothing between
        ([WHOLE - 1, 1], [128, 128], [0, SCALES - 1]),
        ([0, WHOLE, 0], [128, 3, 7], [40, 10, 90]),  # weights of 0
        ([1], [128], [30]),  # nearly everything is left over, and goes to hi
        ([WHOLE], [-(1 << 16)], [36]),  # far out
        ([WHOLE], [(1 << 16) - 1], [36]),
    ],
)
def test_extreme_mixtures(weights: list[int], means: list[float], scales: list[int], lo: int) -> None:
    random = np.random.default_rng(3)
    cf = np.concatenate([EXTREMES, random.integers(0, 1 << PRECISION, 500)])
    mixture = make(weights, means, scales, len(cf), lo=lo)
    x, starts, freqs = mixture.locate(cf)
    assert ((mixture.lo <= x) & (x <= mixture.hi)).all()
    assert ((starts <= cf) & (cf < starts + freqs)).all()
    assert all(np.array_equal(a, b) for a, b in zip(mixture.interval(x), (starts, freqs), strict=True))
    beyond = np.clip(np.stack([starts - 1, starts + freqs]), 0, (1 << PRECISION) - 1)  # the neighbours' ends
    for cf in beyond:
        x, starts, freqs = mixture.locate(cf)
        assert ((starts <= cf) & (cf < starts + freqs)).all()


@pytest.mark.parametrize(
    ("weights", "means", "scales"),
    [([WHOLE], [100.3], [30]), ([WHOLE // 2] * 2, [20, 200], [12, 44]), ([4000, 90, 6], [128, 130, 90], [36, 52, 70])],
)
def test_a_symbol_costs_its_probability(weights: list[int], means: list[float], scales: list[int]) -> None:
    mixture = make(weights, means, scales, 256)
    x = np.arange(256)
    ideal = np.exp2(mixture.log2_prob(x))
    assert ideal.sum() == pytest.approx(1, abs=1e-9)
    rounded = np.diag(frequencies(mixture)) / (1 << PRECISION)
    loss = float((ideal * np.log2(ideal / rounded)).sum())  # bits a symbol
    assert abs(loss) < 1e-3
    assert check_codec(mixture.codec(), x, 256) == pytest.approx(-np.log2(rounded).sum(), abs=0.1)


def test_a_symbol_of_tiny_probability_costs_what_the_floor_costs() -> None:
    assert check_codec(make([WHOLE], [0], [0]).codec(), np.array([254]), 1) == pytest.approx(PRECISION, abs=0.1)


def test_the_ends_take_what_lies_beyond() -> None:
    check_codec(make([WHOLE], [-1000], [20]).codec(), np.array([0]), 1, bits=0)
    check_codec(make([WHOLE], [1000], [20]).codec(), np.array([255]), 1, bits=0)


@pytest.mark.parametrize("mean", [-1e4, 0, 255.5, 1e4])
def test_log2_prob_has_the_floor_of_the_frequencies_and_is_normalised(mean: float) -> None:
    mixture = make([WHOLE - 1, 1], [mean, mean], [0, SCALES - 1], 256)
    log2_p = mixture.log2_prob(np.arange(256))
    assert (log2_p >= -PRECISION).all() and np.exp2(log2_p).sum() == pytest.approx(1, abs=1e-9)


@given(mixtures())
def test_means_are_those_of_what_is_coded(mixture: Mixture) -> None:
    symbols = np.arange(mixture.lo, mixture.hi + 1)
    np.testing.assert_array_equal(mixture.mean(), symbols @ frequencies(mixture) / (1 << PRECISION))


def test_more_symbols_than_a_block() -> None:
    mixture = make([WHOLE], [3], [44], 5000, lo=-255)
    check_codec(mixture.codec(), np.random.default_rng(0).integers(-5, 10, 5000), 5000)


@given(st.integers(0, 60), st.integers(1, 33))
def test_a_row_of_any_length_over_any_lanes(n: int, lanes: int) -> None:
    mixture = make([WHOLE // 3] * 3, [10, 11, 30], [30, 40, 50], n)
    check_codec(mixture.row_codec(), np.arange(n) % 40, lanes)
