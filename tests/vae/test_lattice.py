from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bbans.vae import lattice

SIDES = st.integers(1, 7)


def random_map(h: int, w: int, seed: int = 0) -> Tensor:
    return torch.randint(-255, 256, (2, 3, h, w), generator=torch.Generator().manual_seed(seed))


# -- colour ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("colour", lattice.COLOURS)
@given(pixels=st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=30))
def test_colours_come_back_and_stay_in_range(colour: str, pixels: list[tuple[int, int, int]]) -> None:
    sampling = lattice.Sampling(colour=colour)
    rgb = torch.tensor(pixels, dtype=torch.uint8)[None, None]
    planes = sampling.planes(rgb)
    assert torch.equal(sampling.pixels(planes, 3), rgb)
    for channel in range(3):
        coded, (lo, hi) = planes[:, channel] + sampling.base(channel, planes[:, 0]), sampling.range(channel)
        assert lo <= coded.min() and coded.max() <= hi


@pytest.mark.parametrize("colour", lattice.COLOURS)
def test_grey_is_the_first_channel(colour: str) -> None:
    sampling = lattice.Sampling(colour=colour)
    grey = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1)
    planes = sampling.planes(grey)
    assert torch.equal(sampling.planes(grey.repeat(1, 1, 1, 3)), planes) and torch.equal(
        sampling.pixels(planes, 1), grey
    )
    assert torch.equal(planes[0, 0], grey[0, :, :, 0].int()) and not planes[:, 1:].any()


def test_colour_by_hand() -> None:
    red = torch.tensor([255, 0, 0]).reshape(1, 1, 1, 3)
    assert lattice.Sampling(colour="YCoCg-R").planes(red).flatten().tolist() == [63, 255, -127]
    assert lattice.Sampling(colour="G, R-G, B-G").planes(red).flatten().tolist() == [0, 255, 0]


# -- phases ----------------------------------------------------------------------------------------------------------


def test_the_four_phases() -> None:
    x = torch.arange(9).reshape(1, 1, 3, 3)
    c, d, b, e = (phase.flatten().tolist() for phase in lattice.split(x))
    assert (c, d, b, e) == ([0, 2, 6, 8], [4], [1, 7], [3, 5])


@given(SIDES, SIDES)
def test_phases_are_views_that_make_up_the_picture(h: int, w: int) -> None:
    x = random_map(h, w)
    again = torch.full_like(x, 999)
    for phase, values in zip(lattice.split(again), lattice.split(x), strict=True):
        phase.copy_(values)
    assert torch.equal(again, x)


def test_what_a_phase_lacks_is_taken_from_c() -> None:
    c = random_map(3, 3)
    full = lattice.fill(random_map(2, 3, seed=1), c)
    assert torch.equal(full[..., :2, :], random_map(2, 3, seed=1)) and torch.equal(full[..., 2, :], c[..., 2, :])
    assert lattice.fill(full, c) is full
    assert torch.equal(c, random_map(3, 3))


# -- predictions: slowly, from the picture, its border repeated ------------------------------------------------------

NEIGHBOURS = {
    "d": [(-1, -1), (-1, 1), (1, -1), (1, 1)],
    "b": [(0, -1), (0, 1), (-1, 0), (1, 0)],
    "e": [(-1, 0), (1, 0), (0, -1), (0, 1)],
}
CORNERS = {"d": (1, 1), "b": (0, 1), "e": (1, 0)}


def slow_prediction(x: np.ndarray, phase: str) -> np.ndarray:
    """Four times the mean of the neighbours, in a picture of even sizes; beyond the border lies the pixel of the same
    phase that is nearest."""
    h, w = x.shape
    out = np.zeros((h // 2, w // 2), int)
    for i in range(h // 2):
        for j in range(w // 2):
            for dy, dx in NEIGHBOURS[phase]:
                row, column = 2 * i + CORNERS[phase][0] + dy, 2 * j + CORNERS[phase][1] + dx
                row += 2 * (row < 0) - 2 * (row >= h)
                column += 2 * (column < 0) - 2 * (column >= w)
                out[i, j] += x[row, column]
    return out


@pytest.mark.parametrize("size", [(2, 2), (2, 8), (6, 2), (8, 10)])
def test_predictions_are_the_means_of_the_neighbours(size: tuple[int, int]) -> None:
    x = random_map(*size)
    c, d, _, _ = lattice.split(x)
    predicted = {"d": lattice.predict_d(c), "b": lattice.predict_b(c, d), "e": lattice.predict_e(c, d)}
    for phase, values in predicted.items():
        np.testing.assert_array_equal(values[1, 2], slow_prediction(x[1, 2].numpy(), phase))


def test_a_ramp_is_predicted_exactly_inside() -> None:
    x = (3 * torch.arange(12)[:, None] + 5 * torch.arange(12)).expand(1, 1, 12, 12)
    c, d, b, e = lattice.split(x)
    inside = np.s_[..., 1:-1, 1:-1]
    for values, predicted in (
        (d, lattice.predict_d(c)),
        (b, lattice.predict_b(c, d)),
        (e, lattice.predict_e(c, d)),
    ):
        assert not lattice.residual(values, predicted)[inside].any()


def test_residuals_are_in_quarters_and_clipped() -> None:
    x, prediction = torch.tensor([10, 255, -255]), torch.tensor([37, -1020, 1020])
    assert lattice.residual(x, prediction).tolist() == [3, 1023, -1023]


def test_networks_see_c_centred_and_its_residual() -> None:
    c = random_map(3, 4)
    before, prediction = c.clone(), lattice.predict_d(c)
    seen = lattice.inputs_c(c, prediction)
    assert torch.equal(c, before)
    assert torch.equal(seen[:, 0], c[:, 0] - 128) and torch.equal(seen[:, 1:3], c[:, 1:])
    assert torch.equal(seen[:, 3:], lattice.residual(c, prediction))
