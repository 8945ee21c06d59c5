"""Tuning `photo` to a picture: which layers, how the encoder finds the steps, and the codec of the steps.

The steps theta are coded before everything else, so a tuned file has −log2 p(theta) − ELBO(theta) bits; an encoder
keeps a tuning only if that is less. Finding it takes gradients, real numbers and chance, none of which a decoder needs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbans.codecs.core import Codec, dependent, serial, substack
from bbans.codecs.discrete import uniform
from bbans.codecs.mixture import WEIGHT_BITS, Mixture
from bbans.codecs.tables import ScaleTables
from bbans.exact.export import setattr_child
from bbans.exact.layers import IntConv
from bbans.exact.tuning import MOST_STEPS, Steps, Unrounded
from bbans.vae.families import build, describe
from bbans.vae.objectives import level_count, photo_bits
from bbans.vae.phases import PHASES
from bbans.vae.photo import PhotoVAE

STAGES = (15, 30, 60, 120)  # gradient steps of each stage of the search; after each, there is a tuning to be tried
CROP = 192  # pixels of the squares that gradients are taken on
RATE, LAST_RATE = 0.4, 0.05  # steps that a gradient step moves a gain or bias, at a stage's beginning and end
PRICE = 2.0  # bits that a step is taken to cost
DEAD_ZONE = 0.6  # steps below this are none
SCALES = 16  # of the distribution of a group's steps: 0 is for none at all
_LEAST_SCALE, _SCALE_STEP = 4, 5  # indices of tables: 2^-4 steps to 2^4.75

Steps64 = NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Steps that share a scale: the gains or the biases of some layers."""

    kind: str
    layers: tuple[str, ...]
    sizes: tuple[int, ...]


def groups(network: PhotoVAE) -> list[Group]:
    """What is tuned, in the order of coding: of each level, the trunks, the insides of heads, and the last layers."""
    names = [name for name, layer in network.named_modules() if isinstance(layer, IntConv | Unrounded)]
    found = []
    for number in range(len(network.levels)):
        level = f"levels.{number}."
        phases = [name for name in names if name.startswith(tuple(f"{level}{part}_" for part in ("enter", "blocks")))]
        heads = [name for name in names if name.startswith(tuple(f"{level}head_{phase}." for phase in PHASES))]
        last = [name for name in heads if ".out." in name]
        for layers in (phases, [name for name in heads if name not in last], last):
            sizes = tuple(len(cast(IntConv, network.get_submodule(name)).bias) for name in layers)
            found += [Group(kind, tuple(layers), sizes) for kind in Steps._fields]
    return found


def steps_of(found: Sequence[Group], values: Sequence[NDArray[Any]]) -> dict[str, Steps]:
    """By layer, from the values of each group [sum of its sizes]."""
    kinds: dict[str, dict[str, Tensor]] = {}
    for group, row in zip(found, values, strict=True):
        parts = torch.from_numpy(np.array(row, np.int64)).split(list(group.sizes))
        for name, part in zip(group.layers, parts, strict=True):
            kinds.setdefault(name, {})[group.kind] = part
    return {name: Steps(**kind) for name, kind in kinds.items() if any(bool(part.any()) for part in kind.values())}


# -- coding ------------------------------------------------------------------------------------------------------------


def codec(tables: ScaleTables, found: Sequence[Group]) -> Codec:
    """Of the values of each group, on a message: logistics of a scale for each group, which is coded before them."""
    counts = [sum(group.sizes) for group in found]
    scales = serial([substack(uniform(SCALES), np.s_[:1])] * len(counts))

    def values_given(chosen: Sequence[NDArray[Any]]) -> Codec:
        return serial([_row(tables, count, int(scale[0])) for count, scale in zip(counts, chosen, strict=True)])

    both = dependent(scales, values_given)

    def push(message: Any, values: Sequence[Steps64]) -> None:
        both.push(message, ([np.array([_best_scale(tables, row)]) for row in values], values))

    return Codec(push, lambda message: both.pop(message)[1])


def _row(tables: ScaleTables, count: int, scale: int) -> Codec:
    if not scale:
        return Codec(lambda message, x: None, lambda message: np.zeros(count, np.int64))
    return _logistic(tables, count, scale).row_codec()


def _logistic(tables: ScaleTables, count: int, scale: int) -> Mixture:
    weights = np.full((1, count), 1 << WEIGHT_BITS, np.uint32)
    index = np.full((1, count), _LEAST_SCALE + _SCALE_STEP * (scale - 1), np.int32)
    return Mixture(tables, weights, np.zeros((1, count), np.int32), index, -MOST_STEPS, MOST_STEPS)


def _best_scale(tables: ScaleTables, values: Steps64) -> int:
    if not values.any():
        return 0
    return 1 + int(
        np.argmax([_logistic(tables, len(values), scale).log2_prob(values).sum() for scale in range(1, SCALES)])
    )


# -- searching ---------------------------------------------------------------------------------------------------------


def search(network: PhotoVAE, planes: Tensor, *, grey: bool) -> Iterator[list[Steps64]]:
    """Better and better values of `groups(network)` for a picture [1, 3, h, w], one list after each of `STAGES`.

    The gradients are those of the −ELBO of random squares. Leaves the random state as it was.
    """
    with torch.random.fork_rng(devices=[]):
        soft = _unrounded(network)
    found = groups(soft)
    sought = [[getattr(soft.get_submodule(name).steps, g.kind) for name in g.layers] for g in found]
    parameters = [parameter for row in sought for parameter in row]
    optimiser = torch.optim.Adam(parameters, betas=(0.9, 0.95))
    picture = planes.float().cpu()
    height, width = picture.shape[-2:]
    random = np.random.default_rng(0)
    for stage, count in enumerate(STAGES):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stage)
            for step in range(count):
                for part in optimiser.param_groups:
                    part["lr"] = RATE + (LAST_RATE - RATE) * step / count
                y, x = (int(random.integers(0, max(0, side - CROP) + 1)) for side in (height, width))
                square = picture[..., y : y + CROP, x : x + CROP].contiguous(memory_format=torch.channels_last)
                with _bf16():
                    bits, _ = photo_bits(soft, square, levels=min(4, level_count(*square.shape[-2:])), grey=grey)
                whole = sum(part.sum() for part in bits.values()) * (picture.numel() / square.numel())
                price = PRICE * sum(parameter.abs().sum() for parameter in parameters)
                optimiser.zero_grad(set_to_none=True)
                cast(Tensor, whole + price).backward()
                optimiser.step()
        yield [_rounded(torch.cat([part.detach() for part in row])) for row in sought]


def _unrounded(network: PhotoVAE) -> PhotoVAE:
    """The network without rounding, whose steps can be learnt."""
    soft = cast(PhotoVAE, build(**describe(network)))
    for name, layer in network.named_modules():
        if isinstance(layer, IntConv):
            parent, _, child = name.rpartition(".")
            setattr_child(soft.get_submodule(parent), child, Unrounded(layer))
    return soft


def _rounded(values: Tensor) -> Steps64:
    values = torch.where(values.abs() < DEAD_ZONE, 0.0, values)
    return values.round().clamp(-MOST_STEPS, MOST_STEPS).to(torch.int64).numpy()


def _bf16() -> contextlib.AbstractContextManager[Any]:
    """Gradients in bfloat16 where the processor has it."""
    fast = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast("cpu", torch.bfloat16) if fast else contextlib.nullcontext()
