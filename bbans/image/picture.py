"""A picture to the bytes of a file and back: cuts it into tiles, adds header and checksums, and puts together what was
asked for and can be had.

Knows arrays and the container; refuses to know image files (`bbans.image.files`), and how a tile is coded
(`bbans.image.tiles`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from bbans.errors import BadFile, BadImage, BbansError
from bbans.image import container, libraries
from bbans.image import effort as effort_levels
from bbans.image.container import MAX_PIXELS, MODEL, NO_MODEL, Header, Piece
from bbans.image.modes import MODES, PALETTE, PALETTE_ALPHA
from bbans.image.sheets import Pixels
from bbans.image.tiles import Decoder, Encoder, by_webp, differs, many, size_of
from bbans.image.view import ALL, Rectangle, View

if TYPE_CHECKING:
    from bbans.image.weighted import Particles
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


def compress_picture(
    picture: Picture,
    model: Model,
    *,
    want_elbo: bool = False,
    effort: int = effort_levels.DEFAULT,
    by_model: bool = False,
    particles: Particles | None = None,
    max_pixels: int = MAX_PIXELS,
) -> tuple[bytes, Report]:
    """The bytes of a .bbans file. `want_elbo` also has the −ELBO computed, which takes time; so does more effort.

    Each sheet of each tile is coded by the model, by WebP or not at all, or all sheets of a tile by WebP together,
    whichever is smallest; WebP is only tried on what may be no photograph, and a sheet that it does well with is given
    no other chance. by_model: what the model takes is coded by it, even if that is larger. particles: that the model
    codes with.

    Raises `TooLarge`, `BadImage` when the model takes no such picture of mode L or RGB, and `BadModel` when it takes no
    particles.
    """
    from bbans.image.codec import check_particles, takes

    width, height = picture.width, picture.height
    container.check_size(width, height, max_pixels)
    if picture.mode in ("L", "RGB") and not takes(model, height, width, picture.mode):
        what = f"{width} x {height} of mode {picture.mode}"
        raise BadImage(
            f"the model {model.name} takes no pictures of {what}; -m names another, `bbans models` lists them"
        )
    if particles:
        check_particles(model)
    side = container.tile_side(width, height)
    can_be_whole = side and not by_model and width * height <= libraries.MOST_WHOLE
    whole = by_webp(picture.pixels, picture.mode, picture.attributes) if can_be_whole else None
    if whole is not None and 8 * size_of(whole) <= libraries.PLAIN * picture.pixels.size:
        side, made = 0, whole
    else:
        grid = container.tile_grid(width, height, side)
        code = Encoder(model, picture.mode, picture.attributes, want_elbo, effort, by_model, particles)
        alone = None if effort_levels.tuning_stages(effort) else model  # tuning draws from PyTorch's one random state
        with closing(many(lambda tile: code(_cut(picture.pixels, tile)), grid, alone)) as coded:
            made = [one for sheets in coded for one in sheets]
        if whole is not None and size_of(whole) < size_of(made):
            side, made = 0, whole
    by_this = any(one.method == MODEL for one in made)
    header = Header(
        picture.mode,
        width,
        height,
        side,
        tuple(one.piece for one in made),
        model.id if by_this else NO_MODEL,
        picture.attributes,
        container.WITH_PARTICLES if by_this and particles else container.VERSION,
    )
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


def _cut(pixels: Pixels, tile: Rectangle) -> Pixels:
    x, y, w, h = tile
    return np.ascontiguousarray(pixels[y : y + h, x : x + w])


def decompress_picture(
    data: bytes,
    models: Callable[[bytes], Model],
    *,
    view: View = ALL,
    lost: list[BbansError] | None = None,
    max_pixels: int = MAX_PIXELS,
    ledger: dict[str, float] | None = None,
) -> Picture:
    """The picture in a .bbans file, or what a view shows of it. `models` finds the model with an id, or raises
    `ModelMissing`.

    lost: is given what is wrong with the length, and with tiles that can't be decoded, whose pixels are then 0; None:
    that is raised. Only the tiles in view are looked at, and a preview has no checksum of its pixels. ledger: what the
    bits of the model's payloads are for is added to it.

    Raises `BadFile` when the file is damaged, `DecodedDiffers` when it is whole and yet other pixels come out,
    `TooLarge`, and `BbansError` when it has no such view.
    """
    try:
        header = Header.parse(data, limit=max_pixels)
    except BadFile as error:
        if lost is None:
            raise
        header = Header.parse(data, limit=max_pixels, whole=False)
        lost.append(error)
    view.check(header.width, header.height, header.tile)
    try:
        check_palette(header.mode, header.attributes)
    except BadImage as error:
        raise BadFile(f"is of no bbans: {error}") from error
    width, height = view.size(header.width, header.height)
    kind = MODES[header.mode]
    pixels = np.zeros((height, width, kind.channels), kind.dtype)
    for tile, decoded in _decoded(header, data, models, view, ledger):
        if isinstance(decoded, BbansError):
            if lost is None:
                raise decoded
            lost.append(decoded)
        elif seen := view.of_tile(tile):
            pixels[seen[0]] = decoded[seen[1]]
    try:
        return Picture(pixels, header.mode, header.attributes)
    except BadImage as error:
        raise BadFile(f"is of no bbans: {error}") from error


def _decoded(
    header: Header,
    data: bytes,
    models: Callable[[bytes], Model],
    view: View,
    ledger: dict[str, float] | None = None,
) -> Iterator[tuple[Rectangle, Pixels | BbansError]]:
    """The tiles in view, with their pixels or what is wrong with them. Damage is told before the slow part."""
    grid = container.tile_grid(header.width, header.height, header.tile)
    wanted = [number for number, tile in enumerate(grid) if view.of_tile(tile)]
    payloads, sheets = container.payloads(header, data), len(header.sheets)
    whole = []
    for number in wanted:
        try:
            for piece in range(number * sheets, (number + 1) * sheets):
                container.check_payload(header, piece, payloads[piece])
            whole.append(number)
        except BadFile as error:
            yield grid[number], error

    def task(number: int) -> tuple[int, int, Sequence[Piece], list[bytes]]:
        mine = slice(number * sheets, (number + 1) * sheets)
        _, _, width, height = grid[number]
        return height, width, header.pieces[mine], [bytes(payload) for payload in payloads[mine]]

    load = partial(models, header.model_id) if header.model_id != NO_MODEL else None
    decode = Decoder(load, header.mode, header.attributes, view.preview, ledger)
    by_model = any(header.pieces[number * sheets + i].method == MODEL for number in whole for i in range(sheets))
    model = load() if load and by_model and ledger is None else None  # a ledger is kept by one thread
    with closing(many(lambda number: decode(task(number)), whole, model)) as decoded:
        yield from zip((grid[number] for number in whole), decoded, strict=True)


def verify_picture(
    data: bytes,
    picture: Picture,
    models: Callable[[bytes], Model],
    *,
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Raises a `BbansError` unless the bytes of a .bbans file hold that picture. models: see `decompress_picture`."""
    header = Header.parse(data, limit=max_pixels)
    said = header.mode, header.width, header.height, header.attributes
    if said != (picture.mode, picture.width, picture.height, picture.attributes):
        raise differs()
    for tile, decoded in _decoded(header, data, models, ALL):
        if isinstance(decoded, BbansError):
            raise decoded
        if not np.array_equal(decoded, _cut(picture.pixels, tile)):
            raise differs()
