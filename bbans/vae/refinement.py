"""What a better q would save: posteriors refined picture by picture, by gradient, as if there were no encoder.

The distance between −ELBO and −log2 p(x) is the amortisation gap, from the encoder's q to the best q of the same form,
and the approximation gap, from there on: Cremer, Li & Duvenaud 2018 (arXiv:1801.03558), eq. 5-6. It is a measure only:
a decoder, which has to find the same q once it has the picture, would have to repeat every step exactly.

Sees models as `bbans.vae.diagnosis` does.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from bbans.vae.bounds import BATCH_DIMS
from bbans.vae.diagnosis import Rate, Tightness, importance_weighted_in_groups, weight_bits
from bbans.vae.distributions import Latents, Posterior
from bbans.vae.families import Network, elbo

LEARNING_RATE = 0.06  # of the first step, from where it falls in a line to 0
FRESH = 100  # samples of each picture, at the most, that the refined posteriors are measured by


@dataclass(frozen=True)
class Refinement:
    """−ELBO by refined posteriors, a bound on −log2 p(x), and the two parts of the gap between −ELBO and that bound.

    bound: the importance-weighted one, by samples of both q in equal parts: where the encoder's is poor, so is its own
    bound, and where refinement went astray, so is that by the other. amortisation: at the least, since the steps may
    not have found the best q; below 0 where they found nothing better and samples were unlucky. approximation: what is
    left: more where the bound is loose, and less where a better q could have been found.
    """

    steps: int
    samples: int
    elbo: Rate
    bound: Rate
    amortisation: Rate
    approximation: Rate


class Offsets:
    """What is added to what the encoder says of each layer, picture by picture: nothing at first, then learnt.

    Of a layer whose posterior depends on other latents, the same is added whatever these are. So with several layers
    this is not the best q of its form, but one that contains the encoder's own.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.of: dict[str, Tensor] = {}

    def draw(self, name: str, q: Posterior) -> tuple[Tensor, Tensor]:
        """A `Draw` whose gradients reach the offsets through z alone: Roeder et al. 2017 (arXiv:1703.09194), which is
        unbiased, and has no variance where q is the true posterior."""
        if name not in self.of:
            self.of[name] = torch.zeros_like(q.params[: self.count]).requires_grad_()
        copies = len(q.params) // self.count
        offset = self.of[name].repeat(copies, *[1] * (q.params.ndim - 1))
        z = _moved(q, offset).sample()
        return z, _moved(q, offset.detach()).log2_density(z)


def _moved(q: Posterior, offset: Tensor) -> Posterior:
    """With the offset added to its parameters."""
    return cast(Posterior, dataclasses.replace(cast(Any, q), params=q.params + offset))


def refinement(network: Network, pixels: Tensor, known: Tightness, steps: int, samples: int) -> Refinement:
    """Of pictures uint8 [N, h, w, channels], of which `known` was measured, by so many steps of Adam with so many
    samples of each picture; then measured by fresh ones."""
    dims, particles = pixels[0].numel(), max(known.bits)
    fresh = min(particles, FRESH)
    found = []
    for some in pixels.split(max(1, BATCH_DIMS // (samples * dims))):
        latents = Latents(_refined(network, some, steps, samples).draw)
        with torch.no_grad():
            found.append(weight_bits(network, some, fresh, latents))
    bits = torch.cat(found, 1)
    refined, weighted = (importance_weighted_in_groups(bits, count) for count in (1, fresh))
    bound = 1 - np.logaddexp2(-known.bits[particles], -weighted)
    rates = (refined, bound, known.bits[1] - refined, refined - bound)
    return Refinement(steps, samples, *(Rate.of(each, np.full(len(pixels), float(dims))) for each in rates))


def _refined(network: Network, pixels: Tensor, steps: int, samples: int) -> Offsets:
    offsets = Offsets(len(pixels))
    copies = pixels.repeat(samples, 1, 1, 1)
    with torch.no_grad():
        elbo(network, pixels, Latents(offsets.draw))  # makes them
    optimiser = torch.optim.Adam(offsets.of.values(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        bits = elbo(network, copies, Latents(offsets.draw))
        (torch.stack([*bits.values()]).sum() / samples).backward()
        optimiser.step()
        schedule.step()
    return offsets
