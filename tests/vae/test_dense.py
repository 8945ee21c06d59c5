from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bbans.errors import BadModel
from bbans.train.muon import Muon
from bbans.train.revive import revive
from bbans.vae import families
from bbans.vae.dense import SEE_X, SEE_Z, DenseConfig, DenseVAE, see_x
from bbans.vae.distributions import Latents
from bbans.vae.layers import Conv, MaskedLinear
from bbans.vae.objectives import dense_bits, dense_nll, draw_dense

from ..conftest import DENSE_KINDS, DENSE_LIKELIHOODS, dense_config, dense_pictures, random_dense

ALL = pytest.mark.parametrize("kind", DENSE_KINDS)
OF_EACH_LIKELIHOOD = pytest.mark.parametrize("likelihood", DENSE_LIKELIHOODS)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def planes(network: DenseVAE, count: int = 7) -> Tensor:
    return families.picture_planes(network, torch.from_numpy(dense_pictures(network.config, count)))


# -- configurations ----------------------------------------------------------------------------------------------------


@ALL
def test_a_network_is_built_from_its_description(kind: str) -> None:
    config = dense_config(kind)
    described = families.describe(DenseVAE(config))
    assert described["family"] == "dense" and families.build(**described).config == config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"depth": 4}, "depth: one of 1, 8, 12; not 4"),
        ({"depth": 16}, "depth: one of"),
        ({"likelihood": "poisson"}, "likelihood: one of bernoulli, normal, logistic; not poisson"),
        ({"posterior": "iaf"}, "posterior: one of diagonal, full, flow; not iaf"),
        ({"prior": "flow"}, "prior: one of normal, vamp; not flow"),
        ({"latents": ()}, "number of layers of latents: one of 1, 2; not 0"),
        ({"latents": (3, 2, 1)}, "number of layers of latents: one of 1, 2; not 3"),
        ({"latents": (0,)}, "latents: 1 to 1024"),
        ({"latents": (3, 1025)}, "latents: 1 to 1024"),
        ({"latents": (-3,)}, "latents: 1 to 1024"),
        ({"hidden": ()}, "hidden: 1 to 8 layers"),
        ({"hidden": (8,) * 9}, "hidden: 1 to 8 layers"),
        ({"hidden": (4097,)}, "of 1 to 4096 units"),
        ({"hidden": (0,)}, "of 1 to 4096 units"),
        ({"height": 0}, "1 to 65536 pixels"),
        ({"width": -5}, "1 to 65536 pixels"),
        ({"height": 257, "width": 256}, "1 to 65536 pixels"),
        ({"height": 10**12}, "1 to 65536 pixels"),
        ({"height": 5.0}, "sizes are integers"),
        ({"mixtures": True}, "sizes are integers"),
        ({"hidden": (8, 2.5)}, "sizes are integers"),
        ({"likelihood": "bernoulli"}, "no likelihood bernoulli of samples of 8 bits"),
        ({"depth": 1}, "no likelihood logistic of samples of 1 bits"),
        ({"depth": 12}, "no likelihood logistic of samples of 12 bits"),
        ({"mixtures": 0}, "mixtures: 1 to 32"),
        ({"mixtures": 33}, "mixtures: 1 to 32"),
        ({"mixtures": 2, "likelihood": "normal"}, "mixtures: 1 to 32 logistics; not 2 of normal"),
        ({"latents": (3, 2), "posterior": "full"}, "two layers of latents are diagonal"),
        ({"latents": (3, 2), "posterior": "flow"}, "two layers of latents are diagonal"),
        ({"latents": (3, 2), "prior": "vamp", "components": 5}, "two layers of latents are diagonal"),
        ({"latents": (17,), "posterior": "full"}, "up to 16 latents, not 17"),
        ({"prior": "vamp"}, "components: those of a VampPrior"),
        ({"components": 5}, "components: those of a VampPrior"),
        ({"prior": "vamp", "components": 4097}, "components: those of a VampPrior, up to 4096"),
        ({"prior": "vamp", "components": -1}, "components: those of a VampPrior"),
        ({"prior": "vamp", "components": 5, "posterior": "flow"}, "a VampPrior is of diagonal posteriors"),
        ({"scale": 0.1}, "scale: of a normal likelihood"),
        ({"likelihood": "normal", "scale": 1.0}, "scale: of a normal likelihood"),
        ({"likelihood": "normal", "scale": 1e-4}, "scale: of a normal likelihood"),
        ({"likelihood": "normal", "scale": -0.1}, "scale: of a normal likelihood"),
        ({"likelihood": "normal", "scale": float("nan")}, "scale: of a normal likelihood"),
    ],
)
def test_configurations_that_are_none(change: dict[str, Any], words: str) -> None:
    config = dense_config("logistic-diagonal")
    with pytest.raises(BadModel, match=words):
        replace(config, **change)
    values = {**families.describe(DenseVAE(config))["config"], **change}
    with pytest.raises(BadModel, match=words):
        families.build("dense", {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()})


