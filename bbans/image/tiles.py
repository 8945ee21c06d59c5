"""One tile of a picture: its sheets to payloads, by what makes them smallest, and back.

Knows what codes a sheet: a model (`bbans.image.codec`, which is only imported when there is something to code, because
that takes seconds) or a library (`bbans.image.libraries`). Refuses to know where the tile lies, and headers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from bbans.errors import BadFile, DecodedDiffers, OutOfBits
from bbans.image import libraries
from bbans.image.container import MODEL, MOST_TILE, RAW, TOGETHER, WEBP, Piece, checksum
from bbans.image.modes import MODES, SHEET_CHANNELS
from bbans.image.seen import from_seen, to_seen
from bbans.image.sheets import Pixels, Sheet, put_together, take_apart
from bbans.workers import in_threads

if TYPE_CHECKING:
    from bbans.image.weighted import Particles
    from bbans.zoo import Model


Task = TypeVar("Task")
Result = TypeVar("Result")


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
    """What becomes of a tile's pixels. mode, attributes: of the picture; the others: see `picture.compress_picture`."""

    model: Model
    mode: str
    attributes: Mapping[str, bytes]
    want_elbo: bool
    effort: int
    by_model: bool
    particles: Particles | None = None

    def __call__(self, pixels: Pixels) -> list[Coded]:
        """Its sheets."""
        sheets = take_apart(pixels, self.mode)
        made = [self._smallest(sheet, mode) for sheet, mode in zip(sheets, MODES[self.mode].sheets, strict=True)]
        return made if self.by_model else _shorter(made, _together(sheets, self.mode, self.attributes))

    def _smallest(self, sheet: Sheet, mode: str) -> Coded:
        from bbans.image.codec import encode_tile, takes

        height, width, _ = sheet.shape
        model = self.model
        modelled = takes(model, height, width, mode)
        tried, quick = (not modelled, 0.0) if self.by_model or not modelled else libraries.quick_look(sheet)
        made = _by_webp(sheet, mode) if tried else []
        if modelled and not (made and 8 * size_of(made) <= libraries.PLAIN * sheet.size):
            payload, stats = encode_tile(
                model, sheet, want_elbo=self.want_elbo, effort=self.effort, particles=self.particles
            )
            made.append(Coded(MODEL, payload, checksum(sheet), stats.net, stats.initial, stats.elbo))
            if self.by_model:
                return made[-1]
            if not tried and quick < len(payload):  # no photograph after all: dithered greys
                made += _by_webp(sheet, mode)
        if not made or min(len(one.payload) for one in made) >= libraries.raw_size(sheet, mode):
            made.append(Coded.by_library(RAW, libraries.to_raw(sheet, mode), sheet))
        return min(made, key=lambda one: len(one.payload))


def by_webp(pixels: Pixels, mode: str, attributes: Mapping[str, bytes]) -> list[Coded] | None:
    """All sheets of a picture by WebP, if they may be no photograph."""
    sheets = take_apart(pixels, mode)
    if not all(map(libraries.looks_synthetic, sheets)):
        return None
    made = [one for sheet, name in zip(sheets, MODES[mode].sheets, strict=True) for one in _by_webp(sheet, name)]
    return _shorter(made, _together(sheets, mode, attributes)) if len(made) == len(sheets) else None


def size_of(made: Sequence[Coded]) -> int:
    """Bytes of all payloads."""
    return sum(len(one.payload) for one in made)


def _by_webp(sheet: Sheet, mode: str) -> list[Coded]:
    """The sheet by WebP; none where WebP can't."""
    webp = libraries.to_webp(sheet * np.uint8(255) if mode == "1" else sheet)
    return [] if webp is None else [Coded.by_library(WEBP, webp, sheet)]


def _together(sheets: list[Sheet], mode: str, attributes: Mapping[str, bytes]) -> list[Coded] | None:
    """All sheets of a tile by one WebP, if its mode has that and they may be no photograph."""
    if not MODES[mode].together or not (mode == "P" or all(map(libraries.looks_synthetic, sheets))):
        return None
    seen = to_seen(sheets, mode, attributes)
    webp = None if seen is None else libraries.to_webp(seen)
    if webp is None:
        return None
    return [Coded.by_library(TOGETHER, b"" if i else webp, sheet) for i, sheet in enumerate(sheets)]


