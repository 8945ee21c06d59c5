"""Contact sheets: many small pictures of one size side by side, to be looked at. Knows arrays, nothing of models."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

GAP, GREY = 2, 128  # between pictures: its width, and its value in all channels
SHOWN = 96  # pictures with a smaller side are enlarged up to this
LARGEST = 1 << 12  # side of a sheet beyond which nothing is enlarged


def contact_sheet(pictures: NDArray[Any]) -> NDArray[np.uint8]:
    """One picture [h, w, 1 or 3] of pictures [n, h, w, 1 or 3], uint8 or bool, in rows from the top left.

    The sheet is about as high as wide. Small pictures are enlarged by a whole number, each pixel to a square.
    """
    count, height, width, channels = pictures.shape
    columns = min(count, max(1, round(math.sqrt(count * height / width))))
    rows = -(-count // columns)
    times = max(1, min(SHOWN // max(height, width), LARGEST // max(rows * height, columns * width)))
    values = 255 * pictures.astype(np.uint8) if pictures.dtype == np.bool_ else pictures
    values = values.repeat(times, 1).repeat(times, 2)
    step_down, step_right = times * height + GAP, times * width + GAP
    sheet = np.full((rows * step_down + GAP, columns * step_right + GAP, channels), GREY, np.uint8)
    for i, picture in enumerate(values):
        y, x = GAP + i // columns * step_down, GAP + i % columns * step_right
        sheet[y : y + times * height, x : x + times * width] = picture
    return sheet
