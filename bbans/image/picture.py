"""A picture to the bytes of a file and back: takes it apart into tiles and sheets, chooses what codes each, adds header
and checksums.

Knows arrays and the container; refuses to know image files (`bbans.image.files`), and how a sheet is coded: by a model
(`bbans.image.codec`, which is only imported when there is something to code, because that takes seconds) or by a
library (`bbans.image.libraries`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bbans.errors import BadFile, BadImage, DecodedDiffers, OutOfBits
from bbans.image import container, libraries
from bbans.image import effort as effort_levels
from bbans.image.container import MODEL, NO_MODEL, RAW, WEBP, Header, Piece, checksum
from bbans.image.modes import MODES, PALETTE, PALETTE_ALPHA, SHEET_CHANNELS
from bbans.image.sheets import Pixels, Sheet, put_together, take_apart

if TYPE_CHECKING:
    from bbans.zoo import Model


@dataclass(frozen=True, eq=False)
class Picture:
    """Pixels [h, w, c] of a mode of `bbans.image.modes`, and attributes: what else the file holds.

    Raises `BadImage` when they don't fit one another.
    """

    pixels: Pixels
    mode: str
    attributes: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise BadImage(f"mode {self.mode} is not supported; bbans takes {', '.join(MODES)}")
        pixels, mode = self.pixels, MODES[self.mode]
        if pixels.dtype != mode.dtype or pixels.ndim != 3 or pixels.shape[2] != mode.channels:
            raise BadImage(f"{pixels.dtype} {list(pixels.shape)} are no pixels of mode {self.mode}")
        if not pixels.size:
            raise BadImage("has no pixels")
        if self.mode == "1" and pixels.max() > 1:
            raise BadImage("has other values than 0 and 1, but mode 1")
        colours = len(self.attributes.get(PALETTE, b""))
        if (self.mode == "P") != (PALETTE in self.attributes) or colours % 3 or colours > 768:
            raise BadImage("has no palette of up to 256 colours")
        if len(self.attributes.get(PALETTE_ALPHA, b"")) > colours // 3:
            raise BadImage("has transparent colours that are not in its palette")

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


@dataclass(frozen=True)
class _Coded:
    """A sheet that is coded. In bits: net, initial and elbo, as in `Report`; of a library's, what its bytes are."""

    method: int
    payload: bytes
    samples_sum: int
    net: float
    initial: float
    elbo: float | None

    @classmethod
    def by_library(cls, method: int, payload: bytes, sheet: Sheet) -> _Coded:
        bits = 8.0 * len(payload)
        return cls(method, payload, checksum(sheet), bits, 0.0, bits)

    @property
    def piece(self) -> Piece:
        return Piece(len(self.payload), checksum(self.payload), self.samples_sum, self.method)


def compress_picture(
    picture: Picture,
    model: Model,
    *,
    want_elbo: bool = False,
    effort: int = effort_levels.DEFAULT,
    by_model: bool = False,
) -> tuple[bytes, Report]:
    """The bytes of a .bbans file. `want_elbo` also has the −ELBO computed, which takes time; so does more effort.

    Each sheet of each tile is coded by the model, by WebP or not at all, whichever is smallest; WebP is only tried on
    what may be no photograph, and a sheet that it does well with is given no other chance. by_model: what the model
    takes is coded by it, even if that is larger. Raises `TooLarge`, and `BadImage` when the model takes no such picture
    of mode L or RGB.
    """
    from bbans.image.codec import takes

    width, height = picture.width, picture.height
    container.check_size(width, height)
    if picture.mode in ("L", "RGB") and not takes(model, height, width, picture.mode):
        what = f"{width} x {height} of mode {picture.mode}"
        raise BadImage(
            f"the model {model.name} takes no pictures of {what}; -m names another, `bbans models` lists them"
        )
    names = MODES[picture.mode].sheets
    sheets = take_apart(picture.pixels, picture.mode)

    def coded(sheets: list[Sheet]) -> list[_Coded]:
        both = zip(sheets, names, strict=True)
        options: dict[str, Any] = {"want_elbo": want_elbo, "effort": effort, "by_model": by_model}
        return [_smallest(sheet, mode, model, **options) for sheet, mode in both]

    side = container.tile_side(width, height)
    whole = _whole(sheets, names) if side and not by_model else None
    if whole is not None and 8 * sum(len(one.payload) for one in whole) <= libraries.PLAIN * picture.pixels.size:
        side, made = 0, whole
    else:
        grid = container.tile_grid(width, height, side)
        made = [one for y, x, h, w in grid for one in coded([_cut(sheet, y, x, h, w) for sheet in sheets])]
        if whole is not None and sum(len(one.payload) for one in whole) < sum(len(one.payload) for one in made):
            side, made = 0, whole
    used = model.id if any(one.method == MODEL for one in made) else NO_MODEL
    header = Header(picture.mode, width, height, side, tuple(one.piece for one in made), used, picture.attributes)
    data = container.join(header, [one.payload for one in made])
    elbos = [one.elbo for one in made if one.elbo is not None]
    report = Report(
        dims=picture.pixels.size,
        net=sum(one.net for one in made),
        initial=sum(one.initial for one in made),
        elbo=sum(elbos) if len(elbos) == len(made) and want_elbo else None,
        total=8 * len(data),
    )
    return data, report


