"""The directions in which tuning `photo` to a picture pays (`bbans.image.tuning`), found on training pictures.

The gradients of many pictures' −ELBO by the steps of a tuning differ from picture to picture, but not in all ways:
their principal components, with each step weighted by how surely it matters, are the directions. The natural gradient
(Amari 1998) is the steepest way down when steps differ in what they do; its metric, the Fisher information, is taken
from how the gradients of two halves of a picture's squares differ. How far pictures go along a direction is then
measured by its curvature.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bbans.exact.layers import IntConv
from bbans.image import tuning
from bbans.vae.families import picture_planes
from bbans.vae.photo import PhotoVAE

CODE_STEPS = 16  # typical of the codes of pictures
LEAST_INFORMATION = 1e-3  # of a step, against the mean of all: one that hardly ever matters shall not move far
PROBES = 64  # pictures on which curvatures are measured
UNITS = 1 << (tuning.DIRECTION_BITS + tuning.FINE_BITS)  # of a direction in a step
LARGEST = (1 << 15) - 1

Floats = NDArray[np.float64]


def find_directions(network: PhotoVAE, views: Iterable[NDArray[np.uint8]], count: int) -> NDArray[np.int16]:
    """At most `count` directions, int16 [count, steps], for an exact network.

    views: of each picture, crops uint8 [n, h, w, 3], n >= 2. Draws from torch's random state.
    """
    space = tuning.Space.of(network, None)
    soft = tuning.unrounded(network)
    # a small gain of small integers is lost in rounding, and those of larger kernels are small
    rounded = {name for name, layer in network.named_modules() if isinstance(layer, IntConv) and layer.padding}
    moves = np.concatenate(
        [
            np.full(size, group.kind == "biases" or name not in rounded)
            for group in space.groups
            for name, size in zip(group.layers, group.sizes, strict=True)
        ]
    )
    pictures = [*views]
    gradients = np.array([[_gradient(soft, space, half) for half in _halves(soft, view)] for view in pictures])
    directions, slopes = principal(gradients * moves, count)
    if not len(directions):  # pictures that don't differ
        return quantised(directions)
    probes = (_halves(soft, view)[0] for view in pictures[:: -(-len(pictures) // PROBES)])
    curvatures = _curvatures(soft, tuning.Space(space.groups, directions * UNITS), probes)
    lengths = np.sqrt(slopes) / curvatures.clip(np.median(curvatures) / 8)  # a few are measured as next to nothing
    return quantised(directions * lengths[:, None])


def _halves(network: PhotoVAE, view: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    planes = picture_planes(network, torch.from_numpy(view)).float()
    half = len(planes) // 2
    return planes[:half], planes[half : 2 * half]


def _gradient(soft: PhotoVAE, space: tuning.Space, squares: Tensor) -> Floats:
    """Of the −ELBO in nats, by all steps."""
    steps = [nn.Parameter(torch.zeros(group.count)) for group in space.groups]
    space.soften(soft, torch.zeros(0), steps)
    found = torch.autograd.grad(_nats(soft, squares), steps)
    return torch.cat(found).double().numpy()


def _curvatures(soft: PhotoVAE, space: tuning.Space, probes: Iterable[Tensor]) -> Floats:
    """Second derivatives of the mean −ELBO in nats by each code, from gradients at random codes of 1 and −1.

    Hutchinson's estimator: what codes do to each other's gradients has random signs, and is nothing on average.
    """
    steps = [torch.zeros(group.count) for group in space.groups]
    found = []
    for number, squares in enumerate(probes):
        gradients = []
        signs = torch.randn(len(space.directions)).sign()
        for at in (-signs, signs):
            code = at.clone().requires_grad_(True)
            space.soften(soft, code, steps)
            torch.manual_seed(number)  # the same sample of the latents for both
            gradients.append(torch.autograd.grad(_nats(soft, squares), code)[0])
        found.append((signs * (gradients[1] - gradients[0]) / 2).double().numpy())
    return np.mean(found, 0)


def _nats(soft: PhotoVAE, squares: Tensor) -> Tensor:
    return tuning.squares_bits(soft, squares) * math.log(2)


def principal(gradients: Floats, count: int) -> tuple[Floats, Floats]:
    """Directions [<= count, steps], the best first, from gradients [pictures, 2 halves, steps]; and the mean square of
    pictures' slopes along each. A direction is as long as pictures would go along it by the Fisher information.
    """
    mean = gradients.mean(1)
    noise = (gradients[:, 0] - gradients[:, 1]) / math.sqrt(2)
    information = np.square(noise).mean(0)
    scale = 1 / np.sqrt(information + LEAST_INFORMATION * information.mean() + np.finfo(float).tiny)
    scale[information == 0] = 0.0
    directions = np.linalg.svd(mean * scale, full_matrices=False)[2][:count] * scale
    slopes = (gradients @ directions.T).prod(1).mean(0)  # squared, without what noise adds
    directions, slopes = directions[slopes > 0], slopes[slopes > 0]
    lengths = np.sqrt(slopes) / np.square(noise @ directions.T).mean(0)
    return directions * lengths[:, None], slopes * lengths**2


def quantised(directions: Floats) -> NDArray[np.int16]:
    """Directions [count, steps] for codes of `CODE_STEPS`, in the units of `bbans.image.tuning`; too far is cut."""
    return np.clip(np.rint(directions / CODE_STEPS * UNITS), -LARGEST, LARGEST).astype(np.int16)
