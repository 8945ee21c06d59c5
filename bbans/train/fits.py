"""The directions in which last layers of `photo` are fitted (`bbans.image.fitting`), found on training views.

For each last layer: the gradients of many pictures' −ELBO by its weights, made white by the mean Fisher information, so
that they would all be noise of variance 1 if one set of weights suited all pictures. What they vary more along, their
principal components, is what pictures differ in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbans.codecs.tables import PER_OCTAVE
from bbans.exact.layers import IntConv
from bbans.image import fitting, tuning
from bbans.vae import lattice
from bbans.vae.families import picture_planes
from bbans.vae.likelihoods import logistic_mixture_slopes
from bbans.vae.objectives import phase_features, photo_levels
from bbans.vae.phases import PHASES
from bbans.vae.photo import PhotoVAE
from bbans.zoo import FITS

DEPTHS = 2  # levels whose heads are fitted, from the finest
SPARSE = 7  # of so many pixels, one is looked at for the Fisher information
LEAST_INFORMATION = 1e-3  # of a direction, against the mean of an output's weights; the sum of all logits has none
MOST_INFLUENCE = 2  # of a picture on what is found, against the median one's
LEAST_VARIANCE = 0.05  # of what pictures differ in, against that of the noise
LARGEST = (1 << 15) - 1

Floats = NDArray[np.float64]
Key = tuple[int, str, int]  # depth, phase, channel


def find_fits(network: PhotoVAE, views: Iterable[NDArray[np.uint8]], count: int) -> dict[str, NDArray[Any]]:
    """Tensors of `count` directions of each last layer, by their names in a model, for an exact network.

    views: of each picture, crops uint8 [n, h, w, 3]. Draws from torch's random state.
    """
    soft = tuning.unrounded(network)
    gradients: dict[Key, list[Floats]] = {}
    information: dict[Key, Floats] = {}
    pixels: dict[Key, list[int]] = {}
    informed: dict[Key, int] = {}
    with torch.inference_mode():
        for view in views:
            for key, features, by_params in _planes(soft, picture_planes(soft, torch.from_numpy(view)).float()):
                gradients.setdefault(key, []).append((by_params @ features.T).double().numpy().ravel())
                pixels.setdefault(key, []).append(features.shape[1])
                each = (by_params[:, None, ::SPARSE] * features[None, :, ::SPARSE]).flatten(0, 1)
                information[key] = information.get(key, 0.0) + (each @ each.T).double().numpy()
                informed[key] = informed.get(key, 0) + each.shape[1]
    tensors: dict[str, NDArray[Any]] = {}
    for key, found in gradients.items():
        depth, phase, channel = key
        last = cast(IntConv, network.level(depth).head(phase).out[channel])
        directions, deviations = principal(
            np.array(found), np.array(pixels[key]), information[key] / informed[key], count, len(last.weight)
        )
        name = f"{FITS}{depth}.{phase}.{channel}."
        tensors |= {name + part: tensor for part, tensor in quantised(last, directions, deviations).items()}
    return tensors


def _planes(soft: PhotoVAE, x: Tensor) -> Iterator[tuple[Key, Tensor, Tensor]]:
    """Of each plane, all pictures together: what the last layer reads [features + 1, pixels], and the slopes of −ln p
    by what it puts out [outputs, pixels]."""
    sampling = soft.config.sampling
    for depth, (nets, views, told, _) in enumerate(photo_levels(soft, x, DEPTHS)):
        features = phase_features(nets, views, told)
        for phase, h, target, prediction in zip(PHASES, features, views.pixels, views.predictions, strict=True):
            head, seen = nets.head(phase), lattice.residual(target, prediction) * nets.head(phase).input_scale
            for channel, mine in enumerate(head.split(h)):
                inside = head.inside(channel, mine, seen[:, :channel])
                params = head.out[channel](inside)
                here, base = slice(channel, channel + 1), sampling.base(channel, target[:, :1])
                x, centre = target[:, here] + base, prediction[:, here] / 4 + base
                _, slopes = logistic_mixture_slopes(params, x, centre, *sampling.range(channel))
                read = torch.cat([inside, torch.full_like(inside[:, :1], fitting.CONSTANT)], 1)
                yield (depth, phase, channel), _row(read), _row(slopes)


def _row(x: Tensor) -> Tensor:
    """[n, c, h, w] as [c, n h w]."""
    return x.transpose(0, 1).flatten(1)


def principal(
    gradients: Floats, pixels: NDArray[np.int64], information: Floats, count: int, outputs: int
) -> tuple[Floats, Floats]:
    """Directions [<= count, weights], the best first, as long as one pixel leaves a code uncertain by 1; and the
    standard deviations [<= count] of pictures' best codes.

    gradients: [pictures, weights], of so many pixels each; information: of one pixel [weights, weights].
    """
    of_outputs = np.diag(information).reshape(outputs, -1).mean(1)
    units = np.repeat(1 / np.sqrt(of_outputs.clip(np.finfo(float).tiny)), len(information) // outputs)
    certain, basis = np.linalg.eigh(information * units * units[:, None])
    known = certain > LEAST_INFORMATION
    whitening = units[:, None] * basis[:, known] / np.sqrt(certain[known])
    white = gradients @ whitening / np.sqrt(pixels)[:, None]
    sizes = np.linalg.norm(white, axis=1)
    white *= np.minimum(1, np.median(sizes) * MOST_INFLUENCE / sizes.clip(1e-9))[:, None]
    variances, axes = np.linalg.eigh(white.T @ white / len(white))
    variances, axes = variances[::-1][:count], axes[:, ::-1][:, :count]
    pay = variances > 1 + LEAST_VARIANCE
    directions = (whitening @ axes[:, pay]).T
    return directions, np.sqrt((variances[pay] - 1) / pixels.mean())


def quantised(last: IntConv, directions: Floats, deviations: Floats) -> dict[str, NDArray[Any]]:
    """As the tensors that `bbans.image.fitting.Fit` is made of, by the ends of their names."""
    rows = len(last.weight)
    # from real parameters to the integer weights of each output
    units = torch.exp2(torch.tensor(last.digits, dtype=torch.float64) + last.shift.double()).numpy()
    step = fitting.STEP / math.sqrt(fitting.FEWEST)
    real = step * directions.reshape(len(directions), rows, -1) * units[:, None]
    digits = max(0, math.floor(math.log2(LARGEST / max(np.abs(real).max(initial=0.0), 2.0**-15))))
    scales = np.rint(PER_OCTAVE * np.log2(deviations / step / fitting.LOGISTIC_SD))
    return {
        "directions": np.clip(np.rint(real * 2.0**digits), -LARGEST, LARGEST).astype(np.int16, order="C"),
        "scales": scales.astype(np.int16),
        "digits": np.array([digits], np.int16),
    }
