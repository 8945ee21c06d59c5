"""Pixels of any mode to sheets of 8 bits and back: see `bbans.image.modes`. Knows arrays, nothing of files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbans.image.modes import MODES, SHEET_CHANNELS

Pixels = NDArray[Any]
Sheet = NDArray[np.uint8]


def take_apart(pixels: Pixels, mode: str) -> list[Sheet]:
    """Sheets uint8 [h, w, 1 or 3] of pixels [h, w, c]."""
    kind = MODES[mode]
    layers = [pixels]
    if kind.deep:
        high = pixels >> 8
        layers = [high, (pixels - high) & 255]
    ends = np.cumsum([SHEET_CHANNELS[sheet] for sheet in kind.first])[:-1]
    return [np.ascontiguousarray(sheet, dtype=np.uint8) for layer in layers for sheet in np.split(layer, ends, axis=2)]


def put_together(sheets: Sequence[Sheet], mode: str) -> Pixels:
    """The inverse of `take_apart`."""
    kind = MODES[mode]
    half = len(kind.first)
    high = sheets[0] if half == 1 else np.concatenate(sheets[:half], axis=2)
    if not kind.deep:
        return high
    low = np.concatenate(sheets[half:], axis=2) + high  # modulo 256
    return (high.astype(np.uint16) << 8) | low
