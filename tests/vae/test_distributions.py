from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, distributions

from bbans.vae.dense import DenseVAE
from bbans.vae.distributions import (
    BITS_OF_A_NAT,
    NORMAL_MEANS,
    NORMAL_SCALES,
    STANDARD_LOGISTIC,
    Flow,
    FullNormal,
    Latents,
    Logistic,
    Normal,
    StandardNormal,
    VampPrior,
    within,
)

from ..conftest import dense_config

LATENTS = 3


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def params(latents: int = LATENTS, more: int = 0, count: int = 5) -> Tensor:
    """Means of about 1, scales of 2^-1 or so, and whatever else there is."""
    made = torch.randn(count, 2 * latents + more)
    made[:, latents : 2 * latents] = 0.5 * made[:, latents : 2 * latents] - 1
    return made


def flow_network(latents: int = LATENTS) -> DenseVAE:
    network = DenseVAE(replace(dense_config("logistic-flow"), latents=(latents,), hidden=(32, 24)))
    for weights in network.parameters():
        weights.data.add_(0.2 * torch.randn_like(weights))
    return network.requires_grad_(False)


def bits(log_density: Tensor) -> Tensor:
    return log_density * BITS_OF_A_NAT


def test_the_normal_is_that_of_torch() -> None:
    p, z = params(), torch.randn(5, LATENTS)
    mean, log2_scale = p.chunk(2, 1)
    torch.testing.assert_close(
        Normal(p).log2_density(z), bits(distributions.Normal(mean, 2**log2_scale).log_prob(z)), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(StandardNormal().log2_density(z), bits(distributions.Normal(0.0, 1.0).log_prob(z)))


def test_means_and_scales_are_clamped() -> None:
    """To where the grid is that codes them."""
    far = torch.tensor([[-99.0, 99.0, -99.0, 99.0]])
    at = torch.tensor([[-NORMAL_MEANS, NORMAL_MEANS, *NORMAL_SCALES]])
    z = torch.tensor([[0.001, 3.0]])
    assert torch.equal(Normal(far).log2_density(z), Normal(at).log2_density(z))
    assert torch.equal(Normal(far).read()[1], at[:, 2:])


def test_the_logistic_integrates_to_one() -> None:
    z = torch.linspace(-40, 40, 100_001)[None, None]
    p = torch.tensor([[[0.7]], [[-1.5]]]).reshape(1, 2, 1)
    for q in (Logistic(p), STANDARD_LOGISTIC):
        assert float(torch.exp2(q.log2_density(z)).sum() * 80 / 100_000) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("make", [Logistic, Normal])
def test_samples_have_the_entropy_that_densities_say(make: type[Logistic] | type[Normal]) -> None:
    q = make(torch.tensor([[0.5, -1.0]]).repeat(40_000, 1))
    z = q.sample()
    nats = {Logistic: 2 + math.log(0.5), Normal: 0.5 * math.log(2 * math.pi * math.e) + math.log(0.5)}[make]
    assert -float(q.log2_density(z).mean()) == pytest.approx(nats / math.log(2), abs=0.03)
    assert float(z.mean()) == pytest.approx(0.5, abs=0.02)


def covariance(p: Tensor, latents: int) -> tuple[Tensor, Tensor]:
    """Mean and covariance [latents, latents] of one chain: z = mean + A z + noise."""
    p = p.double()
    a = torch.zeros(latents, latents, dtype=torch.float64)
    a[tuple(torch.tril_indices(latents, latents, -1))] = p[2 * latents :]
    inverse = torch.linalg.inv(torch.eye(latents, dtype=torch.float64) - a)
    noise = torch.diag(4 ** p[latents : 2 * latents])
    return inverse @ p[:latents], inverse @ noise @ inverse.T


@pytest.mark.parametrize("latents", [1, 2, 4])
def test_the_full_normal_is_the_multivariate_one(latents: int) -> None:
    p, z = params(latents, latents * (latents - 1) // 2), torch.randn(5, latents)
    q = FullNormal(p, latents)
    found = q.log2_density(z)
    assert found.shape == z.shape
    for one, at, total in zip(p, z, found.sum(1), strict=True):
        expected = distributions.MultivariateNormal(*covariance(one, latents)).log_prob(at.double())
        assert float(total) == pytest.approx(float(bits(expected)), rel=1e-4)


def test_samples_of_the_full_normal_have_its_covariance() -> None:
    p = params(3, 3, count=1)
    z = FullNormal(p.repeat(60_000, 1), 3).sample().double()
    mean, expected = covariance(p[0], 3)
    torch.testing.assert_close(z.mean(0), mean, atol=0.03, rtol=0.02)
    torch.testing.assert_close(torch.cov(z.T), expected, atol=0.03, rtol=0.05)


def test_each_element_of_the_full_normal_is_given_those_before_it() -> None:
    p, z = params(3, 3), torch.randn(5, 3)
    other = torch.cat([z[:, :2], z[:, 2:] + 1], 1)
    before, after = (FullNormal(p, 3).log2_density(x) for x in (z, other))
    assert torch.equal(before[:, :2], after[:, :2]) and (before[:, 2] != after[:, 2]).all()


def test_a_flow_finds_the_density_of_its_own_samples() -> None:
    """By the change of variables: that of the noise, less the log of each scale."""
    network = flow_network()
    context = network.infer(torch.randn(6, network.config.dims))
    noise = torch.randn(6, LATENTS)
    mean, log2_scale = Normal(network.flow_step(noise, context)).read()
    z = mean + torch.exp2(log2_scale) * noise
    q = network.posterior_of(context)
    assert isinstance(q, Flow)
    expected = bits(distributions.Normal(0.0, 1.0).log_prob(noise)) - log2_scale
    torch.testing.assert_close(q.log2_density(z), expected, rtol=1e-3, atol=1e-3)


def test_a_flow_of_two_latents_integrates_to_one() -> None:
    network = flow_network(2)
    side = torch.linspace(-12, 12, 241)
    z = torch.cartesian_prod(side, side)
    q = network.posterior_of(network.infer(torch.randn(1, network.config.dims)).expand(len(z), -1))
    assert float(torch.exp2(q.log2_density(z).sum(1)).sum() * 0.1**2) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("latents", [1, 3, 40])  # 40 is more than the units of the layer
def test_a_flow_is_autoregressive(latents: int) -> None:
    network = flow_network(latents)
    noise = torch.randn(1, latents, requires_grad=True)
    context = network.infer(torch.randn(1, network.config.dims))
    out = network.flow_step(noise, context)
    rows = [torch.autograd.grad(out[0, i], noise, retain_graph=True)[0][0] for i in range(2 * latents)]
    seen = (torch.stack(rows) != 0).reshape(2, latents, latents)
    assert not torch.triu(seen).any()  # of a latent: itself and those after it
    if latents == 3:
        assert torch.equal(seen, torch.tril(torch.ones_like(seen), -1))


def test_the_vamp_prior_is_a_mixture() -> None:
    components, z = params(LATENTS, count=7), torch.randn(4, LATENTS)
    mean, log2_scale = components.chunk(2, 1)
    mixture = distributions.MixtureSameFamily(
        distributions.Categorical(torch.ones(7)),
        distributions.Independent(distributions.Normal(mean, 2**log2_scale), 1),
    )
    found = VampPrior(components).log2_density(z)
    assert found.shape == z.shape
    torch.testing.assert_close(found.sum(1), bits(mixture.log_prob(z)), rtol=1e-4, atol=1e-4)


def test_each_element_of_the_vamp_prior_is_given_those_before_it() -> None:
    components, z = params(2, count=3), torch.randn(4, 2)
    marginal = VampPrior(components[:, [0, 2]]).log2_density(z[:, :1])
    torch.testing.assert_close(VampPrior(components).log2_density(z)[:, :1], marginal, rtol=1e-4, atol=1e-4)


def test_one_component_is_a_normal() -> None:
    p, z = params(count=1), torch.randn(4, LATENTS)
    torch.testing.assert_close(VampPrior(p).log2_density(z), Normal(p).log2_density(z), rtol=1e-4, atol=1e-4)


def posteriors() -> list[Normal | FullNormal | Flow]:
    network = flow_network()
    return [
        Normal(params()),
        FullNormal(params(3, 3), 3),
        Flow(torch.randn(5, 24), LATENTS, network.flow_step),
    ]


@pytest.mark.parametrize("which", range(3), ids=["diagonal", "full", "flow"])
def test_gradients_reach_the_parameters_through_a_sample(which: int) -> None:
    q = posteriors()[which]
    told = q.params.requires_grad_()
    z = q.sample()
    (slope,) = torch.autograd.grad(z.square().sum() + q.log2_density(z).sum(), told)
    assert z.shape == (5, LATENTS) and torch.isfinite(slope).all() and slope.any()
    assert (slope != 0).any(1).all()


@pytest.mark.parametrize("which", range(3), ids=["diagonal", "full", "flow"])
def test_parameters_can_be_replaced(which: int) -> None:
    q = posteriors()[which]
    other, z = replace(q, params=q.params + 0.5), torch.randn(5, LATENTS)
    assert type(other) is type(q) and not torch.equal(other.log2_density(z), q.log2_density(z))


def test_latents_are_drawn_as_is_told_and_what_they_cost_is_kept() -> None:
    p, fixed, kept = params(), torch.full((5, LATENTS), 0.25), {}
    latents = Latents(
        draw=lambda name, q: (fixed, q.log2_density(fixed)), keep=lambda name, kl: kept.update({name: kl})
    )
    z, kl = latents("kl", Normal(p), StandardNormal())
    assert z is fixed and kept.keys() == {"kl"} and kept["kl"] is kl
    torch.testing.assert_close(kl, Normal(p).log2_density(z) - StandardNormal().log2_density(z))


def test_the_kl_by_samples_is_the_kl() -> None:
    p = torch.tensor([[0.5, -0.3, -1.0, 0.2]])
    _, kl = Latents()("kl", Normal(p.repeat(40_000, 1)), StandardNormal())
    mean, scale = p[0, :2], 2 ** p[0, 2:]
    expected = distributions.kl_divergence(distributions.Normal(mean, scale), distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(kl.mean(0), bits(expected), atol=0.03, rtol=0.02)


def test_draws_differ_and_follow_the_seed() -> None:
    for q in posteriors():
        torch.manual_seed(1)
        one, two = q.sample(), q.sample()
        torch.manual_seed(1)
        assert torch.equal(q.sample(), one)
        assert all(not torch.equal(a, b) for a, b in itertools.combinations([one, two], 2))


def test_what_is_clamped_comes_back() -> None:
    x = torch.tensor([-3.0, -3.0, 0.0, 3.0, 3.0], requires_grad=True)
    y = within(x, -1.0, 1.0)
    assert y.tolist() == [-1, -1, 0, 1, 1]
    (y * torch.tensor([-1.0, 1.0, 1.0, -1.0, 1.0])).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [-1, 0, 1, 0, 1]
