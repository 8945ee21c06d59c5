"""Tuning `photo` to a picture: what is tuned, how the encoder finds it, and the codec of what it found.

A model comes with a few directions, in which the gains and biases of all layers change together, and which most
pictures gain from: a tuning is a place along each of them, its code, and steps of single gains and biases beside. It is
coded before everything else, so a tuned file has −log2 p(tuning) − ELBO(tuning) bits; an encoder keeps a tuning only if
that is less. Finding it takes gradients, real numbers and chance, none of which a decoder needs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bbans.codecs.core import Codec, dependent, serial, substack
from bbans.codecs.discrete import uniform
from bbans.codecs.mixture import WEIGHT_BITS, Mixture
from bbans.codecs.tables import ScaleTables
from bbans.errors import BadModel
from bbans.exact.bytes import IntByteConv
from bbans.exact.export import setattr_child
from bbans.exact.layers import IntConv
from bbans.exact.tuning import MOST_STEPS, Steps, Unrounded
from bbans.vae.families import build, describe
from bbans.vae.layers import Conv
from bbans.vae.objectives import level_count, photo_bits
from bbans.vae.phases import PHASES
from bbans.vae.photo import PhotoVAE

STAGES = (24, 30, 60, 120)  # gradient steps of each stage of the search; after each, there is a tuning to be tried
FIRST_ALONE = 1  # stages in which codes are sought alone
CROP = 192  # pixels of the squares that gradients are taken on
RATE, LAST_RATE = 0.4, 0.05  # what a gradient step moves a step by, at a stage's beginning and end
CODE_RATE = 12.0  # how many times as far it moves a code
PRICE = 6.0  # bits that a step is taken to cost
DEAD_ZONE = 0.6  # steps below this are none
FINE_BITS = 4  # a step here is 2^4 of those of `bbans.exact.tuning`
DIRECTION_BITS = 8  # directions are in 1/2^8 of those, for each unit of a code
MOST = MOST_STEPS >> FINE_BITS  # steps, up or down
MOST_CODE = 255
SCALES = 16  # of the distribution of a group's steps: 0 is for none at all
_LEAST_SCALE, _SCALE_STEP = 4, 5  # indices of tables: 2^-4 steps to 2^4.75

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Steps that share a scale: the gains or the biases of some layers."""

    kind: str
    layers: tuple[str, ...]
    sizes: tuple[int, ...]

    @property
    def count(self) -> int:
        """Of its steps."""
        return sum(self.sizes)


@dataclass(frozen=True)
class Space:
    """What tunings of a network there can be.

    directions: int64 [codes, sum of all sizes of the groups], or real while they are sought.
    The values of a tuning are a list of int64 arrays: the codes, and the steps of each group [sum of its sizes].
    """

    groups: tuple[Group, ...]
    directions: NDArray[Any]

    @classmethod
    def of(cls, network: PhotoVAE, directions: NDArray[np.integer[Any]] | None) -> Space:
        """directions: of the network's model, if it has any. Raises `BadModel` when they are of another network."""
        found = groups(network)
        count = sum(group.count for group in found)
        made = np.zeros((0, count), np.int64) if directions is None else directions
        if made.ndim != 2 or made.shape[1] != count or made.dtype.kind != "i":
            raise BadModel("directions of tuning that are of another network")
        return cls(tuple(found), made.astype(np.int64))

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(how many, the largest magnitude) of each array of a tuning's values."""
        return [(len(self.directions), MOST_CODE), *((group.count, MOST) for group in self.groups)]

    def steps(self, values: Sequence[Integers]) -> dict[str, Steps]:
        """What layers are changed by, and how."""
        code, *steps = values
        along = (np.array(code, np.int64) @ self.directions + (1 << (DIRECTION_BITS - 1))) >> DIRECTION_BITS
        whole = torch.from_numpy(np.clip(along + (np.concatenate(steps) << FINE_BITS), -MOST_STEPS, MOST_STEPS))
        return {name: Steps(**kinds) for name, kinds in self._by_layer(whole).items()}

    def soften(self, soft: nn.Module, code: Tensor, steps: Sequence[Tensor]) -> None:
        """Tune a network of `Unrounded` layers, whose steps may be real, so that gradients reach the values."""
        directions = torch.from_numpy(self.directions.astype(np.float32))
        whole = code @ directions / (1 << DIRECTION_BITS) + torch.cat([*steps]) * (1 << FINE_BITS)
        for name, kinds in self._by_layer(whole).items():
            cast(Unrounded, soft.get_submodule(name)).steps = Steps(**kinds)

    def _by_layer(self, whole: Tensor) -> dict[str, dict[str, Tensor]]:
        """{layer: {kind: its part}} of what is there for all groups together."""
        kinds: dict[str, dict[str, Tensor]] = {}
        for group, part in zip(self.groups, whole.split([group.count for group in self.groups]), strict=True):
            for name, mine in zip(group.layers, part.split(list(group.sizes)), strict=True):
                kinds.setdefault(name, {})[group.kind] = mine
        return kinds


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


# -- coding ------------------------------------------------------------------------------------------------------------


