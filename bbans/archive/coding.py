"""The pixels of a group to its payload, and back: where archives meet models and codec.

Knows models and what to call for each kind of group; refuses to know files and processes, but is made to be sent to
other processes. Models and codec are loaded when there is something to code, because that takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bbans.archive.format import CHAIN, Header
from bbans.archive.sources import Pixels
from bbans.errors import BadFile, BbansError, DecodedDiffers, OutOfBits
from bbans.image.container import checksum
from bbans.image.picture import Picture, compress_picture, decompress_picture
from bbans.image.tiles import check_takes

if TYPE_CHECKING:
    from bbans.image.weighted import Particles
    from bbans.zoo import Model


class Finder:
    """Finds models by their ids and loads each once; in other processes anew, for one thread in each of them.

    known: models that are loaded already. search: a folder to look in, besides those that `bbans.zoo` knows.
    """

    def __init__(self, known: Iterable[Model] = (), search: Path | None = None) -> None:
        self._loaded = {model.id: model for model in known}
        self._places = {model.id: model.path.absolute() for model in self._loaded.values()}
        self._search = search and search.absolute()  # other processes may be in other folders
        self._threads: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_loaded": {}, "_threads": 1}

    def __call__(self, model_id: bytes) -> Model:
        """Raises `ModelMissing` and `BadModel`."""
        if model_id not in self._loaded:
            from bbans.zoo import load_by_id

            search = self._places.get(model_id, self._search)
            self._loaded[model_id] = load_by_id(model_id, search=search, device="auto", threads=self._threads)
        return self._loaded[model_id]

    def check(self, model_id: bytes) -> None:
        """Raises `ModelMissing` when there is no such model; loads it only when there is no other way to know."""
        from bbans.zoo import available

        searchable = self._search is None or self._search.is_dir()
        if not (searchable and any(info.id == model_id for info in available(self._search))):
            self(model_id)


@dataclass(frozen=True, eq=False)
class Uncoded:
    """A group to be coded: pixels [n, h, w, c]."""

    kind: str
    mode: str
    model_id: bytes
    pixels: Pixels


@dataclass(frozen=True)
class Coded:
    """A group's payload, its checksums, and where its bits went."""

    payload: bytes
    payload_sum: int
    pixels_sum: int
    net: float
    initial: float


def encode(find: Finder, group: Uncoded, *, particles: Particles | None = None) -> Coded:
    """Code the pictures of a group. particles: of each, if its model takes such."""
    from bbans.image.codec import encode_chain

    model = find(group.model_id)
    if group.kind == CHAIN:
        payload, stats = encode_chain(model, group.pixels, particles=particles)
        net, initial = stats.net, stats.initial
    else:
        payload, report = compress_picture(Picture(group.pixels[0], group.mode), model, particles=particles)
        net, initial = report.net, report.initial
    return Coded(payload, checksum(payload), checksum(group.pixels), net, initial)


def decode(find: Finder, group: tuple[Header, bytes]) -> Pixels | BbansError:
    """The pixels [n, h, w, c] that (header, payload) hold, or why they can't be had."""
    header, payload = group
    try:
        pixels = np.ascontiguousarray(_decode(find, header, payload))
    except BbansError as error:
        return error
    shape = (header.count, header.height, header.width, header.channels)
    bilevel = header.mode != "1" or pixels.max() <= 1
    if pixels.shape != shape or not bilevel or checksum(pixels) != header.pixels_sum:
        return _differs()
    return pixels


def _decode(find: Finder, header: Header, payload: bytes) -> Pixels:
    """Raises `DecodedDiffers`, `ModelMissing`, and for a whole file whatever `decompress_picture` raises."""
    from bbans.image.codec import decode_chain

    if header.kind != CHAIN:
        return decompress_picture(payload, find).pixels[None]
    model = find(header.model_id)
    check_takes(model, header.height, header.width, header.mode)
    try:
        return decode_chain(model, payload, header.count, header.height, header.width, header.channels)
    except (BadFile, OutOfBits) as error:
        # The payload is what was written: it is the arithmetic that went astray.
        raise _differs() from error


def _differs() -> DecodedDiffers:
    return DecodedDiffers(
        "decodes to other pixels than were encoded, though it is undamaged: "
        "this machine computes differently from the one that wrote the archive"
    )
