from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from bbans.train.muon import LEAST, Muon, orthogonal


def some_matrices(rows: int, columns: int, singular: Tensor) -> tuple[Tensor, Tensor]:
    """Two matrices of these singular values, and the orthogonal ones nearest to them."""
    bases = [torch.linalg.qr(torch.randn(2, n, len(singular)))[0] for n in (rows, columns)]
    return bases[0] @ torch.diag(singular) @ bases[1].mT, bases[0] @ bases[1].mT


@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (20, 60), (60, 20)])
def test_orthogonal_matrices_turn_as_theirs_do_and_stretch_nothing(rows: int, columns: int) -> None:
    torch.manual_seed(0)
    singular = torch.logspace(-1.5, 0, min(rows, columns))
    matrices, nearest = some_matrices(rows, columns, singular)
    for size in (1e-6, 1.0, 1e6):
        found = orthogonal(size * matrices)
        stretched = torch.linalg.svdvals(found)
        assert found.shape == matrices.shape and stretched.min() > 0.6 and stretched.max() < 1.3
        cosine = (found * nearest).sum((1, 2)) / found.norm(dim=(1, 2)) / nearest.norm(dim=(1, 2))
        assert cosine.min() > 0.97


def test_no_gradient_no_direction() -> None:
    assert not orthogonal(torch.zeros(1, 16, 20)).any()


def loss_after(steps: int, optimiser: type[torch.optim.Optimizer]) -> float:
    """Of fitting a 1x1 convolution to inputs that differ by a factor of 100 in size between directions."""
    torch.manual_seed(0)
    network, target = (nn.Conv2d(32, 32, 1, bias=False) for _ in range(2))
    directions = torch.linalg.qr(torch.randn(32, 32))[0] @ torch.diag(torch.logspace(-2, 0, 32))
    x = torch.einsum("ij,njyx->niyx", directions, torch.randn(4, 32, 8, 8))
    descent = optimiser(network.parameters(), lr=0.02)  # type: ignore[call-arg]
    for step in range(steps):
        descent.param_groups[0]["lr"] = 0.02 * (1 - step / steps)
        loss = (network(x) - target(x)).square().mean()
        descent.zero_grad()
        loss.backward()
        descent.step()
    return float(loss.detach())


def test_kernels_learn_directions_that_gradients_hardly_see() -> None:
    assert loss_after(400, Muon) < 0.01 * loss_after(400, torch.optim.Adam)


def test_biases_and_small_kernels_go_by_adam() -> None:
    torch.manual_seed(0)
    mine = nn.Conv2d(LEAST - 1, 40, 1)
    theirs = copy.deepcopy(mine)
    pairs = [
        (mine, Muon(mine.parameters(), lr=1e-2)),
        (theirs, torch.optim.Adam(theirs.parameters(), lr=1e-2, betas=(0.9, 0.99))),
    ]
    for _ in range(5):
        x = torch.randn(2, LEAST - 1, 4, 4)
        for network, optimiser in pairs:
            optimiser.zero_grad()
            network(x).square().sum().backward()
            optimiser.step()
    torch.testing.assert_close(mine.weight, theirs.weight)
    torch.testing.assert_close(mine.bias, theirs.bias)


def test_parameters_without_gradients_stay() -> None:
    network = nn.Conv2d(16, 16, 1)
    before = network.weight.clone()
    Muon(network.parameters(), lr=1.0).step()
    assert torch.equal(network.weight, before)


def test_resumed_is_as_uninterrupted() -> None:
    torch.manual_seed(0)
    network = nn.Conv2d(20, 30, 3)
    optimiser = Muon(network.parameters())

    def steps(network: nn.Conv2d, optimiser: Muon) -> list[Tensor]:
        generator = torch.Generator().manual_seed(1)
        for _ in range(3):
            optimiser.zero_grad()
            network(torch.randn(1, 20, 5, 5, generator=generator)).square().sum().backward()
            optimiser.step()
        return list(network.parameters())

    steps(network, optimiser)
    other = nn.Conv2d(20, 30, 3)
    other.load_state_dict(network.state_dict())
    resumed = Muon(other.parameters())
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    for mine, theirs in zip(steps(network, optimiser), steps(other, resumed), strict=True):
        assert torch.equal(mine, theirs)


def test_weights_decay_and_biases_do_not() -> None:
    plain, decayed = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1)
    decayed.load_state_dict(plain.state_dict())
    before = plain.weight.detach().clone()
    for network, decay in ((plain, 0.0), (decayed, 0.5)):
        network(torch.ones(1, 16, 1, 1)).sum().backward()
        Muon(network.parameters(), lr=0.1, weight_decay=decay).step()
    torch.testing.assert_close(plain.weight - decayed.weight, 0.05 * before)
    assert torch.equal(plain.bias, decayed.bias)