def _smallest(sheet: Sheet, mode: str, model: Model, *, want_elbo: bool, effort: int, by_model: bool) -> _Coded:
    """The sheet of a tile, by what makes it smallest."""
    from bbans.image.codec import encode_tile, takes

    height, width, _ = sheet.shape
    made: list[_Coded] = []
    modelled = takes(model, height, width, mode)
    if not modelled or (not by_model and libraries.looks_synthetic(sheet)):
        webp = libraries.to_webp(_full(sheet, mode))
        made += [] if webp is None else [_Coded.by_library(WEBP, webp, sheet)]
        modelled = modelled and (webp is None or 8 * len(webp) > libraries.PLAIN * sheet.size)
    if modelled:
        payload, stats = encode_tile(model, sheet, want_elbo=want_elbo, effort=effort)
        made.append(_Coded(MODEL, payload, checksum(sheet), stats.net, stats.initial, stats.elbo))
        if by_model:
            return made[-1]
    if not made or min(len(one.payload) for one in made) >= libraries.raw_size(sheet, mode):
        made.append(_Coded.by_library(RAW, libraries.to_raw(sheet, mode), sheet))
    return min(made, key=lambda one: len(one.payload))


def _whole(sheets: list[Sheet], names: tuple[str, ...]) -> list[_Coded] | None:
    """All sheets by WebP in one piece, if they may be no photograph."""
    if not all(map(libraries.looks_synthetic, sheets)):
        return None
    payloads = [libraries.to_webp(_full(sheet, mode)) for sheet, mode in zip(sheets, names, strict=True)]
    both = zip(payloads, sheets, strict=True)
    made = [_Coded.by_library(WEBP, payload, sheet) for payload, sheet in both if payload is not None]
    return made if len(made) == len(sheets) else None


def _cut(sheet: Sheet, y: int, x: int, height: int, width: int) -> Sheet:
    return np.ascontiguousarray(sheet[y : y + height, x : x + width])


def _full(sheet: Sheet, mode: str) -> Sheet:
    """Of mode 1, 0 and 255."""
    return sheet * np.uint8(255) if mode == "1" else sheet


def decompress_picture(data: bytes, models: Callable[[bytes], Model]) -> Picture:
    """The picture in a .bbans file. `models` finds the model with an id, or raises `ModelMissing`.

    Raises `BadFile` when the file is damaged, and `DecodedDiffers` when it is whole and yet other pixels come out.
    """
    header = Header.parse(data)
    payloads = list(container.payloads(header, data))  # all checksums before the slow part
    model = models(header.model_id) if header.model_id != NO_MODEL else None
    grid = container.tile_grid(header.width, header.height, header.tile)
    if model is not None:
        _check_takes(model, header, grid)
    shape = (header.height, header.width)
    sheets = [np.empty((*shape, SHEET_CHANNELS[mode]), np.uint8) for mode in header.sheets]
    pieces = zip(header.pieces, payloads, strict=True)
    for y, x, h, w in grid:
        for sheet, mode in zip(sheets, header.sheets, strict=True):
            piece, payload = next(pieces)
            sheet[y : y + h, x : x + w] = _decoded(piece, payload, model, (h, w, sheet.shape[2]), mode)
    attributes = header.attributes
    try:
        return Picture(put_together(sheets, header.mode), header.mode, attributes)
    except BadImage as error:
        raise BadFile(f"is of no bbans: {error}") from error


def _check_takes(model: Model, header: Header, grid: list[tuple[int, int, int, int]]) -> None:
    """Raises `BadFile` when the model can't have coded what it is said to have coded."""
    from bbans.image.codec import takes

    pieces = iter(header.pieces)
    for _, _, h, w in grid:
        for mode in header.sheets:
            if next(pieces).method == MODEL and (h * w > container.MOST_TILE or not takes(model, h, w, mode)):
                raise BadFile(f"names the model {model.name}, which codes no such pictures")


def _decoded(piece: Piece, payload: bytes, model: Model | None, shape: tuple[int, int, int], mode: str) -> Sheet:
    """Raises `BadFile`, `DecodedDiffers`."""
    if piece.method == WEBP:
        decoded = libraries.from_webp(payload, *shape)
        if mode == "1":
            decoded = decoded >> np.uint8(7)
    elif piece.method == RAW:
        decoded = libraries.from_raw(payload, *shape, mode)
    else:
        from bbans.image.codec import decode_tile

        assert model is not None
        try:
            decoded = decode_tile(model, payload, *shape)
        except (BadFile, OutOfBits) as error:
            # The payload is what was written: it is the arithmetic that went astray.
            raise _differs() from error
    if decoded.shape != shape or checksum(np.ascontiguousarray(decoded)) != piece.samples_sum:
        raise _differs()
    return decoded


def verify_picture(data: bytes, picture: Picture, models: Callable[[bytes], Model]) -> None:
    """Raises a `BbansError` unless the bytes of a .bbans file hold that picture."""
    decoded = decompress_picture(data, models)
    if (decoded.mode, decoded.attributes) != (picture.mode, picture.attributes):
        raise _differs()
    if not np.array_equal(decoded.pixels, picture.pixels):
        raise _differs()


def _differs() -> DecodedDiffers:
    return DecodedDiffers(
        "decodes to other pixels than were encoded, though the file is undamaged: "
        "this machine computes differently from the one that wrote the file"
    )
