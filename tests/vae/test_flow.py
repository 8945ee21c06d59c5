"""The posterior after one step of inverse autoregressive flow."""

import torch
from torch import Tensor

from bbans.vae.dense import DenseConfig, DenseVAE
from bbans.vae.distributions import Flow, from_posterior

LATENTS = 6


def flow() -> Flow:
    torch.manual_seed(3)
    config = DenseConfig(4, 4, 1, hidden=(12, 12), latents=(LATENTS,), likelihood="bernoulli", posterior="flow")
    network = DenseVAE(config)
    q = network.posterior_of(network.infer(torch.randn(5, 16)))
    assert isinstance(q, Flow)
    return q


def test_the_density_of_a_drawn_sample_is_that_of_any_z() -> None:
    q = flow()
    z, log2_q = from_posterior("kl", q)
    assert torch.allclose(log2_q, q.log2_density(z), atol=1e-4)


def test_gradients_are_those_of_sampling_and_finding_the_noise_again() -> None:
    q = flow()

    def slope(draw: bool) -> Tensor:
        torch.manual_seed(0)
        z, log2_q = q.draw() if draw else (z := q.sample(), q.log2_density(z))
        return torch.autograd.grad(log2_q.sum() + z.square().sum(), q.params, retain_graph=True)[0]

    assert torch.allclose(slope(True), slope(False), atol=1e-4)
