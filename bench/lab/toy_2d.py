"""Densities of the plane: how near a VAE and an IWAE come to entropies that are known, and where their latents go."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from bbans import zoo
from bbans.train.loop import Recipe
from bbans.vae.bounds import measure
from bbans.vae.dense import UNITS, DenseConfig, DenseVAE
from bbans.vae.objectives import dense_normal
from bench.lab import plots, toys
from bench.lab.models import ADAM, Coded, Drawn, Lab, coded, validations
from bench.lab.page import Claim, Page, Table, below, near
from bench.lab.toys import DEPTH, TOYS, Toy

CONFIG = DenseConfig(1, 2, DEPTH, hidden=(128, 128, 128), latents=(2,), likelihood="normal")
RAW = 2.0 * DEPTH  # bits of a point of the grid
KINDS = ("VAE", "IWAE")
RECIPES = {
    "VAE": replace(ADAM, optimiser="muon", learning_rate=0.002, kl_warmup=500),
    "IWAE": replace(ADAM, optimiser="muon", learning_rate=0.002, particles=10, doubly=True, model=CONFIG),
}
STEPS = {"8 normals": (30_000, 12_000), "checkerboard": (30_000, 12_000), "2 spirals": (60_000, 60_000)}  # of KINDS
QUICK = {"VAE": 300, "IWAE": 120}
LOSS_PARTICLES, PARTICLES = 10, 250
# (-ELBO or loss, NLL) of the text's tables 1a and 2
TEXT = {
    ("8 normals", "VAE"): (-1.81, -1.86),
    ("checkerboard", "VAE"): (-0.73, -0.81),
    ("2 spirals", "VAE"): (-1.98, -2.15),
    ("8 normals", "IWAE"): (-1.85, -1.91),
    ("checkerboard", "IWAE"): (-0.84, -0.88),
    ("2 spirals", "IWAE"): (-2.25, -2.30),
}
WITHIN = 0.05  # bits


def task(toy: Toy) -> Drawn:
    """Fresh points in every batch."""
    return Drawn(CONFIG, toy.pixels, f"toy_2d-{toy.name.replace(' ', '_')}")


def steps_of(lab: Lab, name: str, kind: str) -> int:
    """Of a toy's training."""
    return lab.steps(STEPS[name][KINDS.index(kind)], QUICK[kind])


