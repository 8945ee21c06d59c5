"""Posterior collapse: a decoder that needs no latents is told nothing by them, and what is done against that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from bbans.image.planes import BACK, PRIOR
from bbans.vae.diagnosis import Anatomy, anatomy
from bbans.vae.likelihoods import bernoulli_nll
from bench.lab import bilevel, plots
from bench.lab.models import Coded, Lab, Pixels, coded
from bench.lab.page import Claim, Page, Table, below, near

WEAK, NONE, WHOLE, BOTH = "dense (20)", "lattice, no latents", "lattice (16, 0)", "lattice (16, 8)"
LOCAL, WARM, FREE, BOTH_WARM = "lattice (0, 8)", f"{WHOLE}, warm-up", f"{WHOLE}, free bits", f"{BOTH}, warm-up"
FREE_BITS = 0.25  # of each latent
SIZES = {NONE: (0, 0), WHOLE: (16, 0), WARM: (16, 0), FREE: (16, 0), LOCAL: (0, 8), BOTH: (16, 8), BOTH_WARM: (16, 8)}


@dataclass(frozen=True)
class Found:
    """Of one model: by its float networks, and in files of the same pictures."""

    told: Anatomy
    files: Coded

    @property
    def kl(self) -> float:
        """Bits of a picture."""
        return self.files.per_picture("kl")

    def latents(self, word: str) -> str:
        """How many are dead, or active, of how many, layer by layer."""
        layers = self.told.layers.values()
        return " + ".join(f"{getattr(layer, word)} of {len(layer.each)}" for layer in layers) or "-"


def run(lab: Lab) -> Page:
    """Train, measure, code."""
    data = bilevel.of(lab)
    pixels = data.test[: lab.steps(1000, 100)]
    warm = {"kl_warmup": lab.steps(500, 50)}
    more: dict[str, dict[str, Any]] = {WARM: warm, BOTH_WARM: warm, FREE: {"free_bits": FREE_BITS}}
    trainings = {WEAK: (data.dense(), bilevel.of_dense(lab))}
    trainings |= {
        name: (data.thumbnail(latents), replace(bilevel.of_thumbnail(lab), **more.get(name, {})))
        for name, latents in SIZES.items()
    }
    found = {}
    for name, (config, recipe) in trainings.items():
        if lab.quick and name not in (WEAK, NONE, WHOLE, FREE):
            continue
        model = lab.trained(data.task(config), recipe)
        network = model.float_network
        assert network is not None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            told = anatomy(network, [torch.from_numpy(pixels)], 2)
        found[name] = Found(told, coded(model, pixels))
    positions = " x ".join(map(str, data.thumbnail(SIZES[NONE]).top_size))
    alone = independent(data.training, pixels)
    plots.stacked(
        lab.pages / "collapse.png",
        "bits per dim",
        {part: [f.files.per_dim(part) for f in found.values()] for part in ("likelihood", "kl")},
        [*found],
    )
    return Page(
        title="Posterior collapse",
        question="""
            A decoder that is strong without latents, such as an autoregressive one, ends up ignoring them: their KL
            becomes 0, and z tells nothing of x (Liao, "Variational AutoEncoder", "What's wrong with ELBO?"; the chapter
            "Variational Autoencoders: theory and implementations"; and "One bit" here, where that *is* the best model).
            Is this a loss for a coder? And what do warm-up, free bits and a hierarchy of latents change?
        """,
        setting=f"""
            {data.name}. The weak decoder is that of `dense`, whose pixels are independent given z; the strong one that
            of `thumbnail`, small: over a lattice of 2 levels, each phase given all before it. Its latents (a, b) are a
            of the whole picture and b of each of {positions} positions. Warm-up: the KL's weight grows from 0 over
            {warm["kl_warmup"]} of {bilevel.of_thumbnail(lab).steps} steps. Free bits: each latent's KL counts
            {FREE_BITS} bits at least. All else is trained alike, once: models that collapse differ by
            0.2 %, which tells what a difference means. {len(pixels)} pictures of the test set.
        """,
        conclusion="""
            Trained plainly, the strong decoder ignores every latent, and is as good as the same model without any:
            dead, they cost a coder only what rounding loses, 0.3 % of the file where there are 16, 1.5 % where there
            are hundreds. But the collapse is the training's failure and not −ELBO's optimum, for with warm-up or free
            bits the same networks tell some 6 bits of a picture in their latents and files are 3 % or 1 % smaller than
            without, while latents of positions beside those of the whole picture add nothing.
        """,
        tables=[
            Table(
                f"""Bits per dim; the KL in bits of a picture, too. Active: the variance of the posterior's mean is
                above 0.01; dead: a KL below 0.01 bits. Independent pixels, each with its mean over the training set as
                its probability, take {alone:.4f}.""",
                ["model", "−ELBO", "likelihood", "KL", "KL, bits", "active", "dead"],
                [
                    [
                        name,
                        *(f"{f.files.per_dim(word):.4f}" for word in ("float_elbo", "likelihood", "kl")),
                        f"{f.kl:.3f}",
                        f.latents("active"),
                        f.latents("dead"),
                    ]
                    for name, f in found.items()
                ],
            ),
            Table(
                """The same pictures as a file. Popped, pushed: the bits that latents take from the message by q, and
                bring by p, in bits of a picture: what goes either way, for a KL that is their difference.""",
                ["model", "popped", "pushed", "−ELBO, coded", "net", "total", "total, bytes a picture"],
                [
                    [
                        name,
                        f"{abs(f.files.ledger.get(BACK, 0.0)) / f.files.pictures:.1f}",
                        f"{f.files.ledger.get(PRIOR, 0.0) / f.files.pictures:.1f}",
                        *(f"{f.files.per_dim(word):.4f}" for word in ("elbo", "net", "total")),
                        f"{f.files.per_picture('total') / 8:.2f}",
                    ]
                    for name, f in found.items()
                ],
            ),
        ],
        claims=claims(found, alone, quick=lab.quick),
        figures={"collapse.png": "What each model's −ELBO consists of."},
    )


def claims(found: Mapping[str, Found], alone: float, *, quick: bool) -> list[Claim]:
    """What must be seen of any training; of a quick one, less."""
    weak, none, whole = (found[name].files for name in (WEAK, NONE, WHOLE))
    least, dead = (0.5, 8) if quick else (5.0, 0)
    told, kept = found[WEAK].kl, sum(layer.dead for layer in found[FREE].told.layers.values())
    claims = [
        below(
            "the weak decoder needs its latents: −ELBO against independent pixels, bits per dim",
            (0.99 if quick else 0.9) * alone,
            weak.per_dim("float_elbo"),
        ),
        Claim("... and is told much: KL, bits a picture", f"> {least}", f"{told:.2f}", told > least),
        below("the strong decoder's collapse: KL, bits a picture", 1.0 if quick else 0.1, found[WHOLE].kl),
        near(
            "... whereupon −ELBO is that without latents, bits per dim",
            none.per_dim("float_elbo"),
            whole.per_dim("float_elbo"),
            (0.05 if quick else 0.01) * none.per_dim("float_elbo"),
        ),
        below("free bits keep latents alive: how many are dead", dead, kept),
    ]
    if not quick:
        claims += [
            below(
                f"{name}: net against no latents, bits per dim", none.per_dim("net"), found[name].files.per_dim("net")
            )
            for name in (FREE, WARM, BOTH_WARM)
        ]
    claims += [
        near(
            f"{name}: net against −ELBO of the latents coded, bits per dim",
            f.files.per_dim("elbo"),
            f.files.per_dim("net"),
            0.002 * f.files.per_dim("elbo"),
        )
        for name, f in found.items()
    ]
    return claims


def independent(training: Pixels, pixels: Pixels) -> float:
    """Bits per dim of pixels that are independent of one another, each with a probability of its own."""
    count = len(training)
    p = torch.from_numpy((training.astype(float).sum(0) / 255 + 0.5) / (count + 1))
    bits: float = (bernoulli_nll(torch.logit(p), torch.from_numpy(pixels > 0)) / math.log(2.0)).mean().item()
    return bits
