"""The four phases of a picture, their linear predictions, and the reversible colour transform.

Works on tensors that hold integers, in any dtype wide enough; every operation is exact. Shapes are [N, channels,
height, width]. Maps of a level have the size of C; where D or B have no pixel (odd sizes) they take C's value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

RESIDUAL_MAX = 1023  # residuals are in quarter pixels; larger ones are clipped


def ycocg_from_rgb(rgb: Tensor) -> Tensor:
    """YCoCg-R of integer RGB [N, 3, h, w]: Y in 0..255, Co and Cg in -255..255."""
    r, g, b = rgb.unbind(1)
    co = r - b
    t = b + (co >> 1)
    cg = g - t
    return torch.stack([t + (cg >> 1), co, cg], 1)


def rgb_from_ycocg(ycocg: Tensor) -> Tensor:
    """The inverse of `ycocg_from_rgb`."""
    y, co, cg = ycocg.unbind(1)
    t = y - (cg >> 1)
    b = t - (co >> 1)
    return torch.stack([b + co, cg + t, b], 1)


def differences_from_rgb(rgb: Tensor) -> Tensor:
    """G in 0..255, R - G and B - G in -255..255, of integer RGB [N, 3, h, w]."""
    r, g, b = rgb.unbind(1)
    return torch.stack([g, r - g, b - g], 1)


def rgb_from_differences(differences: Tensor) -> Tensor:
    """The inverse of `differences_from_rgb`."""
    g, r, b = differences.unbind(1)
    return torch.stack([r + g, g, b + g], 1)


@dataclass(frozen=True)
class Colour:
    """A reversible colour transform of RGB: grey is its first channel, the others are 0 then.

    bounded: the others are in 0..255 when the first is added to them; else they lie in -255..255.
    """

    from_rgb: Callable[[Tensor], Tensor]
    to_rgb: Callable[[Tensor], Tensor]
    bounded: bool


COLOURS = {  # by their names in models: never rename
    "YCoCg-R": Colour(ycocg_from_rgb, rgb_from_ycocg, bounded=False),
    "G, R-G, B-G": Colour(differences_from_rgb, rgb_from_differences, bounded=True),
}


@dataclass(frozen=True)
class Sampling:
    """What pictures are inside a model: so many channels, of 8 bits, 1 or 12, after a transform of `COLOURS`."""

    samples: int = 3
    depth: int = 8
    colour: str = "YCoCg-R"

    @property
    def bilevel(self) -> bool:
        """Whether a sample is 0 or 255."""
        return self.depth == 1

    def planes(self, pixels: Tensor) -> Tensor:
        """What the models code: int32 [N, samples, h, w] of integer pixels [N, h, w, 1 or 3] of 8 bits or of 1.

        RGB is transformed; grey gets channels of zeros if there are three samples; bilevel becomes 0 and 255.
        """
        x = pixels.permute(0, 3, 1, 2).to(torch.int32)
        if x.shape[1] == 3:
            return COLOURS[self.colour].from_rgb(x)
        x = 255 * x if self.bilevel else x
        return torch.cat([x, *[torch.zeros_like(x)] * (self.samples - 1)], 1) if self.samples > 1 else x

    def pixels(self, planes: Tensor, channels: int) -> Tensor:
        """The inverse of `planes`: uint8 [N, h, w, channels], or int32 for samples of more than 8 bits.

        What a model draws may be no picture: RGB is clipped.
        """
        x = planes.to(torch.int32)
        x = COLOURS[self.colour].to_rgb(x).clamp(0, 255) if channels == 3 else x[:, :1]
        x = x.permute(0, 2, 3, 1)
        return (x >> (8 - self.depth)).to(torch.uint8) if self.depth <= 8 else x

    def decided(self, x: Tensor) -> Tensor:
        """Planes as networks see them: of a bilevel sample that is a mean, between 0 and 255, the likelier value."""
        return 255 * (x >= 128).to(x) if self.bilevel else x

    def range(self, channel: int) -> tuple[int, int]:
        """Of what is coded of a channel, after `base` is added."""
        return (-255, 255) if channel and not COLOURS[self.colour].bounded else (0, 255)

    def base(self, channel: int, first: Tensor) -> Tensor:
        """What is added to a channel before it is coded, and to what it is expected to be; first: the first channel."""
        return first if channel and COLOURS[self.colour].bounded else torch.zeros_like(first)


def split(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """C, D, B, E of a picture (views)."""
    return x[..., ::2, ::2], x[..., 1::2, 1::2], x[..., ::2, 1::2], x[..., 1::2, ::2]


def fill(phase: Tensor, c: Tensor) -> Tensor:
    """`phase` enlarged to the size of C, with C's values where it has no pixel."""
    if phase.shape == c.shape:
        return phase
    full = c.clone()
    full[..., : phase.shape[-2], : phase.shape[-1]] = phase
    return full


def _shift(x: Tensor, dy: int, dx: int) -> Tensor:
    """out[y, x] = in[y + dy, x + dx], repeating the border."""
    h, w = x.shape[-2:]
    rows = torch.arange(h, device=x.device).add(dy).clamp(0, h - 1)
    columns = torch.arange(w, device=x.device).add(dx).clamp(0, w - 1)
    if dy:
        x = x.index_select(-2, rows)
    if dx:
        x = x.index_select(-1, columns)
    return x


def predict_d(c: Tensor) -> Tensor:
    """Four times the mean of the four C around each D."""
    pairs = c + _shift(c, 0, 1)
    return pairs + _shift(pairs, 1, 0)


def predict_b(c: Tensor, d: Tensor) -> Tensor:
    """Four times the mean of C left and right and D above and below each B."""
    return c + _shift(c, 0, 1) + d + _shift(d, -1, 0)


def predict_e(c: Tensor, d: Tensor) -> Tensor:
    """Four times the mean of C above and below and D left and right of each E."""
    return c + _shift(c, 1, 0) + d + _shift(d, 0, -1)


def middle(x: Tensor) -> Tensor:
    """Four times the middle of the range of each channel: the prediction where nothing is known."""
    middles = torch.zeros_like(x)
    middles[:, 0] = 4 * 128
    return middles


def residual(x: Tensor, prediction: Tensor) -> Tensor:
    """4 x - prediction, clipped: what the networks see of a phase."""
    return (4 * x - prediction).clamp(-RESIDUAL_MAX, RESIDUAL_MAX)


def inputs_c(c: Tensor, prediction_d: Tensor) -> Tensor:
    """What the networks see of C [N, 3, h, w]: itself, centred, and its residual against the D prediction."""
    centred = c.clone()
    centred[:, 0] -= 128
    return torch.cat([centred, residual(c, prediction_d)], 1)
