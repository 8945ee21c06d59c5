"""E[x] of the likelihoods of `dense`, against the sum over all values that a sample can have."""

from __future__ import annotations

import pytest
import torch

from bbans.vae.dense import DenseConfig, DenseVAE
from bbans.vae.objectives import dense_mean, dense_nll


@pytest.mark.parametrize(
    "config",
    [
        DenseConfig(2, 3, 1, likelihood="bernoulli"),
        DenseConfig(2, 3, likelihood="normal"),
        DenseConfig(2, 3, likelihood="normal", scale=0.1),
        DenseConfig(2, 3, 12, likelihood="normal"),
        DenseConfig(2, 3, mixtures=3),
    ],
    ids=lambda config: f"{config.likelihood}-{config.depth}",
)
def test_the_mean_is_that_of_the_masses(config: DenseConfig) -> None:
    model = DenseVAE(config)
    torch.manual_seed(1)
    params = torch.randn(4, len(config.digits), config.dims)
    values = torch.arange(1 << config.depth)
    masses = torch.stack([torch.exp(-dense_nll(model, params, torch.full((4, 6), float(x)))) for x in values]).double()
    assert torch.allclose(masses.sum(0), torch.ones(4, 6, dtype=torch.float64), atol=1e-3)
    expected = (masses * values[:, None, None]).sum(0)
    assert torch.allclose(dense_mean(model, params).double(), expected, rtol=1e-3, atol=0.02)
