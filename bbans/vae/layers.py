"""The one layer every network here is made of.

It knows a convolution, an addend and a ReLU. It carries the *names* of the scales of its input and output, so that
`bbans.exact` can later replace it by the same layer on integers; it knows nothing of images or distributions.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

INPUT_DIGITS = 6  # values of the scale `input` are integers divided by 2^6, of `input.9` by 2^9
AnyModule = TypeVar("AnyModule", bound=nn.Module)


def channels_last(network: AnyModule) -> AnyModule:
    """The network with its weights laid out as convolutions on CPUs like them."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class Conv(nn.Conv2d):
    """`act(conv(x) + add)`: convolution with zero padding, an optional addend, then ReLU or nothing.

    Tensors that meet in an addition must have the same scale, so scales have names: `source` is that of the input,
    `target` that of the output and of `add`. Two layers with the same `target` may be added. The name `input` is
    reserved for integers divided by 64, and `input.9`, say, for integers divided by 2^9: they alone may be negative
    where a layer reads them. `params` is reserved for parameters of distributions, whose outputs have each their own
    `digits` after the binary point.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        source: str,
        target: str,
        stride: int = 1,
        relu: bool = True,
        digits: tuple[int, ...] = (),
    ) -> None:
        super().__init__(channels_in, channels_out, kernel, stride=stride, padding=kernel // 2)
        self.source, self.target, self.relu, self.digits = source, target, relu, digits

    def kernel(self) -> Tensor:
        """The weights that inputs are multiplied by."""
        return self.weight

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        y = super().forward(x)
        if add is not None:
            y = y + add
        return torch.relu(y) if self.relu else y


class Linear(Conv):
    """The layer on vectors [N, channels]: `act(x weight + bias + add)`."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        source: str,
        target: str,
        relu: bool = True,
        digits: tuple[int, ...] = (),
    ) -> None:
        super().__init__(channels_in, channels_out, 1, source=source, target=target, relu=relu, digits=digits)

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        y = functional.linear(x, self.kernel().flatten(1), self.bias)
        if add is not None:
            y = y + add
        return torch.relu(y) if self.relu else y


class MaskedLinear(Linear):
    """A `Linear` whose weights count as 0 where `mask` [out, in] is: Germain et al. 2015 (MADE), eq. 8.

    Whatever they are: orthogonal steps and revived units know no mask.
    """

    mask: Tensor

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        mask: Tensor,
        *,
        source: str,
        target: str,
        relu: bool = True,
        digits: tuple[int, ...] = (),
    ) -> None:
        super().__init__(channels_in, channels_out, source=source, target=target, relu=relu, digits=digits)
        self.register_buffer("mask", mask[:, :, None, None].to(self.weight), persistent=False)

    def kernel(self) -> Tensor:
        return self.weight * self.mask


def input_digits(scale: str) -> int | None:
    """Digits after the binary point of a scale of inputs; None of others, whose digits calibration finds."""
    name, _, digits = scale.partition(".")
    if name != "input":
        return None
    return int(digits) if digits else INPUT_DIGITS


class Residual(nn.Module):
    """`relu(h + conv1x1(relu(conv3x3(h))))`, which starts as the identity on non-negative h."""

    def __init__(self, channels: int, *, stream: str, inner: str) -> None:
        super().__init__()
        self.first = Conv(channels, channels, 3, source=stream, target=inner)
        self.second = Conv(channels, channels, 1, source=inner, target=stream)
        nn.init.zeros_(self.second.weight)
        assert self.second.bias is not None
        nn.init.zeros_(self.second.bias)

    def forward(self, h: Tensor) -> Tensor:
        return self.second(self.first(h), add=h)


def posterior(channels: int, latents: int, *, source: str) -> Conv:
    """An encoder's last layer: means [N, latents, ...] in 1/256 of the prior's scale, then log2-scales in 1/8."""
    digits = (8,) * latents + (3,) * latents
    return Conv(channels, 2 * latents, 1, source=source, target="params", relu=False, digits=digits)
