"""Latents on a grid in units of their prior: 2^bits bins of equal prior mass.

Under a standard logistic prior the bins are exactly uniform, so pushing a latent with its prior costs `bits` bits and
no arithmetic; the posterior, a logistic of any location and scale, gives each bin what its CDF says. Bins of fewer
bits are unions of finer ones, so one shipped table of edges serves all. Source: Townsend et al. 2019, section 2.5.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbans.ans import Message
from bbans.codecs.core import Codec, from_intervals, over_lanes
from bbans.codecs.discrete import uniform
from bbans.codecs.tables import PRECISION as TABLE_PRECISION
from bbans.codecs.tables import ScaleTables, logistic_cdf, scale_of
from bbans.errors import BadFile

Int32 = NDArray[np.int32]

PRECISION = 24
MAX_BITS = 10
EDGES, LAST_EDGE = (1 << (MAX_BITS + 1)) + 1, 1 << 20  # how many edges there are; the last one, for infinity
PRIOR_SCALE = 16  # units of `ScaleTables` in one scale of the prior: locations are in 1/256 of it


def logistic_edges() -> Int32:
    """int32 [2^11 + 1]: quantiles of the logistic in 1/256, computed on this machine; the ends stand for infinity."""
    p = np.arange(1, EDGES - 1) / (EDGES - 1)
    inner = np.rint(np.log(p / (1 - p)) * 256).astype(np.int32)
    return np.concatenate([[-LAST_EDGE], inner, [LAST_EDGE]]).astype(np.int32)


def prior_codec(bits: int, count: int) -> Codec:
    """`count` latents, over the lanes, under the prior: uniform over their 2^bits bins."""
    return over_lanes(lambda _: uniform(1 << bits), count)


def centres(bits: int, edges: Int32) -> Int32:
    """int32 [2^bits]: the median of each bin, in 1/256 of the prior's scale."""
    step = 1 << (MAX_BITS - bits)
    return edges[step :: 2 * step]


@dataclass(frozen=True)
class BinnedPosterior:
    """n independent logistics on bins. means: int32 [n] in 1/256 of the prior's scale; scales: int32 [n], indices of
    `tables`; edges: `logistic_edges()` as shipped; bits: 1..10."""

    tables: ScaleTables
    edges: Int32
    bits: int
    means: Int32
    scales: Int32

    def __len__(self) -> int:
        return len(self.means)

    def __getitem__(self, part: slice) -> BinnedPosterior:
        return BinnedPosterior(self.tables, self.edges, self.bits, self.means[part], self.scales[part])

    def _edge(self, i: NDArray[Any]) -> Int32:
        return self.edges[i << (MAX_BITS + 1 - self.bits)]

    def cdf(self, i: NDArray[Any]) -> NDArray[np.int64]:
        """The start of bin i's interval; i in 0..2^bits."""
        inside = self.tables.interpolated(self._edge(i) - self.means, self.scales, PRECISION - TABLE_PRECISION)
        inside[i <= 0] = 0
        inside[i >= 1 << self.bits] = 1 << PRECISION
        return inside

    def interval(self, i: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(starts, freqs) out of 2^24. A bin without mass has freq 0: it can't be popped, and must not be pushed."""
        start = self.cdf(i)
        return start, self.cdf(i + 1) - start

    def locate(self, cf: NDArray[Any]) -> Int32:
        """The bin whose interval holds cf."""
        below = np.zeros(len(cf), np.int32)
        for step in (1 << np.arange(self.bits)[::-1]).astype(np.int32):
            np.copyto(below, below + step, where=self.cdf(below + step) <= cf)
        return below

    def row_codec(self) -> Codec:
        """All n latents over the lanes of a message. Pushing a bin without mass raises `BadFile`."""

        def codec_of(part: slice) -> Codec:
            mine = self[part]

            def interval(i: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
                starts, freqs = mine.interval(i)
                if not freqs.all():
                    raise BadFile("a latent lies where its posterior has no mass, so the message is damaged")
                return starts, freqs

            return from_intervals(interval, mine.locate, PRECISION)

        codec = over_lanes(codec_of, len(self))

        def push(message: Message, i: NDArray[Any]) -> None:
            codec.push(message, i.astype(np.int32))

        return Codec(push, codec.pop)

    def log2_prob(self, i: NDArray[Any]) -> NDArray[np.float64]:
        """log2 q of bins i with real-valued probabilities of the same parameters: what `elbo` counts."""
        inverse = PRIOR_SCALE / scale_of(self.scales)

        def cdf(at: NDArray[Any]) -> NDArray[np.float64]:
            values = logistic_cdf((self._edge(at) - self.means) / 256 * inverse)
            return np.where(at <= 0, 0.0, np.where(at >= 1 << self.bits, 1.0, values))

        return np.log2(np.maximum(cdf(i + 1) - cdf(i), 2.0**-60))
