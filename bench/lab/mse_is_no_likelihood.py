"""An MSE is no likelihood: what one costs in bits, and what nets that were trained with one cost, and with others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bbans import zoo
from bbans.codecs.tables import PER_OCTAVE
from bbans.vae.families import picture_planes
from bbans.vae.likelihoods import normal_log_density
from bbans.vae.objectives import BITS_OF_A_NAT, dense_nll, dense_normal, draw_dense
from bench import sets
from bench.lab import plots
from bench.lab.digits import (
    HALF,
    Floats,
    Net,
    Reconstructions,
    coded_normals,
    costs_of_scales,
    digits,
    fitted_scale,
    float_network,
    held_out,
    reconstructed,
    rescaled,
    trained,
)
from bench.lab.models import Coded, Lab, Pixels, coded
from bench.lab.page import Claim, Page, Table

MSE, SAID = 0.01, 7.4  # the text's example, and what it says that a pixel costs
LOGARITHMS = {"2": math.log2, "e": math.log, "10": math.log10}
SCALES = 2.0 ** (np.arange(-41, -3, 2) / PER_OCTAVE)  # of tables, as shares of the range, up to the largest


@dataclass(frozen=True)
class Row:
    """A net, and what its test pictures took, coded in one way."""

    trained_by: str
    coded_by: str
    model: zoo.Model
    seen: Reconstructions
    took: Coded

    def cells(self) -> list[str]:
        """Of the table."""
        location, took = self.seen.location_mse, self.took
        return [
            self.trained_by,
            self.coded_by,
            "-" if location is None else f"{location:.4f}",
            f"{self.seen.mean_mse:.4f}",
            f"{took.per_picture('kl'):.1f}",
            *(f"{took.per_dim(word):.3f}" for word in ("float_elbo", "elbo", "net", "total")),
        ]


def run(lab: Lab) -> Page:
    """Price an MSE; train, code, draw."""
    measured = noise_bits(lab.steps(1_000_000, 100_000))
    test = sets.SETS["mnist"]().pixels[: lab.steps(2000, 100)]
    known, chosen_on = digits().pixels[: lab.steps(5000, 200)], held_out().pixels[: lab.steps(1000, 100)]
    curves: dict[str, Floats] = {}

    def row(trained_by: str, coded_by: str, model: zoo.Model) -> Row:
        return Row(trained_by, coded_by, model, reconstructed(model, test), coded(model, test))

    def cheapest(name: str, net: Net, model: zoo.Model) -> Row:
        curves[name] = costs_of_scales(model, chosen_on, SCALES)
        scale = float(SCALES[np.argmin(curves[name])])
        return row("", f"cheapest σ = {scale:.3f}", rescaled(lab, model, net, scale))

    mse, mass = Net(density=True, scale=HALF), Net(scale=0.1)
    by_mse, by_mass = trained(lab, mse), trained(lab, mass)
    fitted = fitted_scale(by_mse, known)
    rows = {
        "mse": row("density, σ² = ½: the MSE", f"its σ, of which {SCALES[-1]:.3f} is left", by_mse),
        "mse fitted": row("", f"σ² = MSE: σ = {fitted:.3f}", rescaled(lab, by_mse, mse, fitted)),
        "mse cheapest": cheapest("density, σ² = ½", mse, by_mse),
    }
    for scale in () if lab.quick else (0.1, 0.02):
        net = Net(density=True, scale=scale)
        model = trained(lab, net)
        rows[f"density {scale}"] = row(f"density, σ = {scale}", "its σ", model)
        rows[f"density {scale} cheapest"] = cheapest(f"density, σ = {scale}", net, model)
    rows["mass"] = row("mass, σ = 0.1", "its σ", by_mass)
    rows["mass cheapest"] = cheapest("mass, σ = 0.1", mass, by_mass)
    rows["told"] = row("mass, σ told", "as trained", trained(lab, Net()))
    if not lab.quick:
        rows |= {
            "β = 0.1": row("mass, σ told, β = 0.1", "as trained", trained(lab, Net(beta=0.1))),
            "β = 10": row("mass, σ told, β = 10", "as trained", trained(lab, Net(beta=10.0))),
            "logistic": row("mass, a logistic", "as trained", trained(lab, Net("logistic"))),
            "mixture": row("mass, 3 logistics", "as trained", trained(lab, Net("logistic", mixtures=3))),
        }
    marks = {"σ² = MSE of the first": fitted, "σ² = ½": HALF}
    of = "σ, share of the range", "−ELBO, bits per dim"
    plots.lines(lab.pages / FIGURE, SCALES, curves, of=of, marks=marks, top=8.0)
    return Page(
        title="An MSE is no likelihood",
        question=QUESTION,
        setting=SETTING,
        conclusion=CONCLUSION,
        tables=[
            candidates(),
            Table(
                f"""MNIST, the first {len(test)} test pictures. MSE, on [0, 1], of the normal's location, which is what
                such nets show for a reconstruction (clipped to the range), and of E[x]; KL in bits of a picture; all
                else in bits per dim. −ELBO is of the float model; elbo of the exact one, with the latents coded.""",
                ["trained by", "coded by", "MSE", "MSE of E[x]", "KL", "−ELBO", "elbo", "net", "total"],
                [each.cells() for each in rows.values()],
            ),
            ends([row for row in rows.values() if row.seen.location is not None], test),
        ],
        claims=claims(measured, rows),
        figures={FIGURE: CURVES},
    )


# -- the price of an MSE -----------------------------------------------------------------------------------------------


def price(mse: float, levels: float = 256.0) -> float:
    """Bits of a grey pixel: the text's eq. 43 in bits, and the grey levels from 0 to 1."""
    return 0.5 * math.log2(2 * math.pi * math.e * mse) + math.log2(levels)


