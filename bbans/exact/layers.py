"""The integer twin of `bbans.vae.layers.Conv`, and the settings under which it is exact.

Weights are integers times a power of two for each output channel, so that a convolution's sums are multiples of that
power; `floor` and `clamp` then make integers again. Nothing else is allowed: no division, no exp, no mean.
"""

from __future__ import annotations

import contextlib
import operator
import threading
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from bbans.vae.layers import Enlarged

ACTIVATION_MAX = 4095  # 12 bits; fewer cost rate, more take it from the weights (`elbo - float_elbo` of bench.rates)
INPUT_MAX = 4095  # of scales of inputs: residuals and latents are smaller
PARAMETER_MAX = (1 << 15) - 1
EXACT_LIMIT = 1 << 24  # float32 holds every integer up to here
WIDE_LIMIT = 1 << 31  # float64 holds far more, and biases are stored in 32 bits


class IntConv(nn.Module):
    """`clamp(floor(conv(x) / 2^shift + 1/2) + add)` on integers in a float tensor; call it as a `Conv`.

    weight: int16 [out, in, k, k]; bias: int32 [out]; shift: int32 [out], the power of two that divides each output.
    lowest, highest: the range that outputs are clamped to. source, digits: of the `Conv` that it replaces. carrier: the
    dtype whose sums are exact. On vectors [N, in] it is a `Linear`.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        shift: Tensor,
        *,
        stride: int,
        lowest: int,
        highest: int,
        source: str = "input",
        digits: tuple[int, ...] = (),
        carrier: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        power = torch.exp2(-shift.double())
        self.register_buffer("weight", (weight.double() * power[:, None, None, None]).to(carrier))
        self.register_buffer("bias", (bias.double() * power + 0.5).to(carrier))
        self.shift = shift.to("cpu", torch.int64)  # no buffer: those are all of the dtype that is computed in
        self.stride, self.padding = stride, weight.shape[-1] // 2
        self.lowest, self.highest = lowest, highest
        self.source, self.digits = source, digits

    def integers(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weight, bias and shift as int64 on the CPU."""
        power = torch.exp2(self.shift.double())
        weight = self.weight.cpu().double() * power[:, None, None, None]
        bias = (self.bias.cpu().double() - 0.5) * power
        return weight.to(torch.int64), bias.to(torch.int64), self.shift

    @cached_property
    def arrays(self) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
        """Weight [out, in] of a 1x1 layer, bias [out] with the half that rounds to nearest, and shift [out]."""
        weight, bias, shift = (x.numpy() for x in self.integers())
        bias = bias + (1 << shift >> 1)
        return weight[:, :, 0, 0].astype(np.int32), bias.astype(np.int32), shift.astype(np.int32)

    def with_integers(self, weight: Tensor, bias: Tensor, shift: Tensor) -> IntConv:
        """Return the same layer with other integers, on the same device."""
        made = IntConv(
            weight,
            bias,
            shift,
            stride=self.stride,
            lowest=self.lowest,
            highest=self.highest,
            source=self.source,
            digits=self.digits,
            carrier=self.bias.dtype,
        )
        made.weight = made.weight.contiguous(memory_format=torch.channels_last)
        return made if self.bias.device.type == "cpu" else made.to(self.bias.device)

    def forward(self, x: Tensor, add: Tensor | None = None, told: Enlarged | None = None) -> Tensor:
        y = self._convolve(x.to(self.bias.dtype)).floor_()
        if add is not None:
            y.add_(add)
        if told is not None:
            told.add_to(y)
        return y.clamp_(self.lowest, self.highest)

    def rows(self, x: Tensor) -> Tensor:
        """Return the outputs [out, N] of a 1x1 layer for vectors [N, in]; otherwise as `forward`."""
        dtype = self.bias.dtype
        y = torch.addmm(self.bias[:, None], self.weight.flatten(1), x.to(dtype).T).floor_()
        return y.clamp_(self.lowest, self.highest)

    def _convolve(self, x: Tensor) -> Tensor:
        if x.ndim == 2:
            return F.linear(x, self.weight.flatten(1), self.bias)
        if x.device.type == "cpu":
            return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)
        return columns_of(x, self.weight, self.stride) + self.bias[:, None, None]


def columns_of(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """A convolution as one matrix product: on GPUs, cuDNN may choose Winograd or FFT, which are not exact."""
    k = weight.shape[-1]
    h, w = ((s + 2 * (k // 2) - k) // stride + 1 for s in x.shape[-2:])
    columns = F.unfold(x, k, padding=k // 2, stride=stride)
    return (weight.flatten(1) @ columns).view(len(x), -1, h, w)


# Where PyTorch keeps, for each backend, whether float32 may be computed as something else (2.9 and later).
_PRECISIONS = ("mkldnn.conv", "mkldnn.matmul", "cuda.matmul", "cudnn.conv")


@contextlib.contextmanager
def arithmetic() -> Iterator[None]:
    """No gradients, no Winograd (NNPACK, at batches of 16 and more), no TF32, no reduced precision of any kind."""
    with (
        torch.inference_mode(),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False) if torch.cuda.is_available() else contextlib.nullcontext(),
        _OF_THE_PROCESS,
    ):
        yield


class _OfTheProcess:
    """Settings that all threads share: made by the first thread that comes in, restored by the last that goes out."""

    def __init__(self) -> None:
        self.lock, self.inside, self.restore = threading.Lock(), 0, contextlib.ExitStack()

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                with contextlib.ExitStack() as settings:
                    settings.enter_context(torch.backends.nnpack.flags(enabled=False))
                    settings.enter_context(_full_precision())
                    self.restore = settings.pop_all()
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.restore.close()


_OF_THE_PROCESS = _OfTheProcess()


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """float32 is float32, whatever the caller set; restored afterwards."""
    backends = [operator.attrgetter(name)(torch.backends) for name in _PRECISIONS if _has_precision(name)]
    if not backends:  # an older PyTorch, where one setting governs all
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
        return
    settings = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        for backend, setting in zip(backends, settings, strict=True):
            backend.fp32_precision = setting


def _has_precision(name: str) -> bool:
    try:
        return isinstance(operator.attrgetter(f"{name}.fp32_precision")(torch.backends), str)
    except (AttributeError, RuntimeError):
        return False
