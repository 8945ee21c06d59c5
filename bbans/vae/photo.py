"""`photo`: a coarse-to-fine lattice model with regional stochastic latents, for pictures of any size.

A level splits a picture into four phases by the parity of row and column,

    C B C B        C: even row, even column (the next, coarser level's picture)
    E D E D        D: odd, odd      B: even, odd      E: odd, even
    C B C B

and codes them as p(z) p(D | C, z) p(B | C, D, z) p(E | C, D, B); then C is split in turn. All maps of a level have the
size of C, rounded up. z is a few channels at 1/8 of C's size; its posterior sees C, D and B. E neither sees z nor is
seen by its posterior, so that E can be pushed before z is popped and supply the initial bits.

The methods below are the topology, once: they run on real numbers while training and, after `bbans.exact` has
replaced every `Conv`, on integers. This module doesn't know pixels, colours or codecs: see `bbans.vae.lattice`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bbans.vae.layers import Conv, Residual

PHASES = ("d", "b", "e")
REGION = 8  # one latent vector for 8x8 positions of C


@dataclass(frozen=True)
class PhotoConfig:
    """Sizes of the networks. `latents` may be 0: the same model without stochastic latents."""

    channels: int = 64
    hidden: int = 32
    mixtures: int = 4
    latents: int = 8
    regional: int = 48
    blocks: tuple[int, int, int] = (2, 1, 2)


class Head(nn.Module):
    """Parameters of one phase, channel after channel (Y, Co, Cg), each seeing the residuals of the earlier ones."""

    def __init__(self, config: PhotoConfig, phase: str, stream: str) -> None:
        super().__init__()
        hidden = f"{phase}.hidden"
        self.hidden = config.hidden
        self.shared = Conv(config.channels, 3 * config.hidden, 1, source=stream, target=hidden, relu=False)
        self.earlier = nn.ModuleList(
            Conv(channel, config.hidden, 1, source="input", target=hidden) for channel in (1, 2)
        )
        self.out = nn.ModuleList(
            Conv(config.hidden, 3 * config.mixtures, 1, source=hidden, target="params", relu=False) for _ in range(3)
        )
        for out in self.out:
            _spread(cast(Conv, out), config.mixtures)

    def split(self, features: Tensor) -> tuple[Tensor, ...]:
        """What each channel takes from the features: three tensors [N, hidden, h, w]."""
        return self.shared(features).split(self.hidden, 1)

    def channel(self, channel: int, mine: Tensor, earlier: Tensor) -> Tensor:
        """Parameters [N, 3K, h, w] of `channel`.

        mine: its part of `split`; earlier: residuals [N, channel, h, w] of the channels before it.
        """
        h = self.earlier[channel - 1](earlier, add=mine) if channel else torch.relu(mine)
        return self.out[channel](h)


def _spread(out: Conv, mixtures: int) -> None:
    """Start with components apart, ±0.8 pixels, and 4 pixels wide."""
    assert out.bias is not None
    with torch.no_grad():
        out.bias[mixtures : 2 * mixtures] = torch.linspace(-0.05, 0.05, mixtures)
        out.bias[2 * mixtures :] = 2.0


class PhotoVAE(nn.Module):
    """The networks of one level; every level uses the same."""

    def __init__(self, config: PhotoConfig) -> None:
        super().__init__()
        self.config = config
        c, r, zc = config.channels, config.regional, config.latents
        nd, nb, ne = config.blocks

        def pyramid(name: str, channels_in: int) -> nn.Sequential:
            return nn.Sequential(
                Conv(channels_in, r // 2, 3, stride=2, source="input", target=f"{name}.1"),
                Conv(r // 2, r, 3, stride=2, source=f"{name}.1", target=f"{name}.2"),
                Conv(r, r, 3, stride=2, source=f"{name}.2", target=f"{name}.3"),
            )

        self.region = pyramid("region", 6)
        if zc:
            self.encoder = pyramid("encoder", 12)
            self.posterior = Conv(r, 2 * zc, 1, source="encoder.3", target="params", relu=False)
            self.from_latent = Conv(zc, r, 1, source="input", target="decoder", relu=False)
        self.from_region = Conv(r, r, 3, source="region.3", target="decoder")
        self.bias_db = Conv(r, 2 * c, 1, source="decoder", target="db", relu=False)
        self.bias_e = Conv(r, c, 1, source="region.3", target="e", relu=False)

        self.enter_d = Conv(6, c, 3, source="input", target="db")
        self.enter_b = Conv(3, c, 3, source="input", target="db")
        self.enter_e = Conv(12, c, 3, source="input", target="e")
        self.blocks_d = nn.Sequential(*(Residual(c, stream="db", inner=f"d.{i}") for i in range(nd)))
        self.blocks_b = nn.Sequential(*(Residual(c, stream="db", inner=f"b.{i}") for i in range(nb)))
        self.blocks_e = nn.Sequential(*(Residual(c, stream="e", inner=f"e.{i}") for i in range(ne)))
        self.head_d, self.head_b, self.head_e = Head(config, "d", "db"), Head(config, "b", "db"), Head(config, "e", "e")

    def params_digits(self) -> dict[str, tuple[int, ...]]:
        """Binary digits after the point of each output of the layers with target `params`, by the layers' names.

        A likelihood: logits in 1/16 octave, means in 1/256 of 16 pixels, log2-scales in 1/8. A posterior: means in
        1/256 of the prior's scale, log2-scales in 1/8.
        """
        k, zc = self.config.mixtures, self.config.latents
        outs = {f"head_{p}.out.{c}": (4,) * k + (8,) * k + (3,) * k for p in PHASES for c in range(3)}
        return outs | ({"posterior": (8,) * zc + (3,) * zc} if zc else {})

    def probe(self, c: Tensor, d: Tensor, b: Tensor, z: Tensor) -> list[Tensor]:
        """Everything these networks put out for given inputs: what a self-test compares between machines.

        c: [N, 6, h, w]; d, b: [N, 3, h, w]; z: [N, latents, ceil(h/8), ceil(w/8)].
        """
        regions = self.regions(c)
        tell_d, tell_b = self.condition(regions, z if self.config.latents else None)
        h_d = self.features_d(c, tell_d)
        h_b = self.features_b(h_d, d, tell_b)
        h_e = self.features_e(c, d, b, regions)
        out = [self.infer(c, d, b)] if self.config.latents else []
        for head, h in ((self.head_d, h_d), (self.head_b, h_b), (self.head_e, h_e)):
            for channel, mine in enumerate(head.split(h)):
                out.append(head.channel(channel, mine, d[:, :channel]))
        return out

    # -- latents -------------------------------------------------------------------------------------------------

    def regions(self, c: Tensor) -> Tensor:
        """What C alone tells of each region. c: [N, 6, h, w] -> [N, regional, ceil(h/8), ceil(w/8)]."""
        return self.region(c)

    def infer(self, c: Tensor, d: Tensor, b: Tensor) -> Tensor:
        """Parameters [N, 2 latents, ...] of q(z | C, D, B): means, then log2-scales."""
        return self.posterior(self.encoder(torch.cat([c, d, b], 1)))

    def condition(self, regions: Tensor, z: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the networks of D and of B are told of each region: [N, channels, ceil(h/8), ceil(w/8)] each.

        The only way in which z is seen.
        """
        add = self.from_latent(z) if z is not None else None
        d, b = self.bias_db(self.from_region(regions, add=add)).chunk(2, 1)
        return d, b

    # -- phases --------------------------------------------------------------------------------------------------

    def features_d(self, c: Tensor, told: Tensor) -> Tensor:
        """c: inputs from C [N, 6, h, w]; told: by `condition` -> features [N, channels, h, w]."""
        return self.blocks_d(self.enter_d(c, add=_enlarge(told, c)))

    def features_b(self, h: Tensor, d: Tensor, told: Tensor) -> Tensor:
        """h: the features of D, refined by d, its residuals [N, 3, h, w]."""
        return self.blocks_b(self.enter_b(d, add=_enlarge(told, d).add(h)))

    def features_e(self, c: Tensor, d: Tensor, b: Tensor, regions: Tensor) -> Tensor:
        """Of the regions this network is told what C alone tells."""
        return self.blocks_e(self.enter_e(torch.cat([c, d, b], 1), add=_enlarge(self.bias_e(regions), c)))


def _enlarge(x: Tensor, like: Tensor) -> Tensor:
    """Repeat each region 8x8 times and cut to the size of `like`. Exact on integers."""
    h, w = like.shape[-2:]
    large = F.interpolate(x, scale_factor=REGION, mode="nearest")
    return large if large.shape[-2:] == (h, w) else large[..., :h, :w]
