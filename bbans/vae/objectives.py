"""The objective: −ELBO, its parts kept apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbans.vae import lattice, likelihoods
from bbans.vae.layers import INPUT_DIGITS
from bbans.vae.photo import PHASES, PhotoVAE

INPUT_SCALE = 2.0**-INPUT_DIGITS


@dataclass
class Level:
    """−ELBO of one level in bits, summed over the batch: one likelihood for each phase, and the KL of z."""

    d: Tensor
    b: Tensor
    e: Tensor
    kl: Tensor

    def total(self) -> Tensor:
        return self.d + self.b + self.e + self.kl


def photo_level(model: PhotoVAE, x: Tensor, *, grey: bool = False) -> tuple[Level, Tensor]:
    """−ELBO of a level of pictures x [N, 3, h, w] (YCoCg as float), and C, the next level's pictures.

    With `grey`, only Y counts. Source: Kingma & Welling 2014, eq. 2, by one sample.
    """
    c, d_pixels, b_pixels, e_pixels = lattice.split(x)
    d, b = lattice.fill(d_pixels, c), lattice.fill(b_pixels, c)
    pd, pb, pe = lattice.predict_d(c), lattice.predict_b(c, d), lattice.predict_e(c, d)
    see_c = lattice.inputs_c(c, pd) * INPUT_SCALE
    see_d = lattice.residual(d, pd) * INPUT_SCALE
    see_b = lattice.residual(b, pb) * INPUT_SCALE

    regions = model.regions(see_c)
    kl, z = x.new_zeros(()), None
    if model.config.latents:
        mean, log2_scale = model.infer(see_c, see_d, see_b).float().chunk(2, 1)
        log2_scale = log2_scale.clamp(*likelihoods.POSTERIOR_SCALES)
        z = likelihoods.sample_logistic(mean, log2_scale)
        kl = (likelihoods.logistic_log_density(z, mean, log2_scale) - likelihoods.logistic_log_density(z)).sum()
    tell_d, tell_b = model.condition(regions, z)
    h_d = model.features_d(see_c, tell_d)
    h_b = model.features_b(h_d, see_d, tell_b)
    h_e = model.features_e(see_c, see_d, see_b, regions)

    nats = []
    for phase, h, target, prediction in zip(
        PHASES, (h_d, h_b, h_e), (d_pixels, b_pixels, e_pixels), (pd, pb, pe), strict=True
    ):
        rows, columns = target.shape[-2:]
        if not rows or not columns:
            nats.append(x.new_zeros(()))
            continue
        prediction, h = prediction[..., :rows, :columns], _cut(h, rows, columns)
        head = getattr(model, f"head_{phase}")
        seen = lattice.residual(target, prediction) * INPUT_SCALE
        total = x.new_zeros(())
        for channel, mine in enumerate(head.split(h)[: 1 if grey else 3]):
            params = head.channel(channel, mine, seen[:, :channel])
            total = (
                total
                + likelihoods.logistic_mixture_nll(
                    params,
                    target[:, channel : channel + 1],
                    prediction[:, channel : channel + 1] / 4,
                    *lattice.RANGES[channel],
                ).sum()
            )
        nats.append(total)
    bits = 1 / math.log(2.0)
    nats_d, nats_b, nats_e = nats
    return Level(nats_d * bits, nats_b * bits, nats_e * bits, kl * bits), c


def photo_elbo(model: PhotoVAE, ycocg: Tensor, *, levels: int, grey: bool = False) -> tuple[list[Level], Tensor]:
    """Levels, finest first, and the coarsest C that is left over."""
    x, parts = ycocg.float(), []
    for _ in range(levels):
        level, x = photo_level(model, x, grey=grey)
        parts.append(level)
    return parts, x


def _cut(x: Tensor, rows: int, columns: int) -> Tensor:
    return x if x.shape[-2:] == (rows, columns) else x[..., :rows, :columns]


def level_count(height: int, width: int) -> int:
    """Levels of a whole picture: until at most 2x2 pixels are left."""
    return max(0, (max(height, width) - 1).bit_length() - 1)


def elbo_bits(model: PhotoVAE, pixels: NDArray[np.uint8]) -> float:
    """−ELBO in bits of pixels [h, w, 1 or 3] under a float model, by one sample of the latents."""
    height, width, channels = pixels.shape
    grey = channels == 1
    x = as_ycocg(np.repeat(pixels, 3, 2) if grey else pixels)
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        parts, rest = photo_elbo(model, x, levels=level_count(height, width), grey=grey)
    return float(sum(float(v.total()) for v in parts)) + 8.0 * rest.numel() / (3 if grey else 1)


def as_ycocg(pixels: NDArray[np.uint8]) -> Tensor:
    """RGB pixels [h, w, 3] as a picture [1, 3, h, w]."""
    rgb = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].int()
    return lattice.ycocg_from_rgb(rgb).float().contiguous(memory_format=torch.channels_last)
