"""Gaps: how far −ELBO is from −log2 p(x), whose fault that is, and what better posteriors and priors buy in files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from bbans.vae.bounds import LatentKL, measure
from bbans.vae.dense import DenseVAE
from bbans.vae.diagnosis import Rate, Tightness, tightness
from bbans.vae.refinement import Refinement, refinement
from bench.lab import bilevel, plots
from bench.lab.models import Coded, Lab, coded
from bench.lab.page import Page, Table, below, near

DIAGONAL, IAF, VAMP = "diagonal", "IAF", "VampPrior"
SMALL, FULL = "d = 4, diagonal", "d = 4, full"
SAMPLES = 4  # of each picture in a step of SVI


@dataclass(frozen=True)
class Found:
    """Of one model. known, refined: of the gap, on few pictures; files: on more; dims: of a picture."""

    network: DenseVAE
    known: Tightness
    refined: Refinement
    files: Coded
    dead: int
    dims: int

    def bits(self, rate: Rate, digits: int = 2) -> str:
        """Of a picture."""
        return f"{self.dims * rate.value:.{digits}f}"

    def with_error(self, rate: Rate) -> str:
        """Of a picture, and the standard error."""
        return f"{self.bits(rate)} ± {self.dims * _error(rate):.2f}"


def run(lab: Lab) -> Page:
    """Train, measure, code."""
    data = bilevel.of(lab)
    kinds: dict[str, dict[str, Any]] = {
        DIAGONAL: {},
        IAF: {"posterior": "flow"},
        VAMP: {"prior": "vamp", "components": lab.steps(200, 20)},
        SMALL: {"latents": (4,)},
        FULL: {"latents": (4,), "posterior": "full"},
    }
    pixels = torch.from_numpy(data.test[: lab.steps(100, 20)])
    more = data.test[: lab.steps(1000, 50)]
    particles, steps = lab.steps(1000, 50), lab.steps(300, 20)
    found = {}
    for name, kind in kinds.items():
        model = lab.trained(data.task(data.dense(**kind)), bilevel.of_dense(lab))
        network = cast(DenseVAE, model.float_network)
        told = LatentKL()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            known = tightness(network, pixels, particles)
            refined = refinement(network, pixels, known, steps, SAMPLES)
            with torch.inference_mode():
                measure(network, torch.from_numpy(more), keep=told.keep)
        files = coded(model, more)
        found[name] = Found(network, known, refined, files, sum(told.dead().values()), pixels[0].numel())
    crossed = {}
    for name in (SMALL, FULL):
        mine = found[name]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            other = "full" if name == SMALL else "diagonal"
            crossed[name] = refinement(with_covariance(mine.network, other), pixels, mine.known, steps, SAMPLES)
    diagonal, full = found[SMALL], found[FULL]
    plots.stacked(
        lab.pages / "gaps.png",
        "bits of a picture above −log₂ p(x)",
        {
            "approximation gap": [f.dims * f.refined.approximation.value for f in found.values()],
            "amortisation gap": [f.dims * f.refined.amortisation.value for f in found.values()],
        },
        [*found],
    )
    return Page(
        title="Gaps of approximation and amortisation",
        question="""
            −ELBO is above −log p(x) by KL(q(z given x) || p(z given x)): the approximation gap, which the best q of its
            form leaves, and the amortisation gap, by which the encoder's q is worse than that best one (Liao,
            "Variational AutoEncoder", eq. 7). The text reports that the second is the larger in practice; that flows
            make both smaller; that a decoder accommodates its posteriors; and it recommends IAF as a stronger encoder
            and the VampPrior as a stronger prior. What is that in bits of a file?
        """,
        setting=f"""
            `dense`, 200 + 200 units, on {data.name}, all trained alike: 20 normal latents with a diagonal posterior,
            with one step of IAF, or with a VampPrior of {kinds[VAMP]["components"]} components whose pseudo-inputs
            begin as training pictures; and 4 latents with a diagonal or a full covariance. The best q is looked for by
            {steps} steps of Adam on its parameters for each picture by itself (SVI, `bbans.vae.refinement`), from the
            encoder's. −log₂ p(x) is estimated by the importance-weighted bound, of {particles} samples of the encoder's
            q and as many as SVI takes of the refined one, which is above it in expectation: so the two gaps together
            are at least as told, and the amortisation gap, too. Nothing leads from the encoder to the flow's z but
            through its autoregressive network, which learns more slowly and was given no more steps. {len(pixels)}
            pictures of the test set for the gaps, {len(more)} for files.
        """,
        conclusion="""
            The amortisation gap is at least twice the approximation gap in every model, 2 to 4 % of the file, and no
            decoder could save it; flows and full covariances have smaller approximation gaps, as the text says, while
            whether decoders accommodate the posterior that they were trained with is not sure here. But a smaller gap
            is not a smaller file: after the same steps the IAF, whose latents also tell less, takes 7 to 8 % more, a
            full covariance is worth little, and the VampPrior saves 1.4 %.
        """,
        tables=[
            Table(
                f"""Bits of a picture, ± standard errors over pictures. IWAE {particles}: by the encoder's q; bound: by
                that and the refined one.""",
                ["model", "−ELBO", "−ELBO by SVI", f"IWAE {particles}", "bound", "amortisation", "approximation"],
                [
                    [
                        name,
                        f.bits(f.known.bounds[1]),
                        f.bits(f.refined.elbo),
                        f.bits(f.known.bounds[particles]),
                        f.bits(f.refined.bound),
                        f.with_error(f.refined.amortisation),
                        f.with_error(f.refined.approximation),
                    ]
                    for name, f in found.items()
                ],
            ),
            Table(
                f"""{len(more)} pictures, in bits per dim. −ELBO: the float networks', and that of the latents coded;
                net, total: of the file, which is decoded and compared. SVI would save: the amortisation gap above; no
                file has it, for a decoder would have to repeat each step exactly.""",
                ["model", "KL", "dead", "−ELBO, float", "−ELBO, coded", "net", "total", "SVI would save"],
                [
                    [
                        name,
                        f"{f.files.per_dim('kl'):.4f}",
                        f"{f.dead} of {f.network.config.latent_count}",
                        *(f"{f.files.per_dim(word):.4f}" for word in ("float_elbo", "elbo", "net", "total")),
                        f"{f.refined.amortisation.value:.4f}",
                    ]
                    for name, f in found.items()
                ],
            ),
            Table(
                """The two decoders of 4 latents, each with the best q that SVI finds of either form: the approximation
                gap, in bits of a picture.""",
                ["decoder trained with", "best diagonal q", "best full q"],
                [
                    [
                        "diagonal q",
                        diagonal.with_error(diagonal.refined.approximation),
                        diagonal.with_error(crossed[SMALL].approximation),
                    ],
                    [
                        "full q",
                        full.with_error(crossed[FULL].approximation),
                        full.with_error(full.refined.approximation),
                    ],
                ],
            ),
            Table(
                """What the text says, and what is seen here; "within errors": less than two standard errors from
                equal.""",
                ["the text", "here", "seen"],
                statements(found, crossed),
            ),
        ],
        claims=[
            *(
                below(
                    f"{name}: IWAE {particles} is not above −ELBO, bits a picture",
                    f.dims * f.known.bounds[1].value,
                    f.dims * f.known.bounds[particles].value,
                )
                for name, f in found.items()
            ),
            *(
                below(
                    f"{name}: nor is SVI's −ELBO, but by two standard errors, bits a picture",
                    f.dims * (f.known.bounds[1].value + 2 * _error(f.refined.amortisation)),
                    f.dims * f.refined.elbo.value,
                )
                for name, f in found.items()
            ),
            *(
                near(
                    f"{name}: net against −ELBO of the latents coded, bits per dim",
                    f.files.per_dim("elbo"),
                    f.files.per_dim("net"),
                    0.001 * f.files.per_dim("elbo"),
                )
                for name, f in found.items()
            ),
            *(
                near(
                    f"{name}: net against the float networks' −ELBO, bits per dim",
                    f.files.per_dim("float_elbo"),
                    f.files.per_dim("net"),
                    (0.05 if lab.quick else 0.01) * f.files.per_dim("float_elbo"),
                )
                for name, f in found.items()
            ),
        ],
        figures={"gaps.png": "The two gaps of each model."},
    )


def statements(found: Mapping[str, Found], crossed: Mapping[str, Refinement]) -> list[list[str]]:
    """Each with its verdict."""
    rows = []
    dims = found[DIAGONAL].dims

    def says(what: str, less: Rate, more: Rate) -> None:
        """That one is less than the other."""
        difference, error = dims * (more.value - less.value), dims * math.hypot(_error(less), _error(more))
        verdict = "within errors" if abs(difference) < 2 * error else "yes" if difference > 0 else "no"
        rows.append([what, f"{dims * less.value:.2f} < {dims * more.value:.2f} bits a picture?", verdict])

    for name, f in found.items():
        says(f"{name}: approximation gap below amortisation gap", f.refined.approximation, f.refined.amortisation)
    flow, diagonal = found[IAF].refined, found[DIAGONAL].refined
    says("IAF has a smaller approximation gap than a diagonal q", flow.approximation, diagonal.approximation)
    says("... and a smaller amortisation gap", flow.amortisation, diagonal.amortisation)
    small, full = found[SMALL].refined, found[FULL].refined
    says("full covariance: a smaller approximation gap, d = 4", full.approximation, small.approximation)
    says("... and a smaller amortisation gap", full.amortisation, small.amortisation)
    says(
        "the decoder accommodates: a diagonal q suits the one trained with it better",
        small.approximation,
        crossed[FULL].approximation,
    )
    for name, base in ((IAF, DIAGONAL), (VAMP, DIAGONAL), (FULL, SMALL)):
        mine, other = found[name].files, found[base].files
        verdict = "yes" if mine.net < other.net else "no"
        saved = 100 * (1 - mine.net / other.net)
        rows.append(
            [
                f"{name} is better than {base}: net",
                f"{mine.per_dim('net'):.4f} < {other.per_dim('net'):.4f} bits per dim? saves {saved:+.1f} %",
                verdict,
            ]
        )
    return rows


def with_covariance(network: DenseVAE, kind: str) -> DenseVAE:
    """The same model but for its posterior, "diagonal" or "full": where both have parameters, these are the encoder's,
    else 0, for the best q of that form to be found from there."""
    other = DenseVAE(replace(network.config, posterior=kind))
    state = network.state_dict()
    for name, begin in other.state_dict().items():
        if begin.shape != state[name].shape:
            rows = min(len(begin), len(state[name]))
            state[name] = torch.cat([state[name][:rows], torch.zeros_like(begin[rows:])])
    other.load_state_dict(state)
    return other.eval().requires_grad_(False)


def _error(rate: Rate) -> float:
    assert rate.error is not None  # there are many pictures
    return rate.error