def _shorter(made: list[Coded], other: list[Coded] | None) -> list[Coded]:
    return made if other is None or size_of(made) <= size_of(other) else other


@dataclass(frozen=True)
class Decoder:
    """The pixels that a tile's payloads hold. load: gives the model, None if nothing is of one; mode, attributes: of
    the picture; preview: see `View`; ledger: see `codec.decode_tiles`."""

    load: Callable[[], Model] | None
    mode: str
    attributes: Mapping[str, bytes]
    preview: int = 0
    ledger: dict[str, float] | None = None

    def __call__(self, tile: tuple[int, int, Sequence[Piece], Sequence[bytes]]) -> Pixels | BadFile | DecodedDiffers:
        """Of (height, width, pieces, payloads): pixels [h, w, c], of every 2^preview-th row and column; or what is
        wrong with them."""
        height, width, pieces, payloads = tile
        modes, step = MODES[self.mode].sheets, 1 << self.preview
        sheets = []
        try:
            if pieces[0].method == TOGETHER:
                seen = libraries.from_webp(payloads[0], height, width, 4)
                whole = from_seen(seen, self.mode, self.attributes)
            else:
                shapes = [(height, width, SHEET_CHANNELS[mode]) for mode in modes]
                whole = [self._sheet(*one) for one in zip(pieces, payloads, shapes, modes, strict=True)]
            for piece, sheet, mode in zip(pieces, whole, modes, strict=True):
                if piece.method == MODEL and self.preview:  # it is one already, and has no checksum
                    sheets.append(sheet)
                    continue
                if sheet.shape != (height, width, SHEET_CHANNELS[mode]):
                    raise differs()
                if checksum(np.ascontiguousarray(sheet)) != piece.samples_sum:
                    raise differs()
                sheets.append(sheet[::step, ::step])
        except (BadFile, DecodedDiffers) as error:
            return error
        return put_together(sheets, self.mode)

    def _sheet(self, piece: Piece, payload: bytes, shape: tuple[int, int, int], mode: str) -> Sheet:
        """A sheet of its own; by the model, its preview. Raises `BadFile`, `DecodedDiffers`."""
        if piece.method == WEBP:
            decoded = libraries.from_webp(payload, *shape)
            return decoded >> np.uint8(7) if mode == "1" else decoded
        if piece.method == RAW:
            return libraries.from_raw(payload, *shape, mode)
        from bbans.image.codec import decode_preview, decode_tile

        assert self.load
        model = self.load()
        check_takes(model, *shape[:2], mode)
        try:
            if self.preview:
                return decode_preview(model, payload, *shape, self.preview)
            return decode_tile(model, payload, *shape, self.ledger)
        except (BadFile, OutOfBits) as error:
            # The payload is what was written: it is the arithmetic that went astray.
            raise differs() from error


def many(work: Callable[[Task], Result], tasks: Sequence[Task], model: Model | None) -> Generator[Result]:
    """Yield work(task) for each tile, in order. If a model on the CPU codes them, each PyTorch thread takes a tile.

    Close it (`contextlib.closing`) unless you read to the end.
    """
    threads = 1
    if len(tasks) > 1 and model is not None and model.device.type == "cpu":
        import torch

        threads = torch.get_num_threads()
    if threads == 1:
        yield from map(work, tasks)
        return
    try:
        with closing(in_threads(work, tasks, min(threads, len(tasks)), lambda: torch.set_num_threads(1))) as done:
            yield from done
    finally:
        torch.set_num_threads(threads)  # also of threads to come


def check_takes(model: Model, height: int, width: int, mode: str) -> None:
    """Raises `BadFile` unless the model can have coded pictures of this size and mode."""
    from bbans.image.codec import takes

    if height * width > MOST_TILE or not takes(model, height, width, mode):
        raise BadFile(f"names the model {model.name}, which codes no such pictures")


def differs() -> DecodedDiffers:
    return DecodedDiffers(
        "decodes to other pixels than were encoded, though the file is undamaged: "
        "this machine computes differently from the one that wrote the file"
    )
