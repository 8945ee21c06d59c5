"""The file format, version 0: a header, and the payload of each tile behind it, nothing after.

Knows bytes, sizes and checksums; refuses to know what a payload holds, or what made it. A header is checked in full,
against its checksum and against the length of the file, before anything of a size it claims is allocated.

    magic         4 bytes  bb 61 6e 73: the first is no ASCII, so that a transfer as text is noticed
    version       1 byte   0
    length        varint   bytes of the fields from here to the header's checksum
    mode          1 byte   0: L, 1: RGB, with 8 bits for each channel; 2: "1", bilevel
    model         8 bytes  the id of the model that made the payloads
    width         varint   pixels
    height        varint   pixels
    tile          varint   side of the square tiles in pixels; 0: the picture is one tile
    for each tile, row after row:
      size        varint   bytes of the payload
      checksum    4 bytes  xxh32 of the payload: differs when the file is damaged
      checksum    4 bytes  xxh32 of the pixels [h, w, c]: differs when this machine computes differently
    checksum      4 bytes  xxh32 of everything before it
    payloads      one behind the other

Integers are little-endian; varints (`bbans.image.fields`) have no superfluous bytes.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import xxhash

from bbans.errors import BadFile, TooLarge, UnsupportedVersion
from bbans.image.fields import HASH_BYTES, MOST_VARINT_BYTES, Reader, read_varint, write_varint

MAGIC = b"\xbbans"
ARCHIVE_MAGIC = b"\xbbana"
VERSION = 0
SUFFIX = ".bbans"

# Codes are part of the format: never renumber.
MODE_CODES = {"L": 0, "RGB": 1, "1": 2}
CHANNELS = {"L": 1, "RGB": 3, "1": 1}

MODEL_ID_BYTES = 8
_LEAST_TILE_BYTES = 1 + 2 * HASH_BYTES  # what a tile takes in the header at the least

MAX_PIXELS = 2 * 89_478_485
"""Pictures with more pixels are refused: the size at which Pillow speaks of a decompression bomb."""

TILE_SIDE = 1024
"""Side of a tile where there is more than one: keeps a picture of 24 MP below 2 GB of memory, in both directions."""

ONE_TILE = 1 << 21
"""Pictures of up to so many pixels are one tile, whatever their shape: full HD is."""


def checksum(data: Any) -> int:
    """xxh32 of bytes, or of the memory of a C-contiguous array."""
    return xxhash.xxh32_intdigest(data)


def tile_side(width: int, height: int) -> int:
    """The side of the tiles for a new file; 0 when the whole picture is one."""
    return 0 if width * height <= ONE_TILE else TILE_SIDE


def tile_count(width: int, height: int, side: int) -> int:
    """How many tiles a picture is cut into."""
    return -(-width // side) * -(-height // side) if side else 1


def tile_grid(width: int, height: int, side: int) -> list[tuple[int, int, int, int]]:
    """The tiles as (y, x, height, width), row after row; those at the right and lower edge may be smaller."""
    if not side:
        return [(0, 0, height, width)]
    return [
        (y, x, min(side, height - y), min(side, width - x))
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]


@dataclass(frozen=True)
class Tile:
    """What the header says of a tile: bytes of its payload, and the checksums of payload and pixels."""

    size: int
    payload_sum: int
    pixels_sum: int


@dataclass(frozen=True)
class Header:
    """What the file says before its payloads. `tiles` are in the order of `tile_grid(width, height, tile)`."""

    mode: str
    width: int
    height: int
    model_id: bytes
    tile: int
    tiles: tuple[Tile, ...]

    @property
    def channels(self) -> int:
        return CHANNELS[self.mode]

    @property
    def dims(self) -> int:
        """Samples of the picture: what bits per dim are divided by."""
        return self.width * self.height * self.channels

    def pack(self) -> bytes:
        """The header's bytes, magic and checksum included. Raises `TooLarge`, `ValueError`."""
        check_size(self.width, self.height)
        if len(self.tiles) != tile_count(self.width, self.height, self.tile):
            raise ValueError("the number of tiles does not fit the size of the picture")
        if len(self.model_id) != MODEL_ID_BYTES:
            raise ValueError(f"a model id has {MODEL_ID_BYTES} bytes")
        body = bytearray([MODE_CODES[self.mode]])
        body += self.model_id
        for number in (self.width, self.height, self.tile):
            body += write_varint(number)
        for tile in self.tiles:
            body += write_varint(tile.size)
            body += tile.payload_sum.to_bytes(HASH_BYTES, "little")
            body += tile.pixels_sum.to_bytes(HASH_BYTES, "little")
        head = MAGIC + bytes([VERSION]) + write_varint(len(body)) + body
        return head + checksum(head).to_bytes(HASH_BYTES, "little")

    @classmethod
    def read(cls, file: BinaryIO) -> Header:
        """The header of a file, of which nothing else is read. Raises as `parse` does."""
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        data = file.read(len(MAGIC) + 1 + MOST_VARINT_BYTES)
        with contextlib.suppress(BadFile):  # `parse` tells what is wrong
            length, begin = read_varint(data, len(MAGIC) + 1)
            if begin + length + HASH_BYTES <= size:
                data += file.read(max(0, begin + length + HASH_BYTES - len(data)))
        return cls.parse(data, size)

    @classmethod
    def parse(cls, data: bytes, size: int | None = None) -> Header:
        """The header of a file, checked against itself and against the file's length.

        data: the whole file, or its beginning, with `size`, the length of the whole. The payloads are not looked at:
        see `payloads`. Raises `BadFile` (not a bbans file; truncated; header damaged; bytes after the end),
        `UnsupportedVersion` and `TooLarge`.
        """
        body, end = _checked_body(data)
        reader = Reader(body, error=_contradiction)
        code = reader.byte()
        model_id = reader.take(MODEL_ID_BYTES)
        width, height, side = reader.varint(), reader.varint(), reader.varint()
        mode = next((mode for mode, known in MODE_CODES.items() if known == code), None)
        if mode is None:
            raise BadFile(f"has a picture mode (code {code}) that this bbans does not know")
        if not width or not height:
            raise _contradiction("the picture has no pixels")
        check_size(width, height)
        count = tile_count(width, height, side)
        if count * _LEAST_TILE_BYTES > reader.left():
            raise _contradiction("it has fewer tiles than the picture needs")
        tiles = tuple(Tile(reader.varint(), reader.hash(), reader.hash()) for _ in range(count))
        if reader.left():
            raise _contradiction("it is longer than its tiles")
        header = cls(mode, width, height, model_id, side, tiles)
        if header.pack() != data[:end]:
            raise _contradiction("a number is badly written")
        missing = end + sum(tile.size for tile in tiles) - (len(data) if size is None else size)
        if missing > 0:
            raise BadFile(f"is truncated: {missing} bytes are missing at the end")
        if missing < 0:
            raise BadFile(f"is damaged: {-missing} bytes too many after the end")
        return header


def check_size(width: int, height: int) -> None:
    """Raises `TooLarge` for a picture of more than `MAX_PIXELS`."""
    if width * height > MAX_PIXELS:
        raise TooLarge(f"has {width} x {height} pixels; bbans takes pictures of up to {MAX_PIXELS} pixels")


def join(header: Header, payloads: Sequence[bytes]) -> bytes:
    """The whole file."""
    assert [len(payload) for payload in payloads] == [tile.size for tile in header.tiles]
    return b"".join([header.pack(), *payloads])


def payloads(header: Header, data: bytes) -> Iterator[bytes]:
    """The payload of each tile of the file that `header` was parsed from. Raises `BadFile` at a damaged one."""
    at = len(header.pack())
    for number, tile in enumerate(header.tiles, 1):
        payload = data[at : at + tile.size]
        if checksum(payload) != tile.payload_sum:
            raise BadFile(f"is damaged: the checksum of tile {number} of {len(header.tiles)} does not match")
        yield payload
        at += tile.size


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
    if version > VERSION:
        raise UnsupportedVersion(f"has format version {version}; this bbans knows {VERSION}: it needs a newer bbans")
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
