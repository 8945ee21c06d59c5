"""The file format, versions 0 to 2: a header, and payloads behind it, nothing after.

Knows bytes, sizes and checksums; refuses to know what a payload holds, or what made it. A header is checked in full,
against its checksum and against the length of the file, before anything of a size it claims is allocated.

    magic         4 bytes  bb 61 6e 73: the first is no ASCII, so that a transfer as text is noticed
    version       1 byte   1; 2 if chains in it have particles, which only their decoder notices
    length        varint   bytes of the fields from here to the header's checksum
    mode          1 byte   of the pixels: see `bbans.image.modes`
    width         varint   pixels
    height        varint   pixels
    tile          varint   side of the square tiles in pixels; 0: the picture is one tile
    model         8 bytes  the id of the model that made payloads; zeros if none did
    attributes    varint   bytes of what follows; 0: there are none
                  bytes    zlib: for each, in order of their names, the name and the value, each behind its length
    for each tile, row after row, for each of its sheets:
      method      1 byte   what made the payload: 0 the model, 1 WebP (lossless), 2 nothing: the samples as they are,
                           3 WebP, of all sheets of the tile: their first one's payload, the others' are empty
      size        varint   bytes of the payload
      checksum    4 bytes  xxh32 of the payload: differs when the file is damaged
      checksum    4 bytes  xxh32 of the sheet's samples [h, w, c]: differs when this machine computes differently
    checksum      4 bytes  xxh32 of everything before it
    payloads      one behind the other

Integers are little-endian; varints (`bbans.image.fields`) have no superfluous bytes. Version 0, which is read, too, has
the model before the width, no attributes and no methods, and pictures of one sheet by the model.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import xxhash

from bbans.errors import BadFile, TooLarge, UnsupportedVersion
from bbans.image.fields import HASH_BYTES, MOST_VARINT_BYTES, Reader, read_varint, write_varint
from bbans.image.modes import MODES
from bbans.image.view import Rectangle

MAGIC = b"\xbbans"
ARCHIVE_MAGIC = b"\xbbana"
VERSION, WITH_PARTICLES = 1, 2
SUFFIX = ".bbans"

MODEL, WEBP, RAW, TOGETHER = METHODS = range(4)  # part of the format: never renumber
METHOD_NAMES = ("model", "WebP", "raw", "WebP together")

MODEL_ID_BYTES = 8
NO_MODEL = bytes(MODEL_ID_BYTES)
_LEAST_PIECE_BYTES = 1 + 2 * HASH_BYTES  # what a piece takes in the header at the least, in version 0

MOST_ATTRIBUTES = 1 << 26
"""Bytes of all attributes: more are refused."""

MOST_RECORDS = 1 << 16
"""Attributes: more are refused, for each takes far more memory than its bytes."""

MAX_PIXELS = 2 * 89_478_485
"""Pictures with more pixels are refused, unless one asks for it: at this size Pillow speaks of a decompression bomb."""

TILE_SIDE = 1024
"""Side of a tile where there is more than one: keeps a picture of 24 MP below 2 GB of memory, in both directions."""

ONE_TILE = 1 << 21
"""Pictures of up to so many pixels are one tile, whatever their shape: full HD is."""


MOST_TILE = 1 << 22
"""Pixels of a tile by a model: decoders refuse more, which would take too much memory. Encoders keep to `ONE_TILE`."""


def checksum(data: Any) -> int:
    """xxh32 of bytes, or of the memory of a C-contiguous array."""
    return xxhash.xxh32_intdigest(data)


def tile_side(width: int, height: int) -> int:
    """The side of the tiles for a new file; 0 when the whole picture is one."""
    return 0 if width * height <= ONE_TILE else TILE_SIDE


def tile_count(width: int, height: int, side: int) -> int:
    """How many tiles a picture is cut into."""
    return -(-width // side) * -(-height // side) if side else 1


def tile_grid(width: int, height: int, side: int) -> list[Rectangle]:
    """The tiles, row after row; those at the right and lower edge may be smaller."""
    if not side:
        return [(0, 0, width, height)]
    return [
        (x, y, min(side, width - x), min(side, height - y))
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]


@dataclass(frozen=True)
class Piece:
    """What the header says of a sheet of a tile: bytes of its payload, the checksums of payload and samples, and what
    made it."""

    size: int
    payload_sum: int
    samples_sum: int
    method: int = MODEL


@dataclass(frozen=True)
class Header:
    """What the file says before its payloads.

    pieces: in the order of `tile_grid(width, height, tile)`, and for each tile of its sheets; attributes: what the file
    holds besides pixels, such as a palette.
    """

    mode: str
    width: int
    height: int
    tile: int
    pieces: tuple[Piece, ...]
    model_id: bytes = NO_MODEL
    attributes: Mapping[str, bytes] = field(default_factory=dict)
    version: int = VERSION

    @property
    def dims(self) -> int:
        """Samples of the picture: what bits per dim are divided by."""
        return self.width * self.height * MODES[self.mode].channels

    @property
    def sheets(self) -> tuple[str, ...]:
        """The modes of each tile's sheets."""
        return MODES[self.mode].sheets

    def pack(self) -> bytes:
        """The header's bytes, magic and checksum included. Raises `TooLarge`, `ValueError`."""
        if len(self.pieces) != tile_count(self.width, self.height, self.tile) * len(self.sheets):
            raise ValueError("the number of tiles does not fit the size of the picture")
        if len(self.model_id) != MODEL_ID_BYTES:
            raise ValueError(f"a model id has {MODEL_ID_BYTES} bytes")
        body = bytearray([MODES[self.mode].code])
        if not self.version:
            body += self.model_id
        for number in (self.width, self.height, self.tile):
            body += write_varint(number)
        if self.version:
            attributes = pack_attributes(self.attributes)
            body += self.model_id + write_varint(len(attributes)) + attributes
        for piece in self.pieces:
            body += bytes([piece.method] if self.version else []) + write_varint(piece.size)
            body += piece.payload_sum.to_bytes(HASH_BYTES, "little")
            body += piece.samples_sum.to_bytes(HASH_BYTES, "little")
        head = MAGIC + bytes([self.version]) + write_varint(len(body)) + body
        return head + checksum(head).to_bytes(HASH_BYTES, "little")

    @classmethod
    def read(cls, file: BinaryIO, *, limit: int | None = MAX_PIXELS) -> Header:
        """The header of a file, of which nothing else is read. Raises as `parse` does."""
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        data = file.read(len(MAGIC) + 1 + MOST_VARINT_BYTES)
        with contextlib.suppress(BadFile):  # `parse` tells what is wrong
            length, begin = read_varint(data, len(MAGIC) + 1)
            if begin + length + HASH_BYTES <= size:
                data += file.read(max(0, begin + length + HASH_BYTES - len(data)))
        return cls.parse(data, size, limit=limit)

    @classmethod
    def parse(
        cls, data: bytes, size: int | None = None, *, limit: int | None = MAX_PIXELS, whole: bool = True
    ) -> Header:
        """The header of a file, checked against itself and against the file's length.

        data: the whole file, or its beginning, with `size`, the length of the whole. limit: of pixels; None: there is
        none. whole: False if payloads may be missing or bytes follow them. The payloads are not looked at: see
        `payloads`. Raises `BadFile` (not a bbans file; truncated; header damaged; bytes after the end),
        `UnsupportedVersion` and `TooLarge`.
        """
        body, end = _checked_body(data)
        version = data[len(MAGIC)]
        reader = Reader(body, error=_contradiction)
        mode = _mode(reader.byte())
        model_id = NO_MODEL if version else reader.take(MODEL_ID_BYTES)
        width, height, side = reader.varint(), reader.varint(), reader.varint()
        if not width or not height:
            raise _contradiction("the picture has no pixels")
        check_size(width, height, limit)
        attributes: dict[str, bytes] = {}
        if version:
            model_id = reader.take(MODEL_ID_BYTES)
            attributes = unpack_attributes(reader.take(reader.varint()))
        count = tile_count(width, height, side) * len(MODES[mode].sheets)
        if count * _LEAST_PIECE_BYTES > reader.left():
            raise _contradiction("it has fewer tiles than the picture needs")
        pieces = tuple(_piece(reader, version) for _ in range(count))
        if reader.left():
            raise _contradiction("it is longer than its tiles")
        if any(piece.method == MODEL for piece in pieces) != (model_id != NO_MODEL):
            raise _contradiction("it names a model that made nothing, or none that made something")
        sheets = len(MODES[mode].sheets)
        for tile in (pieces[at : at + sheets] for at in range(0, count, sheets)):
            together = [piece.method == TOGETHER for piece in tile]
            rest = any(piece.size for piece in tile[1:])
            if any(together) and (rest or not all(together) or not MODES[mode].together):
                raise _contradiction("it has sheets together that can't be")
        missing = end + sum(piece.size for piece in pieces) - (len(data) if size is None else size)
        if missing > 0 and whole:
            raise BadFile(f"is truncated: {missing} bytes are missing at the end")
        if missing < 0 and whole:
            raise BadFile(f"is damaged: {-missing} bytes too many after the end")
        return cls(mode, width, height, side, pieces, model_id, attributes, version)


