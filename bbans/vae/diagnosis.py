"""What a model lacks: −ELBO taken apart into what could be saved, in bits, on some pictures.

Three questions to a float model of any family, all answered by samples of q: what its latents tell (`anatomy`), how far
−ELBO is from −log2 p(x) (`tightness`), and how much of the KL is the prior's fault (`surgery`). A fourth, how much of
the distance is the encoder's, needs gradients, and is put in `bbans.vae.refinement`.

Sees models only through `families.elbo` and the `Latents` that it passes, and refuses to know exact models and codecs.
Randomness is torch's own: whoever wants the same numbers again seeds it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbans.vae.bounds import BATCH_DIMS, LatentKL, bits_of_samples, importance_weighted
from bbans.vae.distributions import Latents, Posterior, from_posterior
from bbans.vae.families import Network, elbo

ACTIVE = 0.01  # variance of its posterior's mean above which a latent is active: Burda et al. 2016, section 5.2
SATURATED = 0.9  # of the most that an estimate of information can be: above, it tells of its own limit

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rate:
    """A mean over pictures: in bits per dim, with its standard error (None for one picture), and in bytes of one."""

    value: float
    error: float | None
    bytes: float

    @classmethod
    def of(cls, bits: Floats, dims: Floats) -> Rate:
        """Of the bits [N] and the numbers of samples [N] of pictures. The error is that of a ratio of means."""
        count, value = len(bits), float(bits.sum() / dims.sum())
        spread = math.sqrt(((bits - value * dims) ** 2).sum() * count / max(1, count - 1))
        return cls(value, spread / float(dims.sum()) if count > 1 else None, float(bits.mean() / 8))


# -- what latents tell -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """A layer of latents.

    kl: of all of them; each: bits [latents], means over pictures and positions; dead: how many of these are below
    `bbans.vae.bounds.DEAD`; activity: [latents], the variance over pictures of the posterior's mean, at each position;
    None where no two pictures are of one size.
    """

    kl: Rate
    each: Floats
    dead: int
    activity: Floats | None

    @property
    def active(self) -> int | None:
        """How many latents are active, as Burda et al. 2016 (arXiv:1509.00519) say: with Cov_x(E_q[z]) > 0.01."""
        return None if self.activity is None else int((self.activity > ACTIVE).sum())


@dataclass(frozen=True)
class Anatomy:
    """−ELBO of N pictures. bits: [N]; means: the posterior's, [N, latents, positions], of each layer by its name, if
    all pictures are of one size."""

    particles: int
    bits: Floats
    elbo: Rate
    likelihood: Rate
    layers: dict[str, Layer]
    means: dict[str, Floats]


@torch.inference_mode()
def anatomy(network: Network, groups: Sequence[Tensor], particles: int) -> Anatomy:
    """Of pictures uint8 [n, h, w, channels], those of one group being of one size, by at least two samples each."""
    told = LatentKL()
    rows: list[tuple[Floats, dict[str, Floats], int]] = []  # bits [n] of all and of each layer, and dims of one picture
    moments = []
    for pixels in groups:
        dims, mine = pixels[0].numel(), _Moments()
        for some in pixels.split(max(1, BATCH_DIMS // dims)):
            mine.begin(len(some), particles)
            bounds = importance_weighted(bits_of_samples(network, some, particles, Latents(mine.draw, told.keep)))
            rows.append((bounds.elbo, {k: v for k, v in bounds.parts.items() if k.startswith("kl")}, dims))
        moments.append(mine)
    bits = np.concatenate([all_bits for all_bits, _, _ in rows])
    dims_of = np.concatenate([np.full(len(all_bits), float(dims)) for all_bits, _, dims in rows])
    each, dead, layers, likelihood = told.means(), told.dead(), dict[str, Layer](), bits
    for name in dict.fromkeys(name for mine in moments for name in mine.names()):
        # small pictures may have fewer layers than large ones
        kl = np.concatenate([kls.get(name, np.zeros_like(all_bits)) for all_bits, kls, _ in rows])
        layers[name] = Layer(Rate.of(kl, dims_of), each[name], dead[name], _activity(moments, name))
        likelihood = likelihood - kl
    means = {name: moments[0].of(name)[0].cpu().numpy() for name in layers} if len(groups) == 1 else {}
    return Anatomy(particles, bits, Rate.of(bits, dims_of), Rate.of(likelihood, dims_of), layers, means)


class _Moments:
    """Of the posterior means of each picture's latents, over samples of what they depend on: sums, those of squares."""

    def __init__(self) -> None:
        self._batches: list[dict[str, Tensor]] = []

    def begin(self, count: int, particles: int) -> None:
        """What follows is of so many other pictures, with so many samples each."""
        self.count, self.particles = count, particles
        self._batches.append({})

    def draw(self, name: str, q: Posterior) -> tuple[Tensor, Tensor]:
        """A `Draw`, from q."""
        z, log2_q = from_posterior(name, q)
        copies = q.mean().double().reshape(len(z) // self.count, self.count, z.shape[1], -1)
        sums = torch.stack([copies.sum(0), copies.square().sum(0)])
        batch = self._batches[-1]
        batch[name] = batch[name] + sums if name in batch else sums
        return z, log2_q

    def of(self, name: str) -> tuple[Tensor, Tensor]:
        """Means [pictures, latents, positions], and their own variances, since they are means over samples."""
        mean, square = torch.cat([batch[name] for batch in self._batches], 1) / self.particles
        return mean, (square - mean.square()).clamp_min(0) / (self.particles - 1)

    def names(self) -> list[str]:
        """Of the layers that these pictures have, as they are drawn."""
        return [*self._batches[0]]


def _activity(groups: Sequence[_Moments], name: str) -> Floats | None:
    """Unbiased: what samples add to the variance of means is taken away."""
    total, weight = torch.zeros(()), 0
    for moments in groups:
        if name not in moments.names():
            continue
        mean, noise = moments.of(name)
        pairs = (len(mean) - 1) * mean.shape[2]
        if pairs:
            total = total.to(mean) + pairs * (mean.var(0) - noise.mean(0)).mean(1)
            weight += pairs
    return (total / weight).cpu().numpy() if weight else None


# -- how tight the bound is --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tightness:
    """Bounds on −log2 p(x), by their numbers of samples, 1 being −ELBO; gap: between the first and the last.

    That is KL(q(z | x) || p(z | x)) at the least: the last bound is, in expectation, still above −log2 p(x).
    bits: of the pictures [N], for each bound.
    """

    bounds: dict[int, Rate]
    gap: Rate
    bits: dict[int, Floats]


@torch.inference_mode()
def tightness(network: Network, pixels: Tensor, particles: int) -> Tightness:
    """Of pictures uint8 [N, h, w, channels], by so many samples each, which serve for all bounds."""
    dims = pixels[0].numel()
    found = [weight_bits(network, some, particles, Latents()) for some in pixels.split(max(1, BATCH_DIMS // dims))]
    bits = {k: importance_weighted_in_groups(torch.cat(found, 1), k) for k in ladder(particles)}
    each = np.full(len(pixels), float(dims))
    return Tightness(
        {k: Rate.of(mine, each) for k, mine in bits.items()}, Rate.of(bits[1] - bits[particles], each), bits
    )


def weight_bits(network: Network, pixels: Tensor, particles: int, latents: Latents) -> Tensor:
    """−log2 of p(x, z) / q(z | x) [particles, N], in double precision."""
    samples = bits_of_samples(network, pixels, particles, latents)
    return torch.stack([torch.stack([part.double() for part in bits.values()]).sum(0) for bits in samples])


def importance_weighted_in_groups(bits: Tensor, particles: int) -> Floats:
    """The bound by so many samples [N], a mean over as many groups of them as there are in bits [samples, N].

    Each group's is as good in expectation, and where groups lie within greater ones, none of these has a larger mean.
    """
    groups = bits[: len(bits) // particles * particles].unflatten(0, (-1, particles))
    log2_sum = torch.logsumexp(-groups * math.log(2.0), 1) / math.log(2.0)
    return (math.log2(particles) - log2_sum).mean(0).cpu().numpy()


def ladder(particles: int) -> list[int]:
    """1, 10, 100 ..., and the last number itself."""
    return [*(10**i for i in range(len(str(particles))) if 10**i < particles), particles]


# -- what of the KL is the prior's fault -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Surgery:
    """KL(q(z | x) || p(z)) = I(x; z) + KL(q(z) || p(z)) over M pictures: Hoffman & Johnson 2016, ELBO surgery.

    q(z), the aggregate posterior, is estimated by these pictures alone, as the mean of their M posteriors, each one's
    own among them. So the information is at most log2 M, and in expectation below that about pictures in general, and
    the other term as much above: of an ideal prior it would still be what the information lacks.

    most: log2 M, as a rate.
    """

    pictures: int
    kl: Rate
    information: Rate
    marginal: Rate
    most: Rate

    @property
    def saturated(self) -> bool:
        """Whether the information is near the most that it can be, and the split so tells little."""
        return self.information.value > SATURATED * self.most.value


class _Enough(Exception):
    """All latents are drawn: what else a model would compute isn't needed."""


@torch.inference_mode()
def surgery(network: Network, pixels: Tensor) -> Surgery:
    """Of pictures uint8 [M, h, w, channels] of a model with latents, by one sample of each: of all layers together."""
    count, dims = len(pixels), pixels[0].numel()
    at_once = max(1, BATCH_DIMS // dims)
    drawn, kl = _drawn(network, pixels.split(at_once))
    last = [*drawn][-1]
    densities = torch.zeros(count * count, dtype=torch.float64, device=kl.device)
    for pairs in torch.arange(count * count).split(at_once):
        of, under = pairs // count, pairs % count  # log2 q_under(z_of)

        def forced(name: str, q: Posterior, of: Tensor = of, pairs: Tensor = pairs) -> tuple[Tensor, Tensor]:
            z = drawn[name][of]
            log2_q = q.log2_density(z)
            densities[pairs] += log2_q.double().flatten(1).sum(1)
            if name == last:
                raise _Enough
            return z, log2_q

        with contextlib.suppress(_Enough):
            elbo(network, pixels[under], Latents(forced))
    table = densities.reshape(count, count)
    aggregate = torch.logsumexp(table * math.log(2.0), 1) / math.log(2.0) - math.log2(count)
    information = (table.diagonal() - aggregate).cpu().numpy()
    costs, each = kl.cpu().numpy(), np.full(count, float(dims))
    most = Rate(math.log2(count) / dims, None, math.log2(count) / 8)
    return Surgery(count, Rate.of(costs, each), Rate.of(information, each), Rate.of(costs - information, each), most)


def _drawn(network: Network, batches: Sequence[Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """A sample of each picture's latents, layer by layer as they are drawn; and its KL [N]."""
    drawn: dict[str, list[Tensor]] = {}
    kls: list[Tensor] = []
    for some in batches:

        def draw(name: str, q: Posterior) -> tuple[Tensor, Tensor]:
            z, log2_q = from_posterior(name, q)
            drawn.setdefault(name, []).append(z)
            return z, log2_q

        bits = elbo(network, some, Latents(draw))
        kls.append(torch.stack([part.double() for name, part in bits.items() if name.startswith("kl")]).sum(0))
    return {name: torch.cat(z) for name, z in drawn.items()}, torch.cat(kls)
