"""The layer every network here is made of, and its variant on bytes.

A layer knows a convolution, an addend and a ReLU. It carries the *names* of the scales of its input and output, so that
`bbans.exact` can later replace it by the same layer on integers; it knows nothing of images or distributions.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

BYTE_MAX = 255
BYTE_WEIGHT_MAX = 64  # pairs of products then fit 16 bits, which CPUs without VNNI add them in: 2 * 64 * 255 < 2^15
INPUT_DIGITS = 6  # values of the scale `input` are integers divided by 2^6, of `input.9` by 2^9
AnyModule = TypeVar("AnyModule", bound=nn.Module)


def channels_last(network: AnyModule) -> AnyModule:
    """The network with its weights laid out as convolutions on CPUs like them."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class Enlarged(NamedTuple):
    """Features of regions [N, channels, rows, columns], each of which stands for `times` x `times` positions."""

    regions: Tensor
    times: int

    def chunk(self, parts: int) -> list[Enlarged]:
        """The channels, in equal parts."""
        return [Enlarged(part, self.times) for part in self.regions.chunk(parts, 1)]

    def at(self, like: Tensor) -> Tensor:
        """All positions, cut to the size of `like`. Exact on integers."""
        h, w = like.shape[-2:]
        x, times = self.regions, self.times
        large = functional.interpolate(x, scale_factor=times, mode="nearest") if times > 1 else x
        return large if large.shape[-2:] == (h, w) else large[..., :h, :w]

    def add_to(self, y: Tensor) -> Tensor:
        """`y.add_(self.at(y))`, without making what is large; no gradients."""
        times = self.times
        h, w = y.shape[-2:]
        rows, columns = h // times, w // times
        whole = y[..., : rows * times, : columns * times]
        whole.unflatten(3, (columns, times)).unflatten(2, (rows, times)).add_(
            self.regions[:, :, :rows, None, :columns, None]
        )
        for part, few in (  # what is left at the right, and below
            (y[..., columns * times :], self.regions[..., columns:]),
            (y[..., rows * times :, : columns * times], self.regions[..., rows:, :columns]),
        ):
            if part.numel():
                part.add_(Enlarged(few, times).at(part))
        return y


class Conv(nn.Conv2d):
    """`act(conv(x) + add + told)`: convolution with zero padding, optional addends, then ReLU or nothing.

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

    def forward(self, x: Tensor, add: Tensor | None = None, told: Enlarged | None = None) -> Tensor:
        y = _sum(super().forward(x), add, told)
        return torch.relu(y) if self.relu else y

    def split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """The outputs, in equal parts."""
        y: Tensor = self(x)
        return y.chunk(parts, 1)


def _sum(y: Tensor, add: Tensor | None, told: Enlarged | None) -> Tensor:
    y = y if add is None else y + add
    return y if told is None else y + told.at(y)


class ByteConv(Conv):
    """A `Conv` that reads or writes activations of 8 bits; once it has digits, it rounds as integers will.

    Bytes are held as what they are, integers 0..255, in whatever dtype; the addend of a layer that writes bytes is in
    their unit, too. Weights that multiply bytes are rounded to 7 bits and a sign, with a step for each output that is a
    power of two. Gradients pass rounding as if it weren't there (Bengio et al. 2013, arXiv:1308.3432), and stop where
    an activation is clamped.

    reads, writes: whether input and output are bytes; at least one is. Without ReLU, what is written is an addend for
    layers that write the same bytes, and may be negative. source_digits, target_digits: a real activation of 1 is
    2^digits in bytes; None until `set_digits`: then nothing is rounded, and bytes are real numbers.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        source: str,
        target: str,
        relu: bool = True,
        reads: bool = True,
        writes: bool = True,
    ) -> None:
        super().__init__(channels_in, channels_out, kernel, source=source, target=target, relu=relu)
        self.reads, self.writes = reads, writes
        self.source_digits: int | None = None
        self.target_digits: int | None = None

    def set_digits(self, source: int | None, target: int | None) -> None:
        """Round from now on; digits of what isn't bytes are ignored."""
        self.source_digits = source if self.reads else None
        self.target_digits = target if self.writes else None

    @property
    def rounds(self) -> bool:
        """Whether digits are known."""
        return self.source_digits is not None or self.target_digits is not None

    def get_extra_state(self) -> Tensor:
        """Digits int16 [2], `_NO_DIGITS` for None: part of the weights."""
        digits = (self.source_digits, self.target_digits)
        return torch.tensor([_NO_DIGITS if each is None else each for each in digits], dtype=torch.int16)

    def set_extra_state(self, state: Any) -> None:
        source, target = (None if each == _NO_DIGITS else int(each) for each in state)
        self.set_digits(source, target)

    def kernel(self) -> Tensor:
        if not (self.rounds and self.reads):
            return self.weight
        return cast(Tensor, _RoundWeights.apply(self.weight))

    def forward(self, x: Tensor, add: Tensor | None = None, told: Enlarged | None = None) -> Tensor:
        if not self.rounds:
            return super().forward(x, add, told)
        unit = 2.0 ** (self.target_digits or 0)
        weight = self.kernel() * (unit * 2.0 ** -(self.source_digits or 0))
        assert self.bias is not None
        y = functional.conv2d(x, weight, self.bias * unit, self.stride, self.padding)
        if self.writes and not self.reads:
            y = cast(Tensor, _RoundHalfUp.apply(y))
        y = _sum(y, add, told)
        if not self.writes:
            return torch.relu(y) if self.relu else y
        return cast(Tensor, _Bytes.apply(y)) if self.relu else y


