"""`thumbnail`: a hierarchical VAE over a lattice, for small pictures that are all of one size.

Two layers of stochastic latents, z2 of the whole picture and z1 of each position of the coarsest picture T, each with
a standard logistic prior: what z1 depends on in the prior enters the features beside it. Given both, T is coded at
once, and then finer levels (see `bbans.vae.phases`), each with networks of its own, all told what the latents tell:

    p(z2) p(z1) p(T | z) p(D | T, z) p(B | T, D, z) p(E | T, D, B, z) ... p(E | C, D, B)

The posterior is q(z2 | x) q(z1 | x, z2). The last E, of the finest level, neither sees z nor is seen by the posterior,
so that it can be pushed before z is popped and supply the initial bits.

The methods below are the topology, once: they run on real numbers while training and, after `bbans.exact` has
replaced every `Conv`, on integers.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from bbans.errors import BadModel
from bbans.vae.lattice import Sampling
from bbans.vae.layers import Conv, Enlarged, Residual, posterior
from bbans.vae.phases import PHASES, ByteHead, Head, Phases, check_sizes


@dataclass(frozen=True)
class ThumbnailConfig:
    """Sizes of the pictures and of the networks.

    samples: channels of a pixel, 1 or 3; depth: bits of a sample, 8 or 1; levels: of the lattice; channels, hidden,
    mixtures, blocks: of each level's networks; top: features at the coarsest picture; latents: of z2, and of z1 at each
    position; (0, 0) is the same model without latents; colour: a name in `lattice.COLOURS`.
    """

    height: int = 32
    width: int = 32
    samples: int = 3
    depth: int = 8
    levels: int = 3
    channels: int = 80
    hidden: int = 32
    mixtures: int = 5
    blocks: tuple[int, int, int] = (2, 1, 2)
    top: int = 64
    latents: tuple[int, int] = (16, 8)
    colour: str = "YCoCg-R"

    def __post_init__(self) -> None:
        """Raises `BadModel` for sizes that make no network."""
        check_sizes(self)
        if (self.samples, self.depth) not in ((1, 1), (1, 8), (3, 8)):
            raise BadModel(f"pictures have 1 or 3 samples of 8 bits, or 1 of 1 bit; not {self.samples} of {self.depth}")
        if min(self.height, self.width) <= 1 << (self.levels - 1):  # else a phase has no pixels, and can't be exported
            raise BadModel(f"levels: pictures of {self.width} x {self.height} have fewer than {self.levels}")
        if len(self.latents) != 2 or min(self.latents) < 0:
            raise BadModel(f"latents are those of the whole picture and of each position; not {self.latents}")

    @property
    def sampling(self) -> Sampling:
        """What pictures are inside the model."""
        return Sampling(self.samples, self.depth, self.colour)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a picture's pixels: height, width, channels."""
        return self.height, self.width, self.samples

    @property
    def latent_count(self) -> int:
        """Latents of a picture."""
        whole, local = self.latents
        return whole + local * self.top_size[0] * self.top_size[1]

    @property
    def top_size(self) -> tuple[int, int]:
        """Height and width of T."""
        return -(-self.height >> self.levels), -(-self.width >> self.levels)


