"""`bbans diagnose`: what a model lacks, on some pictures of a set. Writes no files but the plots that are asked for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bbans.cli import sets, shared
from bbans.errors import BadImage, BadModel

if TYPE_CHECKING:
    from torch import Tensor

    from bbans.image.picture import Picture
    from bbans.vae.diagnosis import Anatomy, Surgery, Tightness
    from bbans.vae.families import Network
    from bbans.vae.refinement import Refinement
    from bbans.zoo import Model

WORK = 20_000_000  # samples of pictures through the networks, for each question: half a minute of one core or so
WHOLE, PART = 1024, 128  # sides of what is taken of a picture of any size: for its parts; for what takes many passes
STEPS = 60  # of refinement
MOST_PICTURES, MOST_MEASURED, MOST_PARTICLES = 128, 24, 1000  # unless options say otherwise


@dataclass(frozen=True)
class Plan:
    """How many pictures go through the networks, and how often, for each question.

    pictures: of the anatomy, with so many samples of each; measured: of the bounds and of refinement, with so many
    particles of each; paired: of surgery; refined_by: samples of each step of refinement.
    """

    pictures: int
    samples: int
    measured: int
    particles: int
    paired: int
    refined_by: int

    @classmethod
    def of(cls, whole: int, part: int, available: int, images: int | None, particles: int | None) -> Plan:
        """What `WORK` allows for pictures of so many samples, of which a part is taken where many passes are."""

        def affordable(cost: int, least: int, most: int) -> int:
            return min(most, max(least, WORK // cost))

        pictures = min(available, images or affordable(2 * whole, 4, MOST_PICTURES))
        measured = min(pictures, affordable(50 * part, 2, MOST_MEASURED))
        return cls(
            pictures,
            affordable(pictures * whole, 2, 10),
            measured,
            particles or affordable(measured * part, 10, MOST_PARTICLES),
            min(pictures, math.isqrt(max(4, WORK // part))),
            affordable(measured * part * STEPS, 1, 4),
        )


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    pictures: uint8 [n, h, w, channels], of one shape in each; part: the shape of what was taken of each for all but the
    anatomy. The other answers are None of a model without latents, and surgery also of a single picture.
    """

    model: str
    family: str
    available: int
    pictures: list[Tensor]
    part: tuple[int, ...]
    measured: int
    anatomy: Anatomy
    tightness: Tightness | None
    refinement: Refinement | None
    surgery: Surgery | None


@click.command()
@click.argument("path", metavar="DATA", type=shared.any_path)
@shared.model_option
@click.option(
    "--images",
    type=click.IntRange(min=1),
    metavar="N",
    help="Take N pictures, from all over the set; for what takes many passes, fewer of these.  [default: up to 128]",
)
@click.option(
    "--particles",
    type=click.IntRange(min=2),
    metavar="K",
    help="Take up to K samples of each picture's latents for the bounds.  [default: up to 1000]",
)
@click.option(
    "--binarise",
    type=click.IntRange(min=0),
    metavar="SEED",
    help="Make grey pictures bilevel: a pixel is 1 with probability value / 255.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all samples.")
