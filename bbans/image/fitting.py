"""Fitting the last layers of `photo`'s heads to the plane at hand, without a gradient through any network.

Parameters are linear in the features that a last layer reads, so the likelihood of a whole plane is nearly quadratic in
the layer's weights, and a few Newton steps find better ones. A model brings, for the last layer of each phase and
channel of the finest levels, a few directions in which the best weights of pictures differ; a plane has a code for
each, and is coded as p(codes) p(plane | codes). The steps of codes become finer as the root of the number of pixels, as
does what a plane tells of them: a two-part code (Rissanen 1983, "A Universal Prior for Integers and Estimation by
Minimum Description Length"), whose first part takes about a bit for each code.

Codes are integers and are applied in integers; finding them takes real numbers, which no decoder needs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbans.codecs.core import Codec, dependent, substack
from bbans.codecs.discrete import uniform
from bbans.codecs.mixture import WEIGHT_BITS, Mixture
from bbans.codecs.tables import PER_OCTAVE, SCALE_OF_ONE, SCALES, ScaleTables
from bbans.errors import BadModel
from bbans.exact.layers import IntConv
from bbans.exact.tuning import moved
from bbans.vae.likelihoods import MEAN_UNIT, SCALE_MAX, SCALE_MIN, logistic_mixture_slopes
from bbans.vae.phases import PHASES
from bbans.vae.photo import SAMPLES, PhotoVAE
from bbans.zoo import FITS

CONSTANT = 256  # what a bias is multiplied with, as if it were one more feature
FEWEST = 4096  # pixels of a plane that is fitted
STEP = 1.5  # of a code, in standard deviations of what a plane of 4^n pixels leaves uncertain of it; else up to twice
MOST_CODE = 255
SPREADS = 16  # of a plane's codes, against those of the pictures that directions come from; 0: no code but 0
LOGISTIC_SD = math.pi / math.sqrt(3)  # the standard deviation of a logistic of scale 1
SURPLUS = 16  # bits that codes shall save beside what they take: what they save is only known in real numbers
SHARES = (1.0, 0.5, 0.25)  # of a Newton step, tried one after another until one pays
CACHED = 1 << 17  # entries of outer products made at a time, so that they stay in the cache
LEAST_MASS = 1e-9  # as in `logistic_mixture_slopes`
DAMPING = 0.3  # how much of the curvature is what it is in the mean picture, and not what the plane's own slopes say

Integers = NDArray[np.int64]


class Step(NamedTuple):
    """One Newton step. every: it uses each `every`-th pixel; curvature: the most pixels that its curvature is computed
    from, or 0 to reuse that of the previous step."""

    every: int
    curvature: int


@dataclass(frozen=True)
class Search:
    """How an encoder searches for codes. pixels: the most that codes are fitted to, while others decide whether they
    pay; None fits to all pixels of a plane."""

    pixels: int | None
    steps: Sequence[Step]


# The first steps are long and need not be exact. Steps that reuse a curvature take half the time.
QUICK = Search(1 << 13, (Step(2, 3 << 9), Step(1, 3 << 10), Step(1, 0)))
USUAL = Search(1 << 14, (Step(4, 3 << 9), Step(2, 3 << 10), Step(1, 0), Step(1, 0)))
THOROUGH = Search(None, (Step(1, 3 << 10),) * 4)
JUDGES = 1 << 12  # pixels at most that decide


@dataclass(frozen=True)
class Fit:
    """What the last layer of a head can become for one plane.

    directions: int64 [codes, outputs, features + 1], of integer weights, the last of the bias in units of `CONSTANT`,
    in 1/2^digits for a code of 1 in a plane of `FEWEST` pixels. scales: int64 [codes], log2 of the scale of the
    logistic that a code has in such a plane, in 1/`PER_OCTAVE`.
    """

    directions: Integers
    scales: Integers
    digits: int

    def moves(self, codes: Integers, count: int) -> Integers:
        """What the integer weights change by [outputs, features + 1], for a plane of `count` pixels."""
        finer = self.digits + fineness(count)
        total = np.tensordot(codes, self.directions, 1)
        return (total + ((1 << finer) >> 1)) >> finer

    def layer(self, last: IntConv, codes: Integers, count: int) -> IntConv:
        """The last layer for a plane with these codes. Raises `BadModel` when it can't be exact."""
        if not codes.any():
            return last
        changes = torch.from_numpy(self.moves(codes, count))
        return moved(last, changes[:, :-1, None, None], CONSTANT * changes[:, -1])

    def codec(self, tables: ScaleTables, count: int) -> Codec:
        """Of the codes of a plane: their spread, then each."""
        spread = substack(uniform(SPREADS), np.s_[:1])

        def given(chosen: NDArray[Any]) -> Codec:
            if not chosen[0]:
                return Codec(lambda message, x: None, lambda message: np.zeros(len(self.scales), np.int64))
            return self._logistics(tables, count, chosen).row_codec()

        both = dependent(spread, given)

        def push(message: Any, codes: Integers) -> None:
            both.push(message, (np.array([self._spread(tables, count, codes)[0]]), codes))

        def pop(message: Any) -> Integers:
            return np.asarray(both.pop(message)[1], np.int64)

        return Codec(push, pop)

    def bits(self, tables: ScaleTables, count: int, codes: Integers) -> float:
        """What `codec` takes for them."""
        return math.log2(SPREADS) + self._spread(tables, count, codes)[1]

    def _spread(self, tables: ScaleTables, count: int, codes: Integers) -> tuple[int, float]:
        """The one that takes the fewest bits, and how many."""
        if not codes.any():
            return 0, 0.0
        tried = np.arange(1, SPREADS)
        each = self._logistics(tables, count, tried).log2_prob(np.tile(codes, len(tried)))
        bits = -each.reshape(len(tried), -1).sum(1)
        return 1 + int(bits.argmin()), float(bits.min())

    def _logistics(self, tables: ScaleTables, count: int, spreads: NDArray[Any]) -> Mixture:
        """Of the codes with one spread after another."""
        index = SCALE_OF_ONE + self.scales + PER_OCTAVE * fineness(count)
        index = (index + (spreads[:, None] - SPREADS // 2) * PER_OCTAVE // 2).reshape(1, -1)
        weights, means = np.full(index.shape, 1 << WEIGHT_BITS, np.uint32), np.zeros(index.shape, np.int32)
        return Mixture(tables, weights, means, np.clip(index, 0, SCALES - 1).astype(np.int32), -MOST_CODE, MOST_CODE)


def fineness(count: int) -> int:
    """log2 of how many times finer the steps of codes are in a plane of `count` pixels than in one of `FEWEST`."""
    return (count.bit_length() - FEWEST.bit_length()) // 2


@dataclass(frozen=True)
class Fits:
    """The fits of a model. search: how an encoder searches for codes; None sets them all to 0."""

    planes: Mapping[tuple[int, str], Sequence[Fit]] = field(default_factory=dict)
    search: Search | None = USUAL

    @classmethod
    def of(cls, network: PhotoVAE, tensors: Mapping[str, NDArray[Any]], search: Search | None = USUAL) -> Fits:
        """tensors: fits.DEPTH.PHASE.CHANNEL.directions, .scales and .digits, of the network's model. Raises `BadModel`
        when they are of another network."""
        depths = {int(depth) for name in tensors if (depth := f"{name}.".split(".")[1]).isdigit()}
        found = {
            (depth, phase): [_fit(network, tensors, depth, phase, channel) for channel in range(SAMPLES)]
            for depth in depths
            for phase in PHASES
        }
        return cls(found, search)

    def phase(self, depth: int, phase: str, count: int) -> Sequence[Fit]:
        """Of the channels of a phase of `count` pixels; none where it isn't fitted."""
        return self.planes.get((depth, phase), ()) if count >= FEWEST else ()


def _fit(network: PhotoVAE, tensors: Mapping[str, NDArray[Any]], depth: int, phase: str, channel: int) -> Fit:
    name = f"{FITS}{depth}.{phase}.{channel}."
    last = cast(IntConv, network.level(depth).head(phase).out[channel])
    try:
        directions, scales, digits = (tensors[name + part] for part in ("directions", "scales", "digits"))
        wanted = (len(scales), len(last.weight), last.weight.shape[1] + 1)
        kinds = {x.dtype.kind for x in (directions, scales, digits)}
        if scales.ndim != 1 or directions.shape != wanted or kinds != {"i"}:
            raise ValueError("shapes")
        if not 0 <= int(digits[0]) <= 30 or np.abs(scales.astype(np.int64)).max(initial=0) > 1 << 12:
            raise ValueError("magnitudes")
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise BadModel(f"{name}*: directions of last layers that are of another network") from error
    return Fit(directions.astype(np.int64), scales.astype(np.int64), int(digits[0]))


# -- searching ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plane:
    """What is known of the plane of one picture: all [1, ..., h, w].

    features: what the last layer reads; x: the pixels; prediction: what means are relative to; lo, hi: of the pixels.
    """

    features: Tensor
    x: Tensor
    prediction: Tensor
    lo: int
    hi: int

    @property
    def count(self) -> int:
        """Of pixels."""
        return self.x.numel()

    def sample(self, most: int | None, *, other: bool = False) -> Sample:
        """All pixels, or every second, third ... of a row, that there be at most `most`; other: those between."""
        step = -(-self.count // most) if most else 1
        every = slice(step // 2 if other else 0, None, step)
        x, prediction = (x.flatten(2)[..., every] for x in (self.x, self.prediction))
        read = self.features[0].permute(1, 2, 0).flatten(0, 1)[every]  # a pixel's lie side by side
        rows = torch.full((x.numel(), read.shape[1] + 1), float(CONSTANT))
        rows[:, :-1] = read
        return Sample(rows.T, x, prediction, self.lo, self.hi, self.count / x.numel())


@dataclass(frozen=True)
class Sample:
    """Some pixels of a plane: features [features + 1, pixels], with that of the bias; x, prediction: [1, 1, pixels].

    times: how many pixels of the plane each stands for. Matrices are those of `matrix`.
    """

    features: Tensor
    x: Tensor
    prediction: Tensor
    lo: int
    hi: int
    times: float

    def every(self, step: int) -> Sample:
        """Return each `step`-th pixel."""
        if step == 1:
            return self
        x, prediction = (y[..., ::step].contiguous() for y in (self.x, self.prediction))
        times = self.times * self.x.numel() / x.numel()
        return Sample(self.features[:, ::step], x, prediction, self.lo, self.hi, times)

    def nats(self, matrix: Tensor) -> float:
        """−ln p of the plane, as `slopes` has it."""
        logits, means, scales = (matrix @ self.features)[None].chunk(3, 1)
        inverse = torch.exp2(-scales.clamp(SCALE_MIN, SCALE_MAX))
        upper = (self.x - self.prediction + 0.5 - MEAN_UNIT * means).mul_(inverse)
        lower = upper - inverse
        above = upper.sigmoid_().masked_fill_(self.x >= self.hi, 1.0)
        mass = above.sub_(lower.sigmoid_().masked_fill_(self.x <= self.lo, 0.0))
        total = mass.mul_(torch.softmax(logits * math.log(2.0), 1)).sum(1).clamp_min_(LEAST_MASS)
        return -self.times * float(total.log_().sum(dtype=torch.float64))

    def slopes(self, matrix: Tensor) -> tuple[float, Tensor]:
        """−ln p of the plane, and the derivatives of each pixel's by its parameters [parameters, pixels]."""
        params = (matrix @ self.features)[None]
        nats, slopes = logistic_mixture_slopes(params, self.x, self.prediction, self.lo, self.hi)
        return self.times * float(nats.sum(dtype=torch.float64)), slopes[0]


def matrix(last: IntConv) -> Tensor:
    """A last layer as real numbers [parameters, features + 1], without its rounding."""
    bias = (last.bias.float().cpu() - 0.5) / CONSTANT
    unit = torch.exp2(-torch.tensor(last.digits, dtype=torch.float32))
    return torch.cat([last.weight.flatten(1).float().cpu(), bias[:, None]], 1) * unit[:, None]


def find_codes(
    fit: Fit, tables: ScaleTables, last: IntConv, plane: Plane, search: Search | None = USUAL
) -> tuple[Integers, IntConv]:
    """Return the codes that make the plane shortest, zeros if they do not pay, and the last layer that they give."""
    none = np.zeros(len(fit.scales), np.int64)
    if not search:
        return none, last
    seen = plane.sample(search.pixels)
    found = _newton(fit, last, seen, plane.count, search.steps)
    codes = np.clip(np.rint(found), -MOST_CODE, MOST_CODE).astype(np.int64)
    if not codes.any():
        return none, last
    try:
        fitted = fit.layer(last, codes, plane.count)
    except BadModel:
        return none, last
    judges = plane.sample(JUDGES, other=True) if search.pixels else seen
    saved = (judges.nats(matrix(last)) - judges.nats(matrix(fitted))) / math.log(2)
    pays = saved > fit.bits(tables, plane.count, codes) + SURPLUS
    return (codes, fitted) if pays else (none, last)


def _newton(fit: Fit, last: IntConv, seen: Sample, count: int, steps: Sequence[Step]) -> NDArray[np.float64]:
    """Real codes for a plane of `count` pixels.

    The Hessian is that of Berndt, Hall, Hall & Hausman 1974: outer products of the pixels' slopes.
    """
    before = matrix(last)
    # what a code of 1 adds to the matrix
    power = torch.exp2(-last.shift - fit.digits - fineness(count) - torch.tensor(last.digits)).double()
    directions = torch.from_numpy(fit.directions * power[:, None].numpy()).float()
    prior = np.square(LOGISTIC_SD * np.exp2(fit.scales / PER_OCTAVE + fineness(count))) ** -1
    expected = STEP**2 * count / (FEWEST << 2 * fineness(count))  # the mean picture's curvature

    def changed(codes: NDArray[np.float64]) -> tuple[Tensor, float]:
        """The matrix, and what the codes cost."""
        moved = torch.tensordot(torch.from_numpy(codes).float(), directions, 1)
        return before + moved, float(prior @ codes**2) / 2

    codes, curvature = np.zeros(len(fit.scales)), np.zeros((0, 0))
    for step in steps:
        some = seen.every(step.every)
        matrix_now, cost = changed(codes)
        nats, slopes = some.slopes(matrix_now)
        lowest = nats + cost
        by_matrix = (slopes @ some.features.T).double().numpy() * some.times
        slope = np.tensordot(directions.double().numpy(), by_matrix) + prior * codes
        if step.curvature:
            few = slice(None, None, max(1, some.x.numel() // step.curvature))
            found = count * _outer(slopes[:, few], some.features[:, few].contiguous(), directions.flatten(1))
            curvature = (1 - DAMPING) * found + np.diag(DAMPING * expected + prior)
        move = np.linalg.solve(curvature, slope)
        for share in SHARES:
            there, cost = changed(codes - share * move)
            if some.nats(there) + cost < lowest:
                codes = codes - share * move
                break
        else:
            break
    return codes


def _outer(slopes: Tensor, features: Tensor, directions: Tensor) -> NDArray[np.float64]:
    """Return the mean outer product [codes, codes] of the pixels' slopes along directions [codes, outputs * inputs].

    slopes: [outputs, pixels], by the parameters of each pixel; features: [inputs, pixels], which the last layer reads.
    """
    found, block = np.zeros((len(directions), len(directions))), CACHED // directions.shape[1]
    for mine, read in zip(slopes.split(block, 1), features.split(block, 1), strict=True):
        along = directions @ (mine[:, None] * read).flatten(0, 1)
        found += (along @ along.T).double().numpy()
    return found / features.shape[1]
