"""Distributions over the unit square whose entropy is known: eight normals, a checkerboard, two spirals.

Each draws points float64 [n, 2] and tells their log2-density; `pixels` puts them on a grid, which is what models code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Random = np.random.Generator

DEPTH = 12  # bits of a coordinate
# log2(8 x 2 pi e SIGMA^2) would be -1.912, but for what normals lose at the edges of the square and to one another
CENTRES_RADIUS, SIGMA = 0.38, 0.0441
CELLS = 4  # of the checkerboard, on each side
BEGIN, END, REACH = 0.5 * math.pi, 3 * math.pi, 0.43  # of each spiral: angles, and its radius at the last
SPIRALS_AREA = 2**-2.34


@dataclass(frozen=True)
class Toy:
    """entropy: in bits, of what draw(count, random) draws; log2_density: of points, -inf where none are."""

    name: str
    entropy: float
    draw: Callable[[int, Random], Points]
    log2_density: Callable[[Points], Points]

    def pixels(self, count: int, random: Random) -> NDArray[np.int32]:
        """[count, 1, 2, 1], on the grid."""
        return on_grid(self.draw(count, random))


def on_grid(points: Points) -> NDArray[np.int32]:
    """Points of the unit square as pictures of two samples."""
    return np.floor(points * (1 << DEPTH)).astype(np.int32).reshape(-1, 1, 2, 1)


def lattice(side: int) -> Points:
    """The middles of side x side squares, [side^2, 2], row after row, the second coordinate growing with the rows."""
    at = (np.arange(side) + 0.5) / side
    return np.stack([np.tile(at, side), np.repeat(at, side)], 1)


# -- eight normals on a circle, cut at the square ----------------------------------------------------------------------

_ANGLES = (np.arange(8) + 0.5) * math.pi / 4
CENTRES: Points = 0.5 + CENTRES_RADIUS * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], 1)


def _draw_normals(count: int, random: Random) -> Points:
    def some() -> Points:
        return CENTRES[random.integers(0, 8, count)] + SIGMA * random.standard_normal((count, 2))

    points = some()
    while (outside := ((points < 0) | (points >= 1)).any(1)).any():
        points[outside] = some()[outside]
    return points


def _density_of_normals(points: Points) -> Points:
    square = ((points[:, None] - CENTRES) ** 2).sum(2)
    return np.exp(-square / (2 * SIGMA**2)).sum(1) / (8 * 2 * math.pi * SIGMA**2)


def _log2_of_normals(points: Points) -> Points:
    return np.log2(_density_of_normals(points) / _MASS_INSIDE)


_FINE = lattice(1000)
_MASS_INSIDE = float(_density_of_normals(_FINE).mean())


def _entropy_of_normals() -> float:
    """By the midpoint rule, which is exact to all digits shown: the density is smooth, and a step is SIGMA / 44."""
    log2 = _log2_of_normals(_FINE)
    return float(-(np.exp2(log2) * log2).mean())


# -- the checkerboard --------------------------------------------------------------------------------------------------


def _draw_checkerboard(count: int, random: Random) -> Points:
    row = random.integers(0, CELLS, count)
    column = 2 * random.integers(0, CELLS // 2, count) + row % 2
    return (np.stack([column, row], 1) + random.random((count, 2))) / CELLS


def _log2_of_checkerboard(points: Points) -> Points:
    column, row = np.floor(points * CELLS).astype(int).T
    return np.where((row + column) % 2 == 0, 1.0, -np.inf)


# -- two spirals -------------------------------------------------------------------------------------------------------
# A band: angles t in BEGIN..END, radii within WIDTH / 2 of c(t) = t REACH / END. Its area is the integral of c WIDTH.

_TURN = REACH / END
WIDTH = SPIRALS_AREA / 2 / (_TURN * (END**2 - BEGIN**2) / 2)


def _draw_spirals(count: int, random: Random) -> Points:
    """Uniform: t has a density that grows as c does, and r given t one that grows as r does."""
    t = np.sqrt(BEGIN**2 + random.random(count) * (END**2 - BEGIN**2))
    lower, upper = (_TURN * t - WIDTH / 2) ** 2, (_TURN * t + WIDTH / 2) ** 2
    r = np.sqrt(lower + random.random(count) * (upper - lower)) * random.choice([-1.0, 1.0], count)
    return 0.5 + np.stack([r * np.cos(t), r * np.sin(t)], 1)


def _log2_of_spirals(points: Points) -> Points:
    x, y = (points - 0.5).T
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    inside = np.zeros(len(points), bool)
    for half_turns in range(-1, math.ceil(END / math.pi) + 1):  # an odd number is on the other spiral
        t = angle + half_turns * math.pi
        inside |= (t >= BEGIN) & (t <= END) & (np.abs(r - _TURN * t) <= WIDTH / 2)
    return np.where(inside, -math.log2(SPIRALS_AREA), -np.inf)


TOYS = (
    Toy("8 normals", _entropy_of_normals(), _draw_normals, _log2_of_normals),
    Toy("checkerboard", -1.0, _draw_checkerboard, _log2_of_checkerboard),
    Toy("2 spirals", math.log2(SPIRALS_AREA), _draw_spirals, _log2_of_spirals),
)
