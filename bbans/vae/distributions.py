"""Distributions of latents while training, in torch: what priors and posteriors are made of.

A distribution draws reparametrised samples z [N, latents, ...] and tells their log2-density, element by element; where
elements depend on one another, that of each given those before it, so that the sum over elements is that of z.
Objectives draw latents by `Latents` alone: whoever passes another sees, or chooses, them. The codecs are in
`bbans.image`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from bbans.vae import likelihoods

BITS_OF_A_NAT = 1 / math.log(2.0)
NORMAL_SCALES = (-9.0, 0.5)  # log2 of the least and the largest scale of a normal latent
FULL_SCALES = (-9.0, 2.0)  # the same of one of full covariance, whose means are those of a chain, and unbounded
NORMAL_MEANS = 5.0  # the largest on either side: latents of a learnt prior would drift off the grid that codes them
SAMPLES_OF_A_MEAN = 100  # where there is no other way to it


class Distribution(Protocol):
    """Of latents [N, latents, ...]."""

    def log2_density(self, z: Tensor) -> Tensor:
        """Of each element, given those before it."""


class Posterior(Distribution, Protocol):
    """A distribution that is given by a network's output; `dataclasses.replace` gives it other parameters."""

    @property
    def params(self) -> Tensor:
        """What the network put out [N, ...]."""

    def sample(self) -> Tensor:
        """One sample, of which gradients reach the parameters."""

    def mean(self) -> Tensor:
        """The mean of each element; by samples, if need be."""


Draw = Callable[[str, Posterior], tuple[Tensor, Tensor]]
"""(name of the layer, q) -> z, and log2 q(z) of each element."""
Keep = Callable[[str, Tensor], None]
"""Is given the name of a layer, and its KL by one sample, log2 q(z) - log2 p(z) of each element [N, latents, ...]."""


def from_posterior(name: str, q: Posterior) -> tuple[Tensor, Tensor]:
    """The `Draw` of all training: z from q."""
    if isinstance(q, Flow):
        return q.draw()
    z = q.sample()
    return z, q.log2_density(z)


class Doubly:
    """The `Draw` of importance-weighted training by doubly reparametrised gradients: q learns through its samples
    alone, each of which counts by its weight once more (Tucker et al. 2019, arXiv:1810.04152, eq. 8).

    With more samples the usual gradient of q is more and more noise, this one is not. For one layer of latents, whose
    density no other parameters decide than what its network puts out. weights: [N] of all samples, of those of a
    picture 1 in sum; to be set before gradients are taken.
    """

    weights: Tensor

    def __call__(self, name: str, q: Posterior) -> tuple[Tensor, Tensor]:
        z = q.sample()
        z.register_hook(lambda gradient: gradient * self.weights.view(-1, *[1] * (z.ndim - 1)))
        return z, replace(cast(Any, q), params=q.params.detach()).log2_density(z)


def keep_nothing(name: str, kl: Tensor) -> None:
    """The `Keep` that keeps nothing."""


@dataclass(frozen=True)
class Latents:
    """How the latents of a picture are drawn, layer by layer, and who is told what they cost.

    copies: a batch is so many copies, one after another, of fewer pictures, each to have a sample of its own: what does
    not depend on samples need only be computed once.
    """

    draw: Draw = from_posterior
    keep: Keep = keep_nothing
    copies: int = 1

    def __call__(self, name: str, q: Posterior, p: Distribution) -> tuple[Tensor, Tensor]:
        """z, and the KL [N, latents, ...] of each element."""
        z, log2_q = self.draw(name, q)
        return z, self.told(name, log2_q - p.log2_density(z))

    def told(self, name: str, kl: Tensor) -> Tensor:
        """The KL, once it is kept."""
        self.keep(name, kl)
        return kl


def within(x: Tensor, least: float, most: float) -> Tensor:
    """x, clamped; beyond the ends gradients that lead back still pass, so that nothing stays there for good."""
    return cast(Tensor, _Within.apply(x, least, most))


