"""`photo`: a coarse-to-fine lattice model with regional stochastic latents, for pictures of any size.

A level (see `bbans.vae.phases`) codes p(z) p(D | C, z) p(B | C, D, z) p(E | C, D, B); then C is split in turn. z is a
few channels for each region of C, of 8x8 positions or so; its posterior sees C, D and B. E neither sees z nor is seen
by its posterior, so that E can be pushed before z is popped and supply the initial bits. The finest levels may have
networks of their own; all that are coarser share theirs.

The methods below are the topology, once: they run on real numbers while training and, after `bbans.exact` has
replaced every `Conv`, on integers.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from bbans.errors import BadModel
from bbans.vae.lattice import Sampling
from bbans.vae.layers import BYTE_UNIT, Conv, Enlarged, posterior
from bbans.vae.phases import PHASES, Phases, check_sizes

SAMPLES = 3
REGIONS = (2, 4, 8, 16, 32)
_OVERVIEW = ("region.", "from_region.", "region_db.", "bias_e.")  # what the names of an overview's parts begin with


@dataclass(frozen=True)
class PhotoConfig:
    """Sizes of the networks. `latents` may be 0: the same model without stochastic latents.

    region: one latent vector for so many positions of C both ways; overview: whether networks are also told, free of
    noise, what C says of each region; regional: the width of the networks of regions; encoder: that of the one that
    infers z, 0 for the same; distinct: how many levels' networks there are: those of the finest levels, the last for
    all coarser ones too; colour: a name in `lattice.COLOURS`; bits: of the activations of residual blocks, 8 or 12.
    """

    channels: int = 64
    hidden: int = 32
    mixtures: int = 4
    latents: int = 8
    region: int = 8
    overview: bool = True
    regional: int = 48
    encoder: int = 0
    blocks: tuple[int, int, int] = (2, 1, 2)
    distinct: int = 1
    colour: str = "YCoCg-R"
    bits: int = 12

    def __post_init__(self) -> None:
        """Raises `BadModel` for sizes that make no network."""
        check_sizes(self)
        if self.region not in REGIONS:
            raise BadModel(f"region: one of {', '.join(map(str, REGIONS))}, not {self.region}")
        if self.bits not in (8, 12):
            raise BadModel(f"bits: 8 or 12, not {self.bits}")
        if self.bits == 8 and self.overview:
            raise BadModel("overview: networks of 8 bits have none")

    @property
    def sampling(self) -> Sampling:
        """What pictures are inside the model."""
        return Sampling(SAMPLES, 8, self.colour)


class PhotoVAE(nn.Module):
    """The networks of all levels."""

    def __init__(self, config: PhotoConfig) -> None:
        super().__init__()
        self.config = config
        self.levels = nn.ModuleList(PhotoLevel(config, f"{level}.") for level in range(1, config.distinct + 1))

    def level(self, level: int) -> PhotoLevel:
        """The networks of a level; 0 is the finest."""
        return cast(PhotoLevel, self.levels[min(level, self.config.distinct - 1)])

    def probe_shapes(self, height: int, width: int) -> list[tuple[int, ...]]:
        """Shapes, without the batch, of the inputs of `probe`, for C of this size."""
        region = self.config.region
        regions = (-(-height // region), -(-width // region))
        sizes = [(2 * SAMPLES, height, width), *[(SAMPLES, height, width)] * 2]
        return [*sizes, (self.config.latents, *regions)]

    def probe(self, c: Tensor, d: Tensor, b: Tensor, z: Tensor) -> list[Tensor]:
        """Everything the networks put out for given inputs: what a self-test compares between machines.

        c: [N, 6, h, w]; d, b: [N, 3, h, w]; z: [N, latents, ceil(h/region), ceil(w/region)].
        """
        return [out for level in self.levels for out in cast(PhotoLevel, level).probe(c, d, b, z)]


class PhotoLevel(Phases):
    """The networks of one level. name: what the names of their scales begin with."""

    def __init__(self, config: PhotoConfig, name: str) -> None:
        super().__init__(
            SAMPLES, config.channels, config.hidden, config.mixtures, config.blocks, name, config.bits == 8
        )
        self.config = config
        c, r, zc = config.channels, config.regional, config.latents
        steps = config.region.bit_length() - 1
        stream, unit = (f"byte.{name}db", BYTE_UNIT) if self.bytes else (f"{name}db", 1.0)

        def pyramid(part: str, channels_in: int, width: int) -> nn.Sequential:
            widths = [channels_in, *([width // 2] if steps > 1 else []), *[width] * max(1, steps - 1)]
            scales = ["input", *(f"{name}{part}.{step}" for step in range(1, steps + 1))]
            ends = zip(itertools.pairwise(widths), itertools.pairwise(scales), strict=True)
            return nn.Sequential(
                *(
                    Conv(*channels, 3, stride=2, source=source, target=target, reads=unit if source == "input" else 1.0)
                    for channels, (source, target) in ends
                )
            )

        if config.overview:
            self.region = pyramid("region", 6, r)
        if zc:
            width = config.encoder or r
            self.encoder = pyramid("encoder", 12, width)
            self.posterior = posterior(width, zc, source=f"{name}encoder.{steps}")
            self.from_latent = Conv(zc, r, 1, source="input", target=f"{name}decoder", relu=not config.overview)
        if zc or config.overview:
            self.bias_db = Conv(r, 2 * c, 1, source=f"{name}decoder", target=stream, relu=False, writes=unit)
        if config.overview:
            seen = f"{name}region.{steps}"
            self.from_region = Conv(r, r, 3, source=seen, target=f"{name}decoder")
            self.region_db = Conv(r, 2 * c, 1, source=seen, target=stream, relu=False)
            nn.init.zeros_(self.region_db.weight)
            nn.init.zeros_(cast(Tensor, self.region_db.bias))
            self.bias_e = Conv(r, c, 1, source=seen, target=f"{name}e", relu=False)

    def probe(self, c: Tensor, d: Tensor, b: Tensor, z: Tensor) -> list[Tensor]:
        """The posterior's parameters, and those of each phase and channel; the inputs are those of the whole."""
        regions = self.regions(c)
        told_d, told_b = self.condition(regions, z if self.config.latents else None)
        h_d = self.features_d(c, told_d)
        h_b = self.features_b(h_d, d, told_b)
        h_e = self.features_e(c, d, b, self.condition_e(regions))
        out = [self.infer(c, d, b)] if self.config.latents else []
        for phase, h in zip(PHASES, (h_d, h_b, h_e), strict=True):
            head = self.head(phase)
            for channel, mine in enumerate(head.split(h)):
                out.append(head.channel(channel, mine, d[:, :channel]))
        return out

    # -- latents -------------------------------------------------------------------------------------------------

    def region_size(self, like: Tensor) -> tuple[int, int]:
        """Rows and columns of regions, for maps of the size of `like`."""
        h, w = like.shape[-2:]
        return -(-h // self.config.region), -(-w // self.config.region)

    def regions(self, c: Tensor) -> Tensor | None:
        """What C alone tells of each region [N, 6, h, w] -> [N, regional, *region_size], if networks are told it."""
        return self.region(c) if self.config.overview else None

    def infer(self, c: Tensor, d: Tensor, b: Tensor) -> Tensor:
        """Parameters [N, 2 latents, ...] of q(z | C, D, B): means, then log2-scales."""
        return self.posterior(self.encoder(torch.cat([c, d, b], 1)))

    def condition(self, regions: Tensor | None, z: Tensor | None) -> tuple[Enlarged | None, Enlarged | None]:
        """What the networks of D and of B are told of each region.

        The only way in which z is seen. What C tells also goes beside it, free of its noise.
        """
        from_z = self.from_latent(z) if z is not None else None
        if regions is not None:
            told = self.bias_db(self.from_region(regions, add=from_z)) + self.region_db(regions)
        elif from_z is not None:
            told = self.bias_db(from_z)
        else:
            return None, None
        d, b = Enlarged(told, self.config.region).chunk(2)
        return d, b

    def condition_e(self, regions: Tensor | None) -> Enlarged | None:
        """What the network of E is told of each region: what C alone tells."""
        return None if regions is None else Enlarged(self.bias_e(regions), self.config.region)


def without_overview(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a level without an overview that computes what this one does when its overview is blank."""
    bare = {name: x for name, x in weights.items() if not name.startswith(_OVERVIEW)}
    for name, into in (("from_region", "from_latent"), ("region_db", "bias_db"), ("bias_e", "enter_e")):
        if f"{name}.bias" in weights and f"{into}.bias" in bare:
            bare[f"{into}.bias"] = bare[f"{into}.bias"] + weights[f"{name}.bias"]
    return bare
