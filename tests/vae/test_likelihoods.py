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
