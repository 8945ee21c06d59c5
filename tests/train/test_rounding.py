from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from bbans.train.rounding import CLIPPED, begin_rounding, may_round
from bbans.vae.layers import BYTE_MAX, BYTE_UNIT, ByteConv, Conv, Enlarged, Residual


class Told(nn.Module):
    """Two phases that are told of by one layer, as in `photo`, whose outputs differ in size."""

    def __init__(self) -> None:
        super().__init__()
        self.told = Conv(3, 16, 1, source="input", target="byte.stream", relu=False, writes=BYTE_UNIT)
        self.enter = nn.ModuleList(ByteConv(2, 8, 3, source="byte.input", target="byte.stream") for _ in range(2))
        self.blocks = nn.ModuleList(Residual(8, stream="byte.stream", inner=f"byte.{i}", bytes=True) for i in range(2))
        self.head = ByteConv(10, 4, 1, source="byte.stream", target="byte.hidden", beside=2)
        self.out = Conv(4, 3, 1, source="byte.hidden", target="params", relu=False, reads=BYTE_UNIT)

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        h = None
        for enter, block, told in zip(self.enter, self.blocks, Enlarged(self.told(regions), 4).chunk(2), strict=True):
            h = block(enter(x, add=h, told=told))
        return self.out(self.head(torch.cat([h, x], 1)))


SEEDED = torch.Generator().manual_seed(0)
X = 99 * torch.rand(4, 2, 16, 16, generator=SEEDED), 0.3 * torch.randn(4, 3, 4, 4, generator=SEEDED)


@pytest.fixture
def network() -> Told:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Told()
        for block in made.blocks:
            nn.init.normal_(block.second.weight, std=0.2)
        made.enter[0].weight.data *= torch.logspace(-2, 1, 8)[:, None, None, None]
    return made


def byte_layers(network: nn.Module) -> list[ByteConv]:
    return [layer for layer in network.modules() if isinstance(layer, ByteConv)]


def unrounded(network: nn.Module) -> nn.Module:
    made = copy.deepcopy(network)
    for layer in byte_layers(made):
        layer.rounds = False
    return made


def test_before_rounding_the_network_computes_what_it_did(network: Told) -> None:
    before = {name: value.clone() for name, value in network.named_parameters()}
    expected = network(*X)
    begin_rounding(network, lambda: network(*X))
    torch.testing.assert_close(unrounded(network)(*X), expected, rtol=1e-3, atol=1e-3)
    assert not all(torch.equal(value, before[name]) for name, value in network.named_parameters())
    assert all(value.requires_grad for value in network.parameters())


def test_activations_fill_their_bytes_and_few_are_clipped(network: Told) -> None:
    begin_rounding(network, lambda: network(*X))
    real = unrounded(network)(*X).detach()
    seen: dict[str, list[Tensor]] = {}
    for layer in byte_layers(network):
        assert layer.rounds
        layer.register_forward_hook(lambda at, _, out: seen.setdefault(at.target, []).append(out.flatten()))
    rounded = network(*X).detach()
    for name, outs in seen.items():
        bytes = torch.cat(outs)
        assert torch.equal(bytes, bytes.round()) and bytes.max() > BYTE_MAX / 3, name
        assert (bytes == BYTE_MAX).float().mean() < 3 * CLIPPED
    assert 0 < float((rounded - real).norm() / real.norm()) < 0.1


def test_rounding_begins_once(network: Told) -> None:
    assert may_round(network)
    begin_rounding(network, lambda: network(*X))
    assert not may_round(network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    begin_rounding(network, lambda: pytest.fail("what rounds is not looked at again"))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_networks_without_bytes_are_left_alone() -> None:
    layer = Conv(2, 3, 3, source="input", target="t")
    before = layer.weight.clone()
    assert not may_round(layer)
    begin_rounding(layer, lambda: pytest.fail("there is nothing to look at"))
    assert torch.equal(layer.weight, before)


def test_scales_that_are_never_used_stay_finite(network: Told) -> None:
    """As of units that are dead when rounding begins."""
    for layer in (*network.enter, *(block.first for block in network.blocks)):
        layer.bias.data.fill_(-100.0)
    network.told.weight.data.zero_()
    begin_rounding(network, lambda: network(*X))
    assert not may_round(network) and bool(torch.isfinite(network(*X)).all())
