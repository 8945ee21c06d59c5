"""The families of models, by their names: what is the same for all of them, and where they differ.

To add one, write its networks and its objective, and name it here; its codec goes to `bbans.image.families`, and what
it learns from to `bbans.train.tasks`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bbans.errors import BadModel
from bbans.vae.dense import DenseConfig, DenseVAE
from bbans.vae.distributions import Latents
from bbans.vae.objectives import SAMPLED, Bits, dense_bits, level_count, photo_bits, thumbnail_bits
from bbans.vae.photo import SAMPLES, PhotoConfig, PhotoVAE, without_overview
from bbans.vae.thumbnail import ThumbnailConfig, ThumbnailVAE

Config = PhotoConfig | ThumbnailConfig | DenseConfig
Network = PhotoVAE | ThumbnailVAE | DenseVAE
OF_ONE_SIZE = ThumbnailConfig, DenseConfig  # whose pictures are all of one size, and are coded in chains


@dataclass(frozen=True)
class Family:
    """config, network: its classes; bits: −ELBO, in parts, of whole pictures (planes as float) of so many channels;
    reduced: whether gradients may be of bf16."""

    name: str
    config: Callable[..., Any]
    network: Callable[..., Any]
    bits: Callable[[Any, Tensor, int, Latents], Bits]
    reduced: bool = True


def _photo_bits(model: PhotoVAE, planes: Tensor, channels: int, latents: Latents) -> Bits:
    """All levels, and the coarsest C as it is."""
    bits, rest = photo_bits(model, planes, levels=level_count(*planes.shape[-2:]), grey=channels == 1, latents=latents)
    raw = 8.0 * rest[0].numel() / (SAMPLES if channels == 1 else 1)
    return bits | {"raw": torch.full((len(planes),), raw, device=planes.device)}


def _thumbnail_bits(model: ThumbnailVAE, planes: Tensor, channels: int, latents: Latents) -> Bits:
    return thumbnail_bits(model, planes, latents=latents)


def _dense_bits(model: DenseVAE, planes: Tensor, channels: int, latents: Latents) -> Bits:
    return dense_bits(model, planes, latents=latents)


SILENT = ("blocks_", "place_", "region_db.")  # what the names of parts begin with that change nothing at first
DIGITS = "._extra_state"  # what the names of the digits of bytes end with: who has none doesn't round yet
_LEVEL = re.compile(r"^levels\.\d+\.")
PHASE_PARTS = ("enter_", "blocks_", "head_")  # what the names of the networks of `bbans.vae.phases` begin with

FAMILIES = {
    family.name: family
    for family in (
        Family("photo", PhotoConfig, PhotoVAE, _photo_bits),
        Family("thumbnail", ThumbnailConfig, ThumbnailVAE, _thumbnail_bits),
        Family("dense", DenseConfig, DenseVAE, _dense_bits, reduced=False),
    )
}


def family_of(config: Config) -> Family:
    """The family that a configuration belongs to."""
    return next(f for f in FAMILIES.values() if isinstance(config, f.config))  # type: ignore[arg-type]


def build(family: Any, config: Any) -> Network:
    """The network that a model's file describes. Raises `BadModel`."""
    if not isinstance(family, str) or family not in FAMILIES:
        raise BadModel(f"a model of the family {family!r}, which this bbans does not know")
    if not isinstance(config, dict):
        raise BadModel("no sizes of its networks are given")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    try:
        return FAMILIES[family].network(FAMILIES[family].config(**values))
    except (TypeError, ValueError) as error:
        raise BadModel(f"sizes that the family {family!r} does not have ({error})") from error


def describe(network: Network) -> dict[str, Any]:
    """What `build` needs: {"family", "config"}."""
    return {"family": family_of(network.config).name, "config": asdict(network.config)}


def begin_from(network: Network, weights: Mapping[str, Tensor]) -> None:
    """Load the float weights of a model of the same sizes. Raises `BadModel`.

    Residual blocks that the network has more than the other stay what they are at first, the identity, and what begins
    as nothing stays nothing. Levels that it has more begin as the other's coarsest. A `photo` without an overview also
    begins from one that has it, as if that were blank. A `thumbnail` also begins from a `photo` whose phases have the
    sizes of its own, level by level.
    """
    parts: list[tuple[nn.Module, Mapping[str, Tensor]]] = [(network, weights)]
    if not isinstance(network, DenseVAE) and not any(name.startswith("head_top.") for name in weights):  # of a photo
        parts = []
        begun: dict[str, Tensor] = {}
        for number, level in enumerate(network.levels):
            prefix = f"levels.{number}."
            named = {name.removeprefix(prefix): x for name, x in weights.items() if name.startswith(prefix)}
            if isinstance(network, ThumbnailVAE):
                named = {name: x for name, x in named.items() if name.startswith(PHASE_PARTS)}
            elif not network.config.overview:
                named = without_overview(named)
            begun = named or begun
            parts.append((level, begun))
    try:
        for part, known in parts:
            missing, unknown = part.load_state_dict(known, strict=False)
            needed = (_LEVEL.sub("", name) for name in missing if not name.endswith(DIGITS))
            if unknown or not all(name.startswith(SILENT) for name in needed):
                raise BadModel("the weights to begin from are of a model of another form than the recipe's")
    except RuntimeError as error:
        raise BadModel("the weights to begin from are of a model of other sizes than the recipe's") from error


def picture_planes(network: Network, pixels: Tensor) -> Tensor:
    """Pixels uint8 [N, h, w, channels] as what the network codes: [N, samples, h, w], of its type and in its place."""
    like = next(itertools.chain(network.parameters(), network.buffers()))
    x = network.config.sampling.planes(pixels.to(like.device)).to(like.dtype)
    return x.contiguous(memory_format=torch.channels_last)


def elbo(network: Network, pixels: Tensor, latents: Latents = SAMPLED) -> Bits:
    """−ELBO of whole pictures uint8 [N, h, w, channels] under a float model, in parts [N], by one sample.

    latents: how they are drawn, and who is told the KL of each layer, element by element.
    """
    family = family_of(network.config)
    return family.bits(network, picture_planes(network, pixels), pixels.shape[-1], latents)
