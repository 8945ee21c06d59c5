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
SIGNED_MAX = 127
BYTE_UNIT = 64.0  # bytes are 64ths
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
    where a layer reads them. Names that begin with `byte` are of bytes, which are never negative; like inputs they are
    integers divided by 64. `params` is reserved for parameters of distributions, whose outputs have each their own
    `digits` after the binary point.

    reads, writes: what real numbers are multiplied by to be the tensors that come in, and go out: 64 for integers of
    64ths.
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
        reads: float = 1.0,
        writes: float = 1.0,
    ) -> None:
        super().__init__(channels_in, channels_out, kernel, stride=stride, padding=kernel // 2)
        self.source, self.target, self.relu, self.digits = source, target, relu, digits
        self.reads, self.writes = reads, writes

    def kernel(self) -> Tensor:
        """The weights that inputs are multiplied by [out, in, kernel, kernel]."""
        return self.weight

    def kernel_shape(self) -> tuple[int, ...]:
        """Return the shape of `kernel` without computing it."""
        return tuple(self.weight.shape)

    def forward(self, x: Tensor, add: Tensor | None = None, told: Enlarged | None = None) -> Tensor:
        y = _sum(self._convolve(x, self.weight), add, told)
        return torch.relu(y) if self.relu else y

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        scale, bias = self.writes / self.reads, self.bias
        assert bias is not None
        weight = weight if scale == 1.0 else weight * scale
        bias = bias if self.writes == 1.0 else bias * self.writes
        return functional.conv2d(x, weight, bias, self.stride, self.padding)


def _sum(y: Tensor, add: Tensor | None, told: Enlarged | None) -> Tensor:
    y = y if add is None else y + add
    return y if told is None else y + told.at(y)


class ByteConv(Conv):
    """A `Conv` from bytes to bytes: activations 0..255, in 64ths, and weights of 7 bits and a sign.

    Tensors hold the 64ths, in whatever dtype. Once `rounds` is set, outputs are rounded and clamped to bytes, and the
    weights of each output are rounded to multiples of a power of two; gradients pass rounding as if it weren't there
    (Bengio et al. 2013, arXiv:1308.3432), and stop where an activation is clamped. Until then it is a layer of real
    numbers with a ReLU.

    What is told of a region is a byte with a sign; together with an addend it makes one that is a byte again.

    beside: the number of inputs, the last ones, that have another scale than `source`. Their weights must grow several
    times as large as the others, and Muon moves all weights of a matrix alike, so they are a parameter of their own.

    spends: whether the addend is read by nothing else, so that it may be overwritten.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        source: str,
        target: str,
        beside: int = 0,
        spends: bool = False,
    ) -> None:
        super().__init__(
            channels_in - beside, channels_out, kernel, source=source, target=target, reads=BYTE_UNIT, writes=BYTE_UNIT
        )
        self.rounds, self.spends = False, spends
        self.beside = nn.Parameter(torch.empty(channels_out, beside, kernel, kernel)) if beside else None
        if self.beside is not None:
            bound = (channels_in * kernel**2) ** -0.5  # that of PyTorch's convolutions
            nn.init.uniform_(self.beside, -bound, bound)

    @property
    def whole(self) -> Tensor:
        """The weights of all inputs [out, in, kernel, kernel], before rounding."""
        return self.weight if self.beside is None else torch.cat([self.weight, self.beside], 1)

    def kernel_shape(self) -> tuple[int, ...]:
        out, channels, *sides = self.weight.shape
        return out, channels + (0 if self.beside is None else self.beside.shape[1]), *sides

    def get_extra_state(self) -> Tensor:
        """Whether it rounds, uint8 [1]: part of the weights."""
        return torch.tensor([self.rounds], dtype=torch.uint8)

    def set_extra_state(self, state: Any) -> None:
        self.rounds = bool(state[0])

    def kernel(self) -> Tensor:
        return cast(Tensor, _RoundWeights.apply(self.whole)) if self.rounds else self.whole

    def forward(self, x: Tensor, add: Tensor | None = None, told: Enlarged | None = None) -> Tensor:
        y = self._convolve(x, self.kernel())
        if told is not None and add is not None:
            add = self._bytes(add + told.at(add))
        elif told is not None:
            add = Enlarged(told.regions.clamp(-SIGNED_MAX - 1, SIGNED_MAX), told.times).at(y)
        return self._bytes(y if add is None else y + add)

    def _bytes(self, y: Tensor) -> Tensor:
        if not self.relu:  # while dead units are revived
            return y
        return cast(Tensor, _Bytes.apply(y)) if self.rounds else torch.relu(y)


def signed_bytes(x: Tensor) -> Tensor:
    """Integers [N, channels, h, w] as bytes [N, 2 channels, h, w]: positive parts, then negative ones, up to 255."""
    x = x.contiguous(memory_format=torch.channels_last)
    made = torch.cat([x, -x], 1).clamp(0, BYTE_MAX)
    return made.contiguous(memory_format=torch.channels_last)  # or concatenating it would copy the features


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


def known_digits(scale: str) -> int | None:
    """Digits after the binary point of a scale of inputs or bytes; None of others, whose digits calibration finds."""
    name, _, digits = scale.partition(".")
    if name == "byte":
        return INPUT_DIGITS
    if name != "input":
        return None
    return int(digits) if digits else INPUT_DIGITS


def is_signed(scale: str) -> bool:
    """Whether what a layer reads may be negative."""
    return scale.partition(".")[0] == "input"


def is_byte(scale: str) -> bool:
    """Whether a scale is of bytes."""
    return scale.partition(".")[0] == "byte"


class Residual(nn.Module):
    """`relu(h + conv1x1(relu(conv3x3(h))))`, which starts as the identity on non-negative h. bytes: of `ByteConv`s."""

    def __init__(self, channels: int, *, stream: str, inner: str, bytes: bool = False) -> None:
        super().__init__()
        self.first: Conv
        self.second: Conv
        if bytes:
            self.first = ByteConv(channels, channels, 3, source=stream, target=inner)
            self.second = ByteConv(channels, channels, 1, source=inner, target=stream, spends=True)
        else:
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
