"""Where the bits go: how many a model's likelihood takes for each pixel.

A level adds three pixels to each one of the next coarser level, and their bits are spread over all four, that is, over
2^level x 2^level pixels of the whole (level 1 is the finest). Bits of latents, of what is fitted, and of the container
belong to no pixel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bbans.errors import BadImage, BbansError
from bbans.image import container
from bbans.image.modes import MODES
from bbans.image.picture import Picture
from bbans.image.sheets import Sheet, take_apart

if TYPE_CHECKING:
    from bbans.zoo import Model

Map = NDArray[np.float64]


def bits_of(picture: Picture, model: Model) -> Map:
    """Bits [h, w] of each pixel, of all sheets that the model takes. Raises `BadImage` when it takes none."""
    from bbans.image.codec import takes

    container.check_size(picture.width, picture.height)
    side = container.tile_side(picture.width, picture.height)
    total = np.zeros((picture.height, picture.width))
    taken = 0
    sheets = zip(take_apart(picture.pixels, picture.mode), MODES[picture.mode].sheets, strict=True)
    for sheet, mode in sheets:
        for x, y, w, h in container.tile_grid(picture.width, picture.height, side):
            if takes(model, h, w, mode):
                tile = np.ascontiguousarray(sheet[y : y + h, x : x + w])
                total[y : y + h, x : x + w] += _of_tile(tile, model)
                taken += 1
    if not taken:
        raise BadImage(f"the model {model.name} takes nothing of a picture of mode {picture.mode} and this size")
    return total


def _of_tile(tile: Sheet, model: Model) -> Map:
    from bbans.image.codec import watch_tile
    from bbans.image.planes import TOP

    height, width, _ = tile.shape
    total = np.zeros((height, width))

    def watch(depth: int, phase: str, bits: Map) -> None:
        side = 1 << depth if phase == TOP else 2 << depth
        spread = bits[0].repeat(side, 0)[:height].repeat(side, 1)[:, :width] / side**2
        total[: spread.shape[0], : spread.shape[1]] += spread

    watch_tile(model, tile, watch)
    return total


def draw(bits: Map, file: BinaryIO, kind: str, title: str) -> None:
    """Write a picture of the map with its scale: "png", "svg" or "pdf". Raises `BbansError` without matplotlib."""
    try:
        import matplotlib
    except ImportError as error:
        raise BbansError("a heatmap needs matplotlib: pip install 'bbans[plots]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    height, width = bits.shape
    scale = max(1.0, 1200 / max(width, height))
    figure, axes = pyplot.subplots(
        figsize=(width * scale / 100 + 1.5, height * scale / 100 + 0.5), layout="constrained"
    )
    shown = axes.imshow(bits, cmap="inferno", vmin=0, vmax=float(np.quantile(bits, 0.995)) or 1.0)
    axes.set_axis_off()
    axes.set_title(title, fontsize=9)
    figure.colorbar(shown, ax=axes, label="bits per pixel", shrink=0.8, extend="max")
    figure.savefig(file, format=kind, dpi=100)
    pyplot.close(figure)
