from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbans.errors import BbansError
from bbans.image.container import tile_grid
from bbans.image.view import ALL, MOST_LEVELS, View


@st.composite
def viewed(draw: st.DrawFn) -> tuple[View, int, int, int]:
    """A view, and width, height and tiles of a picture that has it, or a region too small for its preview."""
    width, height, preview = draw(st.integers(1, 60)), draw(st.integers(1, 60)), draw(st.integers(0, 3))
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    region = x, y, draw(st.integers(1, width - x)), draw(st.integers(1, height - y))
    return View(draw(st.sampled_from([None, region])), preview), width, height, draw(st.sampled_from([0, 8, 24]))


@given(viewed())
def test_what_is_seen_of_tiles_is_the_view(given: tuple[View, int, int, int]) -> None:
    view, width, height, side = given
    x, y, w, h = view.region or (0, 0, width, height)
    numbers = np.arange(height * width).reshape(height, width)
    seen = np.zeros((height, width), bool)
    seen[:: view.step, :: view.step] = True
    wanted = numbers[y : y + h, x : x + w][seen[y : y + h, x : x + w]]
    if not wanted.size:
        with pytest.raises(BbansError, match="nothing to see"):
            view.check(width, height, side)
        return
    view.check(width, height, side)
    columns, rows = view.size(width, height)
    out = np.full((rows, columns), -1)
    for tile in tile_grid(width, height, side):
        if parts := view.of_tile(tile):
            left, top, wide, high = tile
            its = numbers[top : top + high, left : left + wide][:: view.step, :: view.step]
            out[parts[0]] = its[parts[1]]
    np.testing.assert_array_equal(out.ravel(), wanted)


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (View((0, 0, 41, 30)), "has no region 0,0,41,30: it has 40 x 30 pixels"),
        (View((39, 29, 2, 1)), "no region"),
        (View((-1, 0, 2, 2)), "no region"),
        (View((0, 0, 0, 2)), "no region"),
        (View(preview=-1), "no preview"),
        (View(preview=MOST_LEVELS + 1), "no preview"),
        (View(preview=4), "its tiles have 24 pixels a side"),
        (View((1, 1, 3, 3), preview=2), "nothing to see"),
    ],
)
def test_impossible_views(view: View, words: str) -> None:
    with pytest.raises(BbansError, match=words):
        view.check(40, 30, 24)


def test_all_is_all() -> None:
    ALL.check(40, 30, 24)
    assert ALL.size(40, 30) == (40, 30) and View(preview=10).size(40, 30) == (1, 1)
