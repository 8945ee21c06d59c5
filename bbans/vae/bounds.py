"""Bounds on −log2 p(x) by samples z of q(z | x): −ELBO, and the importance-weighted bound beside it.

With w = p(x, z) / q(z | x) for each of K samples, −ELBO is the mean of −log2 w, and the importance-weighted bound is
−log2 of the mean of w: Burda, Grosse & Salakhutdinov 2016 (arXiv:1509.00519), eq. 8. For one sample they are the same;
for more, the second is never above the first, and comes down to −log2 p(x) as K grows. Both are what a coder could
reach, the second with K times the work (Ruan et al. 2021, arXiv:2102.11086).

Works on the bits of samples, whatever model they are of, and refuses to know exact models and codecs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbans.vae.distributions import Keep, Latents, keep_nothing
from bbans.vae.families import Network, elbo
from bbans.vae.objectives import Bits

BATCH_DIMS = 1 << 18  # samples of pictures that go through the networks together
DEAD = 0.01  # bits: a latent that tells less of a picture, or of a region, on average, tells nothing

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bounds:
    """Of N pictures, in bits [N]. parts: of −ELBO, means over the samples; iwae: the importance-weighted bound."""

    parts: dict[str, Floats]
    iwae: Floats

    @property
    def elbo(self) -> Floats:
        """−ELBO [N]."""
        return np.sum([*self.parts.values()], axis=0)


def importance_weighted(samples: Iterable[Bits]) -> Bounds:
    """From the bits [N] of each part (−log2 p(x | z) and the KLs, by one sample) for one sample after another."""
    count = 0
    parts: Bits = {}
    log2_sum = torch.zeros(0)  # of the weights: they themselves are far too small for floats
    for bits in samples:
        mine = {name: part.double() for name, part in bits.items()}
        log2_weight = -torch.stack([*mine.values()]).sum(0)
        log2_sum = torch.logaddexp2(log2_sum, log2_weight) if count else log2_weight
        parts = {name: parts[name] + part for name, part in mine.items()} if count else mine
        count += 1
    if not count:
        raise ValueError("no samples")
    return Bounds(
        {name: (part / count).cpu().numpy() for name, part in parts.items()},
        (math.log2(count) - log2_sum).cpu().numpy(),
    )


def measure(network: Network, pixels: Tensor, particles: int = 1, keep: Keep = keep_nothing) -> Bounds:
    """Bounds of pictures uint8 [N, h, w, channels] under a float model, by so many samples each, in batches.

    keep(name, kl): is given the KL [n, latents, ...] of each layer, element by element, for some pictures at a time.
    """
    at_once = max(1, BATCH_DIMS // pixels[0].numel())
    latents = Latents(keep=keep)
    found = [importance_weighted(bits_of_samples(network, some, particles, latents)) for some in pixels.split(at_once)]
    parts = {name: np.concatenate([bounds.parts[name] for bounds in found]) for name in found[0].parts}
    return Bounds(parts, np.concatenate([bounds.iwae for bounds in found]))


def bits_of_samples(network: Network, pixels: Tensor, particles: int, latents: Latents) -> Iterator[Bits]:
    """Bits [n] of one sample after another. Several are drawn at once of few pictures: all these, then all again."""
    count = len(pixels)
    at_once = min(particles, max(1, BATCH_DIMS // pixels.numel()))
    for begin in range(0, particles, at_once):
        copies = min(at_once, particles - begin)
        bits = elbo(network, pixels.repeat(copies, 1, 1, 1), replace(latents, copies=copies))
        for i in range(copies):
            yield {name: part[i * count : (i + 1) * count] for name, part in bits.items()}


class LatentKL:
    """What each latent of each layer tells: its KL in bits, averaged over pictures, positions and samples."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, int]] = {}

    def keep(self, name: str, kl: Tensor) -> None:
        """A `Keep`: KL [n, latents, ...] of a layer."""
        bits, count = self._sums.get(name, (0.0, 0))
        self._sums[name] = (bits + kl.double().reshape(*kl.shape[:2], -1).sum((0, 2)), count + kl[:, 0].numel())

    def means(self) -> dict[str, Floats]:
        """Bits [latents] of each layer."""
        return {name: (bits / count).cpu().numpy() for name, (bits, count) in self._sums.items()}

    def dead(self) -> dict[str, int]:
        """How many latents of each layer tell less than `DEAD`."""
        return {name: int((bits < DEAD).sum()) for name, bits in self.means().items()}
