"""One tile of a picture: its sheets to payloads, each by what makes it smallest, and back.

Knows what codes a sheet: a model (`bbans.image.codec`, which is only imported when there is something to code, because
that takes seconds) or a library (`bbans.image.libraries`). Refuses to know where the tile lies, and headers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bbans.errors import BadFile, DecodedDiffers, OutOfBits
from bbans.image import libraries
from bbans.image.container import MODEL, RAW, WEBP, Piece, checksum
from bbans.image.modes import MODES, SHEET_CHANNELS
from bbans.image.sheets import Pixels, Sheet, put_together, take_apart

if TYPE_CHECKING:
    from bbans.zoo import Model


@dataclass(frozen=True)
class Coded:
    """A sheet that is coded. In bits: net, initial and elbo, as in `picture.Report`; of a library's, what its bytes
    are."""

    method: int
    payload: bytes
    samples_sum: int
    net: float
    initial: float
    elbo: float | None

    @classmethod
    def by_library(cls, method: int, payload: bytes, sheet: Sheet) -> Coded:
        bits = 8.0 * len(payload)
        return cls(method, payload, checksum(sheet), bits, 0.0, bits)

    @property
    def piece(self) -> Piece:
        return Piece(len(self.payload), checksum(self.payload), self.samples_sum, self.method)


@dataclass(frozen=True)
class Encoder:
    """What becomes of a tile's pixels. load: gives the model; the others: see `picture.compress_picture`. To be
    pickled, if `load` can be."""

    load: Callable[[], Model]
    mode: str
    want_elbo: bool
    effort: int
    by_model: bool

    def __call__(self, pixels: Pixels) -> list[Coded]:
        """Its sheets."""
        both = zip(take_apart(pixels, self.mode), MODES[self.mode].sheets, strict=True)
        return [self._smallest(sheet, mode) for sheet, mode in both]

    def _smallest(self, sheet: Sheet, mode: str) -> Coded:
        from bbans.image.codec import encode_tile, takes

        height, width, _ = sheet.shape
        model = self.load()
        made: list[Coded] = []
        modelled = takes(model, height, width, mode)
        if not modelled or (not self.by_model and libraries.looks_synthetic(sheet)):
            webp = libraries.to_webp(_full(sheet, mode))
            made += [] if webp is None else [Coded.by_library(WEBP, webp, sheet)]
            modelled = modelled and (webp is None or 8 * len(webp) > libraries.PLAIN * sheet.size)
        if modelled:
            payload, stats = encode_tile(model, sheet, want_elbo=self.want_elbo, effort=self.effort)
            made.append(Coded(MODEL, payload, checksum(sheet), stats.net, stats.initial, stats.elbo))
            if self.by_model:
                return made[-1]
        if not made or min(len(one.payload) for one in made) >= libraries.raw_size(sheet, mode):
            made.append(Coded.by_library(RAW, libraries.to_raw(sheet, mode), sheet))
        return min(made, key=lambda one: len(one.payload))


def by_webp(pixels: Pixels, mode: str) -> list[Coded] | None:
    """All sheets of a picture by WebP, if they may be no photograph."""
    sheets = take_apart(pixels, mode)
    if not all(map(libraries.looks_synthetic, sheets)):
        return None
    payloads = [libraries.to_webp(_full(sheet, name)) for sheet, name in zip(sheets, MODES[mode].sheets, strict=True)]
    both = zip(payloads, sheets, strict=True)
    made = [Coded.by_library(WEBP, payload, sheet) for payload, sheet in both if payload is not None]
    return made if len(made) == len(sheets) else None


def _full(sheet: Sheet, mode: str) -> Sheet:
    """Of mode 1, 0 and 255."""
    return sheet * np.uint8(255) if mode == "1" else sheet


@dataclass(frozen=True)
class Decoder:
    """The pixels that a tile's payloads hold. load: gives the model, None if nothing is of one; preview: see `View`. To
    be pickled, if `load` can be."""

    load: Callable[[], Model] | None
    mode: str
    preview: int = 0

    def __call__(self, tile: tuple[int, int, Sequence[Piece], Sequence[bytes]]) -> Pixels | BadFile | DecodedDiffers:
        """Of (height, width, pieces, payloads): pixels [h, w, c], of every 2^preview-th row and column; or what is
        wrong with them."""
        height, width, pieces, payloads = tile
        sheets = []
        try:
            for piece, payload, mode in zip(pieces, payloads, MODES[self.mode].sheets, strict=True):
                sheets.append(self._decoded(piece, payload, (height, width, SHEET_CHANNELS[mode]), mode))
        except (BadFile, DecodedDiffers) as error:
            return error
        return put_together(sheets, self.mode)

    def _decoded(self, piece: Piece, payload: bytes, shape: tuple[int, int, int], mode: str) -> Sheet:
        step = 1 << self.preview
        if piece.method == WEBP:
            decoded = libraries.from_webp(payload, *shape)
            if mode == "1":
                decoded = decoded >> np.uint8(7)
        elif piece.method == RAW:
            decoded = libraries.from_raw(payload, *shape, mode)
        else:
            from bbans.image.codec import decode_preview, decode_tile, takes

            assert self.load
            model = self.load()
            if not takes(model, *shape[:2], mode):
                raise BadFile(f"names the model {model.name}, which codes no such pictures")
            try:
                if self.preview:  # which has no checksum
                    return decode_preview(model, payload, *shape, self.preview)
                decoded = decode_tile(model, payload, *shape)
            except (BadFile, OutOfBits) as error:
                # The payload is what was written: it is the arithmetic that went astray.
                raise differs() from error
        if decoded.shape != shape or checksum(np.ascontiguousarray(decoded)) != piece.samples_sum:
            raise differs()
        return decoded[::step, ::step]


def differs() -> DecodedDiffers:
    return DecodedDiffers(
        "decodes to other pixels than were encoded, though the file is undamaged: "
        "this machine computes differently from the one that wrote the file"
    )
