from __future__ import annotations

import torch
from torch import Tensor, nn

from bbans.train.revive import revive
from bbans.vae.layers import ByteConv, Conv, Linear, Residual
from bbans.vae.objectives import photo_bits
from bbans.vae.photo import PhotoConfig, PhotoVAE


class Chain(nn.Module):
    """Two layers, one after the other, into a stream with a residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Conv(3, 16, 3, source="input", target="first")
        self.second = Conv(16, 12, 3, source="first", target="second")
        self.into = Conv(12, 8, 1, source="second", target="stream")
        self.block = Residual(8, stream="stream", inner="block")

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.into(self.second(self.first(x))))


def with_dead_units() -> tuple[Chain, Tensor]:
    torch.manual_seed(0)
    chain = Chain()
    nn.init.normal_(chain.block.second.weight)
    with torch.no_grad():
        for layer, dead in ((chain.first, 16), (chain.second, 5), (chain.block.first, 2)):
            layer.bias[:dead] = -100
            if dead < 16:
                layer.bias[dead:] = 1.0
    return chain, torch.randn(4, 3, 12, 12)


def test_dead_units_live_again_and_nothing_changes_at_first() -> None:
    chain, x = with_dead_units()
    before = chain(x)
    assert revive(chain, lambda: chain(x)) == 16 + 5 + 2
    torch.testing.assert_close(chain(x), before)
    first = chain.first(x)
    second = chain.second(first)
    inner = chain.block.first(chain.into(second))
    for units in (first, second, inner):
        above = (units > 0).float().mean((0, 2, 3))
        assert (above > 0.05).all()
    assert all(layer.relu for layer in (chain.first, chain.second, chain.block.first))

    chain(x).square().sum().backward()  # and they can learn: what sees them has gradients
    for layer, dead in ((chain.into, 5), (chain.block.second, 2)):
        assert (layer.weight.grad[:, :dead].abs().sum((0, 2, 3)) > 0).all()
    assert revive(chain, lambda: chain(x)) == 0


def test_living_networks_stay_as_they_are() -> None:
    torch.manual_seed(0)
    chain, x = Chain(), torch.randn(4, 3, 12, 12)
    for layer in (chain.first, chain.second, chain.block.first):
        nn.init.ones_(layer.bias)
    before = {name: value.clone() for name, value in chain.state_dict().items()}
    assert revive(chain, lambda: chain(x)) == 0
    assert all(torch.equal(value, before[name]) for name, value in chain.state_dict().items())


def test_units_of_vectors_live_again() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(
        Linear(6, 16, source="input", target="first"), Linear(16, 4, source="first", target="last", relu=False)
    )
    x = torch.randn(50, 6)
    with torch.no_grad():
        layers[0].bias[:5] = -100
    before = layers(x)
    assert revive(layers, lambda: layers(x)) == 5
    torch.testing.assert_close(layers(x), before)
    assert ((layers[0](x) > 0).float().mean(0)[:5] > 0.05).all() and layers[0].relu


def test_units_whose_activations_are_bytes_live_again() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        ByteConv(2, 8, 3, source="byte.input", target="byte.stream"),
        Residual(8, stream="byte.stream", inner="byte.inner", bytes=True),
    )
    enter, block = network
    nn.init.normal_(block.second.weight)
    for layer in network.modules():
        if isinstance(layer, ByteConv):
            layer.rounds = True
    x = 99 * torch.rand(4, 2, 12, 12)
    with torch.no_grad():
        block.first.bias[:3] = -100
    before = network(x)
    assert revive(network, lambda: network(x)) == 3
    assert torch.equal(network(x), before)
    alive = (block.first(enter(x)) > 0).float().mean((0, 2, 3))
    assert (alive[:3] > 0.1).all() and (alive[:3] < 0.9).all()


def test_what_layers_read_beside_dead_units_stays() -> None:
    """Heads on bytes read the residuals of earlier channels beside their features."""
    torch.manual_seed(0)
    network = PhotoVAE(
        PhotoConfig(channels=8, hidden=4, mixtures=1, latents=0, blocks=(0, 0, 0), overview=False, bits=8)
    )
    with torch.no_grad():
        network.levels[0].enter_e.bias[:3] = -100
        for layer in network.levels[0].head_e.inner:
            for weights in layer.weight, layer.beside:
                if weights is not None:
                    weights.fill_(1.0)
    planes = torch.randint(0, 256, (1, 3, 16, 16)).float()
    assert revive(network, lambda: photo_bits(network, planes, levels=1)) >= 3
    for layer in network.levels[0].head_e.inner:
        assert (layer.weight[:, :3] == 0).all()
        assert layer.beside is None or (layer.beside == 1).all()