@pytest.mark.parametrize(
    "change",
    [
        {"hidden": 8},
        {"hidden": None},
        {"hidden": "88"},
        {"height": "5"},
        {"scale": "a"},
        {"likelihood": []},
        {"more": 1},
    ],
)
def test_descriptions_of_other_kinds(change: dict[str, Any]) -> None:
    with pytest.raises(BadModel):
        families.build("dense", {"likelihood": "normal", **change})


def test_the_largest_sizes_take_no_memory_before_there_are_weights() -> None:
    config = DenseConfig(256, 256, hidden=(4096,) * 8, latents=(1024,), mixtures=1, prior="vamp", components=4096)
    with torch.device("meta"):
        assert sum(weights.numel() for weights in DenseVAE(config).parameters()) > 10**9


# -- networks ----------------------------------------------------------------------------------------------------------


@ALL
def test_every_scale_has_one_meaning(kind: str) -> None:
    layers = [layer for layer in DenseVAE(dense_config(kind)).modules() if isinstance(layer, Conv)]
    targets = {layer.target for layer in layers}
    assert {layer.source for layer in layers} <= targets | {SEE_X, SEE_Z}
    for layer in layers:
        assert len(layer.digits) == (layer.out_channels if layer.target == "params" else 0)


@ALL
def test_a_probe_reaches_every_layer(kind: str) -> None:
    network, seen = DenseVAE(dense_config(kind)), set()
    for name, layer in network.named_modules():
        if isinstance(layer, Conv):
            layer.register_forward_hook(lambda *_, name=name: seen.add(name))
    out = network.probe(*(torch.randn(2, *shape) for shape in network.probe_shapes(0, 0)))
    assert seen == {name for name, layer in network.named_modules() if isinstance(layer, Conv)}
    assert out[1].shape == (2, len(network.config.digits), network.config.dims)


def test_what_networks_see_of_samples() -> None:
    def seen(values: list[int], depth: int) -> list[int]:
        return see_x(torch.tensor(values, dtype=torch.float64), depth).long().tolist()

    assert seen([0, 255], 1) == [-2047, 2047]
    assert seen([0, 1, 127, 128, 255], 8) == [-2040, -2024, -8, 8, 2040]
    assert seen([0, 1, 2, 4094, 4095], 12) == [-2047, -2047, -2045, 2047, 2047]


# -- the objective -----------------------------------------------------------------------------------------------------


@ALL
def test_the_elbo_has_a_part_for_every_factor(kind: str) -> None:
    network = random_dense(dense_config(kind))
    kept: dict[str, Tensor] = {}
    bits = dense_bits(network, planes(network), latents=Latents(keep=lambda name, kl: kept.update({name: kl})))
    layers = {"kl": 3} if len(network.config.latents) == 1 else {"kl1": 3, "kl2": 2}
    assert bits.keys() == layers.keys() | {"x"} and kept.keys() == layers.keys()
    assert all(part.shape == (7,) and torch.isfinite(part).all() for part in bits.values())
    for name, latents in layers.items():
        assert kept[name].shape == (7, latents)
        torch.testing.assert_close(kept[name].sum(1), bits[name])


@ALL
def test_every_parameter_learns(kind: str) -> None:
    network = random_dense(dense_config(kind))
    torch.stack([*dense_bits(network, planes(network)).values()]).sum().backward()
    for name, weights in network.named_parameters():
        assert weights.grad is not None and torch.isfinite(weights.grad).all(), name
        assert weights.grad.any() or name == "pseudo.weight", name  # which sees a zero


@ALL
def test_a_step_against_the_gradient_is_an_improvement(kind: str) -> None:
    """By the same draws."""
    network = random_dense(dense_config(kind))
    x = planes(network, 40)

    def objective() -> Tensor:
        torch.manual_seed(5)
        return torch.stack([*dense_bits(network, x).values()]).sum(0).mean()

    before = objective()
    slopes = torch.autograd.grad(before, [*network.parameters()])
    size = sum(float(slope.square().sum()) for slope in slopes)
    with torch.no_grad():
        for weights, slope in zip(network.parameters(), slopes, strict=True):
            weights.sub_(slope * 1e-2 / size)
    assert float((before - objective()).detach()) == pytest.approx(1e-2, rel=0.3)


