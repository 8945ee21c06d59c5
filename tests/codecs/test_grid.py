from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbans.ans import Message
from bbans.codecs.grid import PRECISION, GridNormals, normal_cdf
from bbans.codecs.tables import SCALES, normal_tables
from bbans.errors import BadFile

from .helpers import check_codec, random_message

TABLES = normal_tables()
WHOLE = 1 << PRECISION
ONE = 76  # the index of the scale 2^9 in 1/16 units, which is that of a standard normal latent
SEEDS = st.integers(0, 1 << 30)
LATENTS = {"first": -4096, "step": 2, "count": 4096}  # -8..8 in 2^-9, by 2^-8
BYTES = {"first": 0, "step": 16, "count": 256}
DEEP = {"first": 0, "step": 1, "count": 4096}
FEW = {"first": -4096, "step": 4096, "count": 2}


def grid(means: list[int], scales: list[int], floor: int = 0, **bins: int) -> GridNormals:
    return GridNormals(TABLES, np.array(means, np.int32), np.array(scales, np.int32), floor=floor, **bins)


@st.composite
def grids(draw: st.DrawFn) -> GridNormals:
    random = np.random.default_rng(draw(SEEDS))
    n, reach = draw(st.integers(1, 12)), draw(st.sampled_from([300, 5000, 1 << 23]))
    bins = draw(st.sampled_from([LATENTS, BYTES, DEEP, FEW, {**BYTES, "count": 1}]))
    means, scales = random.integers(-reach, reach, n), random.integers(0, SCALES, n)
    return grid(list(means), list(scales), draw(st.sampled_from([0, 1])), **bins)


def all_freqs(q: GridNormals) -> tuple[np.ndarray, np.ndarray]:
    """Starts and freqs [count, n]."""
    edges = q.cdf(np.arange(q.count + 1)[:, None].repeat(len(q), 1))
    return edges[:-1], np.diff(edges, axis=0)


@given(grids())
def test_masses_are_the_whole(q: GridNormals) -> None:
    starts, freqs = all_freqs(q)
    assert (freqs >= q.floor).all() and (freqs.sum(0) == WHOLE).all() and not starts[0].any()


@given(grids(), SEEDS)
def test_what_is_popped_can_be_pushed(q: GridNormals, seed: int) -> None:
    cf = np.random.default_rng(seed).integers(0, WHOLE, len(q))
    cf[:1] = [0, WHOLE - 1][seed % 2]
    bins = q.locate(cf)
    starts, freqs = q.interval(bins)
    assert ((starts <= cf) & (cf < starts + freqs)).all()
    check_codec(q.row_codec(), bins, 5, bits=-np.log2(freqs / WHOLE).sum() if freqs.min() > 1000 else None, seed=seed)


@pytest.mark.parametrize("bins", [LATENTS, BYTES, DEEP], ids=["latents", "bytes", "deep"])
@pytest.mark.parametrize("floor", [0, 1])
@pytest.mark.parametrize(("mean", "scale"), [(0, ONE), (300, ONE - 24), (2000, ONE - 8), (4100, ONE - 4), (-90, ONE)])
def test_a_bin_costs_its_probability(bins: dict[str, int], floor: int, mean: int, scale: int) -> None:
    q = grid([mean] * bins["count"], [scale] * bins["count"], floor, **bins)
    every = np.arange(q.count)
    ideal, (_, freqs) = np.exp2(q.log2_prob(every)), q.interval(every)
    assert ideal.sum() == pytest.approx(1, abs=1e-4)
    likely = ideal > 2.0**-18
    excess = (ideal[likely] * np.log2(ideal[likely] / (freqs[likely] / WHOLE))).sum()
    assert likely.sum() > 2 and abs(float(excess)) < 2e-3


def test_masses_are_those_of_the_normal() -> None:
    """Against the mathematics, and not only against itself: but for lines between points 1/16 of a scale apart."""
    q = grid([300] * 256, [ONE - 16] * 256, 0, first=-4096, step=32, count=256)
    edges = (np.arange(1, 256) * 32 - 4096 - 300) / 2**7
    below = np.array([0.5 * math.erfc(-t / math.sqrt(2)) for t in edges])
    np.testing.assert_allclose(np.cumsum(q.interval(np.arange(256))[1])[:-1] / WHOLE, below, atol=1.25e-4)


@pytest.mark.parametrize("floor", [0, 1])
def test_the_ends_are_open(floor: int) -> None:
    q = grid([-(1 << 20), 1 << 20, -(1 << 20), 1 << 20], [ONE] * 4, floor, **BYTES)
    first, last = np.zeros(4, int), np.full(4, 255)
    rest = 255 * floor
    assert q.interval(first)[1].tolist() == [WHOLE - rest, floor, WHOLE - rest, floor]
    assert q.interval(last)[1].tolist() == [floor, WHOLE - rest, floor, WHOLE - rest]
    counted = np.exp2(q.log2_prob(np.array([0, 255, 255, 0])))
    assert counted.tolist() == pytest.approx([1, 1, 2.0**-24, 2.0**-24], abs=1e-4)


def test_tables_that_end_below_the_whole_leave_the_last_bin_nothing() -> None:
    """They end at 2^20 - 64, and what they lack is no mass of the last bin."""
    q = grid([0] * SCALES, list(range(SCALES)), 0, first=-(1 << 16), step=32, count=4096)
    assert not q.interval(np.full(SCALES, 4095))[1].any() and not q.interval(np.zeros(SCALES, int))[1].any()
    with pytest.raises(BadFile, match="no mass"):
        q.row_codec().push(Message.empty(1), np.full(SCALES, 4095))


def test_with_a_floor_everything_can_be_pushed() -> None:
    q = grid([0] * 2, [ONE - 40] * 2, 1, **LATENTS)
    check_codec(q.row_codec(), np.array([0, 4095]), 2, bits=2 * PRECISION, rel=1e-2)
    with pytest.raises(BadFile, match="no mass"):
        replace(q, floor=0).row_codec().push(Message.empty(1), np.array([2048, 0]))


def test_a_standard_normal_of_fine_bins_costs_its_density() -> None:
    z = np.random.default_rng(0).standard_normal(4000)
    bins = np.clip(np.floor(z * 256), -2048, 2047).astype(int) + 2048
    q = grid([0] * len(z), [ONE] * len(z), 1, **LATENTS)
    bits = (0.5 * z**2 + 0.5 * math.log(2 * math.pi)).sum() / math.log(2) + 8 * len(z)
    check_codec(q.row_codec(), bins, 64, bits=bits)


def test_parts_are_the_whole() -> None:
    random = np.random.default_rng(0)
    q = grid(list(random.integers(-900, 900, 50)), list(random.integers(60, 80, 50)), 1, **LATENTS)
    bins = q.locate(random.integers(0, WHOLE, 50))
    whole, parts = random_message(50, words=50), random_message(50, words=50)
    q.row_codec().push(whole, bins)
    q[20:].row_codec().push(parts.lanes(np.s_[20:]), bins[20:])
    q[:20].row_codec().push(parts.lanes(np.s_[:20]), bins[:20])
    assert whole.bits() == pytest.approx(parts.bits())


def test_the_cdf_for_accounting() -> None:
    t = np.concatenate([np.linspace(-37, 8, 2001), [-np.inf, 0.0, np.inf]])
    expected = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in t])
    np.testing.assert_allclose(normal_cdf(t), expected, rtol=1.3e-7, atol=1e-300)