def trained(lab: Lab, toy: Toy, kind: str) -> zoo.Model:
    """Of a kind of `RECIPES`."""
    recipe: Recipe = RECIPES[kind]
    steps = steps_of(lab, toy.name, kind)
    return lab.trained(task(toy), replace(recipe, steps=steps, kl_warmup=min(recipe.kl_warmup, steps // 4)))


@dataclass(frozen=True)
class Found:
    """Of a model: bits of a point of the square, but coded and its ideal: bits of points of the grid."""

    model: zoo.Model
    elbo: float
    loss: float  # the importance-weighted bound of so many samples as training has
    nll: float
    mass: float  # of the density over the whole square, by the samples that the picture is of
    dark: float  # share of p(z) whose mean is where there are no data
    ideal: float  # what the points coded would take under the truth
    coded: Coded


def run(lab: Lab) -> Page:
    """Train, measure, code, draw."""
    found: dict[tuple[str, str], Found] = {}
    densities: dict[str, list[plots.Floats]] = {}
    places: dict[str, list[plots.Floats]] = {}
    for toy in TOYS:
        side = lab.steps(128, 32)
        truth = np.exp2(toy.log2_density(toys.lattice(side)))
        densities[toy.name] = [truth.reshape(side, side)]
        places[toy.name] = [coloured(toys.lattice(SIDE), inside(toy, toys.lattice(SIDE)))]
        for kind in KINDS:
            model = trained(lab, toy, kind)
            density = learnt(model, side, lab.steps(64, 4))
            ends = where_means_land(model)
            lands = inside(toy, ends)
            densities[toy.name].append(density)
            places[toy.name].append(coloured(ends, lands))
            found[toy.name, kind] = measured(lab, toy, model, float(density.mean()), 1 - float(lands.mean()))
    heads = ["the data", *KINDS]
    plots.images(lab.pages / "toy_2d_density.png", densities, heads)
    plots.images(lab.pages / "toy_2d_latents.png", places, heads)
    return page(lab, found)


# -- measuring ---------------------------------------------------------------------------------------------------------


def measured(lab: Lab, toy: Toy, model: zoo.Model, mass: float, dark: float) -> Found:
    """Bounds of fresh points, and points coded."""
    network = model.float_network
    assert network is not None
    points = toy.draw(lab.steps(10_000, 500), np.random.default_rng(3))
    pixels = torch.from_numpy(toys.on_grid(points))
    # the points' own bits may differ from the entropy by chance: what models take more of them does less
    by_chance = -float(toy.log2_density(points).mean()) - toy.entropy
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        few = measure(network, pixels, LOSS_PARTICLES)
        many = measure(network, pixels, lab.steps(PARTICLES, 50))
    elbo, loss, nll = (float(bits.mean()) - RAW - by_chance for bits in (many.elbo, few.iwae, many.iwae))
    points = toy.draw(lab.steps(20_000, 1000), np.random.default_rng(7))
    ideal = RAW - float(toy.log2_density(points).mean())
    return Found(model, elbo, loss, nll, mass, dark, ideal, coded(model, toys.on_grid(points)))


def learnt(model: zoo.Model, side: int, particles: int) -> plots.Floats:
    """The density [side, side] of a model."""
    network = model.float_network
    assert network is not None
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        bits = measure(network, torch.from_numpy(toys.on_grid(toys.lattice(side))), particles).iwae
    return np.exp2(RAW - bits).reshape(side, side)


SIDE = 160  # of the pictures of latents


def where_means_land(model: zoo.Model) -> toys.Points:
    """The decoder's means [SIDE^2, 2] of as many z, the middles of parts of p(z) of equal mass, by quantiles."""
    network = model.float_network
    assert isinstance(network, DenseVAE)
    z = torch.special.ndtri(torch.from_numpy(toys.lattice(SIDE))).float()
    with torch.inference_mode():
        mean, _ = dense_normal(network, network.decode(z))
    return mean.double().numpy() / UNITS


def inside(toy: Toy, points: toys.Points) -> NDArray[np.bool_]:
    """Whether points are where all but 1 % of the data are."""
    within = ((points >= 0) & (points < 1)).all(1)
    log2 = toy.log2_density(np.clip(points, 0, 1 - 1e-9))
    least = np.quantile(toy.log2_density(toy.draw(20_000, np.random.default_rng(0))), 0.01)
    return within & (log2 >= least - 1e-9)


def coloured(points: toys.Points, bright: NDArray[np.bool_]) -> plots.Floats:
    """A square picture [side, side, 3] of points: each place of the unit square has its colour, black if not bright."""
    x, y = np.clip(points, 0, 1).T
    side = math.isqrt(len(points))
    return (np.stack([x, y, 1 - x], 1) * bright[:, None]).reshape(side, side, 3)


# -- the page ----------------------------------------------------------------------------------------------------------


def page(lab: Lab, found: dict[tuple[str, str], Found]) -> Page:
    """All that was measured."""
    entropy = {toy.name: toy.entropy for toy in TOYS}
    return Page(
        title="Densities of the plane",
        question="""
            R. Yu, "A Tutorial on VAEs: From Bayes' Rule to Lossless Compression" (2020), section 6: VAEs with two
            latents are trained on three distributions over the unit square whose entropies H are known. No model has an
            NLL below H; how near do a VAE and an IWAE of 10 samples come, how loose is −ELBO, and how much of the
            latent space is spent on places without data? And what does a point cost, as bits?
        """,
        setting=f"""
            `dense` on a grid of {DEPTH} bits a coordinate, so that densities are bits of the grid less {RAW:.0f};
            3 x 128 units, two latents, diagonal normal posteriors, normal likelihoods whose scale the decoder tells.
            Batches of 200 fresh points; Muon, at 0.002 at most. VAE: the KL's weight grows over the first 500 steps
            (without, the latents of deep networks tell nothing for thousands of steps). IWAE: 10 samples, with doubly
            reparametrised gradients (Tucker et al. 2019), or q would be lost in noise. The text has 60,000 and 30,000
            steps. H: of the checkerboard, half the square, -1; of two spiral bands of equal width, drawn
            exactly uniformly, log2 of their area, which is in closed form; of eight normals, by quadrature. NLL:
            {PARTICLES} importance samples for each of 10,000 points.
        """,
        conclusion=CONCLUSION,
        tables=[bounds_table(lab, found, entropy), curve_table(lab, found), coded_table(found)],
        claims=claims(lab, found, entropy),
        figures={
            "toy_2d_density.png": "The density of the data, and those learnt, by importance samples.",
            "toy_2d_latents.png": """
                Left: each place of the data has its colour. Right: latent space, as quantiles of p(z), so that areas
                are shares of p(z): each z has the colour of where the decoder's mean lands, black where no data are.
            """,
        },
    )


CONCLUSION = """
    After half the text's steps eight normals and the checkerboard are learnt as well as in the text, or better, and a
    tighter bound fills the dark places of latent space, as it says; the spirals take the VAE as many steps, and the
    IWAE twice as many. Bits back takes −ELBO, to two thousandths of a bit for the VAE: so the IWAE, whose q is no
    posterior, is the better density and by far the worse coder, as long as one particle is all it is given.
"""


def bounds_table(lab: Lab, found: dict[tuple[str, str], Found], entropy: dict[str, float]) -> Table:
    rows = []
    for (name, kind), f in found.items():
        loss, nll = TEXT[name, kind]
        ours = f.elbo if kind == "VAE" else f.loss
        cells = [f"{entropy[name]:.2f}", f"{ours:.3f}", f"{loss:.2f}", f"{f.nll:.3f}", f"{nll:.2f}", f"{f.elbo:.3f}"]
        rows.append([name, kind, f"{steps_of(lab, name, kind):,}", *cells, f"{f.mass:.3f}", f"{f.dark:.3f}"])
    return Table(
        """Bits a point. Loss: −ELBO of the VAE, of the IWAE the bound by 10 samples. Mass: the integral of the
        density in the picture, 1 if the importance samples find all. Dark: the share of p(z) whose mean lands where no
        data are.""",
        ["", "", "steps", "H", "loss", "text", "NLL", "text", "−ELBO", "mass", "dark"],
        rows,
    )


def curve_table(lab: Lab, found: dict[tuple[str, str], Found]) -> Table:
    curves = {name: dict(validations(f.model)) for (name, kind), f in found.items() if kind == "VAE"}
    last = max(steps_of(lab, name, "VAE") for name in curves)
    marks = sorted({max(100, round(last * share / 2400) * 100) for share in (1, 2, 4, 8, 12, 24)})
    rows = [
        [name, *(f"{2 * curve[mark] - RAW:.3f}" if mark in curve else "" for mark in marks)]
        for name, curve in curves.items()
    ]
    return Table(
        "How far the VAE has come: −ELBO over the last batches, bits a point, by steps.",
        ["", *(f"{mark:,}" for mark in marks)],
        rows,
    )


def coded_table(found: dict[tuple[str, str], Found]) -> Table:
    rows = [
        [
            name,
            kind,
            f"{f.ideal:.3f}",
            *(f"{f.coded.per_picture(w):.3f}" for w in ("float_elbo", "elbo", "net", "total")),
        ]
        for (name, kind), f in found.items()
    ]
    return Table(
        """20,000 points on two messages, bits a point; raw: 24. Ideal: −log2 of the data's own density of these points,
        whose mean is 24 + H; −ELBO: of the float network; elbo: of the latents coded, net and total as everywhere.""",
        ["", "", "ideal", "−ELBO", "elbo", "net", "total"],
        rows,
    )


def claims(lab: Lab, found: dict[tuple[str, str], Found], entropy: dict[str, float]) -> list[Claim]:
    within = 3.0 if lab.quick else WITHIN
    out: list[Claim] = []
    for (name, kind), f in found.items():
        loss, nll = TEXT[name, kind]
        what = "−ELBO" if kind == "VAE" else "loss"
        out += [
            below(
                f"{name}, {kind}: {what}, bits; the text's + {within:g}",
                loss + within,
                f.elbo if kind == "VAE" else f.loss,
            ),
            below(f"{name}, {kind}: NLL, bits; the text's + {within:g}", nll + within, f.nll),
        ]
    for name, h in entropy.items():
        vae, iwae = found[name, "VAE"], found[name, "IWAE"]
        out += [
            Claim(
                f"{name}: no NLL below H",
                f"≥ {h:.3f} - 0.02",
                f"{min(vae.nll, iwae.nll):.3f}",
                min(vae.nll, iwae.nll) >= h - 0.02,
            ),
        ]
        if not lab.quick:
            out += [
                below(f"{name}: NLL of the IWAE against the VAE, bits", vae.nll, iwae.nll),
                below(f"{name}: dark share of the IWAE's p(z) against the VAE's", vae.dark, iwae.dark),
            ]
    for (name, kind), f in found.items():
        elbo, net, real = (f.coded.per_picture(word) for word in ("elbo", "net", "float_elbo"))
        out.append(near(f"{name}, {kind}: net - elbo, bits a point", 0, net - elbo, 0.02))
        if kind == "VAE":
            out.append(near(f"{name}, {kind}: elbo - float −ELBO, bits a point", 0, elbo - real, 0.05))
        elif not lab.quick:
            out.append(
                below(f"{name}, {kind}: NLL and 0.1 against net, for bits back pay −ELBO", net, RAW + f.nll + 0.1)
            )
    return out
