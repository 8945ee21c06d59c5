from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bbans.codecs.mixture import Mixture
from bbans.codecs.tables import logistic_tables
from bbans.vae import likelihoods


@pytest.mark.parametrize(("lo", "hi"), [(0, 255), (-255, 255)])
def test_the_likelihood_of_training_is_that_of_the_codec(lo: int, hi: int) -> None:
    n = hi - lo + 1
    logits, means, scales = [0.0, -1.0, -12.0], [2, -40, 333], [36, 52, 20]  # octaves, sixteenths, table indices
    weights = np.array([4096 * 2**v for v in logits])
    mixture = Mixture(
        logistic_tables(),
        np.repeat(weights.astype(np.uint32)[:, None], n, 1),
        np.repeat(np.array(means, np.int32)[:, None] + 16 * 100, n, 1),
        np.repeat(np.array(scales, np.int32)[:, None], n, 1),
        lo,
        hi,
    )
    params = torch.tensor([*logits, *(m / 256 for m in means), *((s - 36) / 8 for s in scales)])
    x = torch.arange(lo, hi + 1.0).reshape(1, 1, 1, n)
    nll = likelihoods.logistic_mixture_nll(
        params.reshape(1, 9, 1, 1).expand(1, 9, 1, n), x, torch.full_like(x, 100.0), lo, hi
    )
    assert float(torch.exp(-nll).sum()) == pytest.approx(1, abs=1e-5)
    bits = nll.flatten().numpy() / math.log(2)
    likely = bits < 12  # below that, the codec's floor tells
    np.testing.assert_allclose(bits[likely], -mixture.log2_prob(np.arange(lo, hi + 1))[likely], atol=2e-3)


def test_the_nll_is_finite_and_has_gradients_far_out() -> None:
    params = torch.tensor([0.0, 0.0, -9.0]).reshape(1, 3, 1, 1).requires_grad_()
    x = torch.full((1, 1, 1, 1), 255.0)
    nll = likelihoods.logistic_mixture_nll(params, x, torch.zeros_like(x), 0, 256)
    nll.sum().backward()
    assert torch.isfinite(nll).all() and params.grad is not None and torch.isfinite(params.grad).all()


@pytest.mark.parametrize(("lo", "hi"), [(0, 255), (-255, 255)])
def test_slopes_are_those_of_the_nll(lo: int, hi: int) -> None:
    torch.manual_seed(0)
    params = torch.randn(2, 9, 6, 50)
    params[:, 3:6] *= 0.5
    x = (128 + 40 * torch.randn(2, 1, 6, 50)).round().clamp(lo, hi)
    x[..., 0], x[..., 1] = lo, hi
    prediction = (x + 6 * torch.randn_like(x)).requires_grad_(False)
    params.requires_grad_()
    nll = likelihoods.logistic_mixture_nll(params, x, prediction, lo, hi)
    (expected,) = torch.autograd.grad(nll.sum(), params)
    nats, slopes = likelihoods.logistic_mixture_slopes(params.detach(), x, prediction, lo, hi)
    likely = nll.detach() < 6
    assert likely.float().mean() > 0.5
    torch.testing.assert_close(nats[likely], nll.detach()[likely], rtol=1e-3, atol=1e-4)
    picked = likely.expand_as(slopes)
    torch.testing.assert_close(slopes[picked], expected[picked], rtol=1e-2, atol=3e-3)


def test_samples_have_their_density() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mean, log2_scale = torch.full((20_000,), 1.5), torch.full((20_000,), -1.0)
        z = likelihoods.sample_logistic(mean, log2_scale)
    assert float(z.mean()) == pytest.approx(1.5, abs=0.02)
    assert float(z.std()) == pytest.approx(0.5 * math.pi / math.sqrt(3), rel=0.03)
    entropy = 2 - math.log(2)  # of a logistic of scale 1/2, in nats
    assert -float(likelihoods.logistic_log_density(z, mean, log2_scale).mean()) == pytest.approx(entropy, abs=0.03)


def test_the_cdf_of_the_normal_and_its_slope() -> None:
    t = torch.tensor([-1e8, -5e3, -30.0, -20.1, -19.9, -5.0, 0.0, 3.0, 9.0]).requires_grad_()
    found = likelihoods.log_normal_cdf(t)
    (slope,) = torch.autograd.grad(found.sum(), t)
    wide = t.detach().double()
    expected = torch.special.log_ndtr(wide)
    torch.testing.assert_close(found.detach().double(), expected, rtol=1e-6, atol=1e-12)
    density = -0.5 * wide**2 - 0.5 * math.log(2 * math.pi)
    hazard = torch.where(wide < -1e3, -wide, torch.exp(density - expected))  # φ / Φ
    torch.testing.assert_close(slope.double(), hazard, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("log2_scale", [-4.5, -1.0, 3.0, 7.0])
def test_the_discretised_normal_is_a_difference_of_cdfs(log2_scale: float) -> None:
    mean = torch.tensor([-40.0, 3.2, 100.5, 300.0])[:, None].double()
    edges = torch.arange(257.0).double()
    edges[0], edges[-1] = -likelihoods.FAR, likelihoods.FAR
    scale = torch.tensor(log2_scale).double()
    nll = likelihoods.discretised_normal_nll(mean, scale, edges[:-1], edges[1:])
    t = (edges - mean) / 2**log2_scale
    middle = 0.5 * (t[:, 1:] + t[:, :-1])
    cdf, upper = (0.5 * torch.special.erfc(sign * t / math.sqrt(2)) for sign in (-1, 1))
    mass = torch.where(middle < 0, cdf[:, 1:] - cdf[:, :-1], upper[:, :-1] - upper[:, 1:])
    likely = mass > 1e-250
    torch.testing.assert_close(torch.exp(-nll[likely]), mass[likely], rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.exp(-nll).sum(1), torch.ones(4).double())


def test_the_discretised_normal_has_slopes_far_out() -> None:
    """They lead back, and are as large as they should be."""
    mean = torch.tensor([1e2, 3e3, 1e5]).requires_grad_()
    nll = likelihoods.discretised_normal_nll(mean, torch.full((3,), -4.0), torch.zeros(3), torch.ones(3))
    (slope,) = torch.autograd.grad(nll.sum(), mean)
    torch.testing.assert_close(slope, (mean.detach() - 1) * 2**8, rtol=1e-3, atol=0)
