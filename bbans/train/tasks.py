"""What there is to learn: for each family, where batches come from and what a picture costs.

The loop knows none of this; a task knows nothing of optimisers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbans.errors import BbansError
from bbans.train.data import Crops, Mix, find_images, load_rgb
from bbans.train.directions import find_directions
from bbans.train.fits import find_fits
from bbans.train.stacks import Deck, load_stack
from bbans.vae.bounds import LatentKL
from bbans.vae.dense import DenseConfig
from bbans.vae.distributions import Latents
from bbans.vae.families import Network, elbo, family_of, picture_planes
from bbans.vae.objectives import SAMPLED, Bits, photo_bits
from bbans.vae.photo import PhotoConfig, PhotoVAE
from bbans.vae.thumbnail import ThumbnailConfig
from bbans.zoo import DIRECTIONS

HOLD_OUT = 20  # one picture in so many validates when none were named
CALIBRATION_IMAGES = 24
CALIBRATION_BATCH = 512
VIEWS_OF_A_DIRECTION, DIRECTIONS_SEED = 8, 1

Pixels = NDArray[np.uint8]


class Task(Protocol):
    """One run's data and objective."""

    def network(self) -> Any:
        """A fresh network."""

    def batches(self, size: int, seed: int) -> Iterator[Pixels]:
        """Endless training batches uint8 [size, h, w, channels]."""

    def bits(self, network: Any, pixels: Tensor, latents: Latents = SAMPLED) -> Bits:
        """−ELBO of a training batch in bits [size], in parts; latents: how they are drawn."""

    def held_out(self) -> Iterator[Pixels]:
        """The pictures to validate on, as batches uint8 [n, h, w, channels] of any size."""

    def calibration(self) -> Iterator[Pixels]:
        """Training pictures that show an exact model the range of its activations."""

    def adapters(self, network: Any) -> dict[str, NDArray[Any]]:
        """Tensors that an exact network's encoder adapts it to a picture with, by their names in the model."""


@dataclass(frozen=True)
class PhotoTask:
    """Crops of pictures of any size, over `levels` levels.

    directions: how many tuning knows; fits: how many each last layer is fitted along.
    """

    config: PhotoConfig
    files: list[Path]
    validation: list[Path]
    mix: Mix
    levels: int
    directions: int = 0
    fits: int = 0

    def __post_init__(self) -> None:
        if self.mix.crop >> self.levels < self.config.region:
            # smaller maps end in strided convolutions of one pixel, whose bf16 gradients oneDNN gets wrong
            # (PyTorch 2.13)
            raise BbansError(
                f"crops for {self.levels} levels must be at least {self.config.region << self.levels} pixels wide"
            )

    @classmethod
    def of(
        cls,
        config: PhotoConfig,
        data: list[Path],
        validation: list[Path],
        root: Path | None,
        mix: Mix,
        levels: int,
        directions: int = 0,
        fits: int = 0,
    ) -> PhotoTask:
        """From what the command line names. Raises `BbansError`."""
        files = find_images(data, root)
        held_out = find_images(validation, root) if validation else files[::HOLD_OUT]
        training = [f for f in files if f not in set(held_out)] or files
        return cls(config, training, held_out, mix, levels, directions, fits)

    def network(self) -> PhotoVAE:
        return PhotoVAE(self.config)

    def batches(self, size: int, seed: int) -> Iterator[Pixels]:
        return Crops(self.files, self.mix, seed).batches(size)

    def bits(self, network: PhotoVAE, pixels: Tensor, latents: Latents = SAMPLED) -> Bits:
        return photo_bits(network, picture_planes(network, pixels), levels=self.levels, latents=latents)[0]

    def held_out(self) -> Iterator[Pixels]:
        return (np.array(load_rgb(file))[None] for file in self.validation)

    def calibration(self) -> Iterator[Pixels]:
        step = max(1, len(self.files) // CALIBRATION_IMAGES)
        return (np.array(load_rgb(file))[None] for file in self.files[::step][:CALIBRATION_IMAGES])

    def adapters(self, network: PhotoVAE) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {}
        if self.directions:
            found[DIRECTIONS] = find_directions(network, self._views(self.directions), self.directions)
        if self.fits:
            found |= find_fits(network, self._views(self.fits), self.fits)
        return found

    def _views(self, directions: int) -> Iterator[Pixels]:
        """Enough training views to find so many directions."""
        crops = Crops(self.files, self.mix, DIRECTIONS_SEED)
        return (np.stack(crops.view()) for _ in range(VIEWS_OF_A_DIRECTION * directions))


@dataclass(frozen=True)
class StackTask:
    """Small pictures of one size, all in memory: of `thumbnail` and of `dense`."""

    config: ThumbnailConfig | DenseConfig
    pictures: Pixels
    validation: Pixels
    deck: Deck

    @classmethod
    def of(
        cls, config: ThumbnailConfig | DenseConfig, data: list[Path], validation: list[Path], deck: Deck
    ) -> StackTask:
        """From what the command line names; without `validation`, of the last pictures. Raises `BbansError`."""
        if config.depth > 8:
            raise BbansError(
                f"no file holds pictures of {config.depth} bits: such models are for arrays in Python; depth is 8 or 1"
            )
        pictures = load_stack(data, config.shape)
        if validation:
            return cls(config, pictures, load_stack(validation, config.shape), deck)
        last = min(deck.hold_out, len(pictures) // 10)
        if last < 1:
            raise BbansError(f"none of {len(pictures)} pictures is left to validate on: name some with --validation")
        return cls(config, pictures[:-last], pictures[-last:], deck)

    def network(self) -> Any:
        return family_of(self.config).network(self.config)

    def batches(self, size: int, seed: int) -> Iterator[Pixels]:
        return self.deck.batches(self.pictures, size, seed, bilevel=self.config.depth == 1)

    def bits(self, network: Network, pixels: Tensor, latents: Latents = SAMPLED) -> Bits:
        return elbo(network, pixels, latents)

    def held_out(self) -> Iterator[Pixels]:
        return self._in_order(self.validation)

    def calibration(self) -> Iterator[Pixels]:
        return self._in_order(self.pictures[: 2 * CALIBRATION_BATCH])

    def adapters(self, network: Network) -> dict[str, NDArray[Any]]:
        return {}

    def _in_order(self, pictures: Pixels) -> Iterator[Pixels]:
        if self.config.depth == 1:
            pictures = self.deck.binarised(pictures)
        for i in range(0, len(pictures), CALIBRATION_BATCH):
            yield pictures[i : i + CALIBRATION_BATCH]


def validation_bits(task: Task, network: Network, device: torch.device) -> dict[str, float]:
    """−ELBO of the held-out pictures in bits per dim: `bpd`, `likelihood`, and every part by its name.

    For each layer of latents also, as `dead_NAME`, how many of its latents are dead (`bbans.vae.bounds.DEAD`).
    """
    network.eval()
    sums: dict[str, float] = {}
    latents = LatentKL()
    dims = 0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.inference_mode():
        torch.manual_seed(0)
        for pixels in task.held_out():
            for name, bits in elbo(network, torch.from_numpy(pixels).to(device), Latents(keep=latents.keep)).items():
                sums[name] = sums.get(name, 0.0) + float(bits.sum())
            dims += pixels.size
    network.train()
    parts = {name: bits / dims for name, bits in sums.items()}
    likelihood = sum(v for name, v in parts.items() if not name.startswith("kl"))
    dead = {f"dead_{name}": count for name, count in latents.dead().items()}
    return {"bpd": sum(parts.values()), "likelihood": likelihood, **parts, **dead}