_NO_DIGITS = 99


def byte_weight_digits(weight: Tensor) -> Tensor:
    """Binary digits [out] of the weights [out, in, k, k] of each output: the most with which all fit ±64."""
    largest = weight.abs().flatten(1).amax(1).float().clamp_min(1e-6)
    return torch.floor(torch.log2((BYTE_WEIGHT_MAX + 0.499) / largest)).clamp_max(14.0)


class _RoundWeights(torch.autograd.Function):
    """Round to 7 bits and a sign, with `byte_weight_digits`."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        step = torch.exp2(-byte_weight_digits(weight))[:, None, None, None]
        return (weight / step).round_().clamp_(-BYTE_WEIGHT_MAX, BYTE_WEIGHT_MAX) * step

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class _Bytes(torch.autograd.Function):
    """Round to nearest, half to even, and clamp to 0..255."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        ctx.save_for_backward(y)
        return torch.round(y).clamp_(0, BYTE_MAX)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradient, y, 0, BYTE_MAX)


class _RoundHalfUp(torch.autograd.Function):
    """Round to nearest, half up."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        return (y + 0.5).floor_()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


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

    def forward(self, x: Tensor, add: Tensor | None = None, told: Enlarged | None = None) -> Tensor:
        y = _sum(functional.linear(x, self.kernel().flatten(1), self.bias), add, told)
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
    """`relu(h + conv1x1(relu(conv3x3(h))))`, which starts as the identity on non-negative h. bytes: of `ByteConv`s."""

    def __init__(self, channels: int, *, stream: str, inner: str, bytes: bool = False) -> None:
        super().__init__()
        layer = ByteConv if bytes else Conv
        self.first = layer(channels, channels, 3, source=stream, target=inner)
        self.second = layer(channels, channels, 1, source=inner, target=stream)
        nn.init.zeros_(self.second.weight)
        assert self.second.bias is not None
        nn.init.zeros_(self.second.bias)

    def forward(self, h: Tensor) -> Tensor:
        return self.second(self.first(h), add=h)


def posterior(channels: int, latents: int, *, source: str) -> Conv:
    """An encoder's last layer: means [N, latents, ...] in 1/256 of the prior's scale, then log2-scales in 1/8."""
    digits = (8,) * latents + (3,) * latents
    return Conv(channels, 2 * latents, 1, source=source, target="params", relu=False, digits=digits)
