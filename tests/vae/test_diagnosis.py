"""Diagnoses of models whose answers are known: by quadrature over one latent, or because they are zero."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bbans import zoo
from bbans.vae.dense import DenseConfig, DenseVAE
from bbans.vae.diagnosis import (
    Rate,
    anatomy,
    importance_weighted_in_groups,
    ladder,
    surgery,
    tightness,
)
from bbans.vae.distributions import BITS_OF_A_NAT, Flow, FullNormal, Normal
from bbans.vae.families import picture_planes
from bbans.vae.objectives import dense_nll
from bbans.vae.refinement import refinement

SIZES: dict[str, Any] = {"height": 2, "width": 3, "hidden": (8,), "latents": (1,)}
KINDS: dict[str, dict[str, Any]] = {
    "diagonal": {"latents": (3,)},
    "full": {"latents": (3,), "posterior": "full"},
    "flow": {"latents": (3,), "posterior": "flow"},
    "vamp": {"latents": (3,), "prior": "vamp", "components": 4},
    "two layers": {"latents": (3, 2)},
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def dense(loud: float = 1.0, depth: int = 1, **sizes: Any) -> DenseVAE:
    """A model of random weights, and so of a poor encoder. loud: what they are multiplied by."""
    likelihood = {1: "bernoulli", 8: "normal"}[depth]
    network = DenseVAE(DenseConfig(**{**SIZES, "depth": depth, "likelihood": likelihood, **sizes}))
    with torch.no_grad():
        for weights in network.parameters():
            weights.mul_(loud)
    return network.requires_grad_(False)


def deaf(mean: float = 0.0) -> DenseVAE:
    """A model whose decoder ignores z, so that the posterior is the prior; q is N(mean, 1)."""
    network = dense()
    with torch.no_grad():
        network.likelihood.weight.zero_()
        network.posterior.weight.zero_()
        network.posterior.bias.copy_(torch.tensor([mean, 0.0]))
    return network


def pictures(count: int, network: DenseVAE) -> Tensor:
    return torch.randint(0, 1 << network.config.depth, (count, 2, 3, 1), dtype=torch.uint8)


def exact(network: DenseVAE, pixels: Tensor) -> np.ndarray:
    """−log2 p(x) [N] of a model of one latent, by quadrature."""
    z = torch.linspace(-8, 8, 4001)[:, None]
    prior = -0.5 * z.double()[:, 0] ** 2 - 0.5 * math.log(2 * math.pi)
    params = network.decode(z)
    found = []
    for x in picture_planes(network, pixels).flatten(1):
        likelihood = -dense_nll(network, params, x.expand(len(z), -1)).double().sum(1)
        found.append(-torch.logsumexp(likelihood + prior, 0) - math.log(16 / 4000))
    return torch.stack(found).numpy() * BITS_OF_A_NAT


# -- bounds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [{}, {"depth": 8, "scale": 0.5}])
def test_the_bounds_come_down_to_the_likelihood(kind: dict[str, Any]) -> None:
    network = dense(1.0, **kind)
    x = pictures(8, network)
    found, truth = tightness(network, x, 2000), exact(network, x)
    rates = [rate.value for rate in found.bounds.values()]
    assert [*found.bounds] == [1, 10, 100, 1000, 2000] and rates == sorted(rates, reverse=True)
    assert found.bits[2000].mean() == pytest.approx(truth.mean(), abs=0.05)
    assert 6 * found.gap.value == pytest.approx(found.bits[1].mean() - truth.mean(), abs=0.05)
    assert found.gap.value > 0.02


def test_groups_of_samples() -> None:
    bits = torch.tensor([[3.0], [4.0], [8.0], [5.0], [9.0]], dtype=torch.float64)
    first, second = (-math.log2((2**-a + 2**-b) / 2) for a, b in ((3, 4), (8, 5)))
    np.testing.assert_allclose(importance_weighted_in_groups(bits, 2), [(first + second) / 2])
    np.testing.assert_allclose(importance_weighted_in_groups(bits, 1), [5.8])
    assert (ladder(1000), ladder(64), ladder(10), ladder(2)) == ([1, 10, 100, 1000], [1, 10, 64], [1, 10], [1, 2])


def test_a_posterior_that_is_the_true_one_leaves_no_gap() -> None:
    network = deaf()
    x = pictures(4, network)
    found = tightness(network, x, 50)
    better = refinement(network, x, found, steps=10, samples=2)
    for rate in (found.gap, better.amortisation, better.approximation):
        assert rate.value == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(found.bits[1], exact(network, x), atol=1e-4)


# -- refinement --------------------------------------------------------------------------------------------------------


def test_an_encoder_that_is_off_by_one_costs_what_it_should() -> None:
    """KL(N(1, 1) || N(0, 1)) is half a nat, and refinement finds all of it."""
    network = deaf(mean=1.0)
    x = pictures(4, network)
    found = tightness(network, x, 2000)
    better = refinement(network, x, found, steps=60, samples=4)
    half_a_nat = 0.5 * BITS_OF_A_NAT / 6
    assert found.gap.value == pytest.approx(half_a_nat, rel=0.1)
    assert better.amortisation.value == pytest.approx(half_a_nat, rel=0.1)
    assert better.elbo.value == pytest.approx(exact(network, x).mean() / 6, abs=2e-3)


def test_a_poor_encoder_does_not_spoil_the_bound() -> None:
    """Few of its samples are where the posterior is: refined ones are."""
    network = deaf(mean=4.0)
    x = pictures(4, network)
    found = tightness(network, x, 20)
    better, truth = refinement(network, x, found, steps=200, samples=4), exact(network, x).mean() / 6
    assert found.bounds[20].value > truth + 0.3
    assert better.bound.value == pytest.approx(truth, abs=1 / 6 + 0.01)  # half of the weight is lost: one bit


@pytest.mark.parametrize("kind", KINDS)
def test_refinement_is_no_worse(kind: str) -> None:
    network = dense(3.0, **KINDS[kind])
    x = pictures(6, network)
    found = tightness(network, x, 200)
    better = refinement(network, x, found, steps=30, samples=4)
    noise = 4 * found.bits[1].std() / math.sqrt(100)
    assert 6 * better.amortisation.value > -noise
    both = better.amortisation.value + better.approximation.value
    assert both == pytest.approx(found.bounds[1].value - better.bound.value)
    assert not any(weights.requires_grad or weights.grad is not None for weights in network.parameters())


# -- surgery -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_surgery_takes_the_kl_apart(kind: str) -> None:
    network = dense(3.0, **KINDS[kind])
    found = surgery(network, pictures(8, network))
    assert found.information.value + found.marginal.value == pytest.approx(found.kl.value, rel=1e-9)
    assert 0 < found.information.value <= found.most.value == 3 / 6
    assert found.information.error and found.kl.error


def test_information_that_is_known() -> None:
    """None where all posteriors are alike, log2 M where they are far from one another, and one bit of two kinds."""
    network = deaf(mean=0.5)
    x = pictures(8, network)
    assert surgery(network, x).information.value == pytest.approx(0, abs=1e-6)
    with torch.no_grad():  # a latent that counts pixels, in -6..6
        for layer in network.encoder:
            layer.weight.zero_()
            layer.bias.fill_(10.0)
        network.encoder[0].weight[0] = 1.0
        network.posterior.weight[0, 0] = 1.0
        network.posterior.bias.copy_(torch.tensor([-10.0, -9.0]))
    apart = torch.tensor([[1] * i + [0] * (6 - i) for i in range(7)], dtype=torch.uint8).reshape(7, 2, 3, 1)
    found = surgery(network, apart)
    assert found.saturated and 6 * found.information.value == pytest.approx(math.log2(7), abs=1e-4)
    halves = apart[[0, 0, 6, 6]]
    found = surgery(network, halves)
    assert not found.saturated and 6 * found.information.value == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "photo"])
def test_models_over_lattices(mode: str, tiny_thumbnails: dict[str, Path], tiny_models: dict[int, Path]) -> None:
    network = zoo.load(tiny_models[2] if mode == "photo" else tiny_thumbnails[mode], device="cpu").float_network
    assert network is not None
    samples, depth = getattr(network.config, "samples", 3), getattr(network.config, "depth", 8)
    x = torch.randint(0, 1 << depth, (5, 8, 12, samples), dtype=torch.uint8)
    split = surgery(network, x)
    assert split.information.value + split.marginal.value == pytest.approx(split.kl.value, rel=1e-6, abs=1e-9)
    assert split.information.value <= split.most.value
    found = tightness(network, x, 10)
    better = refinement(network, x, found, steps=5, samples=2)
    both = better.amortisation.value + better.approximation.value
    assert both == pytest.approx(found.bounds[1].value - better.bound.value)


# -- latents -----------------------------------------------------------------------------------------------------------


def test_anatomy_adds_up() -> None:
    network = dense(3.0, latents=(3, 2))
    found = anatomy(network, [pictures(9, network)], 5)
    assert [*found.layers] == ["kl1", "kl2"] and found.bits.shape == (9,)
    parts = found.likelihood.value + sum(layer.kl.value for layer in found.layers.values())
    assert parts == pytest.approx(found.elbo.value) and found.elbo.bytes == pytest.approx(found.bits.mean() / 8)
    for layer, count in zip(found.layers.values(), (3, 2), strict=True):
        assert layer.each.sum() == pytest.approx(6 * layer.kl.value, rel=1e-5) and layer.each.shape == (count,)
        assert layer.activity is not None and layer.activity.shape == (count,)


def test_a_latent_is_active_whose_mean_depends_on_the_picture() -> None:
    network = dense(3.0, latents=(4,))
    with torch.no_grad():
        network.posterior.weight[2:4].zero_()  # means that are the same for all pictures ...
        network.posterior.weight[6:8].zero_()
        network.posterior.bias[2:].copy_(torch.tensor([0.0, 2.0, 0.0, 0.0, 0.0, 0.0]))  # ... one of them far out
    x = pictures(30, network)
    layer = anatomy(network, [x], 10).layers["kl"]
    assert layer.activity is not None and (layer.activity[:2] > 0.01).all()
    np.testing.assert_allclose(layer.activity[2:], 0, atol=1e-6)
    assert layer.active == 2
    assert layer.dead == 1  # what is far out is paid for
    alone = anatomy(network, [x[:1]], 10)
    assert alone.layers["kl"].active is None and alone.elbo.error is None


def test_activity_where_means_are_of_samples() -> None:
    """q(z2 | z1) of a model of two layers: z2's mean is one over z1, whose noise is taken away again."""
    network = dense(latents=(3, 2))
    with torch.no_grad():
        network.posterior.weight.zero_()  # z1 tells nothing of the picture: it is normal
        network.posterior.bias.zero_()
    by_z1 = Normal(network.infer_upper(torch.randn(10_000, 3))).mean().var(0).numpy()
    layer = anatomy(network, [pictures(400, network)], 5).layers["kl2"]
    assert layer.activity is not None and (abs(layer.activity) < by_z1 / 5 / 3).all()