class TooManyPixels(TooLarge):
    """A larger limit would do."""


def check_size(width: int, height: int, limit: int | None = MAX_PIXELS) -> None:
    """Raises `TooManyPixels` for a picture of more pixels than the limit, if there is one."""
    if limit is not None and width * height > limit:
        raise TooManyPixels(f"has {width} x {height} pixels, and up to {limit} are allowed")


def join(header: Header, payloads: Sequence[bytes | memoryview]) -> bytes:
    """The whole file."""
    assert [len(payload) for payload in payloads] == [piece.size for piece in header.pieces]
    return b"".join([header.pack(), *payloads])


def payloads(header: Header, data: bytes) -> list[memoryview]:
    """The payload of each piece of the file that `header` was parsed from; shorter, if the file is."""
    at = _checked_body(data)[1]
    ends = itertools.accumulate((piece.size for piece in header.pieces), initial=at)
    return [memoryview(data)[begin:end] for begin, end in itertools.pairwise(ends)]


def check_payload(header: Header, number: int, payload: Any) -> None:
    """Raises `BadFile`, which names the tile, unless that is the payload of the piece with this number."""
    if checksum(payload) != header.pieces[number].payload_sum:
        grid = tile_grid(header.width, header.height, header.tile)
        tile = number // len(header.sheets)
        where = ",".join(map(str, grid[tile]))
        raise BadFile(f"is damaged: the checksum of tile {tile + 1} of {len(grid)} ({where}) does not match")


