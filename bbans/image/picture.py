"""A picture to the bytes of a file and back: takes it apart into tiles and sheets, chooses what codes each, adds header
and checksums.

Knows arrays and the container; refuses to know image files (`bbans.image.files`), and how a sheet is coded: by a model
(`bbans.image.codec`, which is only imported when there is something to code, because that takes seconds) or by a
library (`bbans.image.libraries`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bbans.errors import BadFile, BadImage, DecodedDiffers, OutOfBits
from bbans.image import container, libraries
from bbans.image import effort as effort_levels
from bbans.image.container import MODEL, NO_MODEL, RAW, TOGETHER, WEBP, Header, Piece, checksum
from bbans.image.modes import MODES, PALETTE, PALETTE_ALPHA, SHEET_CHANNELS
from bbans.image.seen import from_seen, to_seen
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
        check_palette(self.mode, self.attributes)

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        return self.pixels.shape[0]


def check_palette(mode: str, attributes: Mapping[str, bytes]) -> None:
    """Raises `BadImage` unless the attributes have a palette where the mode has one."""
    colours = len(attributes.get(PALETTE, b""))
    if (mode == "P") != (PALETTE in attributes) or colours % 3 or colours > 768:
        raise BadImage("has no palette of up to 256 colours")
    if len(attributes.get(PALETTE_ALPHA, b"")) > colours // 3:
        raise BadImage("has transparent colours that are not in its palette")


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

    Each sheet of each tile is coded by the model, by WebP or not at all, or all sheets of a tile by WebP together,
    whichever is smallest; WebP is only tried on what may be no photograph, and a sheet that it does well with is given
    no other chance. by_model: what the model
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
        made = [_smallest(sheet, mode, model, **options) for sheet, mode in both]
        return made if by_model else _shorter(made, _together(sheets, picture))

    side = container.tile_side(width, height)
    whole = _whole(sheets, picture) if side and not by_model else None
    if whole is not None and 8 * _bytes(whole) <= libraries.PLAIN * picture.pixels.size:
        side, made = 0, whole
    else:
        grid = container.tile_grid(width, height, side)
        made = [one for y, x, h, w in grid for one in coded([_cut(sheet, y, x, h, w) for sheet in sheets])]
        if whole is not None and _bytes(whole) < _bytes(made):
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
    modelled = takes(model, height, width, mode)
    tried = not modelled or (not by_model and libraries.looks_synthetic(sheet))
    made = _by_webp(sheet, mode) if tried else []
    if modelled and not (made and 8 * _bytes(made) <= libraries.PLAIN * sheet.size):
        payload, stats = encode_tile(model, sheet, want_elbo=want_elbo, effort=effort)
        made.append(_Coded(MODEL, payload, checksum(sheet), stats.net, stats.initial, stats.elbo))
        if by_model:
            return made[-1]
        if not tried and libraries.quick_size(sheet) < len(payload):  # no photograph after all: a few greys, dithered
            made += _by_webp(sheet, mode)
    if not made or min(len(one.payload) for one in made) >= libraries.raw_size(sheet, mode):
        made.append(_Coded.by_library(RAW, libraries.to_raw(sheet, mode), sheet))
    return min(made, key=lambda one: len(one.payload))


def _by_webp(sheet: Sheet, mode: str) -> list[_Coded]:
    """The sheet by WebP; none where WebP can't."""
    webp = libraries.to_webp(_full(sheet, mode))
    return [] if webp is None else [_Coded.by_library(WEBP, webp, sheet)]


def _together(sheets: list[Sheet], picture: Picture) -> list[_Coded] | None:
    """All sheets of a tile by one WebP, if its mode has that and they may be no photograph."""
    mode = picture.mode
    if not MODES[mode].together or not (mode == "P" or all(map(libraries.looks_synthetic, sheets))):
        return None
    seen = to_seen(sheets, mode, picture.attributes)
    webp = None if seen is None else libraries.to_webp(seen)
    if webp is None:
        return None
    return [_Coded.by_library(TOGETHER, b"" if i else webp, sheet) for i, sheet in enumerate(sheets)]


def _whole(sheets: list[Sheet], picture: Picture) -> list[_Coded] | None:
    """All sheets by WebP in one piece, if they may be no photograph."""
    if not all(map(libraries.looks_synthetic, sheets)):
        return None
    made = [
        one for sheet, mode in zip(sheets, MODES[picture.mode].sheets, strict=True) for one in _by_webp(sheet, mode)
    ]
    return _shorter(made, _together(sheets, picture)) if len(made) == len(sheets) else None


def _shorter(made: list[_Coded], other: list[_Coded] | None) -> list[_Coded]:
    return made if other is None or _bytes(made) <= _bytes(other) else other


def _bytes(made: list[_Coded]) -> int:
    return sum(len(one.payload) for one in made)


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
    try:
        check_palette(header.mode, header.attributes)
        for y, x, h, w in grid:
            tile = [next(pieces) for _ in sheets]
            for sheet, decoded in zip(sheets, _tile(tile, header, model, h, w), strict=True):
                sheet[y : y + h, x : x + w] = decoded
        return Picture(put_together(sheets, header.mode), header.mode, header.attributes)
    except BadImage as error:
        raise BadFile(f"is of no bbans: {error}") from error


def _check_takes(model: Model, header: Header, grid: list[tuple[int, int, int, int]]) -> None:
    """Raises `BadFile` when the model can't have coded what it is said to have coded."""
    from bbans.image.codec import takes

    pieces = iter(header.pieces)
    for _, _, h, w in grid:
        for mode in header.sheets:
            if next(pieces).method == MODEL and not takes(model, h, w, mode):
                raise BadFile(f"names the model {model.name}, which codes no such pictures")


def _tile(
    tile: Sequence[tuple[Piece, bytes]], header: Header, model: Model | None, height: int, width: int
) -> list[Sheet]:
    """All sheets of a tile. Raises `BadFile`, `DecodedDiffers`."""
    if tile[0][0].method == TOGETHER:
        made = from_seen(libraries.from_webp(tile[0][1], height, width, 4), header.mode, header.attributes)
    else:
        both = zip(tile, header.sheets, strict=True)
        made = [_decoded(*one, model, (height, width, SHEET_CHANNELS[mode]), mode) for one, mode in both]
    for sheet, (piece, _), mode in zip(made, tile, header.sheets, strict=True):
        if sheet.shape != (height, width, SHEET_CHANNELS[mode]):
            raise _differs()
        if checksum(np.ascontiguousarray(sheet)) != piece.samples_sum:
            raise _differs()
    return made


def _decoded(piece: Piece, payload: bytes, model: Model | None, shape: tuple[int, int, int], mode: str) -> Sheet:
    """A sheet of its own. Raises `BadFile`, `DecodedDiffers`."""
    if piece.method == WEBP:
        decoded = libraries.from_webp(payload, *shape)
        return decoded >> np.uint8(7) if mode == "1" else decoded
    if piece.method == RAW:
        return libraries.from_raw(payload, *shape, mode)
    from bbans.image.codec import decode_tile

    assert model is not None
    try:
        return decode_tile(model, payload, *shape)
    except (BadFile, OutOfBits) as error:
        # The payload is what was written: it is the arithmetic that went astray.
        raise _differs() from error


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