def candidates() -> Table:
    """What eq. 43 gives when its logarithm is taken in other bases, and its last term as another."""
    lasts = {"log e": None, "1": 1.0, "left out": 0.0}
    rows = [
        [f"+ {name}" if name != "left out" else name]
        + [
            f"{0.5 * (log(2 * math.pi * MSE) + (log(math.e) if last is None else last)) + 8:.3f}"
            for log in LOGARITHMS.values()
        ]
        for name, last in lasts.items()
    ]
    return Table(
        f"""½ (log 2π MSE + last term) + 8 for an MSE of {MSE}, by the base of the logarithm. Bits are the first row in
        base 2.""",
        ["last term", *(f"base {base}" for base in LOGARITHMS)],
        rows,
    )


def noise_bits(count: int) -> float:
    """Real bits of a pixel whose mean is known, for the text's MSE, and far from the ends of the range."""
    random = np.random.default_rng(1)
    means = random.integers(118, 138, count) / 255
    x = np.rint(255 * (means + math.sqrt(MSE) * random.standard_normal(count))).clip(0, 255)
    return coded_normals(x, 255 * means, 255 * math.sqrt(MSE)) / count


# -- what the ends are worth -------------------------------------------------------------------------------------------


def ends(rows: Sequence[Row], pixels: Pixels) -> Table:
    """Bits of −log2 p(x | z) by the value of the pixel."""
    x = torch.from_numpy(np.array(pixels))
    kinds = {"0": pixels == 0, "1 to 254": (pixels > 0) & (pixels < 255), "255": pixels == 255}
    cells = []
    for row in rows:
        mass, density = (bits.reshape(pixels.shape) for bits in both(row.model, x))
        found = [density.mean(), mass.mean(), *(mass[where].mean() for where in kinds.values())]
        cells.append([row.trained_by, row.coded_by, *(f"{bits:.3f}" for bits in found)])
    shares = ", ".join(f"{100 * where.mean():.1f} % are {name}" for name, where in kinds.items())
    return Table(
        f"""−log2 p(x | z), bits of a pixel, without the KL: as a density (+ 8: eq. 42), and as a mass, of which the
        first and last reach to infinity, over all pixels and over those of some value; {shares}.""",
        ["trained by", "coded by", "density + 8", "mass", *(f"of {name}" for name in kinds)],
        cells,
    )


def both(model: zoo.Model, pixels: torch.Tensor) -> tuple[Floats, Floats]:
    """Bits of each sample by one draw of z: as a mass, and as a density per grey level."""
    network = float_network(model)
    found = []
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        for some in pixels.split(500):
            x = picture_planes(network, some).flatten(1)
            params = network.decode(draw_dense(network, x)[0][0])
            density = -normal_log_density(x + 0.5, *dense_normal(network, params))
            found.append(torch.stack([dense_nll(network, params, x), density]) * BITS_OF_A_NAT)
    mass, density = torch.cat(found, 1).double().numpy()
    return mass, density


def claims(measured: float, rows: dict[str, Row]) -> Sequence[Claim]:
    """Quick runs train too little for one order of the nets or another."""
    return []


FIGURE = "mse_is_no_likelihood.png"
CURVES = "x"
QUESTION = "x"
SETTING = "x"
CONCLUSION = "x"
