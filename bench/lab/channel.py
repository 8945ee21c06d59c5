"""The KL of normal latents as the capacity of a channel, and what a full covariance buys: a flow's likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbans.ans import Message
from bbans.codecs.grid import GridNormals
from bbans.codecs.tables import PER_OCTAVE, ScaleTables, normal_tables
from bbans.image.dense import LOCATIONS, SCALE_OF_Z
from bbans.vae import likelihoods
from bbans.vae.dense import Z_DIGITS
from bbans.vae.distributions import BITS_OF_A_NAT, FullNormal, Normal, Posterior, StandardNormal
from bench.lab.models import Lab
from bench.lab.page import Claim, Page, Table, below, near

LATENTS = 64
RATES = (0.125, 0.5, 1.0, 2.0, 4.0, 6.0, 7.0, 8.0)  # bits of a latent
LANES, GRID_BITS = 16, 8  # bins of 2^-8, the finest that chains have
NOISES = (1.0, 0.3, 0.1, 0.03, 0.01)

SLIPS = [
    ["eq. 25, 30", "u - r", "u + r, by eq. 24; its limit is the same"],
    ["eq. 28, 30", "trace(J^-1 J^-1)", "trace(J^-1 J^-T), as in eq. 27"],
    [
        "eq. 30",
        "1/2 [n log 2 pi + f^-1(x)^2] - log det^2 J^-1 + ...",
        "1/2 [... - log det^2 J^-1 + ...]: one bracket around all; as printed, log det J^-1 counts twice",
    ],
    [
        "after eq. 32",
        "J^-1 = U D V^T: diagonal when V D^2 V^T is",
        "U D^2 U^T, for that is J^-1 J^-T; the second map has U = I, a V that permutes nothing, and no gap",
    ],
]


def run(lab: Lab) -> Page:
    """Count bits."""
    messages, points = lab.steps(2000, 40), lab.steps(400_000, 40_000)
    torch.manual_seed(0)
    tables = normal_tables()
    channels = [channel(tables, rate, messages) for rate in RATES]
    gaps = {(m.name, kind, noise): m.gap(noise, kind, points) for m in MAPS for kind in KINDS for noise in NOISES}
    return Page(
        title="The channel, and the flow",
        question="""
            Two identities of R. Yu's "A Tutorial on VAEs: From Bayes' Rule to Lossless Compression" (2020). First
            (section 4.3): with q = N(mu, N I), of power P = |mu|^2 / d = 1 - N, KL(q || N(0, I)) is d R, where R =
            -1/2 log N is the capacity of a Gaussian channel of that noise and power. Second (section 3.3): for an
            invertible f with Jacobian J, a VAE with p(x | z) = N(f(z), eps^2 I) and q = N(f^-1(x), eps^2 J^-1 J^-T)
            has a −ELBO that tends to the flow's −log p(x) as eps goes to 0.
        """,
        setting=f"""
            The library's `Normal`, `StandardNormal` and `FullNormal`, of given parameters; nothing is trained. Channel:
            {messages:,} messages of {LATENTS} latents, mu of random direction. By samples: the mean of log2 q - log2 p.
            Net: z is popped from a message of random bits by q and pushed by p, both on the grid of
            `bbans.codecs.grid` with 2^-{GRID_BITS} wide bins; what the message grew by. Flow: {points:,} x of the flow
            itself, a z for each; FullNormal as the chain z1, then z2 given z1 (LDL^T of the covariance). The diagonal q
            is the best one of a linear map: of variance one over the diagonal of the true posterior's precision.
        """,
        conclusion="""
            The KL is the capacity: exactly so in closed form, and as bits of a real message to a hundredth of a bit
            per latent, for as long as the noise is wider than a bin of the grid; what is finer than a bin, the
            coder neither sees nor pays. With the full covariance the gap to the flow falls as eps^2, and with a
            diagonal one it stays, unless J^-1 J^-T is diagonal, at what the correlation of the posterior is worth.
        """,
        tables=[
            Table(
                "Bits per latent. R is the capacity; the KL in closed form is that of the text's eq. 7.",
                ["N", "R", "closed form", "by samples", "−log2 p + log2 q on the grid", "net"],
                [[f"2^{-2 * c.rate:g}", *(f"{v:.4f}" for v in c.columns())] for c in channels],
            ),
            Table(
                "−ELBO minus the flow's −log2 p(x), in bits, means over x.",
                ["f", "q", *(f"eps = {noise:g}" for noise in NOISES)],
                [
                    [m.name, kind, *(f"{gaps[m.name, kind, noise]:.5f}" for noise in NOISES)]
                    for m in MAPS
                    for kind in KINDS
                ],
            ),
            Table(
                "What the text's derivation has and what it should have; its eq. 31 and 32 are right.",
                ["text", "printed", "should be"],
                SLIPS,
            ),
        ],
        claims=[*channel_claims(channels, lab.quick), *flow_claims(gaps, lab.quick)],
    )


# -- the channel -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Channel:
    """Bits per latent, of a channel of so many."""

    rate: float
    closed: float
    sampled: float
    counted: float
    net: float

    def columns(self) -> tuple[float, ...]:
        return self.rate, self.closed, self.sampled, self.counted, self.net


def channel(tables: ScaleTables, rate: float, messages: int) -> Channel:
    """Of noise N = 2^(-2 rate); rate: in multiples of 1/8 bit, as the coder's scales are."""
    noise = 2.0 ** (-2 * rate)
    mean = torch.randn(messages, LATENTS)
    mean *= math.sqrt(LATENTS * (1 - noise)) / mean.norm(dim=1, keepdim=True)
    q = Normal(torch.cat([mean, torch.full_like(mean, -rate)], 1))
    closed = (mean.double() ** 2 + noise - 1 - math.log(noise)) / 2 * BITS_OF_A_NAT
    z = q.sample()
    sampled = q.log2_density(z) - StandardNormal().log2_density(z)

    means = torch.round(mean * 2**Z_DIGITS).flatten().numpy().astype(np.int32)
    posterior = on_grid(tables, means, SCALE_OF_Z - round(PER_OCTAVE * rate), floor=0)
    prior = on_grid(tables, np.zeros_like(means), SCALE_OF_Z, floor=1)
    message = Message.random(LANES, seed=round(PER_OCTAVE * rate))
    before = message.bits() - 32.0 * message.words.padding
    bins = posterior.row_codec().pop(message)
    prior.row_codec().push(message, bins)
    net = message.bits() - 32.0 * message.words.padding - before
    counted = posterior.log2_prob(bins) - prior.log2_prob(bins)
    return Channel(
        rate,
        float(closed.mean()),
        float(sampled.mean()),
        float(counted.mean()),
        net / len(means),
    )


