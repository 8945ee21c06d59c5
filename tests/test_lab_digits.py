"""The laboratory: what a normal's noise costs in real bits."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.lab.digits import coded_normals


@pytest.mark.parametrize("sigma", [2.0, 25.5])
def test_noise_costs_its_entropy(sigma: float) -> None:
    random = np.random.default_rng(0)
    means = random.uniform(118, 138, 20_000)
    x = np.rint(means + sigma * random.standard_normal(20_000)).clip(0, 255)
    bits = coded_normals(x, means, sigma) / len(x)
    assert bits == pytest.approx(math.log2(sigma * math.sqrt(2 * math.pi * math.e)), abs=0.03)