class ThumbnailVAE(nn.Module):
    """All networks of the model."""

    def __init__(self, config: ThumbnailConfig) -> None:
        super().__init__()
        self.config = config
        s, r, (whole, local) = config.samples, config.top, config.latents
        rows, columns = config.top_size
        mixtures = config.mixtures if config.depth > 1 else 0

        if whole or local:
            strided = [Conv(4 * s, r, 3, stride=2 if config.levels > 1 else 1, source="input", target="x.0")]
            for i in range(1, config.levels - 1):
                strided.append(Conv(r, r, 3, stride=2, source=f"x.{i - 1}", target=f"x.{i}"))
            last = strided[-1].target
            self.encoder = nn.Sequential(*strided, Residual(r, stream=last, inner="x.inner"))
        if whole:
            halvings = (max(rows, columns) - 1).bit_length()
            names = [last, *(f"whole.{i}" for i in range(halvings))]
            self.overview = nn.Sequential(
                *(Conv(r, r, 3, stride=2, source=a, target=b) for a, b in itertools.pairwise(names))
            )
            self.posterior_whole = posterior(r, whole, source=names[-1])
        self.from_whole = Conv(max(1, whole), r * rows * columns, 1, source="input", target="top")
        self.blocks_whole = nn.Sequential(Residual(r, stream="top", inner="top.0"))
        if local:
            self.look_x = Conv(r, r, 1, source=last, target="local")
            self.look_top = Conv(r, r, 1, source="top", target="local", relu=False)
            self.posterior_local = posterior(r, local, source="local")
            self.from_local = Conv(local, r, 1, source="input", target="top")
        self.blocks_local = nn.Sequential(*(Residual(r, stream="top", inner=f"top.{i}") for i in (1, 2)))
        self.head_top = Head(s, r, config.hidden, mixtures, source="top", inner="top.hidden", spread=4.0)

        c = config.channels
        names = [f"{level}." for level in range(1, config.levels + 1)]
        self.levels = nn.ModuleList(Phases(s, c, config.hidden, mixtures, config.blocks, level=name) for name in names)
        self.tell_db = nn.ModuleList(Conv(r, 2 * c, 1, source="top", target=f"{name}db", relu=False) for name in names)
        self.tell_e = nn.ModuleList(Conv(r, c, 1, source="top", target=f"{name}e", relu=False) for name in names[1:])
        self.place_db, self.place_e = (
            nn.ModuleList(
                Conv(1, times * c * rows * columns, 1, source="input", target=f"{name}{phases}", relu=False)
                for name in names
            )
            for phases, times in (("db", 2), ("e", 1))
        )
        for silent in (*self.tell_db, *self.tell_e, *self.place_db, *self.place_e):  # at first
            nn.init.zeros_(cast(Conv, silent).weight)
        for place in (*self.place_db, *self.place_e):
            nn.init.zeros_(cast(Tensor, cast(Conv, place).bias))

    # -- latents -------------------------------------------------------------------------------------------------

    def encode(self, c: Tensor, d: Tensor, b: Tensor) -> Tensor:
        """What the posteriors see of a picture: c, d, b are inputs of the finest level -> [N, top, *top_size]."""
        return self.encoder(torch.cat([c, d, b], 1))

    def infer_whole(self, encoded: Tensor) -> Tensor:
        """Parameters [N, 2 latents, 1, 1] of q(z2 | x)."""
        return self.posterior_whole(self.overview(encoded))

    def begin(self, z2: Tensor) -> Tensor:
        """Features [N, top, *top_size] from z2 [N, latents, 1, 1] (of no latents: one zero)."""
        return self.blocks_whole(self.from_whole(z2).reshape(len(z2), self.config.top, *self.config.top_size))

    def infer_local(self, encoded: Tensor, h: Tensor) -> Tensor:
        """Parameters [N, 2 latents, *top_size] of q(z1 | x, z2); h: what `begin` made of z2."""
        return self.posterior_local(self.look_x(encoded, add=self.look_top(h)))

    def refine(self, h: Tensor, z1: Tensor | None) -> Tensor:
        """The features from both latents."""
        return self.blocks_local(h if z1 is None else self.from_local(z1, add=h))

    def tell(self, h: Tensor, level: int) -> tuple[Enlarged, Enlarged, Enlarged]:
        """What the networks of D, B and E of a level (0 is the finest) are told of each position of h.

        That is what the latents tell, and beside it, free of their noise, what is known of each place in a picture.
        """
        times = 1 << (self.config.levels - 1 - level)
        d, b = Enlarged(self.tell_db[level](h) + self._place(self.place_db[level], h), times).chunk(2)
        e = self._place(self.place_e[level], h)
        return d, b, Enlarged(self.tell_e[level - 1](h) + e if level else e, times)

    def tell_last(self, like: Tensor) -> Enlarged:
        """What E of the finest level is told: nothing of the latents."""
        return Enlarged(self._place(self.place_e[0], like), 1 << (self.config.levels - 1))

    def _place(self, constants: nn.Module, like: Tensor) -> Tensor:
        """Constants [1, features, *top_size]: the biases of a layer that sees nothing."""
        return constants(like.new_zeros(1, 1, 1, 1)).reshape(1, -1, *self.config.top_size)

    # -- what a self-test compares between machines --------------------------------------------------------------

    def probe_shapes(self, height: int, width: int) -> list[tuple[int, ...]]:
        """Shapes, without the batch, of the inputs of `probe`: c, d, b of every level, z2 and z1.

        Its pictures have one size, whatever is asked for.
        """
        config, shapes = self.config, []
        for level in range(1, config.levels + 1):
            size = (-(-config.height >> level), -(-config.width >> level))
            shapes += [(2 * config.samples, *size), (config.samples, *size), (config.samples, *size)]
        whole, local = config.latents
        return [*shapes, (max(1, whole), 1, 1), (local, *config.top_size)]

    def probe(self, *inputs: Tensor) -> list[Tensor]:
        """Everything the networks put out for given inputs."""
        *planes, z2, z1 = inputs
        whole, local = self.config.latents
        out = []
        h = self.begin(z2)
        if whole or local:
            encoded = self.encode(*planes[:3])
            out += [self.infer_whole(encoded)] if whole else []
            out += [self.infer_local(encoded, h)] if local else []
        h = self.refine(h, z1 if local else None)
        out += _outputs(self.head_top, h, planes[-2])
        for level, nets in enumerate(self.levels):
            nets = cast(Phases, nets)
            c, d, b = planes[3 * level : 3 * level + 3]
            told_d, told_b, told_e = self.tell(h, level)
            h_d = nets.features_d(c, told_d)
            features = (h_d, nets.features_b(h_d, d, told_b), nets.features_e(c, d, b, told_e))
            for phase, x in zip(PHASES, features, strict=True):
                out += _outputs(nets.head(phase), x, d)
        return out


def _outputs(head: Head | ByteHead, features: Tensor, seen: Tensor) -> list[Tensor]:
    return [head.channel(i, mine, seen[:, :i]) for i, mine in enumerate(head.split(features))]