@click.option("--plot", "plots", type=shared.any_path, metavar="DIR", help="Draw what was found, into this folder.")
@shared.force_option
@shared.device_options
@shared.json_option
def diagnose(
    path: Path,
    model: str | None,
    images: int | None,
    particles: int | None,
    binarise: int | None,
    seed: int,
    plots: Path | None,
    force: bool,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Tell what a model lacks: its -ELBO on DATA taken apart, in bits per dim, that is, into what could be saved.

    DATA is a folder, an image file, or an .npz or .npy of arrays; the model needs its float weights. Four questions:
    what does each layer of latents tell, and which latents tell nothing (dead: a KL below 0.01 bits; active: a
    posterior mean whose variance over pictures is above 0.01)? How far is -ELBO from -log2 p(x), by
    importance-weighted bounds? How much of that would a better encoder save (amortisation gap), how much only a richer
    q (approximation gap)? And how much of the KL is information, how much a prior that does not fit?

    As many pictures and samples are taken as half a minute or so of one core allows for each question; errors are
    standard errors over pictures. --plot needs matplotlib: pip install 'bbans[plots]'.

    \b
    bbans diagnose album                             the default model on some pictures of a folder
    bbans diagnose -m run --particles 100 icons.npz
    bbans diagnose -m mnist-binary --binarise 0 --plot plots digits.npz
    """
    if plots is not None:
        from bbans.cli.diagnose_plots import prepare

        prepare(plots, force=force)
    pictures = sets.pictures_of(path)
    loaded = shared.ModelLoader(model, device, threads)()
    found = _diagnosis(loaded, _Chosen(pictures, path, binarise, loaded), images, particles, seed)

    from bbans.cli import diagnose_report

    if as_json:
        shared.say_json(diagnose_report.record(found))
    else:
        for line in diagnose_report.lines(found):
            shared.say(line)
    if plots is not None:
        from bbans.cli.diagnose_plots import draw

        names = draw(found, loaded, plots, seed)
        shared.say(f"{plots}: {', '.join(names)}", err=True)


class _Chosen:
    """Pictures from all over a set."""

    def __init__(self, pictures: sets.Pictures, path: Path, binarise: int | None, model: Model) -> None:
        self.pictures, self.path, self.binarise, self.model = pictures, path, binarise, model

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, count: int) -> list[Picture]:
        """So many. Raises `BadImage` for those that the model doesn't take."""
        names = [*self.pictures]
        chosen = {name: self.pictures[name] for name in (names[i * len(names) // count] for i in range(count))}
        if self.binarise is not None:
            chosen = sets.binarised(chosen, self.binarise)
        found = []
        for name, read in chosen.items():
            found.append(read())
            if reason := sets.refusal(found[-1], self.model):
                raise BadImage(f"{self.path if sets.is_array(self.path) else name}: {reason}")
        return found


def _diagnosis(model: Model, chosen: _Chosen, images: int | None, particles: int | None, seed: int) -> Diagnosis:
    """Raises `BbansError`."""
    from bbans.vae.diagnosis import anatomy, surgery, tightness
    from bbans.vae.families import OF_ONE_SIZE, describe
    from bbans.vae.refinement import refinement

    network = model.float_network
    if network is None:
        raise BadModel(f"{model.path}: a diagnosis is one of the float model, and there is no float.safetensors here")
    network = network.to(model.device)
    if not len(chosen):
        raise BadImage(f"{chosen.path}: no pictures")

    def taken(pixels: Any, side: int) -> Any:
        return pixels if isinstance(network.config, OF_ONE_SIZE) else _middle(pixels, side)

    first = chosen.read(1)[0].pixels
    plan = Plan.of(taken(first, WHOLE).size, taken(first, PART).size, len(chosen), images, particles)
    pictures = [each.pixels for each in chosen.read(plan.pictures)]
    groups = _by_shape([taken(each, WHOLE) for each in pictures])
    parts = max(_by_shape([taken(each, PART) for each in pictures]), key=len)
    measured, paired = _spread(parts, plan.measured), _spread(parts, plan.paired)
    with _seeded(network, seed):
        found = anatomy(network, groups, plan.samples)
    tight = refined = split = None
    if found.layers:
        with _seeded(network, seed):
            tight = tightness(network, measured, plan.particles)
        with _seeded(network, seed):
            refined = refinement(network, measured, tight, STEPS, plan.refined_by)
    if found.layers and len(paired) > 1:
        with _seeded(network, seed):
            split = surgery(network, paired)
    family, shape = describe(network)["family"], tuple(parts.shape[1:])
    return Diagnosis(model.name, family, len(chosen), groups, shape, len(measured), found, tight, refined, split)


def _middle(pixels: Any, side: int) -> Any:
    """The middle of a picture [h, w, c], of at most so many rows and columns."""
    height, width = pixels.shape[:2]
    y, x = max(0, height - side) // 2, max(0, width - side) // 2
    return pixels[y : y + side, x : x + side]


def _by_shape(pictures: list[Any]) -> list[Tensor]:
    """Pictures [h, w, c] as tensors [n, h, w, c], those of one shape in each."""
    import numpy as np
    import torch

    shapes = Counter(each.shape for each in pictures)
    return [torch.from_numpy(np.stack([x for x in pictures if x.shape == shape])) for shape in shapes]


def _spread(pictures: Tensor, count: int) -> Tensor:
    """So many of them, if there are more, from all over."""
    total = len(pictures)
    return pictures[[i * total // count for i in range(count)]] if total > count else pictures


@contextmanager
def _seeded(network: Network, seed: int) -> Iterator[None]:
    """torch's random numbers are those of the seed, and afterwards what they were."""
    import torch

    place = next(network.parameters()).device
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
