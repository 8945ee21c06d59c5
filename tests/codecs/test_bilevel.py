from __future__ import annotations

import numpy as np
import pytest

from bbans.codecs.bilevel import PRECISION, Bernoullis
from bbans.codecs.tables import ScaleTables, logistic_tables

from .helpers import check_codec, random_message


@pytest.fixture(scope="module")
def tables() -> ScaleTables:
    return logistic_tables()


def drawn(tables: ScaleTables, n: int, spread: float) -> tuple[Bernoullis, np.ndarray]:
    random = np.random.default_rng(n)
    logits = np.rint(16 * spread * random.standard_normal(n)).astype(np.int32)
    return Bernoullis(tables, logits), (random.logistic(size=n) < logits / 16).astype(np.int64)


@pytest.mark.parametrize("spread", [0.1, 3.0, 300.0])
@pytest.mark.parametrize(("n", "heads"), [(1, 1), (7, 3), (1000, 64)])
def test_round_trip(tables: ScaleTables, n: int, heads: int, spread: float) -> None:
    codec, x = drawn(tables, n, spread)
    check_codec(codec.row_codec(), x, heads)


def test_the_rate_is_the_entropy(tables: ScaleTables) -> None:
    codec, x = drawn(tables, 20_000, 2.0)
    check_codec(codec.row_codec(), x, 16, bits=-codec.log2_prob(x).sum(), rel=1e-4)


@pytest.mark.parametrize("logit", [-(1 << 14), -400, -233, -16, 0, 3, 250, 1 << 14])
def test_what_is_counted_is_what_is_coded(tables: ScaleTables, logit: int) -> None:
    codec = Bernoullis(tables, np.array([logit], np.int32))
    counted = np.exp2([codec.log2_prob(np.array([x]))[0] for x in (0, 1)])
    assert counted.sum() == pytest.approx(1, abs=1e-12)
    coded = codec.freqs[0] / (1 << PRECISION)
    assert 0 < coded < 1 and counted[1] == pytest.approx(coded, abs=3e-6)
    if abs(logit) >= 400:  # both are at the floor: an improbable pixel costs 24 bits, and a probable one nothing
        assert min(counted) == pytest.approx(2.0**-PRECISION, rel=0.01) and min(coded, 1 - coded) == 2.0**-PRECISION


def test_the_mean_is_the_probability_of_1(tables: ScaleTables) -> None:
    codec = Bernoullis(tables, np.array([-(1 << 14), 0, 16, 1 << 14], np.int32))
    wanted = [2.0**-PRECISION, 0.5, 1 / (1 + np.exp(-1)), 1 - 2.0**-PRECISION]
    np.testing.assert_allclose(codec.mean(), wanted, atol=1e-5)


def test_parts_are_the_whole(tables: ScaleTables) -> None:
    codec, x = drawn(tables, 50, 2.0)
    whole, parts = random_message(50, words=50), random_message(50, words=50)
    codec.row_codec().push(whole, x)
    codec[20:].row_codec().push(parts.lanes(np.s_[20:]), x[20:])
    codec[:20].row_codec().push(parts.lanes(np.s_[:20]), x[:20])
    assert whole.bits() == pytest.approx(parts.bits())
