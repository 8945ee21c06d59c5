"""Small bilevel pictures to learn from and to code: binarised MNIST, or strokes that are drawn here.

Knows data; knows nothing of any experiment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbans.train.loop import Recipe
from bbans.train.stacks import Deck, binarise
from bbans.train.tasks import StackTask
from bbans.vae.dense import X_DIGITS, DenseConfig, see_x
from bbans.vae.thumbnail import ThumbnailConfig
from bench import sets
from bench.lab.models import Lab, Pixels

STROKES = 12  # pixels in height and width
STROKE_SETS = 2000, 200, 200  # for training, validation, and to be measured on


@dataclass(frozen=True)
class Bilevel(StackTask):
    """The pictures of a set, by its name. Pseudo-inputs begin as pictures to learn from."""

    name: str = ""

    def network(self) -> Any:
        network = super().network()
        if isinstance(self.config, DenseConfig) and self.config.components:
            begin = torch.from_numpy(self._bilevel(self.config.components)).flatten(1)
            with torch.no_grad():
                bias = cast(Tensor, network.pseudo.bias)
                bias.copy_(see_x(begin.float(), self.config.depth).flatten() * 2.0**-X_DIGITS)
        return network

    def _bilevel(self, count: int) -> Pixels:
        return self.deck.binarised(self.pictures[:count])


@dataclass(frozen=True, eq=False)
class Set:
    """training, validation: grey, from which bilevel pictures are drawn; test: bilevel, 0 and 1. All [n, h, w, 1]."""

    name: str
    training: Pixels
    validation: Pixels
    test: Pixels

    def task(self, config: Any) -> Bilevel:
        """To learn from. config: a family's, but for the size."""
        return Bilevel(config, self.training, self.validation, Deck(), self.name)

    @property
    def size(self) -> dict[str, int]:
        """Of the pictures, as configurations take it."""
        return {"height": self.test.shape[1], "width": self.test.shape[2], "depth": 1}

    def dense(self, **kinds: Any) -> DenseConfig:
        """The textbook's VAE of these pictures."""
        return DenseConfig(**(self.size | {"hidden": (200, 200), "latents": (20,), "likelihood": "bernoulli"} | kinds))

    def thumbnail(self, latents: tuple[int, int]) -> ThumbnailConfig:
        """A small hierarchy over a lattice, whose pixels are given others; latents: of the picture, and of positions of
        the coarsest."""
        return ThumbnailConfig(
            **self.size,
            samples=1,
            levels=2,
            channels=24,
            hidden=16,
            mixtures=1,
            blocks=(1, 0, 1),
            top=32,
            latents=latents,
        )


def of_dense(lab: Lab) -> Recipe:
    """How all `dense` models of these pictures are trained."""
    return Recipe(
        steps=lab.steps(6000, 400),
        batch=100,
        optimiser="adam",
        learning_rate=1e-3,
        warmup=lab.steps(100, 20),
        clip=10.0,
        kl_warmup=lab.steps(1000, 50),
    )


def of_thumbnail(lab: Lab) -> Recipe:
    """How all of `thumbnail` are, but for what is done about their latents."""
    return Recipe(steps=lab.steps(1500, 100), batch=32, optimiser="muon", warmup=lab.steps(100, 20), ema=0.995)


def of(lab: Lab) -> Set:
    """Strokes in a quick run, else MNIST. Raises `Absent`."""
    return strokes() if lab.quick else mnist()


def mnist() -> Set:
    """Binarised MNIST; its test set is that of all tables. Raises `Absent`."""
    training, validation = sets.training("mnist").pixels, sets.held_out("mnist").pixels
    return Set("mnist-binary", training, validation, sets.SETS["mnist-binary"]().pixels)


def strokes() -> Set:
    """Two straight strokes a picture, with soft edges."""
    training, validation, test = np.split(_strokes(sum(STROKE_SETS)), np.cumsum(STROKE_SETS)[:-1])
    return Set("strokes", training, validation, binarise(test, np.random.default_rng(sets.BINARY_SEED)))


def _strokes(count: int) -> Pixels:
    """uint8 [count, STROKES, STROKES, 1]."""
    random = np.random.default_rng(0)
    ends = random.uniform(1, STROKES - 2, (2, 2, count, 1, 1, 2))  # (stroke, end, picture, -, -, coordinate)
    grid = np.stack(np.mgrid[:STROKES, :STROKES], -1)
    ink: NDArray[Any] = np.zeros((count, STROKES, STROKES))
    for begin, end in ends:
        along = end - begin
        t = np.clip(((grid - begin) * along).sum(-1) / (along**2).sum(-1), 0, 1)[..., None]
        distance = np.linalg.norm(begin + t * along - grid, axis=-1)
        ink = np.maximum(ink, np.clip(1.8 - distance, 0, 1))
    return (255 * ink).astype(np.uint8)[..., None]
