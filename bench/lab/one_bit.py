"""One bit: when does a VAE use its latent? x is n copies of one fair bit."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from bbans import zoo
from bbans.vae.dense import X_DIGITS, DenseConfig, DenseVAE, see_x
from bbans.vae.distributions import Normal
from bench.lab import plots
from bench.lab.models import ADAM, Coded, Drawn, Lab, Pixels, coded
from bench.lab.page import Claim, Page, Table, below, near

SIZES = (1, 2, 5, 10, 100, 1000)
QUICK_SIZES = (1, 5, 100)
LAYERS = {"one layer": (1,), "two layers": (1, 1)}
NAT = math.log(2.0)


def config(n: int, latents: tuple[int, ...]) -> DenseConfig:
    """z of one dimension (or z1 and z2), as in the text."""
    return DenseConfig(1, n, 1, hidden=(64, 64), latents=latents, likelihood="bernoulli")


def bits(n: int, count: int, random: np.random.Generator) -> Pixels:
    """[count, 1, n, 1]."""
    return np.broadcast_to(random.integers(0, 2, (count, 1, 1, 1), np.uint8), (count, 1, n, 1)).copy()


def run(lab: Lab) -> Page:
    """Train, code, draw."""
    sizes = QUICK_SIZES if lab.quick else SIZES
    found: dict[str, dict[int, Coded]] = {}
    models: dict[str, zoo.Model] = {}
    for kind, latents in LAYERS.items():
        found[kind] = {}
        for n in sizes:
            task = Drawn(config(n, latents), lambda count, random, n=n: bits(n, count, random), f"one_bit-{n}")
            model = lab.trained(task, replace(ADAM, steps=lab.steps(6000, 600)))
            pixels = bits(n, lab.steps(20_000, 2000), np.random.default_rng(7))
            found[kind][n] = coded(model, pixels, particles=16)
            models[kind] = model
    one, two = found.values()
    rows = [
        [
            str(n),
            kind,
            f"{NAT * c.per_picture('likelihood'):.3f}",
            f"{NAT * c.per_dim('likelihood'):.5f}",
            f"{NAT * c.per_picture('kl'):.3f}",
            f"{NAT * c.per_picture('float_elbo'):.3f}",
            f"{c.per_picture('float_elbo'):.3f}",
            f"{c.per_picture('net'):.3f}",
            f"{c.per_picture('total'):.3f}",
        ]
        for n in sizes
        for kind, c in ((kind, by_n[n]) for kind, by_n in found.items())
    ]
    densities(lab, models)
    largest = sizes[-1]
    first, last = one[1], one[largest]
    page = Page(
        title="One bit",
        question="""
            A VAE with one normal latent is trained on x, n copies of one fair bit. For n = 1 the text finds that the
            latent is not used at all: that *is* the best model. With more copies the decoder, for which pixels are
            independent given z, needs z; and since q is normal and the true posterior is not, using it has a price.
        """,
        setting="""
            `dense`, 64 + 64 units, one latent, or z1 and z2 of one each with q(z1 | x) q(z2 | z1); Adam, fresh samples
            in every batch; 20,000 samples are coded on two messages and compared after decoding.
        """,
        conclusion="""
            A latent that buys nothing costs nothing: at n = 1 the model is exact, and the coder takes one bit for one
            bit. Where z is needed, what a normal posterior cannot say is paid in real bits, and a second layer, which
            makes q richer, gives part of them back.
        """,
        tables=[
            Table(
                """Reconstruction and KL in nats, as in the text; −ELBO, message and file in bits per sample. The
                entropy of x is 1 bit, 0.693 nats, for every n.""",
                ["n", "", "recon.", "recon. per dim", "KL", "−ELBO", "−ELBO, bits", "net, bits", "total, bits"],
                rows,
            )
        ],
        claims=[
            near("n = 1: reconstruction, nats", 0.693, NAT * first.per_picture("likelihood"), 0.01),
            near("n = 1: KL, nats", 0.0, NAT * first.per_picture("kl"), 0.01),
            Claim(
                f"reconstruction per dim falls from n = 1 to n = {largest}",
                "less",
                f"{NAT * first.per_dim('likelihood'):.3f} to {NAT * last.per_dim('likelihood'):.5f} nats",
                last.per_dim("likelihood") < 0.1 * first.per_dim("likelihood"),
            ),
            Claim(
                f"n = {largest}: −ELBO is above the entropy, for q is normal",
                "> 0.693 nats",
                f"{NAT * last.per_picture('float_elbo'):.3f} nats",
                NAT * last.per_picture("float_elbo") > 0.72,
            ),
            below(
                f"n = {largest}: loss of two layers against one, nats",
                NAT * last.per_picture("float_elbo"),
                NAT * two[largest].per_picture("float_elbo"),
            ),
            below(
                f"n = {largest}: reconstruction of two layers against one, nats",
                NAT * last.per_picture("likelihood"),
                NAT * two[largest].per_picture("likelihood"),
            ),
            *(
                near(
                    f"n = {n}, {kind}: net against −ELBO of the latents coded, bits a sample",
                    c.per_picture("elbo"),
                    c.per_picture("net"),
                    0.001 + (0.02 if n > 1 else 0.001) * c.per_picture("elbo"),
                )
                for kind, by_n in found.items()
                for n, c in by_n.items()
                if n in (1, largest)
            ),
        ],
        figures={
            "one_bit.png": f"q(z) = ½ Σ q(z | x) (filled) and p(z) (line), n = {largest}: z of one layer, z2 of two."
        },
    )
    return page


def densities(lab: Lab, models: dict[str, zoo.Model]) -> None:
    """q(z) of each kind of model against p(z), by the float networks of the largest n."""
    grid = torch.linspace(-4, 4, 401)[:, None]
    curves = {}
    for kind, model in models.items():
        network = model.float_network
        assert isinstance(network, DenseVAE)
        n, total = network.config.width, torch.zeros(len(grid))
        with torch.inference_mode():
            for bit in (0, 255):
                q = Normal(network.infer(see_x(torch.full((4000, n), float(bit)), 1) * 2.0**-X_DIGITS))
                if len(network.config.latents) > 1:
                    q = Normal(network.infer_upper(q.sample()))
                mean, log2_scale = (each[:, 0] for each in q.read())
                each = torch.distributions.Normal(mean, torch.exp2(log2_scale))
                total += each.log_prob(grid).exp().mean(1) / 2
        curves[kind] = total.numpy()
    plots.against_normal(lab.pages / "one_bit.png", grid[:, 0].numpy(), curves)
