"""Tuning: small changes of exact networks for one picture, which an encoder chooses and a decoder is told.

Each output of a layer has a gain and a bias, which are changed in small steps. A tuning is integers and is applied in
integers, so tuned networks are as exact as those they came from. Which layers are tuned, and how the steps are found,
is the caller's business. CALLIC (arXiv 2412.17464) does the same with low-rank weights.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bbans.errors import BadModel
from bbans.exact.bytes import IntByteConv
from bbans.exact.export import largest_sum, setattr_child
from bbans.exact.layers import EXACT_LIMIT, IntConv
from bbans.vae.layers import INPUT_DIGITS, Enlarged

GAIN_BITS = 10  # a step of a gain is this power of 1/2
BIAS_BITS = 4  # and one of a bias this power of 1/2, times what `bias_unit` says
MOST_STEPS = (1 << GAIN_BITS) - 1  # up or down: no weight changes its sign

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)


class Steps(NamedTuple):
    """Of the outputs of a layer, [channels] each: integers to be applied, up to `MOST_STEPS` in magnitude, or real
    numbers while they are sought."""

    gains: Tensor
    biases: Tensor


def bias_unit(digits: tuple[int, ...], outputs: int) -> Tensor:
    """log2 of what 2^BIAS_BITS steps change each output by, in its units: two for an activation, one for a parameter,
    half a one for a log2-scale, whose units are large."""
    if digits:
        return torch.tensor([-1 if digit == 3 else 0 for digit in digits], dtype=torch.int32)
    return torch.ones(outputs, dtype=torch.int32)


def tuned(network: AnyNetwork, steps: Mapping[str, Steps]) -> AnyNetwork:
    """A copy of an exact network whose named layers are changed. Raises `BadModel` when it can't be exact."""
    made = copy.deepcopy(network)
    for name, changes in steps.items():
        parent, _, child = name.rpartition(".")
        setattr_child(made.get_submodule(parent), child, _tuned(cast(IntConv, made.get_submodule(name)), changes))
    return made


def moved(layer: IntConv, weights: Tensor, biases: Tensor) -> IntConv:
    """A copy of an exact layer, with integers of these shapes added to its own. Raises `BadModel`."""
    weight, bias, shift = layer.integers()
    return _within_limits(layer, weight + weights, bias + biases, shift)


def _tuned(layer: IntConv, steps: Steps) -> IntConv:
    weight, bias, shift = layer.integers()
    gains, biases = (values.to(torch.int64) for values in steps)
    weight = (weight * ((1 << GAIN_BITS) + gains)[:, None, None, None] + (1 << (GAIN_BITS - 1))) >> GAIN_BITS
    unit = 1 << (shift + bias_unit(layer.digits, len(shift))).clamp_min(0)
    bias = bias + ((biases * unit + (1 << (BIAS_BITS - 1))) >> BIAS_BITS)
    return _within_limits(layer, weight, bias, shift)


def _within_limits(layer: IntConv, weight: Tensor, bias: Tensor, shift: Tensor) -> IntConv:
    """The layer with these integers; where a sum could become too large, weights lose their last binary digit."""
    while bool((too_large := largest_sum(weight, bias, shift, layer.source) >= EXACT_LIMIT).any()):
        halved = too_large.to(torch.int64)
        weight = (weight + halved[:, None, None, None]) >> halved[:, None, None, None]
        bias, shift = (bias + halved) >> halved, shift - halved
        if bool((shift < 1).any()):
            raise BadModel("a tuning asks for weights that can't be exact")
    return layer.with_integers(weight, bias, shift)


class Unrounded(nn.Module):
    """An exact layer as the float layer that it rounds; call it as a `Conv`. steps: real, and free to be replaced.

    reads: of the `Conv`. Inputs and parameters are as that has them; all other activations are in the units of the
    exact layer.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: IntConv | IntByteConv, reads: float = 1.0) -> None:
        super().__init__()
        digits: tuple[int, ...] = ()
        if isinstance(layer, IntByteConv):
            self.stride, self.relu, half = 1, True, 0.0
            weight = layer.weight.cpu() * layer.power.float().cpu()[:, None, None, None]
        else:
            digits, self.stride, self.relu, half = layer.digits, layer.stride, layer.lowest == 0, 0.5
            weight = layer.weight.float().cpu()
        self.padding = layer.padding
        unit = torch.exp2(-torch.tensor(digits or [0], dtype=torch.float32))
        into = 2.0**INPUT_DIGITS / reads if layer.source == "input" else 1.0
        self.register_buffer("weight", weight * into * unit[:, None, None, None])
        self.register_buffer("bias", (layer.bias.float().cpu() - half) * unit)
        self.bias_step = unit * torch.exp2(bias_unit(digits, len(weight)).float() - BIAS_BITS)
        self.steps = Steps(*torch.zeros(2, len(self.weight)))

    def forward(self, x: Tensor, add: Tensor | None = None, told: Enlarged | None = None) -> Tensor:
        weight = self.weight * (1 + self.steps.gains / (1 << GAIN_BITS))[:, None, None, None]
        y = F.conv2d(x, weight, self.bias + self.steps.biases * self.bias_step, self.stride, self.padding)
        y = y if add is None else y + add
        y = y if told is None else y + told.at(y)
        return torch.relu(y) if self.relu else y