def on_grid(tables: ScaleTables, means: NDArray[np.int32], scale: int, floor: int) -> GridNormals:
    """Normals on the bins of latents, as the codec of `dense` has them."""
    step = 1 << (Z_DIGITS - GRID_BITS)
    scales = np.full_like(means, scale)
    return GridNormals(tables, means, scales, -LOCATIONS, step, 2 * LOCATIONS // step, floor)


def channel_claims(channels: list[Channel], quick: bool) -> list[Claim]:
    within = 0.1 if quick else 0.02
    wide = [c for c in channels if c.rate <= GRID_BITS - 1]  # noise of two bins at least
    finest = channels[-1]
    return [
        near("closed form - R, the largest, bits per latent", 0, max(abs(c.closed - c.rate) for c in channels), 1e-5),
        near("by samples - R, the largest, bits per latent", 0, max(abs(c.sampled - c.rate) for c in channels), within),
        near(
            "net - R while the noise is at least two bins wide, the largest, bits per latent",
            0,
            max(abs(c.net - c.rate) for c in wide),
            within,
        ),
        near(
            "net - (−log2 p + log2 q), the largest, bits per latent",
            0,
            max(abs(c.net - c.counted) for c in channels),
            0.002,
        ),
        below("noise one bin wide: net, which is that of z rounded, against R", finest.rate, finest.net),
    ]


# -- the flow ----------------------------------------------------------------------------------------------------------

KINDS = ("full", "diagonal")


@dataclass(frozen=True)
class Map:
    """An invertible map of the plane, z to x: with J^-1 [N, 2, 2] at z, and ln |J|, the same everywhere."""

    name: str
    forward: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]
    inverse_jacobian: Callable[[Tensor], Tensor]
    log_det: float

    def gap(self, noise: float, kind: str, count: int) -> float:
        """−ELBO minus the flow's −log2 p(x), over so many x that the flow draws, in bits."""
        x = self.forward(torch.randn(count, 2))
        centre = self.inverse(x)
        flow = StandardNormal().log2_density(centre).sum(1) - self.log_det * BITS_OF_A_NAT
        q = posterior(centre, noise * self.inverse_jacobian(centre), kind)
        z = q.sample()
        log2_scale = torch.full((), math.log2(noise))
        likelihood = likelihoods.normal_log_density(x, self.forward(z), log2_scale).sum(1) * BITS_OF_A_NAT
        kl = (q.log2_density(z) - StandardNormal().log2_density(z)).sum(1)
        return float((flow + kl - likelihood).double().mean())


