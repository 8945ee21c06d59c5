"""The ladder: every bit between the entropy of the data and the file, for a model small enough to enumerate.

x is one sample of 8 bits and z one number, so that p(x), the true posterior and −ELBO are sums over all x and z. The
figures are those of `docs/theory.md`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbans.vae.dense import X_DIGITS, DenseConfig, DenseVAE, see_x
from bbans.vae.distributions import BITS_OF_A_NAT, Normal, StandardNormal
from bbans.vae.objectives import dense_nll
from bench.lab import plots
from bench.lab.models import ADAM, Drawn, Lab, Pixels, coded
from bench.lab.page import Claim, Page, Table, below, near

Z = torch.linspace(-8, 8, 4097)  # whatever z there is
CLUSTERS = ((70, 9), (120, 4), (200, 16))  # means and scales of what x is a mixture of
EXAMPLE = 150  # an x between two clusters
PARTICLES = 10


def truth() -> NDArray[np.float64]:
    """The distribution of x [256]."""
    x = np.arange(256)
    masses = sum(np.exp(-((x - mean) ** 2) / (2 * scale**2)) / scale for mean, scale in CLUSTERS)
    return np.asarray(masses / np.sum(masses))


def sample(count: int, random: np.random.Generator) -> Pixels:
    """[count, 1, 1, 1]."""
    return random.choice(256, count, p=truth()).astype(np.uint8).reshape(-1, 1, 1, 1)


@dataclass(frozen=True)
class Enumerated:
    """A model of one sample and one latent: all of it. Rows are x = 0..255, columns are `Z`; bits."""

    network: DenseVAE

    @cached_property
    def joint(self) -> Tensor:
        """log2 p(x, z) [256, len(Z)], a density in z."""
        with torch.inference_mode():
            params = self.network.decode(Z[:, None])
            each = [-dense_nll(self.network, params, torch.full((len(Z), 1), float(x)))[:, 0] for x in range(256)]
            return torch.stack(each) * BITS_OF_A_NAT + StandardNormal().log2_density(Z)

    @cached_property
    def posterior(self) -> Tensor:
        """log2 q(z | x) [256, len(Z)]."""
        with torch.inference_mode():
            seen = see_x(torch.arange(256.0)[:, None], 8) * 2.0**-X_DIGITS
            return Normal(self.network.infer(seen)).log2_density(Z[None])

    @property
    def step(self) -> float:
        """Between two z."""
        return float(Z[1] - Z[0])

    @cached_property
    def log2_p(self) -> Tensor:
        """log2 p(x) [256]."""
        return torch.logsumexp(self.joint * math.log(2.0), 1) * BITS_OF_A_NAT + math.log2(self.step)

    @cached_property
    def elbo(self) -> Tensor:
        """−ELBO [256]."""
        return (torch.exp2(self.posterior) * (self.posterior - self.joint)).sum(1) * self.step

    @cached_property
    def best(self) -> Tensor:
        """−ELBO [256] by the best normal q for each x, found among means and scales on a grid."""
        best = torch.full((256,), torch.inf)
        moments = torch.softmax(self.joint * math.log(2.0), 1)  # of the true posterior: where to look
        mean = (moments * Z).sum(1)
        scale = ((moments * (Z - mean[:, None]) ** 2).sum(1)).sqrt().clamp_min(2 * self.step)
        for at in torch.linspace(-2, 2, 33):
            for log2 in torch.linspace(-5, 1, 37):
                params = torch.stack([mean + at * scale, torch.log2(scale) + log2], 1)
                q = Normal(params).log2_density(Z[None])
                mass = torch.exp2(q)
                whole = mass.sum(1) * self.step
                found = (mass * (q - self.joint)).sum(1) * self.step
                best = torch.where((whole - 1).abs() < 1e-3, torch.minimum(best, found), best)
        return torch.minimum(best, self.elbo)


def run(lab: Lab) -> Page:
    """Train, enumerate, code, draw."""
    config = DenseConfig(1, 1, 8, hidden=(64, 64), latents=(1,), likelihood="normal")
    task = Drawn(config, sample, "ladder")
    steps = lab.steps(12_000, 800)
    model = lab.trained(task, replace(ADAM, steps=steps, kl_warmup=steps // 4, batch=500))
    network = model.float_network
    assert isinstance(network, DenseVAE)
    known, p = Enumerated(network), torch.from_numpy(truth()).float()
    pixels = sample(lab.steps(200_000, 10_000), np.random.default_rng(11))
    bits = coded(model, pixels, PARTICLES)
    drawn = torch.bincount(torch.from_numpy(pixels.ravel().astype(np.int64)), minlength=256) / len(pixels)

    def mean(each: Tensor, of: Tensor = drawn) -> float:
        return float((of * each).sum())

    entropy = mean(-torch.log2(p.clamp_min(1e-30)), p)
    rungs = {
        "entropy of the data": entropy,
        "−log2 of the data's own probability": mean(-torch.log2(p.clamp_min(1e-30))),
        "−log2 p(x) of the model": mean(-known.log2_p),
        f"importance-weighted, K = {PARTICLES}": bits.per_picture("iwae"),
        "−ELBO with the best normal q": mean(known.best),
        "−ELBO": mean(known.elbo),
        "elbo: of the integers, with the latents coded": bits.per_picture("elbo"),
        "net: the message": bits.per_picture("net"),
        "total: the file": bits.per_picture("total"),
    }
    values = list(rungs.values())
    rows = [
        [name, f"{value:.4f}", f"{value - before:+.4f}"]
        for (name, value), before in zip(rungs.items(), [values[0], *values], strict=False)
    ]
    draw(lab, known, p, rungs)
    gap, approximation = values[5] - values[2], values[4] - values[2]
    return Page(
        title="The ladder from the entropy to the file",
        question="""
            Between what the data are worth and what the file takes lie the model, the bound, the encoder's habits, the
            integers, the coder and the header. How much is each?
        """,
        setting=f"""
            x is one sample of 8 bits, a mixture of {len(CLUSTERS)} clusters; z is one number; `dense` of 64 + 64 units
            with a discretised normal. Both can be enumerated: p(x), −ELBO and the best normal q are sums over all x and
            {len(Z):,} values of z, not estimates. {len(pixels):,} samples are coded on chains and compared.
        """,
        conclusion="""
            Of what the file takes beyond the entropy, half or more is the model's error and the rest the bound's: what
            integers and coder add is too small to see, so whoever wants a smaller file has to look for a better q or a
            tighter bound. Most of that gap is there with the best normal q, too: it is the family's, not the encoder's.
        """,
        tables=[Table("Bits a sample, and what each rung adds to the one above.", ["", "bits", "more"], rows)],
        claims=[
            below("every rung is above the entropy", values[2] + 1e-9, values[1]),
            below("importance-weighted, against −ELBO", values[5], values[3]),
            below("−log2 p(x), against importance-weighted", values[3] + 0.005, values[2]),
            below("approximation gap, against the whole gap", gap + 1e-6, approximation),
            near("elbo, of the integers, against −ELBO by enumeration", values[5], values[6], 0.02),
            near("net against elbo", values[6], values[7], 0.001 * values[6] + 0.0005),
            Claim(
                "total, against net",
                "≤ 1 % more",
                f"{100 * (values[8] / values[7] - 1):.2f} %",
                values[8] < 1.01 * values[7] or lab.quick,
            ),
        ],
        figures={
            "ladder.png": "The rungs of the table, without the entropy they all contain.",
            "posterior.png": f"""
                Left: the data, p(x) of the model, and 2^ELBO, which nowhere is above it. Right: the true posterior of
                x = {EXAMPLE}, the encoder's q, and the prior.
            """,
        },
    )


def draw(lab: Lab, known: Enumerated, p: Tensor, rungs: dict[str, float]) -> None:
    """Both figures."""
    figure, axes = plots.panels(1, 1, height=2.8)
    figure.set_size_inches(7, 2.8)
    names, values = list(rungs)[::-1], np.array(list(rungs.values()))[::-1]
    axes[0][0].barh(names, values - min(values), color=["C1" if "net" in n or "total" in n else "C0" for n in names])
    axes[0][0].set_xlabel("bits a sample above the lowest")
    plots.save(figure, lab.pages / "ladder.png")
    figure, axes = plots.panels(1, 2)
    x = np.arange(256)
    axes[0][0].fill_between(x, p.numpy(), alpha=0.3, label="data")
    axes[0][0].plot(x, torch.exp2(known.log2_p).numpy(), label="p(x)")
    axes[0][0].plot(x, torch.exp2(-known.elbo).numpy(), label="2^ELBO")
    axes[0][0].legend()
    axes[0][0].set_xlabel("x")
    z = Z.numpy()
    axes[0][1].plot(z, torch.exp2(StandardNormal().log2_density(Z)).numpy(), color="black", label="p(z)")
    axes[0][1].plot(z, torch.exp2(known.posterior[EXAMPLE]).numpy(), label="q(z | x)")
    axes[0][1].plot(z, torch.exp2(known.joint[EXAMPLE] - known.log2_p[EXAMPLE]).numpy(), label="p(z | x)")
    axes[0][1].set_xlim(-4, 4)
    axes[0][1].legend()
    axes[0][1].set_xlabel("z")
    plots.save(figure, lab.pages / "posterior.png")
