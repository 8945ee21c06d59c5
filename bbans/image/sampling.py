"""Pictures drawn from a model. To draw is to decode random bits: each symbol is popped with its probability.

So a sample is made by the codec that decodes files, with two exceptions. Latents are not put back on the message: q is
not quite the posterior, and so what follows would no more be drawn from random bits, but from bits that tell how
improbable q found a latent, if it has any mass there at all. And the last layers that are fitted to each picture stay
what they were trained to be.

Deterministic sampling draws latents only, and then takes the mean of each pixel instead of popping it, given z and the
means of the pixels before it: what z says, without the noise. Everything is integers, or made of them exactly, so a
seed stands for the same pictures on every machine.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbans.ans import Message, padding
from bbans.errors import BadImage, TooLarge
from bbans.exact.layers import arithmetic
from bbans.image.codec import MAX_BATCH_DIMS
from bbans.image.container import ONE_TILE
from bbans.image.families import pictures_codec
from bbans.image.lanes import MOST_LANES
from bbans.image.planes import DRAW_MEANS, DRAW_PIXELS, LATENT_BITS, Size, Strand
from bbans.vae.dense import DenseVAE
from bbans.vae.photo import SAMPLES, PhotoVAE
from bbans.zoo import Model

ANY_SIZE = (128, 128)  # of the samples of a model that has no size, unless one is asked for


def sample(
    model: Model, count: int, seed: int = 0, *, size: Size | None = None, mean: bool = False
) -> NDArray[np.uint8] | NDArray[np.bool_]:
    """Pictures [count, h, w, 1 or 3]: uint8, or bool of a bilevel model, whose means are uint8 again.

    size: (height, width), of models that take any; mean: sample deterministically. The first pictures of a seed are the
    same, whatever the count. Raises `BadImage` or `TooLarge` for a size that can't be had.
    """
    if count < 1:
        raise ValueError("at least one picture is drawn")
    shape = shape_of(model, size)
    # a codec of `dense` is of one message
    together = 1 if isinstance(model.network, DenseVAE) else max(1, MAX_BATCH_DIMS // int(np.prod(shape)))
    batches = [range(i, min(i + together, count)) for i in range(0, count, together)]
    return np.concatenate([_drawn(model, [message(seed, i) for i in batch], shape, mean) for batch in batches])


def shape_of(model: Model, size: Size | None = None) -> tuple[int, int, int]:
    """(height, width, channels) of the pictures that `sample` draws. Raises as it does."""
    if not isinstance(model.network, PhotoVAE):
        height, width, channels = model.network.config.shape
        if size is not None:
            raise BadImage(f"the model {model.name} has a size, {width} x {height}: none can be chosen")
        return height, width, channels
    height, width = size or ANY_SIZE
    if height * width > ONE_TILE:
        raise TooLarge(f"{width} x {height} is too large for a sample: it has up to {ONE_TILE} pixels")
    return height, width, SAMPLES


def message(seed: int, number: int) -> Message:
    """The random bits of one picture of a seed, of which the lowest 64 bits count."""
    high, low = padding(seed % (1 << 64), 2 * number, 2).tolist()
    return Message.random(MOST_LANES, seed=high << 32 | low)


def _drawn(model: Model, messages: list[Message], shape: tuple[int, int, int], mean: bool) -> NDArray[Any]:
    """One picture of each message."""
    draws = DRAW_MEANS if mean else DRAW_PIXELS
    strands = [Strand(mine, 1, LATENT_BITS[0], None, draws=draws) for mine in messages]
    with arithmetic():
        planes = pictures_codec(model.network, model.tables, (len(messages), *shape)).pop(strands)
    sampling = model.network.config.sampling
    if sampling.bilevel and mean:
        sampling = dataclasses.replace(sampling, depth=8)
    pixels: NDArray[Any] = sampling.pixels(planes, shape[-1]).cpu().numpy()
    return pixels.astype(np.bool_) if sampling.bilevel else pixels