class _Within(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, least: float, most: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.ends = least, most
        return x.clamp(least, most)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (x,), (least, most) = ctx.saved_tensors, ctx.ends
        outward = ((x > most) & (gradient < 0)) | ((x < least) & (gradient > 0))
        return gradient.masked_fill(outward, 0.0), None, None


@dataclass(frozen=True)
class Logistic:
    """Independent logistics. params: [N, 2 latents, ...], means, then log2-scales, which are clamped."""

    params: Tensor

    def sample(self) -> Tensor:
        return likelihoods.sample_logistic(*self._read())

    def mean(self) -> Tensor:
        return self._read()[0]

    def log2_density(self, z: Tensor) -> Tensor:
        return likelihoods.logistic_log_density(z, *self._read()) * BITS_OF_A_NAT

    def _read(self) -> tuple[Tensor, Tensor]:
        mean, log2_scale = self.params.float().chunk(2, 1)
        return mean, log2_scale.clamp(*likelihoods.POSTERIOR_SCALES)


class StandardLogistic:
    """The prior of the families over lattices."""

    def log2_density(self, z: Tensor) -> Tensor:
        return likelihoods.logistic_log_density(z) * BITS_OF_A_NAT


STANDARD_LOGISTIC = StandardLogistic()


@dataclass(frozen=True)
class Normal:
    """Independent normals: Kingma & Welling 2014 (arXiv:1312.6114), section 3. params: as of `Logistic`."""

    params: Tensor

    def sample(self) -> Tensor:
        mean, log2_scale = self.read()
        return mean + torch.exp2(log2_scale) * torch.randn_like(mean)

    def mean(self) -> Tensor:
        return self.read()[0]

    def log2_density(self, z: Tensor) -> Tensor:
        return likelihoods.normal_log_density(z, *self.read()) * BITS_OF_A_NAT

    def read(self) -> tuple[Tensor, Tensor]:
        """Means and log2-scales."""
        mean, log2_scale = self.params.float().chunk(2, 1)
        return within(mean, -NORMAL_MEANS, NORMAL_MEANS), within(log2_scale, *NORMAL_SCALES)


class StandardNormal:
    """N(0, 1) for every element."""

    def log2_density(self, z: Tensor) -> Tensor:
        return likelihoods.normal_log_density(z) * BITS_OF_A_NAT


@dataclass(frozen=True)
class VampPrior:
    """A mixture of equal parts of normals, the posteriors of pseudo-inputs: Tomczak & Welling 2018, eq. 9.

    components: [K, 2 latents], parameters as of `Normal`.
    """

    components: Tensor

    def log2_density(self, z: Tensor) -> Tensor:
        """Of z [N, latents]: that of each latent given those before it is a difference of logsumexps."""
        each = Normal(self.components[None].movedim(2, 1)).log2_density(z[:, :, None]).movedim(1, 2)  # [N, K, latents]
        joint = torch.logsumexp(each.cumsum(2) / BITS_OF_A_NAT, 1) * BITS_OF_A_NAT - math.log2(len(self.components))
        return torch.cat([joint[:, :1], joint[:, 1:] - joint[:, :-1]], 1)


@dataclass(frozen=True)
class FullNormal:
    """A normal with any covariance, for few latents, as a chain: z_i = mean_i + sum of a_ij z_j over j < i + noise_i.

    params: [N, 2 d + d (d - 1) / 2] for d latents: means, log2-scales of the noise, then a, row after row. Every
    covariance has one such form (LDL^T), and its elements can be coded one after another.
    """

    params: Tensor
    latents: int

    def sample(self) -> Tensor:
        mean, log2_scale, rows = self._read()
        return self._chained(mean + torch.exp2(log2_scale) * torch.randn_like(mean), rows)

    def mean(self) -> Tensor:
        mean, _, rows = self._read()
        return self._chained(mean, rows)

    def log2_density(self, z: Tensor) -> Tensor:
        mean, log2_scale, rows = self._read()
        means = torch.stack([mean[:, i] + (row * z[:, :i]).sum(1) for i, row in enumerate(rows)], 1)
        return likelihoods.normal_log_density(z, means, log2_scale) * BITS_OF_A_NAT

    def _chained(self, own: Tensor, rows: list[Tensor]) -> Tensor:
        """Elements of which each is its own part and those before it, weighted."""
        z = own[:, :0]
        for i, row in enumerate(rows):
            z = torch.cat([z, (own[:, i] + (row * z).sum(1))[:, None]], 1)
        return z

    def _read(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        d = self.latents
        mean, log2_scale, chain = self.params.float().split([d, d, d * (d - 1) // 2], 1)
        rows = [chain[:, i * (i - 1) // 2 : i * (i + 1) // 2] for i in range(d)]
        return mean, within(log2_scale, *FULL_SCALES), rows


@dataclass(frozen=True)
class Flow:
    """One step of inverse autoregressive flow: Kingma et al. 2016 (arXiv:1606.04934), eq. 10-12.

    z_i = m_i(e_<i, params) + s_i(e_<i, params) e_i with standard normal noise e. params: what the encoder tells the
    autoregressive network, [N, features]; step(e, params): its output [N, 2 latents], means and log2-scales.
    """

    params: Tensor
    latents: int
    step: Callable[[Tensor, Tensor], Tensor]

    def sample(self) -> Tensor:
        return self.draw()[0]

    def draw(self) -> tuple[Tensor, Tensor]:
        """A sample, and its `log2_density`: whoever drew the noise need not find it again."""
        noise = torch.randn(len(self.params), self.latents, device=self.params.device)
        q = Normal(self.step(noise, self.params))
        mean, log2_scale = q.read()
        z = mean + torch.exp2(log2_scale) * noise
        return z, q.log2_density(z)

    def mean(self) -> Tensor:
        """By samples: it has no closed form."""
        return torch.stack([self.sample() for _ in range(SAMPLES_OF_A_MEAN)]).mean(0)

    def log2_density(self, z: Tensor) -> Tensor:
        """Of any z, whose noise is found latent by latent, as a codec finds it."""
        noise = torch.zeros_like(z)
        for i in range(self.latents):
            mean, log2_scale = Normal(self.step(noise, self.params)).read()
            found = (z[:, i] - mean[:, i]) * torch.exp2(-log2_scale[:, i])
            noise = torch.cat([noise[:, :i], found[:, None], noise[:, i + 1 :]], 1)
        return Normal(self.step(noise, self.params)).log2_density(z)
