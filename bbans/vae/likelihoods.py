"""Log-probabilities in nats for training, in torch. The codecs of the same distributions are in `bbans.codecs`."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from bbans.codecs.tables import PER_OCTAVE, SCALE_OF_ONE, SCALES

# log2 of a logistic's scale, in pixels: the ends of the tables
SCALE_MIN, SCALE_MAX = -SCALE_OF_ONE / PER_OCTAVE, (SCALES - 1 - SCALE_OF_ONE) / PER_OCTAVE
POSTERIOR_SCALES = (-5, 1)  # log2 of the least and the largest scale of a latent's posterior, in scales of its prior
FAR = 1e4  # in scales: where a logistic's CDF is 0 or 1 and flat
MEAN_UNIT = 16.0  # a network output of 1 moves a mean by 16 pixels


def logistic_mixture_nll(params: Tensor, x: Tensor, prediction: Tensor, lo: int, hi: int) -> Tensor:
    """−ln of a mixture of K discretised logistics (Salimans et al. 2017, PixelCNN++, eq. 1-2), open at lo and hi.

    params: [N, 3K, h, w] logits (in octaves), means (in 16 pixels, relative to the prediction), log2-scales.
    x, prediction: [N, 1, h, w] in pixels, x in lo..hi. Returns [N, 1, h, w].
    """
    logits, means, scales = params.float().chunk(3, 1)
    inverse = torch.exp2(-scales.clamp(SCALE_MIN, SCALE_MAX))
    centred = x - prediction - MEAN_UNIT * means
    upper = (centred + 0.5) * inverse
    lower = (centred - 0.5) * inverse
    at_lo, at_hi = x <= lo, x >= hi
    # log(s(u) - s(l)) = log s(u) + log s(-l) + log(1 - exp(l - u)); at an open end only the other sigmoid is left
    log_p = F.logsigmoid(upper).masked_fill(at_hi, 0.0) + F.logsigmoid(-lower).masked_fill(at_lo, 0.0)
    log_p = log_p + torch.log(-torch.expm1(-inverse)).masked_fill(at_lo | at_hi, 0.0)
    log_w = F.log_softmax(logits * math.log(2.0), 1)
    return -torch.logsumexp(log_w + log_p, 1, keepdim=True)


def logistic_mixture_slopes(params: Tensor, x: Tensor, prediction: Tensor, lo: int, hi: int) -> tuple[Tensor, Tensor]:
    """What `logistic_mixture_nll` returns, and its derivatives by params [N, 3K, h, w], in that shape.

    Several times as fast as automatic differentiation, and coarse for symbols that are very unlikely: no mass is taken
    as less than 1e-9, and single precision leaves little of one below 1e-6.
    """
    logits, means, scales = params.float().chunk(3, 1)
    inverse = torch.exp2(-scales.clamp(SCALE_MIN, SCALE_MAX))
    upper = (x - prediction + 0.5 - MEAN_UNIT * means).mul_(inverse)
    lower = upper - inverse
    upper.masked_fill_(x >= hi, FAR)
    lower.masked_fill_(x <= lo, -FAR)
    above, below = torch.sigmoid(upper), torch.sigmoid(lower)
    mass = above - below
    density_above, density_below = above.addcmul_(above, above, value=-1), below.addcmul_(below, below, value=-1)
    weights = torch.softmax(logits * math.log(2.0), 1)
    total = (weights * mass).sum(1, keepdim=True).clamp_min_(1e-9)
    share = weights / total
    by_scales = upper.mul_(density_above).sub_(lower.mul_(density_below)).mul_(share)
    by_means = density_above.sub_(density_below).mul_(inverse).mul_(share)
    by_logits = weights.sub_(share.mul_(mass))
    return -total.log(), torch.cat([math.log(2.0) * by_logits, MEAN_UNIT * by_means, math.log(2.0) * by_scales], 1)


def bernoulli_nll(logit: Tensor, x: Tensor) -> Tensor:
    """−ln of a Bernoulli. logit: any shape, in nats; x: booleans of the same shape. Returns that shape."""
    return F.softplus(torch.where(x, -logit, logit).float())


def logistic_log_density(x: Tensor, mean: Tensor | float = 0.0, log2_scale: Tensor | float = 0.0) -> Tensor:
    """ln of the density of a logistic, elementwise."""
    log2_scale = torch.as_tensor(log2_scale, dtype=x.dtype, device=x.device)
    t = (x - mean) * torch.exp2(-log2_scale)
    return F.logsigmoid(t) + F.logsigmoid(-t) - log2_scale * math.log(2.0)


def sample_logistic(mean: Tensor, log2_scale: Tensor) -> Tensor:
    """A reparametrised sample."""
    u = torch.rand_like(mean).clamp(1e-6, 1 - 1e-6)
    return mean + torch.exp2(log2_scale) * torch.logit(u)


def normal_log_density(x: Tensor, mean: Tensor | float = 0.0, log2_scale: Tensor | float = 0.0) -> Tensor:
    """ln of the density of a normal, elementwise."""
    log2_scale = torch.as_tensor(log2_scale, dtype=x.dtype, device=x.device)
    t = (x - mean) * torch.exp2(-log2_scale)
    return -0.5 * (t * t + math.log(2 * math.pi)) - log2_scale * math.log(2.0)


def discretised_normal_nll(mean: Tensor, log2_scale: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """−ln of the mass of a normal between `lower` and `upper`, elementwise; finite, or gradients are not.

    On the side of the mean where the tails are small, and by logarithms, so that no mass is ever 0.
    """
    inverse = torch.exp2(-log2_scale)
    a, b = (lower - mean) * inverse, (upper - mean) * inverse
    flip = a + b > 0
    a, b = torch.where(flip, -b, a), torch.where(flip, -a, b)
    above, below = log_normal_cdf(b), log_normal_cdf(a)
    return -(above + torch.log(-torch.expm1((below - above).clamp_max(-1e-6))))


def log_normal_cdf(t: Tensor) -> Tensor:
    """ln of the standard normal's CDF, with gradients that stay those of a float far out.

    PyTorch's are exp of a difference that single precision loses from some thousand scales on. Below -20 it is the
    asymptotic series: Abramowitz & Stegun 1964, 26.2.12.
    """
    far = t.clamp_max(-20.0)
    inverse = far**-2
    tail = -0.5 * far * far - torch.log(-far) - 0.5 * math.log(2 * math.pi) + torch.log1p(-inverse + 3 * inverse**2)
    return torch.where(t < -20.0, tail, torch.special.log_ndtr(t.clamp_min(-20.0)))