def test_pictures_of_several_sizes(tiny_models: dict[int, Path]) -> None:
    network = zoo.load(tiny_models[2], device="cpu").float_network
    assert network is not None
    groups = [torch.randint(0, 256, (n, h, w, 3), dtype=torch.uint8) for n, h, w in ((2, 8, 12), (1, 40, 24))]
    both, each = anatomy(network, groups, 2), [anatomy(network, [group], 2) for group in groups]
    assert set(both.layers) == set(each[0].layers) | set(each[1].layers) != set(each[0].layers) and not both.means
    assert both.bits.shape == (3,) and both.elbo.value == pytest.approx(both.bits.sum() / (2 * 288 + 2880))
    assert both.layers["kl5"].active is None and both.layers["kl1"].active is not None
    parts = both.likelihood.value + sum(layer.kl.value for layer in both.layers.values())
    assert parts == pytest.approx(both.elbo.value)


def test_the_mean_of_a_posterior() -> None:
    normal, chain = torch.randn(1, 4), torch.randn(1, 9)
    network = dense(latents=(3,), posterior="flow")
    context = network.infer(torch.rand(1, 6))
    for q in (Normal(normal), FullNormal(chain, 3), Flow(context, 3, network.flow_step)):
        many = type(q)(**{**vars(q), "params": q.params.expand(20_000, -1)})
        np.testing.assert_allclose(q.mean(), many.sample().mean(0, keepdim=True), atol=0.5 if q is not normal else 0.1)


def test_errors_are_those_of_means() -> None:
    bits = np.array([10.0, 14.0, 12.0, 16.0])
    found = Rate.of(bits, np.full(4, 2.0))
    assert (found.value, found.bytes) == (6.5, 13 / 8)
    assert found.error == pytest.approx(bits.std(ddof=1) / math.sqrt(4) / 2)
    assert Rate.of(np.array([8.0, 2.0]), np.array([4.0, 1.0])) == Rate(2.0, 0.0, 5 / 8)
