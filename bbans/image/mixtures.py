"""Mixtures of logistics whose parameters a network puts out, made of its outputs where they are needed.

All that a block of symbols takes is computed while it is in the cache: the whole of a plane's parameters is several
times as large as the outputs that it is made of, and would come from memory each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbans.codecs.core import Codec, over_lanes
from bbans.codecs.mixture import WEIGHT_BITS, Mixture
from bbans.codecs.tables import SCALE_OF_ONE, SCALES
from bbans.zoo import Tables

_ALL = np.float64(0xFFFFFFFF)
BLOCK = 1 << 13  # symbols whose mixtures are made at a time


@dataclass(frozen=True)
class Mixtures:
    """n independent mixtures of K components.

    outputs: float32 integers [3K, n] of a network: logits in 1/16 octave, means in 1/16 relative to `centres` [n],
    log2-scales in 1/8; symbols are lo..hi.
    """

    tables: Tables
    outputs: NDArray[np.float32]
    centres: NDArray[np.float32]
    lo: int
    hi: int

    def __len__(self) -> int:
        return self.outputs.shape[1]

    def __getitem__(self, part: slice) -> Mixtures:
        """The mixtures of some symbols."""
        return Mixtures(self.tables, self.outputs[:, part], self.centres[part], self.lo, self.hi)

    @cached_property
    def made(self) -> Mixture:
        """With the parameters that are coded with."""
        logits, means, scales = self.outputs.reshape(3, -1, len(self))
        index = scales.astype(np.int32)
        index += np.int32(SCALE_OF_ONE)
        np.maximum(index, np.int32(0), out=index)
        np.minimum(index, np.int32(SCALES - 1), out=index)
        centred = (means + self.centres).astype(np.int32)
        return Mixture(self.tables.logistic, _weights(self.tables.exp2, logits), centred, index, self.lo, self.hi)

    def interval(self, x: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """(starts, freqs) out of 2^24 of symbols x [n]."""
        found = np.empty((2, len(x)), np.int32)
        for part in self._blocks():
            found[:, part] = self[part].made.interval(x[part])
        return found[0], found[1]

    def codec(self) -> Codec:
        """One symbol for each head of a message with n heads."""
        return self.made.codec()

    def row_codec(self) -> Codec:
        """All n symbols over the lanes of a message, whatever their number."""
        return over_lanes(lambda part: self[part].codec(), len(self))

    def mean(self) -> NDArray[np.float64]:
        """The means [n], as they are coded."""
        return self.made.mean()

    def log2_prob(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """log2 P(x) [n]: what `elbo` counts."""
        parts = [self[part].made.log2_prob(x[part]) for part in self._blocks()]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _blocks(self) -> list[slice]:
        return [slice(i, min(i + BLOCK, len(self))) for i in range(0, len(self), BLOCK)]


def _weights(exp2: NDArray[np.uint32], logits: NDArray[np.float32]) -> NDArray[np.uint32]:
    """The softmax of logits [K, n] as uint32 that add up to 2^12; the first of the largest takes what rounding leaves.

    exp2: the table of powers of two, for logits 0, 1/16 ... octaves below the largest.
    """
    if len(logits) == 1:
        return np.full(logits.shape, 1 << WEIGHT_BITS, np.uint32)
    largest = logits.max(0)
    below = largest - logits
    weights = exp2.take(below.astype(np.intp), mode="clip")
    # floors of quotients in double precision are exact: these are below 2^16, and at least 2^-18 from the next integer
    weights *= (_ALL / np.add.reduce(weights, 0, dtype=np.uint32)).astype(np.uint32)
    weights >>= np.uint32(32 - WEIGHT_BITS)
    rest = np.uint32(1 << WEIGHT_BITS) - np.add.reduce(weights, 0, dtype=np.uint32)
    for row, is_largest in zip(weights, below == 0, strict=True):
        mine = rest * is_largest
        row += mine
        rest -= mine
    return weights


def rows_of(params: Tensor) -> NDArray[np.float32]:
    """[n, c, h, w] of integers to float32 [c, n h w], row after row in memory, as what follows likes it."""
    n, c, h, w = params.shape
    rows = params.permute(1, 0, 2, 3)
    if params.device.type == "cpu" and params.dtype == torch.float32:
        # channels lie side by side, and a product with 1 and 0 is the quickest way to part them: exact, as all is here
        return torch.mm(torch.eye(c), rows.reshape(c, -1)).numpy()
    return rows.float().contiguous().cpu().numpy().reshape(c, n * h * w)
