"""Network outputs per pixel, computed block by block: the features of a last layer are far smaller than its outputs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbans.exact.layers import IntConv

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]


class Outputs(Protocol):
    """Integer network outputs for a row of pixels. width: outputs of each pixel, 3K for K components."""

    @property
    def width(self) -> int: ...

    def columns(self, part: slice) -> Float32:
        """Return the outputs of a part as float32 [width, len(part)], for NumPy."""

    def rows(self, part: slice) -> Callable[[slice, ModuleType], Int32]:
        """Return a thread-safe function (subpart of the part, compiled loops) -> int32 [len(subpart), width]."""


@dataclass(frozen=True)
class Made:
    """Outputs that are already computed: float32 [width, n]."""

    array: Float32

    @property
    def width(self) -> int:
        return len(self.array)

    @classmethod
    def of(cls, params: Tensor) -> Made:
        """Wrap network outputs [n, 3K, h, w]."""
        return cls(rows_of(params))

    def columns(self, part: slice) -> Float32:
        return self.array[:, part]

    def rows(self, part: slice) -> Callable[[slice, ModuleType], Int32]:
        array = self.columns(part)
        return lambda fewer, _: np.ascontiguousarray(array[:, fewer].T, np.int32)


@dataclass(frozen=True)
class LastLayer:
    """The outputs of a 1x1 layer for features [n, in], on the CPU."""

    layer: IntConv
    features: Tensor

    @property
    def width(self) -> int:
        return len(self.layer.bias)

    @classmethod
    def of(cls, layer: IntConv, features: Tensor) -> LastLayer:
        """Wrap a layer and its features [n, c, h, w]."""
        return cls(layer, features.permute(0, 2, 3, 1).reshape(-1, features.shape[1]))

    def columns(self, part: slice) -> Float32:
        return self.layer.rows(self.features[part]).float().numpy()

    def rows(self, part: slice) -> Callable[[slice, ModuleType], Int32]:
        if self.features.dtype != torch.uint8:
            return Made(self.columns(part)).rows(slice(None))
        weight, bias, shift = self.layer.arrays
        if np.abs(weight).max() >= 1 << 15:
            return Made(self.columns(part)).rows(slice(None))
        features, weight = np.ascontiguousarray(self.features[part].numpy()), weight.astype(np.int16)
        limits = self.layer.lowest, self.layer.highest

        def computed(fewer: slice, loops: ModuleType) -> Int32:
            some = features[fewer]
            outputs = _scratch((len(some), len(weight)))
            loops.last_layer(some, weight, bias, shift, *limits, outputs)
            return outputs

        return computed


@dataclass(frozen=True)
class Pictures:
    """The outputs of several pictures of `count` pixels each, one `Outputs` per picture."""

    each: Sequence[Outputs]
    count: int

    @property
    def width(self) -> int:
        return self.each[0].width

    def columns(self, part: slice) -> Float32:
        return np.concatenate([outputs.columns(mine) for outputs, mine in self._of(part)], 1)

    def rows(self, part: slice) -> Callable[[slice, ModuleType], Int32]:
        whole = self._of(part)
        if len(whole) == 1:
            ((outputs, mine),) = whole
            return outputs.rows(mine)
        return Made(self.columns(part)).rows(slice(None))

    def _of(self, part: slice) -> list[tuple[Outputs, slice]]:
        """Return the pictures that a part overlaps, each with the part inside it."""
        found = []
        for picture in range(part.start // self.count, max(part.start, part.stop - 1) // self.count + 1):
            first = picture * self.count
            found.append((self.each[picture], slice(max(part.start - first, 0), min(part.stop - first, self.count))))
        return found


_of_thread = threading.local()


def _scratch(shape: tuple[int, int]) -> Int32:
    """Return an array that the next call by the same thread overwrites: fresh memory would cost more than it holds."""
    size = shape[0] * shape[1]
    memory: Int32 | None = getattr(_of_thread, "memory", None)
    if memory is None or len(memory) < size:
        _of_thread.memory = memory = np.empty(size, np.int32)
    return memory[:size].reshape(shape)


def outputs_of(layers: Sequence[IntConv], features: Tensor) -> Outputs:
    """Return the outputs for features [n, c, h, w]; layers: one for all pictures, or one per picture."""
    each = features.split(1) if len(layers) > 1 else (features,)
    on_cpu = features.device.type == "cpu"
    made: list[Outputs] = [
        LastLayer.of(layer, mine) if on_cpu else Made.of(layer(mine)) for layer, mine in zip(layers, each, strict=True)
    ]
    return made[0] if len(made) == 1 else Pictures(made, features.shape[-2] * features.shape[-1])


def rows_of(params: Tensor) -> NDArray[np.float32]:
    """Reshape integers [n, c, h, w] to float32 [c, n h w]."""
    return params.transpose(0, 1).flatten(1).float().contiguous().cpu().numpy()
