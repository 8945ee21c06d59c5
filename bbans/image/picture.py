"""A picture to the bytes of a file and back: cuts tiles, has each coded by the model, adds header and checksums.

Knows arrays and the container; refuses to know image files (`bbans.image.files`), and how a tile is coded
(`bbans.image.codec`, which is only imported when there is something to code, because that takes seconds).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bbans.errors import BadFile, BadImage, DecodedDiffers, OutOfBits
from bbans.image import container
from bbans.image import effort as effort_levels
from bbans.image.container import CHANNELS, Header, Tile, checksum

if TYPE_CHECKING:
    from bbans.zoo import Model

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Picture:
    """Pixels uint8 [h, w, c]: c = 1 for the modes L and "1", whose values are 0 and 1, and 3 for RGB.

    Raises `BadImage` when they aren't.
    """

    pixels: Pixels
    mode: str

    def __post_init__(self) -> None:
        if self.mode not in CHANNELS:
            raise BadImage(f"mode {self.mode} is not supported; bbans takes {' and '.join(CHANNELS)}")
        pixels = self.pixels
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != CHANNELS[self.mode]:
            raise BadImage(f"{pixels.dtype} {list(pixels.shape)} are no pixels of mode {self.mode}")
        if not pixels.size:
            raise BadImage("has no pixels")
        if self.mode == "1" and pixels.max() > 1:
            raise BadImage("has other values than 0 and 1, but mode 1")

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        return self.pixels.shape[0]


@dataclass(frozen=True)
class Report:
    """Where the bits of a file went, over all tiles. In bits; `dims` is the number of samples.

    elbo: what the model's probabilities ask for, None if it wasn't asked for; net: growth of the message; initial:
    padding that had to be brought in; container: header, checksums and the rest; total: the file.
    """

    dims: int
    net: float
    initial: float
    elbo: float | None
    total: int

    @property
    def container(self) -> float:
        return self.total - self.net - self.initial

    def per_dim(self) -> dict[str, float | None]:
        """elbo, net, initial, container and total in bits per dim."""
        bits = {
            "elbo": self.elbo,
            "net": self.net,
            "initial": self.initial,
            "container": self.container,
            "total": float(self.total),
        }
        return {word: None if value is None else value / self.dims for word, value in bits.items()}


def compress_picture(
    picture: Picture, model: Model, *, want_elbo: bool = False, effort: int = effort_levels.DEFAULT
) -> tuple[bytes, Report]:
    """The bytes of a .bbans file. `want_elbo` also has the −ELBO computed, which takes time; so does more effort.

    Raises `TooLarge`, and `BadImage` when the model takes no such pictures.
    """
    from bbans.image.codec import encode_tile, takes

    width, height = picture.width, picture.height
    container.check_size(width, height)
    if not takes(model, height, width, picture.mode):
        what = f"{width} x {height} of mode {picture.mode}"
        raise BadImage(
            f"the model {model.name} takes no pictures of {what}; -m names another, `bbans models` lists them"
        )
    side = container.tile_side(width, height)
    tiles, payloads, stats = [], [], []
    for y, x, h, w in container.tile_grid(width, height, side):
        pixels = np.ascontiguousarray(picture.pixels[y : y + h, x : x + w])
        payload, stat = encode_tile(model, pixels, want_elbo=want_elbo, effort=effort)
        tiles.append(Tile(len(payload), checksum(payload), checksum(pixels)))
        payloads.append(payload)
        stats.append(stat)
    header = Header(picture.mode, width, height, model.id, side, tuple(tiles))
    data = container.join(header, payloads)
    elbos = [stat.elbo for stat in stats if stat.elbo is not None]
    report = Report(
        dims=sum(stat.dims for stat in stats),
        net=sum(stat.net for stat in stats),
        initial=sum(stat.initial for stat in stats),
        elbo=sum(elbos) if len(elbos) == len(stats) else None,
        total=8 * len(data),
    )
    return data, report


def decompress_picture(data: bytes, models: Callable[[bytes], Model]) -> Picture:
    """The picture in a .bbans file. `models` finds the model with an id, or raises `ModelMissing`.

    Raises `BadFile` when the file is damaged, and `DecodedDiffers` when it is whole and yet other pixels come out.
    """
    from bbans.image.codec import decode_tile, takes

    header = Header.parse(data)
    payloads = list(container.payloads(header, data))  # all checksums before the slow part
    model = models(header.model_id)
    grid = container.tile_grid(header.width, header.height, header.tile)
    if not all(takes(model, h, w, header.mode) for _, _, h, w in grid):
        raise BadFile(f"names the model {model.name}, which codes no such pictures")
    pixels = np.empty((header.height, header.width, header.channels), np.uint8)
    for (y, x, h, w), tile, payload in zip(grid, header.tiles, payloads, strict=True):
        try:
            decoded = decode_tile(model, payload, h, w, header.channels)
        except (BadFile, OutOfBits) as error:
            # The payload is what was written: it is the arithmetic that went astray.
            raise _differs() from error
        if decoded.shape != (h, w, header.channels) or checksum(np.ascontiguousarray(decoded)) != tile.pixels_sum:
            raise _differs()
        pixels[y : y + h, x : x + w] = decoded
    return Picture(pixels, header.mode)


def verify_picture(data: bytes, picture: Picture, models: Callable[[bytes], Model]) -> None:
    """Raises a `BbansError` unless the bytes of a .bbans file hold that picture."""
    decoded = decompress_picture(data, models)
    if decoded.mode != picture.mode or not np.array_equal(decoded.pixels, picture.pixels):
        raise _differs()


def _differs() -> DecodedDiffers:
    return DecodedDiffers(
        "decodes to other pixels than were encoded, though the file is undamaged: "
        "this machine computes differently from the one that wrote the file"
    )
