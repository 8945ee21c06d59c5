"""The objective, −ELBO, its parts kept apart: {name: bits [N]}, one entry for each likelihood and each layer's KL.

Names: `d1`, `b1`, `e1` are the phases of the finest level, `d2` ... those of the next; `top` is the coarsest picture;
what begins with `kl` is the KL of latents. Source: Kingma & Welling 2014, eq. 2, by one sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from bbans.vae import lattice, likelihoods
from bbans.vae.dense import LOG2_SCALE, UNITS, X_DIGITS, DenseVAE, see_x
from bbans.vae.distributions import BITS_OF_A_NAT, STANDARD_LOGISTIC, Latents, Logistic, Normal
from bbans.vae.lattice import Sampling
from bbans.vae.layers import Enlarged
from bbans.vae.phases import INPUT_SCALE, PHASES, ByteHead, Head, Phases
from bbans.vae.photo import SAMPLES, PhotoLevel, PhotoVAE
from bbans.vae.thumbnail import ThumbnailVAE

Bits = dict[str, Tensor]
SAMPLED = Latents()


@dataclass(frozen=True)
class Views:
    """A level of pictures x [N, samples, h, w] as its networks see it: inputs from C, and residuals of D and B."""

    pixels: tuple[Tensor, Tensor, Tensor]  # D, B, E
    predictions: tuple[Tensor, Tensor, Tensor]
    c: Tensor
    see_c: Tensor
    see_d: Tensor
    see_b: Tensor

    @classmethod
    def of(cls, x: Tensor, input_scale: float) -> Views:
        """input_scale: of the networks."""
        c, *pixels = lattice.split(x)
        d, b = lattice.fill(pixels[0], c), lattice.fill(pixels[1], c)
        pd, pb, pe = lattice.predict_d(c), lattice.predict_b(c, d), lattice.predict_e(c, d)
        return cls(
            (pixels[0], pixels[1], pixels[2]),
            (pd, pb, pe),
            c,
            lattice.inputs_c(c, pd) * input_scale,
            lattice.residual(d, pd) * input_scale,
            lattice.residual(b, pb) * input_scale,
        )


Told = tuple[Enlarged | None, Enlarged | None, Enlarged | None]


def level_bits(nets: Phases, views: Views, told: Told, sampling: Sampling, samples: int) -> list[Tensor]:
    """Bits [N] of D, B and E of a level, given C. samples: how many channels count."""
    features = phase_features(nets, views, told)
    return [
        plane_bits(nets.head(phase), h, target, prediction, sampling, samples)
        for phase, h, target, prediction in zip(PHASES, features, views.pixels, views.predictions, strict=True)
    ]


def phase_features(nets: Phases, views: Views, told: Told) -> tuple[Tensor, Tensor, Tensor]:
    """What the heads of D, B and E of a level read [N, channels, h, w]."""
    told_d, told_b, told_e = told
    h_d = nets.features_d(views.see_c, told_d)
    h_b = nets.features_b(h_d, views.see_d, told_b)
    return h_d, h_b, nets.features_e(views.see_c, views.see_d, views.see_b, told_e)


def plane_bits(
    head: Head | ByteHead, h: Tensor, target: Tensor, prediction: Tensor, sampling: Sampling, samples: int
) -> Tensor:
    """Bits [N] of pixels `target` [N, channels, rows, columns], given features that are at least as large.

    prediction: four times what the means are relative to.
    """
    rows, columns = target.shape[-2:]
    total = h.new_zeros(len(target), dtype=torch.float32)
    if not rows or not columns:
        return total
    h, prediction = _cut(h, rows, columns), _cut(prediction, rows, columns)
    seen = lattice.residual(target, prediction) * head.input_scale
    for channel, mine in enumerate(head.split(h)[:samples]):
        params, x = head.channel(channel, mine, seen[:, :channel]), target[:, channel : channel + 1]
        if sampling.bilevel:
            nats = likelihoods.bernoulli_nll(params, x > 0)
        else:
            base, centre = sampling.base(channel, target[:, :1]), prediction[:, channel : channel + 1] / 4
            nats = likelihoods.logistic_mixture_nll(params, x + base, centre + base, *sampling.range(channel))
        total = total + nats.sum((1, 2, 3))
    return total * BITS_OF_A_NAT


# -- photo -------------------------------------------------------------------------------------------------------------


def photo_bits(
    model: PhotoVAE, planes: Tensor, *, levels: int, grey: bool = False, latents: Latents = SAMPLED
) -> tuple[Bits, Tensor]:
    """Bits of pictures [N, 3, h, w] (planes as float), and the coarsest C, left over. With `grey`, one channel counts.

    latents: how they are drawn, layer by layer from the finest.
    """
    x, bits = planes.float(), Bits()
    for level, (nets, views, told, elements) in enumerate(photo_levels(model, x, levels, latents), 1):
        kl = views.c.new_zeros(len(x)) if elements is None else elements.sum((1, 2, 3))
        phases = level_bits(nets, views, told, model.config.sampling, 1 if grey else SAMPLES)
        bits |= {f"{phase}{level}": v for phase, v in zip(PHASES, phases, strict=True)} | {f"kl{level}": kl}
        x = views.c
    return bits, x


def photo_levels(
    model: PhotoVAE, x: Tensor, levels: int, latents: Latents = SAMPLED
) -> Iterator[tuple[PhotoLevel, Views, Told, Tensor | None]]:
    """Of pictures x [N, 3, h, w], level by level from the finest: the networks, what they see and what they are told,
    with a sample of the latents; and the KL [N, latents, ...] of these, if there are any."""
    for level in range(levels):
        nets = model.level(level)
        views = Views.of(x, nets.input_scale)
        regions = nets.regions(views.see_c)
        z, kl = None, None
        if model.config.latents:
            q = Logistic(nets.infer(views.see_c, views.see_d, views.see_b))
            z, kl = latents(f"kl{level + 1}", q, STANDARD_LOGISTIC)
        told_d, told_b = nets.condition(regions, z)
        yield nets, views, (told_d, told_b, nets.condition_e(regions)), kl
        x = views.c


def level_count(height: int, width: int) -> int:
    """Return how many levels a picture has: until C has at most 4 pixels, or one in 16,384 of the picture's.

    That C is coded uniformly. More levels would save a few bytes, for a tenth of a small network's time.
    """
    most, levels = max(4, height * width >> 14), 0
    while -(-height >> levels) * -(-width >> levels) > most:
        levels += 1
    return levels


# -- thumbnail ---------------------------------------------------------------------------------------------------------


def thumbnail_bits(model: ThumbnailVAE, planes: Tensor, *, latents: Latents = SAMPLED) -> Bits:
    """Bits of pictures [N, samples, h, w], planes as float. latents: how they are drawn, z2 before z1."""
    config = model.config
    sampling, samples = config.sampling, config.samples
    x, views = planes.float(), []
    for _ in range(config.levels):
        views.append(Views.of(x, INPUT_SCALE))
        x = views[-1].c
    finest, bits = views[0], Bits()
    whole, local = config.latents
    # the networks of the latents are small, and oneDNN's bf16 gradients of strided convolutions on the smallest maps
    # are wrong (PyTorch 2.13)
    with torch.autocast(planes.device.type, enabled=False):
        z2, z1 = x.new_zeros(len(x), 1, 1, 1), None
        encoded = model.encode(finest.see_c, finest.see_d, finest.see_b) if whole or local else None
        if encoded is not None and whole:
            z2, kl = latents("kl_whole", Logistic(model.infer_whole(encoded)), STANDARD_LOGISTIC)
            bits["kl_whole"] = kl.sum((1, 2, 3))
        h = model.begin(z2)
        if encoded is not None and local:
            z1, kl = latents("kl_local", Logistic(model.infer_local(encoded, h)), STANDARD_LOGISTIC)
            bits["kl_local"] = kl.sum((1, 2, 3))
        h = model.refine(h, z1)
        middle = lattice.middle(x)
        bits["top"] = plane_bits(model.head_top, h, x, middle, sampling, samples)
    for level in reversed(range(config.levels)):
        told = model.tell(h, level)
        nets = cast(Phases, model.levels[level])
        phases = level_bits(nets, views[level], told, sampling, samples)
        bits |= {f"{phase}{level + 1}": v for phase, v in zip(PHASES, phases, strict=True)}
    return bits


# -- dense -------------------------------------------------------------------------------------------------------------


def dense_bits(model: DenseVAE, planes: Tensor, *, latents: Latents = SAMPLED) -> Bits:
    """Bits of pictures [N, 1, h, w], planes as float. latents: how they are drawn, z1 before z2."""
    x = planes.float().flatten(1)
    z, kl = draw_dense(model, x, latents)
    nats = dense_nll(model, model.decode(z[0]), x)
    return {"x": nats.sum(1) * BITS_OF_A_NAT} | {name: elements.sum(1) for name, elements in kl.items()}


def draw_dense(model: DenseVAE, x: Tensor, latents: Latents = SAMPLED) -> tuple[list[Tensor], Bits]:
    """Latents z1 (and z2) of samples x [N, dims], and the bits [N, latents] of each layer."""
    seen = see_x(x, model.config.depth) * 2.0**-X_DIGITS
    told = model.infer(seen[: len(seen) // latents.copies])
    q1 = model.posterior_of(told.repeat(latents.copies, 1) if latents.copies > 1 else told)
    if len(model.config.latents) == 1:
        z1, kl = latents("kl", q1, model.prior())
        return [z1], {"kl": kl}
    z1, log2_q1 = latents.draw("kl1", q1)
    z2, kl2 = latents("kl2", Normal(model.infer_upper(z1)), model.prior())
    kl1 = latents.told("kl1", log2_q1 - Normal(model.prior_of_lower(z2)).log2_density(z1))
    return [z1, z2], {"kl1": kl1, "kl2": kl2}


def dense_nll(model: DenseVAE, params: Tensor, x: Tensor) -> Tensor:
    """−ln p(x | z) of samples x [N, dims], each; params: [N, those of a sample, dims], from `decode`."""
    config = model.config
    if config.likelihood == "bernoulli":
        return likelihoods.bernoulli_nll(params[:, 0], x > 0)
    if config.likelihood == "logistic":
        middle = torch.full_like(x, 128.0)[:, None, :, None]
        return likelihoods.logistic_mixture_nll(params[..., None], x[:, None, :, None], middle, 0, 255)[:, 0, :, 0]
    mean, log2_scale = dense_normal(model, params)
    width = UNITS / 2.0**config.depth
    lower, upper = x * width, (x + 1) * width
    lower, upper = lower.masked_fill(lower <= 0, -likelihoods.FAR), upper.masked_fill(upper >= UNITS, likelihoods.FAR)
    return likelihoods.discretised_normal_nll(mean, log2_scale, lower, upper)


def dense_normal(model: DenseVAE, params: Tensor) -> tuple[Tensor, Tensor]:
    """Means and log2-scales [N, dims] of a normal likelihood, in 1/256 of the range of a sample."""
    params = params.float()
    mean = UNITS / 2 * (1 + params[:, 0])
    if model.config.scale:
        return mean, torch.full_like(mean, math.log2(UNITS * model.config.scale))
    return mean, (LOG2_SCALE + params[:, 1]).clamp(likelihoods.SCALE_MIN, likelihoods.SCALE_MAX)


def dense_mean(model: DenseVAE, params: Tensor) -> Tensor:
    """E[x] [N, dims] of samples in 0..2^depth - 1, given their parameters as `dense_nll` has them.

    For the distributions as they are coded, discretised and open at the ends: the sum of P(X >= x) over x > 0.
    """
    config, params = model.config, params.float()
    if config.likelihood == "bernoulli":
        return torch.sigmoid(params[:, 0])
    edges = range(1, 1 << config.depth)
    if config.likelihood == "logistic":
        logits, means, scales = params.chunk(3, 1)
        weights = torch.softmax(logits * math.log(2.0), 1)
        inverse = torch.exp2(-scales.clamp(likelihoods.SCALE_MIN, likelihoods.SCALE_MAX))
        means = 128.0 + likelihoods.MEAN_UNIT * means
        return sum(((weights * torch.sigmoid((means - x + 0.5) * inverse)).sum(1) for x in edges), params.new_zeros(()))
    mean, log2_scale = dense_normal(model, params)
    width, inverse = UNITS / 2.0**config.depth, torch.exp2(-log2_scale)
    return sum((torch.special.ndtr((mean - x * width) * inverse) for x in edges), mean.new_zeros(()))


def _cut(x: Tensor, rows: int, columns: int) -> Tensor:
    return x if x.shape[-2:] == (rows, columns) else x[..., :rows, :columns]
