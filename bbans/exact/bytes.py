"""The integer twin of `bbans.vae.layers.ByteConv`: bytes times weights of 7 bits and a sign, by several backends.

All compute the same integers. A sum is below 2^24, where float32 is exact; with weights up to ±64, pairs of products
fit 16 bits, so that no CPU saturates them. Which backend a network uses is chosen by `bbans.exact.backends`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bbans.exact.layers import columns_of
from bbans.vae.layers import BYTE_MAX

FLOATS, INT8 = "float", "int8"
_MIDDLE = 128


class IntByteConv(nn.Module):
    """`clamp(round(conv(x) / 2^shift + add))` of bytes, half to even; call it as a `ByteConv` that reads bytes.

    weight: int8 [out, in, k, k]; bias: int32 [out]; shift: int32 [out], the power of two that divides each output.
    highest: None for a layer that writes bytes, 0..255; else what its output is clamped to, ±highest, which is rounded
    half up and float. `add` is bytes, too, and may be overwritten. Between layers, bytes are uint8 with the backend
    `INT8`, and integers in a float tensor with `FLOATS`; either is read.
    """

    weight: Tensor
    bias: Tensor
    power: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, shift: Tensor, *, source: str, highest: int | None = None) -> None:
        super().__init__()
        power = torch.exp2(-shift.double())
        self.register_buffer("weight", weight.to(torch.int8))
        self.register_buffer("power", power.float())
        self.register_buffer("bias", (bias.double() * power + (0.0 if highest is None else 0.5)).float())
        self._settle(source, highest, FLOATS)

    def _settle(self, source: str, highest: int | None, backend: str) -> None:
        self.padding, self.source, self.highest, self.backend = self.weight.shape[-1] // 2, source, highest, backend
        self._scaled: Tensor | None = None  # weights of the reference
        self._packed: tuple[Tensor, ...] | None = None  # weights as the backend likes them
        self._parts: list[IntByteConv] = []

    def _part(self, outputs: slice) -> IntByteConv:
        """A layer of some of the outputs, which shares this one's weights."""
        made = IntByteConv.__new__(IntByteConv)
        nn.Module.__init__(made)
        for name, buffer in self.named_buffers():
            made.register_buffer(name, buffer[outputs])
        made._settle(self.source, self.highest, self.backend)
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> IntByteConv:
        """A layer that shares this one's weights, which nothing changes: packed weights can't be copied."""
        return self._part(slice(None))

    def _apply(self, fn: Any, recurse: bool = True) -> IntByteConv:
        """Moved elsewhere, it packs its weights anew."""
        self._settle(self.source, self.highest, self.backend)
        return super()._apply(fn, recurse)

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        in_int8 = self.backend == INT8 and self.bias.dtype == torch.float32  # in float64, whoever asked for that
        return self._in_int8(x, add) if in_int8 else self._in_floats(x, add)

    def split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """The outputs, in equal parts, each in one piece of memory."""
        if not self._parts:
            each = len(self.weight) // parts
            self._parts = [self._part(slice(i * each, (i + 1) * each)) for i in range(parts)]
        for part in self._parts:
            part.backend = self.backend
        return tuple(part(x) for part in self._parts)

    def _in_floats(self, x: Tensor, add: Tensor | None) -> Tensor:
        """The reference: sums that float32 holds exactly, in any order, on any device."""
        dtype = self.bias.dtype
        if self._scaled is None:
            self._scaled = (self.weight.to(dtype) * self.power.to(dtype)[:, None, None, None]).contiguous(
                memory_format=torch.channels_last
            )
        x = x.to(dtype)
        if x.device.type == "cpu":
            y = F.conv2d(x, self._scaled, self.bias, padding=self.padding)
        else:
            y = columns_of(x, self._scaled, 1) + self.bias[:, None, None]
        if self.highest is not None:
            return y.floor_().clamp_(-self.highest, self.highest)
        if add is not None:
            y = y.add_(add)
        return y.round_().clamp_(0, BYTE_MAX)

    def _in_int8(self, x: Tensor, add: Tensor | None) -> Tensor:
        """oneDNN's convolution of uint8 by int8: the op is private to PyTorch, so `backends` tries it before use."""
        if x.device.type != "cpu":
            return self._by_products(x, add)
        if self._packed is None:
            self._packed = self._pack()
        weight, power, zeros = self._packed
        wide = self.highest is not None
        settings = {
            "qx": _bytes(x),
            "x_scale": 1.0,
            "x_zero_point": 0,
            "qw": weight,
            "w_scale": power,
            "w_zero_point": zeros,
            "bias": self.bias,
            "stride": [1, 1],
            "padding": [self.padding] * 2,
            "dilation": [1, 1],
            "groups": 1,
            "output_scale": 1.0,
            "output_zero_point": 0,
            "output_dtype": torch.float32 if wide else torch.uint8,
        }
        if add is not None:
            return torch.ops.onednn.qconv2d_pointwise.binary(
                **settings,
                qaccum=_bytes(add),
                accum_scale=1.0,
                accum_zero_point=0,
                binary_attr="sum",
                alpha=1.0,
                unary_attr="relu",
                unary_scalars=[],
                unary_algorithm="",
            )
        clamp = [float(-self.highest), self.highest + 0.5] if self.highest is not None else []
        kind = "hardtanh" if wide else "relu"
        y: Tensor = torch.ops.onednn.qconv2d_pointwise.default(**settings, attr=kind, scalars=clamp, algorithm="")
        return y.floor_() if wide else y

    def _by_products(self, x: Tensor, add: Tensor | None) -> Tensor:
        """On GPUs: one matrix product of int8 for a whole batch, summed as int32. Bytes are shifted to be signed."""
        outputs, (n, _, h, w), k = len(self.weight), x.shape, self.weight.shape[-1]
        if self._packed is None:
            flat = self.weight.flatten(1)
            self._packed = _padded(flat), self.bias + _MIDDLE * flat.sum(1, dtype=torch.int32) * self.power
        weight, bias = self._packed
        columns = F.unfold(x.to(self.bias.dtype), k, padding=k // 2).transpose(0, 1).flatten(1) - _MIDDLE
        sums = torch._int_mm(weight, _padded(columns.to(torch.int8)))[:outputs, : n * h * w]
        y = sums.to(self.bias.dtype).mul_(self.power[:, None]).add_(bias[:, None])
        y = y.view(outputs, n, h, w).transpose(0, 1)
        if self.highest is not None:
            return y.floor_().clamp_(-self.highest, self.highest)
        if add is not None:
            y = y.add_(add)
        return y.round_().clamp_(0, BYTE_MAX).to(torch.uint8)

    def _pack(self) -> tuple[Tensor, ...]:
        zeros = torch.zeros(len(self.weight), dtype=torch.long)
        packed = torch.ops.onednn.qconv_prepack(
            self.weight.contiguous(), self.power, 1.0, 0, [1, 1], [self.padding] * 2, [1, 1], 1, None
        )
        return packed, self.power, zeros


def _bytes(x: Tensor) -> Tensor:
    """uint8, in the layout that oneDNN wants."""
    return x.to(torch.uint8).contiguous(memory_format=torch.channels_last)


def _padded(x: Tensor) -> Tensor:
    """A matrix with zeros below and behind, for products of int8 on GPUs need sizes of multiples of 8, from 24 on."""
    rows, columns = (max(24, -(-size // 8) * 8) - size for size in x.shape)
    return F.pad(x, (0, columns, 0, rows)).contiguous()
