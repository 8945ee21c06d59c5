"""Training with rounding rounds as exact networks do."""

from __future__ import annotations

import torch
from torch import nn

from bbans.exact.export import calibrate, install, quantise
from bbans.exact.layers import arithmetic
from bbans.vae.layers import INPUT_DIGITS, Conv, Residual


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = Conv(2, 8, 3, source="input", target="stream")
        self.block = Residual(8, stream="stream", inner="inner")
        self.out = Conv(8, 2, 1, source="stream", target="params", relu=False, digits=(8, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.block(self.enter(x)))


def test_what_is_rounded_is_what_integers_give() -> None:
    from bench.rounding import rounding

    torch.manual_seed(0)
    network, exact = Small(), Small()
    nn.init.normal_(network.block.second.weight, std=0.3)
    integers = torch.randint(-256, 256, (1, 2, 16, 16)).float()
    x = integers / 2**INPUT_DIGITS
    digits = calibrate(network, lambda: network(x))
    install(exact, quantise(network, digits))
    with arithmetic():
        wanted = exact(integers) / torch.tensor([2.0**8, 2.0**3])[:, None, None]
    with rounding(digits):
        rounded = network(x)
        with torch.no_grad():
            plain = network(x)
    steps = torch.tensor([2.0**-8, 2.0**-3])[:, None, None]
    off = ((rounded.detach() - wanted) / steps).abs()  # biases are not rounded, and may tip a sum over
    assert float((off > 0).float().mean()) < 0.05 and float(off.max()) <= 1
    assert not torch.equal(plain, rounded)
    rounded.sum().backward()
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in network.parameters())
