"""How each family of models codes a batch of pictures: the model, written as a codec.

Reads top down like `bbans.vae.photo` and `bbans.vae.thumbnail`: the factors of p, with latents by bits back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

from torch import Tensor

from bbans.bitsback import bits_back, top_down
from bbans.codecs.core import Codec, dependent
from bbans.image.dense import DenseCodec
from bbans.image.fitting import Fits
from bbans.image.planes import TOP, Latents, Layer, LevelCodec, Planes, Size, Strands, Watch, of_phases
from bbans.image.weighted import Particles, weighted
from bbans.vae import lattice
from bbans.vae.dense import DenseVAE
from bbans.vae.families import Network
from bbans.vae.objectives import level_count
from bbans.vae.phases import Phases
from bbans.vae.photo import PhotoVAE
from bbans.vae.thumbnail import ThumbnailVAE
from bbans.zoo import Tables

MORE_BITS = 4  # of what particles share than of a latent: with 2 or 8 the rate is the same


def pictures_codec(
    network: Network,
    tables: Tables,
    shape: tuple[int, int, int, int],
    fits: Fits | None = None,
    watch: Watch | None = None,
    levels: range | None = None,
    particles: Particles | None = None,
) -> Codec:
    """The codec, on strands, of pictures [n, samples, height, width] (`Sampling.planes`).

    shape: (n, height, width, channels), with 1 or 3 channels; fits: of the network's model, if it is a `photo`; watch:
    what is told the bits of pixels; levels: those of a `photo` that these pictures go through, 0 being the finest; None
    for all; particles: that one picture is coded with, by a model that has such (`weighted.takes_particles`).
    """
    count, height, width, channels = shape
    size = (height, width)
    if isinstance(network, DenseVAE):
        return DenseCodec(network, tables, count, watch).pictures(particles)
    if isinstance(network, ThumbnailVAE):
        return _Thumbnail(network, tables, count, watch).pictures(particles)
    if levels is None:
        levels = range(level_count(height, width))
    return _Photo(network, tables, channels, fits, watch).pictures(size, levels)


class _Photo:
    """p(C) p(D, B, E | C), and so on down to a picture of a few pixels."""

    def __init__(
        self, network: PhotoVAE, tables: Tables, channels: int, fits: Fits | None, watch: Watch | None
    ) -> None:
        self.net, self.tables = network, tables
        self.planes = Planes(tables, network.config.sampling, channels, fits=fits, watch=watch)

    def pictures(self, size: Size, levels: range) -> Codec:
        """Return the codec of pictures that go through these levels."""
        height, width = size
        if not levels:
            return self.planes.raw(height, width, next(self.net.buffers()))
        coarse = self.pictures((-(-height // 2), -(-width // 2)), levels[1:])
        return of_phases(dependent(coarse, lambda c: self._level(c, size, levels[0])), size)

    def _level(self, c: Tensor, size: Size, depth: int) -> Codec:
        """p(z) p(D | C, z) p(B | C, D, z) by bits back, then p(E | C, D, B); q(z | C, D, B)."""
        net = self.net.level(depth)
        level = LevelCodec(self.planes, net, c, size, depth)
        regions = net.regions(level.see_c)
        layer = Layer(self.tables, net.config.latents, net.region_size(c))

        def d_b(z: Tensor | None) -> Codec:
            told_d, told_b = net.condition(regions, z)
            return level.d_b(told_d, told_b)

        def posterior(d_b: tuple[Tensor, Tensor]) -> Codec:
            _, see_d, see_b = level.seen(d_b)
            return layer.posterior(net.infer(level.see_c, see_d, see_b))

        def e_given(d_b: tuple[Tensor, Tensor]) -> Codec:
            return level.e(d_b, net.condition_e(regions), grows=not depth)

        if not net.config.latents:
            return dependent(d_b(None), e_given)
        first = bits_back(layer.prior(), lambda z: d_b(layer.values(z, c)), posterior)
        return dependent(first, e_given)


class _Thumbnail:
    """p(z2) p(z1) p(T | z) ... p(D, B | C, z) by bits back, then p(E | C, D, B) of the finest level.

    The posterior is q(z2 | x) q(z1 | x, z2), x being all but that E. There are as many layers of latents
    as the model has: two, one or none.
    """

    def __init__(self, network: ThumbnailVAE, tables: Tables, count: int, watch: Watch | None) -> None:
        config = network.config
        self.net, self.size, self.count = network, (config.height, config.width), count
        self.planes = Planes(tables, config.sampling, config.samples, watch=watch)
        whole, local = config.latents
        self.whole = Layer(tables, whole, (1, 1)) if whole else None
        self.local = Layer(tables, local, config.top_size) if local else None
        self.layers = [layer for layer in (self.whole, self.local) if layer]
        self.like = next(network.buffers())

    def pictures(self, particles: Particles | None) -> Codec:
        """Of the whole picture."""
        by = weighted(particles, MORE_BITS, math.prod(self.net.config.shape)) if particles else bits_back
        all_but_e = top_down(len(self.layers), self._prior, self._all_but_e, self._posterior, by)
        parts = dependent(all_but_e, lambda x: self._level(x[0], 0).e(x[1], self.net.tell_last(x[0])))

        def push(strands: Strands, symbols: Any) -> None:
            c, (d_b, e) = symbols
            parts.push(strands, ((c, d_b), e))

        def pop(strands: Strands) -> Any:
            (c, d_b), e = parts.pop(strands)
            return c, (d_b, e)

        return of_phases(Codec(push, pop), self.size)

    def _prior(self, above: list[list[Latents]]) -> Codec:
        return self.layers[len(above)].prior()

    def _all_but_e(self, z: list[list[Latents]]) -> Codec:
        """p(C, D, B | z) of the finest level; symbols are (c, (d, b))."""
        count = sum(latents.pictures for latents in z[0]) if z else self.count
        h = self.net.refine(self._begin(z, count), self.local.values(z[-1], self.like) if self.local else None)
        return dependent(self._coarser(h, 1), lambda c: self._level(c, 0).d_b(*self.net.tell(h, 0)[:2]))

    def _coarser(self, h: Tensor, level: int) -> Codec:
        """p(C | z), C being that of level - 1 (0 is the finest): all coarser levels."""
        config, net = self.net.config, self.net
        size = self._size(level)
        if level == config.levels:
            middle = lattice.middle(h.new_zeros((len(h), config.samples, *size)))
            return self.planes.phase(net.head_top, h, middle, size, place=(level, TOP))

        def phases(c: Tensor) -> Codec:
            nets = self._level(c, level)
            told_d, told_b, told_e = net.tell(h, level)
            return dependent(nets.d_b(told_d, told_b), lambda d_b: nets.e(d_b, told_e))

        return of_phases(dependent(self._coarser(h, level + 1), phases), size)

    def _posterior(self, x: Any) -> Callable[[list[list[Latents]]], Codec]:
        """q(z2 | x), and q(z1 | x, z2) given z2; x is encoded once for both, and for all that is coded with them."""
        if not self.layers:
            return self._prior  # which is not asked
        c, d_b = x
        level = self._level(c, 0)
        _, see_d, see_b = level.seen(d_b)
        encoded = self.net.encode(level.see_c, see_d, see_b)
        whole = self.whole.posterior(self.net.infer_whole(encoded)) if self.whole else None

        def given(above: list[list[Latents]]) -> Codec:
            if whole and not above:
                return whole
            assert self.local
            return self.local.posterior(self.net.infer_local(encoded, self._begin(above, len(c))))

        return given

    def _begin(self, z: list[list[Latents]], count: int) -> Tensor:
        z2 = self.whole.values(z[0], self.like) if self.whole else self.like.new_zeros((count, 1, 1, 1))
        return self.net.begin(z2)

    def _level(self, c: Tensor, level: int) -> LevelCodec:
        return LevelCodec(self.planes, cast(Phases, self.net.levels[level]), c, self._size(level), level)

    def _size(self, level: int) -> Size:
        """Of the pictures that a level splits."""
        return -(-self.size[0] >> level), -(-self.size[1] >> level)
