"""The family `dense`, written as a codec: p(z) p(x | z) by bits back, whatever prior and posterior it has.

Latents lie on a uniform grid (`bbans.codecs.grid`) of 2^bits bins for each unit, and are coded one after another, each
over all pictures, so that what they are given may depend on those before. What depends on real numbers in
`bbans.vae.distributions` is done here in integers: locations are in 2^-9, scales in eighths of octaves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbans.bitsback import bit_swap, bits_back
from bbans.codecs.core import Codec, autoregressive, dependent, over_lanes
from bbans.codecs.discrete import categorical, quantise, uniform
from bbans.codecs.grid import GridNormals
from bbans.codecs.tables import PER_OCTAVE, SCALE_OF_ONE, SCALES, UNIT
from bbans.errors import BadFile
from bbans.image.outputs import rows_of
from bbans.image.planes import BACK, PRIOR, Latents, Planes, Strand, Watch
from bbans.image.weighted import Particles, weighted
from bbans.vae.dense import LOG2_SCALE, REACH, UNITS, Z_DIGITS, DenseVAE, see_x
from bbans.vae.distributions import FULL_SCALES, NORMAL_MEANS, NORMAL_SCALES
from bbans.zoo import Tables

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Given = Callable[[list[Int64]], tuple[Int64, Int64]]
"""The locations z [n] of the latents before -> means, scales [n] of the next; scales in 1/8 of octaves, 0 being 1. For
one z only: it may remember what was found of the latents before."""

SCALE_OF_Z = SCALE_OF_ONE + PER_OCTAVE * (Z_DIGITS - 4)  # the index of the table whose scale is 1 for z
SAMPLE_LOCATIONS = UNITS * UNIT  # in the range of a sample
LOCATIONS = REACH << Z_DIGITS  # on either side of 0
WEIGHT_PRECISION = 24
MORE_BITS = 8  # of what particles share than of a bin in a unit: a posterior may be 1/16 wide
MOST_BITS = Z_DIGITS - 1  # of a unit of latents: then the middles of bins are locations


class DenseCodec:
    """Of so many pictures at once, on one strand."""

    def __init__(self, network: DenseVAE, tables: Tables, count: int, watch: Watch | None) -> None:
        assert tables.normal
        self.net, self.normal, self.exp2, self.count = network, tables.normal, tables.exp2.astype(np.int64), count
        self.size = network.config.height, network.config.width
        self.planes = Planes(tables, network.config.sampling, 1, watch=watch)
        self.like = next(network.buffers())

    def pictures(self, particles: Particles | None) -> Codec:
        """Of pictures [n, 1, h, w]; with particles, of one."""
        if particles:
            return weighted(particles, MORE_BITS)(*self._joint())
        layers: list[tuple[Callable[[Any], Codec], Callable[[Any], Codec]]] = [(self.likelihood, self.posterior)]
        if len(self.net.config.latents) > 1:
            layers.append((self.prior_of_lower, self.posterior_of_upper))
        return bit_swap(self.prior(), layers)

    def _joint(self) -> tuple[Codec, Callable[[Any], Codec], Callable[[Any], Codec]]:
        """Prior, likelihood and posterior of z, or of (z1, z2), which are both popped before x is pushed."""
        if len(self.net.config.latents) == 1:
            return self.prior(), self.likelihood, self.posterior
        downwards = dependent(self.prior(), self.prior_of_lower)
        prior = Codec(
            lambda strands, z: downwards.push(strands, z[::-1]),
            lambda strands: downwards.pop(strands)[::-1],
        )
        return (
            prior,
            lambda z: self.likelihood(z[0]),
            lambda x: dependent(self.posterior(x), self.posterior_of_upper),
        )

    def likelihood(self, z: Latents) -> Codec:
        """p(x | z), or p(x | z1)."""
        config = self.net.config
        params = self.net.decode(self._values(z, config.latents[0])).reshape(self.count, -1, *self.size)
        return self.planes.given(params, likelihood=self._normals if config.likelihood == "normal" else None)

    def posterior(self, x: Tensor) -> Codec:
        """q(z | x), or q(z1 | x)."""
        config = self.net.config
        params = self.net.infer(see_x(x.flatten(1), config.depth))
        if config.posterior == "flow":
            return self._latents(config.latents[0], lambda: self._flow(params), BACK)
        return self._chain(config.latents[0], params, BACK, full=config.posterior == "full")

    def posterior_of_upper(self, z1: Latents) -> Codec:
        """q(z2 | z1)."""
        lower, upper = self.net.config.latents
        return self._chain(upper, self.net.infer_upper(self._values(z1, lower)), BACK)

    def prior_of_lower(self, z2: Latents) -> Codec:
        """p(z1 | z2)."""
        lower, upper = self.net.config.latents
        return self._chain(lower, self.net.prior_of_lower(self._values(z2, upper)), PRIOR)

    def prior(self) -> Codec:
        """p(z), or p(z2)."""
        latents = self.net.config.latents[-1]
        if self.net.config.prior == "vamp":
            return self._vamp(_columns(self.net.components()), latents)
        return self._chain(latents, self.like.new_zeros((self.count, 2 * latents)), PRIOR)

    def _normals(self, params: Tensor) -> GridNormals:
        """The likelihood of all samples: discretised normals, whose parameters are [n, 1 or 2, h, w]."""
        config = self.net.config
        means, *scales = rows_of(params).astype(np.int32)
        index = scales[0] + PER_OCTAVE * int(LOG2_SCALE) if scales else np.full_like(means, _scale_index(config.scale))
        step = SAMPLE_LOCATIONS >> config.depth
        return GridNormals(
            self.normal,
            means + SAMPLE_LOCATIONS // 2,
            np.clip(index + SCALE_OF_ONE, 0, SCALES - 1).astype(np.int32),
            0,
            step,
            1 << config.depth,
            floor=1,
        )

    # -- normals on the grid ---------------------------------------------------------------------------------------

    def _chain(self, latents: int, params: Tensor, part: str, *, full: bool = False) -> Codec:
        """Of a layer with these parameters [n, 2 latents (+ pairs)]; see `_chain`."""
        columns = _columns(params)
        return self._latents(latents, lambda: _chain(columns, latents, full=full), part)

    def _latents(self, latents: int, begin: Callable[[], Given], part: str) -> Codec:
        """Of a layer, whose latents are normal given those before; symbols are `Latents`. part: of the ledger."""

        def one(strand: Strand, bits: int, given: Given, earlier: list[Int64]) -> Codec:
            mean, scale = given([_locations(bins, bits) for bins in earlier])
            grid = self._grid(mean, scale, bits, floor=int(part == PRIOR))

            def enter(bins: Int64) -> None:
                if strand.ledger is not None:
                    log2_prob = float(grid.log2_prob(bins).sum())
                    strand.pays(part, log2_prob if part == BACK else -log2_prob)

            return _told(grid.row_codec(), enter)

        def of(strand: Strand, bits: int) -> Codec:
            given = begin()
            return autoregressive(lambda earlier: one(strand, bits, given, earlier), latents if bits else 0)

        def push(strands: Sequence[Strand], z: Latents) -> None:
            (strand,) = strands
            if part == BACK and strand.draws:
                return
            of(strand, z.bits).push(strand.message, list(z.bins.reshape(-1, self.count)) if z.bits else [])

        def pop(strands: Sequence[Strand]) -> Latents:
            (strand,) = strands
            bits = _bits(strand)
            bins = of(strand, bits).pop(strand.message)
            return Latents(self.count, bits, np.concatenate(bins) if bins else np.zeros(0, np.int64))

        return Codec(push, pop)

    def _grid(self, mean: Int64, scale: Int64, bits: int, floor: int) -> GridNormals:
        """Normals on the bins of latents."""
        step = 1 << (Z_DIGITS - bits)
        index = _index(scale).astype(np.int32)
        return GridNormals(self.normal, mean.astype(np.int32), index, -LOCATIONS, step, 2 * LOCATIONS // step, floor)

    def _values(self, z: Latents, latents: int) -> Tensor:
        """What networks see [n, latents]; zeros where there are none."""
        if not z.bits:
            return self.like.new_zeros((self.count, latents))
        return torch.from_numpy(_locations(z.bins, z.bits).reshape(latents, -1).T.copy()).to(self.like)

    def _flow(self, context: Tensor) -> Given:
        """Of one step of inverse autoregressive flow: the noise of the latents before is found again, in integers."""
        latents = self.net.config.latents[0]
        noise = torch.zeros((self.count, latents), dtype=torch.int64)
        known: list[tuple[Int64, Int64]] = []

        def given(earlier: list[Int64]) -> tuple[Int64, Int64]:
            while len(known) <= len(earlier):
                if known:
                    (mean, scale), i = known[-1], len(known) - 1
                    # the scale is 2^(index / 8 - 1/2) locations, and exp2[2 index + 8] 2^(15.5 - index / 8)
                    found = (earlier[i] - mean) * self.exp2[2 * _index(scale) + 8] >> 15 - Z_DIGITS
                    noise[:, i] = torch.from_numpy(np.clip(found, 1 - LOCATIONS, LOCATIONS - 1))
                params = _columns(self.net.flow_step(noise.to(self.like), context))
                known.append((_mean(params[len(known)]), _scale(params[latents + len(known)])))
            return known[len(earlier)]

        return given

    # -- the VampPrior ---------------------------------------------------------------------------------------------

    def _vamp(self, components: Int64, latents: int) -> Codec:
        """p(z) = 1/K sum of p(z | k): the component k is a latent itself, with its exact posterior for bits back.

        components: int64 [2 latents, K].
        """
        number = components.shape[1]

        def of(strand: Strand) -> Codec:
            def given(k: Int64) -> Codec:
                return self._latents(latents, lambda: _chain(components[:, k], latents), PRIOR)

            def posterior(z: Latents) -> Codec:
                freqs = self._responsibilities(_locations(z.bins, z.bits).reshape(latents, -1), components)

                def enter(k: Int64) -> None:
                    mine = np.take_along_axis(freqs, k[:, None], 1)
                    strand.pays(BACK, float(np.log2(mine / 2.0**WEIGHT_PRECISION).sum()))

                return row(lambda part: categorical(freqs[part], WEIGHT_PRECISION), enter)

            def enter_prior(k: Int64) -> None:
                strand.pays(PRIOR, len(k) * float(np.log2(number)))

            def row(codec_of: Callable[[slice], Codec], enter: Callable[[Int64], None]) -> Codec:
                codec = _told(over_lanes(codec_of, self.count), enter)
                return Codec(lambda _, k: codec.push(strand.message, k), lambda _: codec.pop(strand.message))

            return bits_back(row(lambda _: uniform(number), enter_prior), given, posterior)

        def push(strands: Sequence[Strand], z: Latents) -> None:
            (strand,) = strands
            if z.bits:
                of(strand).push(strands, z)

        def pop(strands: Sequence[Strand]) -> Latents:
            (strand,) = strands
            return of(strand).pop(strands) if _bits(strand) else Latents(self.count, 0, np.zeros(0, np.int64))

        return Codec(push, pop)

    def _responsibilities(self, z: Int64, components: Int64) -> Int64:
        """q(k | z) as frequencies [n, K] out of 2^24, by integers; z: locations [latents, n]."""
        latents = len(z)
        total = np.zeros((self.count, components.shape[1]), np.int64)  # log2 of each density, in 1/16
        for i in range(latents):
            mean, scale = _mean(components[i]), _scale(components[latents + i])
            index = _index(scale)
            # in 2^-15.5 of the scale, then in 2^-7.5
            standardised = (z[i][:, None] - mean) * self.exp2[2 * index] >> 8
            total -= (standardised**2 * _QUARTER_NAT >> 25) + 2 * index
        below = np.minimum(total.max(1, keepdims=True) - total, len(self.exp2) - 1)
        return quantise(self.exp2[below], WEIGHT_PRECISION)


_QUARTER_NAT = 11819  # 16 / (2 ln 2) in 2^-10: t^2 / 2 nats, in 1/16 bit


def _chain(params: Int64, latents: int, *, full: bool = False) -> Given:
    """Normals [2 latents, n]: means, scales, and of a full covariance also what each takes of those before it."""

    def given(earlier: list[Int64]) -> tuple[Int64, Int64]:
        i = len(earlier)
        mean, scale = params[i], params[latents + i]
        if not full:
            return _mean(mean), _scale(scale)
        if i:
            row = params[2 * latents + i * (i - 1) // 2 : 2 * latents + i * (i + 1) // 2]
            mean = mean + ((row * np.stack(earlier)).sum(0) >> 8)
        return mean, scale

    return given


def _told(codec: Codec, enter: Callable[[Int64], None]) -> Codec:
    """The codec; `enter` is told what it codes."""

    def push(message: Any, symbols: Int64) -> None:
        codec.push(message, symbols)
        enter(symbols)

    def pop(message: Any) -> Int64:
        symbols = codec.pop(message).astype(np.int64)
        enter(symbols)
        return symbols

    return Codec(push, pop)


def _mean(mean: Int64) -> Int64:
    """Of a latent, as far from 0 as it may be."""
    most = int(NORMAL_MEANS * (1 << Z_DIGITS))
    return np.clip(mean, -most, most)


def _scale(scale: Int64) -> Int64:
    """Of a latent, in 1/8 of octaves, as far from 0 as it may be."""
    least, most = NORMAL_SCALES
    return np.clip(scale, int(PER_OCTAVE * least), int(PER_OCTAVE * most))


def _index(scale: Int64) -> Int64:
    """Of the table for scales of latents in 1/8 of octaves, 0 being 1."""
    least, most = FULL_SCALES
    return SCALE_OF_Z + np.clip(scale, int(PER_OCTAVE * least), int(PER_OCTAVE * most))


def _bits(strand: Strand) -> int:
    """Of a latent, as the decoder is told. Raises `BadFile`."""
    bits = strand.latent_bits or 0
    if bits > MOST_BITS:
        raise BadFile("the chain's head is impossible")
    return bits


def _scale_index(share: float) -> int:
    """Of a scale that is a share of the range, in 1/8 of octaves, 0 being a unit."""
    return round(PER_OCTAVE * math.log2(UNITS * share))


def _columns(params: Tensor) -> Int64:
    """[n, parameters] to int64 [parameters, n]."""
    return params.T.to(torch.int64).contiguous().cpu().numpy()


def _locations(bins: NDArray[Any], bits: int) -> Int64:
    """The middles of bins, in 2^-9."""
    step = 1 << (Z_DIGITS - bits)
    return bins.astype(np.int64) * step + (step // 2 - LOCATIONS)
