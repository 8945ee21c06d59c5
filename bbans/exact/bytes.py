"""The integer twin of `bbans.vae.layers.ByteConv`, with several backends that compute the same integers.

A sum is below 2^24, where float32 is exact; weights are up to ±64, so that pairs of products fit 16 bits and no CPU
saturates them. Which backend a network uses is chosen by `bbans.exact.backends`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bbans.exact.layers import columns_of
from bbans.vae.layers import BYTE_MAX, SIGNED_MAX, Enlarged

FLOATS, INT8 = "float", "int8"
MIDDLE = SIGNED_MAX + 1  # of bytes: what is told, which has a sign, is added with this much too much


class IntByteConv(nn.Module):
    """`clamp(round(conv(x) / 2^shift + add), 0, 255)`, half to even; call it as a `ByteConv`.

    weight: int8 [out, in, k, k]; bias: int32 [out]; shift: int32 [out], the power of two that divides each output.
    Bytes are uint8 with the backend `INT8`, and integers in a float tensor with `FLOATS`. spends: as of `ByteConv`.
    """

    bias: Tensor
    power: Tensor
    weight: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, shift: Tensor, *, source: str, spends: bool = False) -> None:
        super().__init__()
        power = torch.exp2(-shift.double())
        # first what is float, as in other layers: who asks a network what it computes in takes its first buffer
        self.register_buffer("bias", (bias.double() * power).float())
        self.register_buffer("power", power.float())
        self.register_buffer("weight", weight.to(torch.int8))
        self.padding, self.source, self.spends = weight.shape[-1] // 2, source, spends
        self.use(FLOATS)

    def use(self, backend: str) -> None:
        """Compute by `FLOATS` or `INT8` from now on."""
        self.backend = backend
        self._packed: tuple[Tensor, ...] | None = None  # weights as the backend likes them

    def __deepcopy__(self, memo: dict[int, Any]) -> IntByteConv:
        """A layer that shares this one's weights, which nothing changes: packed weights can't be copied."""
        made = IntByteConv.__new__(IntByteConv)
        nn.Module.__init__(made)
        for name, buffer in self.named_buffers():
            made.register_buffer(name, buffer)
        made.padding, made.source, made.spends = self.padding, self.source, self.spends
        made.use(self.backend)
        return made

    def _apply(self, fn: Any, recurse: bool = True) -> IntByteConv:
        """Moved elsewhere, it packs its weights anew."""
        self.use(self.backend)
        return super()._apply(fn, recurse)

    def forward(self, x: Tensor, add: Tensor | None = None, told: Enlarged | None = None) -> Tensor:
        offset, spends = 0, self.spends
        if told is not None:
            spends = True
            if add is None:
                bytes_told = (told.regions + MIDDLE).clamp_(0, BYTE_MAX).to(self._dtype)
                add, offset = Enlarged(bytes_told, told.times).at(x), MIDDLE
            else:
                add = self._told(add, told)
        if not self._is_int8:
            return self._in_floats(x, add, offset)
        if add is not None and not spends:
            add = add.clone()
        return self._in_int8(x, add, offset) if x.device.type == "cpu" else self._by_products(x, add, offset)

    @property
    def _dtype(self) -> torch.dtype:
        """Of bytes."""
        return torch.uint8 if self._is_int8 else self.bias.dtype

    @property
    def _is_int8(self) -> bool:
        """Not in float64, whoever asked for that."""
        return self.backend == INT8 and self.bias.dtype == torch.float32

    def _told(self, add: Tensor, told: Enlarged) -> Tensor:
        """clamp(add + told, 0, 255), without a larger type on the way."""
        more, less = (Enlarged((sign * told.regions).clamp_(0, BYTE_MAX).to(add.dtype), told.times) for sign in (1, -1))
        room = Enlarged(BYTE_MAX - more.regions, told.times)
        y = torch.minimum(add, room.at(add)).add_(more.at(add))
        floor = less.at(add)
        return torch.maximum(y, floor, out=y).sub_(floor)

    def _in_floats(self, x: Tensor, add: Tensor | None, offset: int) -> Tensor:
        """The reference: sums that floats hold exactly, in any order, on any device."""
        if self._packed is None:
            weight = self.weight.to(self.bias.dtype) * self.power[:, None, None, None]
            self._packed = (weight.contiguous(memory_format=torch.channels_last),)
        (weight,) = self._packed
        x = x.to(self.bias.dtype)
        if x.device.type == "cpu":
            y = F.conv2d(x, weight, self.bias - offset, padding=self.padding)
        else:
            y = columns_of(x, weight, 1).add_((self.bias - offset)[:, None, None])
        if add is not None:
            y.add_(add)
        return y.round_().clamp_(0, BYTE_MAX)

    def _in_int8(self, x: Tensor, add: Tensor | None, offset: int) -> Tensor:
        """oneDNN's convolution of uint8 by int8: the op is private to PyTorch, so `backends` tries it before use."""
        if self._packed is None:
            self._packed = (
                torch.ops.onednn.qconv_prepack(
                    self.weight.contiguous(), self.power, 1.0, 0, [1, 1], [self.padding] * 2, [1, 1], 1, None
                ),
                torch.zeros(len(self.weight), dtype=torch.long),
            )
        weight, zeros = self._packed
        settings = {
            "qx": _bytes(x),
            "x_scale": 1.0,
            "x_zero_point": 0,
            "qw": weight,
            "w_scale": self.power,
            "w_zero_point": zeros,
            "bias": self.bias - offset if offset else self.bias,
            "stride": [1, 1],
            "padding": [self.padding] * 2,
            "dilation": [1, 1],
            "groups": 1,
            "output_scale": 1.0,
            "output_zero_point": 0,
            "output_dtype": torch.uint8,
        }
        op = torch.ops.onednn.qconv2d_pointwise
        if add is None:
            y: Tensor = op.default(**settings, attr="relu", scalars=[], algorithm="")
            return y
        added = _bytes(add)
        op.binary(  # writes to what is added; what it returns is a copy
            **settings,
            qaccum=added,
            accum_scale=1.0,
            accum_zero_point=0,
            binary_attr="sum",
            alpha=1.0,
            unary_attr="relu",
            unary_scalars=[],
            unary_algorithm="",
        )
        return added

    def _by_products(self, x: Tensor, add: Tensor | None, offset: int) -> Tensor:
        """On GPUs: one matrix product of int8 for a whole batch, summed as int32. Bytes are shifted to be signed."""
        outputs, (n, _, h, w), k = len(self.weight), x.shape, self.weight.shape[-1]
        if self._packed is None:
            flat = self.weight.flatten(1)
            self._packed = _padded(flat), self.bias + MIDDLE * flat.sum(1, dtype=torch.int32) * self.power
        weight, bias = self._packed
        columns = F.unfold(x.to(self.bias.dtype), k, padding=k // 2).transpose(0, 1).flatten(1) - MIDDLE
        sums = torch._int_mm(weight, _padded(columns.to(torch.int8)))[:outputs, : n * h * w]
        y = sums.to(self.bias.dtype).mul_(self.power[:, None]).add_((bias - offset)[:, None])
        y = y.view(outputs, n, h, w).transpose(0, 1)
        if add is not None:
            y.add_(add)
        return y.round_().clamp_(0, BYTE_MAX).to(torch.uint8).contiguous(memory_format=torch.channels_last)


def _bytes(x: Tensor) -> Tensor:
    """uint8, in the layout that oneDNN wants."""
    return x.to(torch.uint8).contiguous(memory_format=torch.channels_last)


def _padded(x: Tensor) -> Tensor:
    """A matrix with zeros below and behind, for products of int8 on GPUs need sizes of multiples of 8, from 24 on."""
    rows, columns = (max(24, -(-size // 8) * 8) - size for size in x.shape)
    return F.pad(x, (0, columns, 0, rows)).contiguous()
