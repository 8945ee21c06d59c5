"""The sheets of a tile as they are seen, in colours with alpha, which is what WebP takes: RGBA and LA in one, and
palettes as their colours.

Icons have alpha where they have edges, and the indices of a palette are in whatever order: taken one by one, sheets
hide from WebP what it is good at. Knows sheets and palettes; refuses to know files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bbans.image.modes import PALETTE, PALETTE_ALPHA
from bbans.image.sheets import Sheet


def to_seen(sheets: Sequence[Sheet], mode: str, attributes: Mapping[str, bytes]) -> Sheet | None:
    """RGBA [h, w, 4] of the sheets of mode LA, RGBA or P, or None where these couldn't be had back."""
    if mode != "P":
        colour, alpha = sheets
        return np.concatenate([np.broadcast_to(colour, (*colour.shape[:2], 3)), alpha], axis=2)
    seen: Sheet = _table(attributes)[sheets[0][:, :, 0]]
    return seen if np.array_equal(from_seen(seen, mode, attributes)[0], sheets[0]) else None


def from_seen(seen: Sheet, mode: str, attributes: Mapping[str, bytes]) -> list[Sheet]:
    """The inverse of `to_seen`. A colour that a palette has several times is the first of them."""
    if mode != "P":
        return [np.ascontiguousarray(seen[:, :, : 1 if mode == "LA" else 3]), np.ascontiguousarray(seen[:, :, 3:])]
    colours, first = np.unique(_table(attributes).view("<u4"), return_index=True)
    at = np.searchsorted(colours, np.ascontiguousarray(seen).view("<u4"))
    return [first.astype(np.uint8)[at.clip(max=len(colours) - 1)]]


def _table(attributes: Mapping[str, bytes]) -> Sheet:
    """RGBA [256, 4] of a palette: where it ends, opaque black."""
    table = np.zeros((256, 4), np.uint8)
    table[:, 3] = 255
    colours = np.frombuffer(attributes[PALETTE], np.uint8).reshape(-1, 3)
    alpha = np.frombuffer(attributes.get(PALETTE_ALPHA, b""), np.uint8)
    table[: len(colours), :3] = colours
    table[: len(alpha), 3] = alpha
    return table