def posterior(mean: Tensor, root: Tensor, kind: str) -> Posterior:
    """Normal of covariance root root^T [N, 2, 2], or the diagonal one that is nearest, from the side of the ELBO."""
    covariance = root @ root.mT
    if kind == "diagonal":
        variance = 1 / torch.linalg.inv(covariance).diagonal(dim1=1, dim2=2)
        return Normal(torch.cat([mean, torch.log2(variance) / 2], 1))
    slope = covariance[:, 1, 0] / covariance[:, 0, 0]  # what z2 takes of z1
    variance = torch.stack([covariance[:, 0, 0], covariance[:, 1, 1] - slope * covariance[:, 0, 1]], 1)
    means = torch.stack([mean[:, 0], mean[:, 1] - slope * mean[:, 0]], 1)
    return FullNormal(torch.cat([means, torch.log2(variance) / 2, slope[:, None]], 1), 2)


def linear(name: str, matrix: Tensor) -> Map:
    """x = A z."""
    inverse = torch.linalg.inv(matrix)
    return Map(
        name,
        lambda z: z @ matrix.T,
        lambda x: x @ inverse.T,
        lambda z: inverse.expand(len(z), 2, 2),
        float(torch.linalg.slogdet(matrix).logabsdet),
    )


BEND = 1.0


def _bend(z: Tensor, sign: float) -> Tensor:
    return torch.stack([z[:, 0], z[:, 1] + sign * BEND / 2 * z[:, 0] ** 2], 1)


def _inverse_of_bend(z: Tensor) -> Tensor:
    one, zero = torch.ones(len(z)), torch.zeros(len(z))
    return torch.stack([torch.stack([one, zero], 1), torch.stack([-BEND * z[:, 0], one], 1)], 1)


def rotation(angle: float) -> Tensor:
    """[2, 2]."""
    return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


MATRIX = torch.tensor([[1.0, 0.8], [0.3, 1.0]])
SHEAR = linear("linear, A = (1 0.8; 0.3 1)", MATRIX)
STRETCHED = linear("linear, turned after stretching", rotation(0.5) @ torch.diag(torch.tensor([1.5, 0.5])))
BANANA = Map("nonlinear, (z1, z2 + z1²/2)", lambda z: _bend(z, 1.0), lambda x: _bend(x, -1.0), _inverse_of_bend, 0.0)
MAPS = (SHEAR, STRETCHED, BANANA)


def theory(matrix: Tensor) -> float:
    """Of a linear map, what the diagonal q lacks for eps to 0, in bits: half the log of the product of the diagonal of
    A^T A, over its determinant."""
    precision = matrix.T @ matrix
    return float(torch.log2(precision.diagonal()).sum() - torch.linalg.slogdet(precision).logabsdet * BITS_OF_A_NAT) / 2


def flow_claims(gaps: dict[tuple[str, str, float], float], quick: bool) -> list[Claim]:
    """Full: to 0, as eps^2; diagonal: to what theory says, which is 0 where J^-1 J^-T is diagonal."""
    least = NOISES[-1]
    claims = [
        near(f"{m.name}: full, gap at eps = {least:g}, bits", 0, gaps[m.name, "full", least], 0.001) for m in MAPS
    ]
    claims += [
        near(
            f"{m.name}: full, gap at eps = 1 over that at 0.3: as eps^2",
            1 / 0.3**2,
            gaps[m.name, "full", 1.0] / gaps[m.name, "full", 0.3],
            2.0 if quick else 0.3,
        )
        for m in MAPS
    ]
    trace = float(torch.linalg.inv(MATRIX).square().sum())
    claims += [
        near(
            f"{SHEAR.name}: full, gap at eps = 1 by theory, eps² trace(J^-1 J^-T) / 2, bits",
            trace / 2 * BITS_OF_A_NAT,
            gaps[SHEAR.name, "full", 1.0],
            0.15 if quick else 0.03,
        ),
        near(
            f"{SHEAR.name}: diagonal, gap at eps = {least:g} by theory, bits",
            theory(MATRIX),
            gaps[SHEAR.name, "diagonal", least],
            0.01,
        ),
        near(
            f"{STRETCHED.name}: diagonal, gap at eps = {least:g}, bits",
            0,
            gaps[STRETCHED.name, "diagonal", least],
            0.001,
        ),
        Claim(
            f"{BANANA.name}: diagonal, the gap stays",
            "> 0.1 bits",
            f"{gaps[BANANA.name, 'diagonal', least]:.4f} bits",
            gaps[BANANA.name, "diagonal", least] > 0.1,
        ),
    ]
    return claims