def pack_attributes(attributes: Mapping[str, bytes]) -> bytes:
    """Nothing, or zlib of the records. Raises `TooLarge`."""
    records = bytearray()
    for name, value in sorted(attributes.items()):
        for part in (name.encode(), value):
            records += write_varint(len(part)) + part
    if len(records) > MOST_ATTRIBUTES:
        raise TooLarge(f"has {len(records)} bytes of metadata; bbans takes up to {MOST_ATTRIBUTES}")
    if len(attributes) > MOST_RECORDS:
        raise TooLarge(f"has {len(attributes)} texts and other metadata; bbans takes up to {MOST_RECORDS}")
    return zlib.compress(records, 9) if records else b""


def unpack_attributes(data: bytes) -> dict[str, bytes]:
    """The inverse of `pack_attributes`. Raises `BadFile`."""
    if not data:
        return {}
    unpacker = zlib.decompressobj()
    try:
        records = unpacker.decompress(data, MOST_ATTRIBUTES)
    except zlib.error as error:
        raise _contradiction("its attributes are no zlib") from error
    if not unpacker.eof or unpacker.unused_data:
        raise _contradiction("its attributes have another length")
    reader = Reader(records, error=_contradiction)
    found: dict[str, bytes] = {}
    last = ""
    while reader.left():
        if len(found) == MOST_RECORDS:
            raise _contradiction(f"it has more than {MOST_RECORDS} attributes")
        try:
            name = reader.take(reader.varint()).decode()
        except UnicodeDecodeError as error:
            raise _contradiction("the name of an attribute is no text") from error
        if found and name <= last:
            raise _contradiction("its attributes are in no order")
        last = name
        found[name] = reader.take(reader.varint())
    return found


def _mode(code: int) -> str:
    mode = next((mode for mode, known in MODES.items() if known.code == code), None)
    if mode is None:
        raise BadFile(f"has a picture mode (code {code}) that this bbans does not know")
    return mode


def _piece(reader: Reader, version: int) -> Piece:
    method = reader.byte() if version else MODEL
    if method not in METHODS:
        raise BadFile(f"was made by a method (code {method}) that this bbans does not know")
    return Piece(reader.varint(), reader.hash(), reader.hash(), method)


def _checked_body(data: bytes) -> tuple[bytes, int]:
    """The fields between the length and the header's checksum, which matches; and where the payloads begin."""
    if not data:
        raise BadFile("is empty")
    if data.startswith(ARCHIVE_MAGIC):
        raise BadFile("is an archive: 'bbans archive' takes it")
    if not data.startswith(MAGIC[: len(data)]):
        raise BadFile("is not a bbans file")
    if len(data) <= len(MAGIC):
        raise _truncated_header()
    version = data[len(MAGIC)]
    if version > WITH_PARTICLES:
        known = f"this bbans knows {WITH_PARTICLES}: it needs a newer bbans"
        raise UnsupportedVersion(f"has format version {version}; {known}")
    reader = Reader(data, len(MAGIC) + 1, error=_contradiction)
    try:
        length = reader.varint()
    except BadFile as error:
        raise _truncated_header() from error
    begin = reader.at
    end = begin + length
    if len(data) < end + HASH_BYTES:
        raise _truncated_header()
    if checksum(data[:end]) != int.from_bytes(data[end : end + HASH_BYTES], "little"):
        raise BadFile("is damaged: the checksum of its header does not match")
    return data[begin:end], end + HASH_BYTES


def _truncated_header() -> BadFile:
    return BadFile("is truncated: it ends within its header")


def _contradiction(what: str) -> BadFile:
    return BadFile(f"has a header that contradicts itself: {what}")