@OF_EACH_LIKELIHOOD
def test_a_likelihood_sums_to_one(likelihood: str) -> None:
    network = random_dense(dense_config(f"{likelihood}-diagonal"))
    config = network.config
    params = network.decode(2 * torch.randn(4, 3))
    symbols = [0, 255] if config.depth == 1 else range(1 << config.depth)
    total = torch.zeros(4, config.dims, dtype=torch.float64)
    for symbol in symbols:
        total += torch.exp(-dense_nll(network, params, torch.full((4, config.dims), float(symbol))).double())
    np.testing.assert_allclose(total.detach().numpy(), 1, atol=2e-4 if config.depth == 12 else 2e-5)


@OF_EACH_LIKELIHOOD
def test_a_likelihood_is_finite_far_out(likelihood: str) -> None:
    network = DenseVAE(dense_config(f"{likelihood}-diagonal"))
    params = (1e3 * torch.randn(4, len(network.config.digits), network.config.dims)).requires_grad_()
    nll = dense_nll(network, params, planes(network, 4).float().flatten(1))
    nll.sum().backward()
    assert torch.isfinite(nll).all() and params.grad is not None and torch.isfinite(params.grad).all()


def test_latents_can_be_chosen() -> None:
    """Layer by layer, z1 before z2, and each is what is decoded."""
    network, asked = random_dense(dense_config("normal-two")), []

    def zeros(name: str, q: Any) -> tuple[Tensor, Tensor]:
        z = torch.zeros_like(q.sample())
        asked.append((name, z.shape))
        return z, q.log2_density(z)

    x = planes(network).float().flatten(1)
    z, kl = draw_dense(network, x, Latents(draw=zeros))
    assert asked == [("kl1", (7, 3)), ("kl2", (7, 2))] and not z[0].any() and not z[1].any()
    lower = network.prior_of_lower(torch.zeros(7, 2))
    again = network.posterior_of(network.infer(see_x(x, 8) / 2**11)).log2_density(z[0])
    expected = again + 0.5 * np.log2(2 * np.pi) + lower[:, 3:].clamp(-9, 2)
    expected = expected + 0.5 / np.log(2) * (lower[:, :3] * 2 ** -lower[:, 3:].clamp(-9, 2)) ** 2
    torch.testing.assert_close(kl["kl1"], expected, rtol=1e-4, atol=1e-4)


# -- masks -------------------------------------------------------------------------------------------------------------


def is_autoregressive(network: DenseVAE) -> bool:
    noise = torch.randn(1, 3, requires_grad=True)
    out = network.flow_step(noise, network.infer(torch.randn(1, network.config.dims)))
    rows = [torch.autograd.grad(out[0, i], noise, retain_graph=True)[0][0] for i in range(6)]
    return not torch.triu(torch.stack(rows).reshape(2, 3, 3)).any()


def test_masks_hold_whatever_training_does() -> None:
    """Orthogonal steps mix all rows, and revived units begin with weights of their own."""
    config = replace(dense_config("bernoulli-flow"), hidden=(24, 20), latents=(3,))
    network = random_dense(config)
    masked = [layer for layer in network.modules() if isinstance(layer, MaskedLinear)]
    assert len(masked) == 2
    big = MaskedLinear(40, 30, torch.tril(torch.ones(30, 40), -1), source="a", target="b")
    for made in (network, big):
        optimiser = Muon(made.parameters(), lr=0.1, weight_decay=0.1)
        for _ in range(3):
            optimiser.zero_grad()
            loss = dense_bits(network, planes(network))["x"] if made is network else big(torch.randn(5, 40)).square()
            loss.sum().backward()
            optimiser.step()
    assert not torch.triu(big.kernel()[:, :, 0, 0]).any() and big.kernel().any()
    with torch.no_grad():
        network.see_noise.bias.fill_(-100)
        network.context.bias.fill_(-100)
    assert revive(network, lambda: dense_bits(network, planes(network))) >= 20
    assert is_autoregressive(network)
    assert network.see_noise.kernel()[:, 0].any() and not network.see_noise.kernel()[:, 2].any()


def test_weights_without_masks_are_masked_when_they_are_loaded() -> None:
    network = random_dense(dense_config("bernoulli-flow"))
    families.begin_from(network, {name: torch.ones_like(x) for name, x in network.state_dict().items()})
    assert is_autoregressive(network)
    assert not any("mask" in name for name in network.state_dict())


def test_a_network_begins_from_one_of_the_same_sizes_only() -> None:
    first, second = (random_dense(dense_config(kind)) for kind in ("normal-diagonal", "normal-full"))
    families.begin_from(DenseVAE(first.config), first.state_dict())
    with pytest.raises(BadModel, match="other sizes"):
        families.begin_from(second, first.state_dict())
    with pytest.raises(BadModel, match="another form"):
        families.begin_from(first, random_dense(dense_config("normal-vamp")).state_dict())