def codec(tables: ScaleTables, space: Space) -> Codec:
    """Of the values of a tuning, on a message: logistics of a scale for each array, which is coded before them."""
    sizes = [size for size in space.sizes if size[0]]
    scales = serial([substack(uniform(SCALES), np.s_[:1])] * len(sizes))

    def values_given(chosen: Sequence[NDArray[Any]]) -> Codec:
        return serial([_row(tables, *size, int(scale[0])) for size, scale in zip(sizes, chosen, strict=True)])

    both = dependent(scales, values_given)

    def push(message: Any, values: Sequence[Integers]) -> None:
        rows = [row for row in values if len(row)]
        best = [np.array([_best_scale(tables, row, most)]) for row, (_, most) in zip(rows, sizes, strict=True)]
        both.push(message, (best, rows))

    def pop(message: Any) -> list[Integers]:
        rows = iter(both.pop(message)[1])
        return [next(rows) if count else np.zeros(0, np.int64) for count, _ in space.sizes]

    return Codec(push, pop)


def _row(tables: ScaleTables, count: int, most: int, scale: int) -> Codec:
    if not scale:
        return Codec(lambda message, x: None, lambda message: np.zeros(count, np.int64))
    return _logistic(tables, count, most, scale).row_codec()


def _logistic(tables: ScaleTables, count: int, most: int, scale: int) -> Mixture:
    weights = np.full((1, count), 1 << WEIGHT_BITS, np.uint32)
    index = np.full((1, count), _LEAST_SCALE + _SCALE_STEP * (scale - 1), np.int32)
    return Mixture(tables, weights, np.zeros((1, count), np.int32), index, -most, most)


def _best_scale(tables: ScaleTables, values: Integers, most: int) -> int:
    if not values.any():
        return 0
    return 1 + int(
        np.argmax([_logistic(tables, len(values), most, scale).log2_prob(values).sum() for scale in range(1, SCALES)])
    )


# -- searching ---------------------------------------------------------------------------------------------------------


def search(network: PhotoVAE, space: Space, planes: Tensor, *, grey: bool) -> Iterator[list[Integers]]:
    """Better and better tunings for a picture [1, 3, h, w], one after each of `STAGES`.

    The gradients are those of the −ELBO of random squares. Leaves the random state as it was.
    """
    soft = unrounded(network)
    code = nn.Parameter(torch.zeros(len(space.directions)))
    steps = [nn.Parameter(torch.zeros(group.count)) for group in space.groups]
    optimiser = torch.optim.Adam(
        [{"params": [code], "times": CODE_RATE}, {"params": steps, "times": 1.0}], betas=(0.9, 0.95)
    )
    picture = planes.float().cpu()
    height, width = picture.shape[-2:]
    if not level_count(height, width):  # no network sees it
        return
    random = np.random.default_rng(0)
    for stage, count in enumerate(STAGES):
        alone = len(code) > 0 and stage < FIRST_ALONE
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stage)
            for step in range(count):
                for part in optimiser.param_groups:
                    part["lr"] = part["times"] * (RATE + (LAST_RATE - RATE) * step / count)
                y, x = (int(random.integers(0, max(0, side - CROP) + 1)) for side in (height, width))
                square = picture[..., y : y + CROP, x : x + CROP]
                space.soften(soft, code, [part.detach() if alone else part for part in steps])
                whole = squares_bits(soft, square, grey=grey) * (picture.numel() / square.numel())
                price = PRICE * sum(part.abs().sum() for part in steps)
                optimiser.zero_grad(set_to_none=True)
                (whole if alone else whole + price).backward()
                optimiser.step()
        yield [_rounded(code.detach(), MOST_CODE, 0.5), *(_rounded(part.detach(), MOST, DEAD_ZONE) for part in steps)]


def squares_bits(soft: PhotoVAE, squares: Tensor, *, grey: bool = False) -> Tensor:
    """−ELBO of squares [n, 3, h, w], for gradients."""
    squares = squares.contiguous(memory_format=torch.channels_last)
    with _bf16():
        bits, _ = photo_bits(soft, squares, levels=min(4, level_count(*squares.shape[-2:])), grey=grey)
    return torch.stack([part.sum() for part in bits.values()]).sum()


def unrounded(network: PhotoVAE) -> PhotoVAE:
    """The network without rounding, whose steps can be sought."""
    with torch.random.fork_rng(devices=[]):
        soft = cast(PhotoVAE, build(**describe(network)))
    for name, layer in network.named_modules():
        if isinstance(layer, IntConv | IntByteConv):
            parent, _, child = name.rpartition(".")
            reads = cast(Conv, soft.get_submodule(name)).reads
            setattr_child(soft.get_submodule(parent), child, Unrounded(layer, reads))
    return soft


def _rounded(values: Tensor, most: int, dead: float) -> Integers:
    values = torch.where(values.abs() < dead, 0.0, values)
    return values.round().clamp(-most, most).to(torch.int64).numpy()


def _bf16() -> contextlib.AbstractContextManager[Any]:
    """Gradients in bfloat16 where the processor has it."""
    fast = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast("cpu", torch.bfloat16) if fast else contextlib.nullcontext()
