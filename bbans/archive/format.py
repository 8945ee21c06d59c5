"""The archive format, version 0: groups of pictures of one size and mode, and behind them an index of the groups.

Knows bytes, sizes and checksums; refuses to know what a payload holds, and where the bytes lie. A group says all there
is to know of itself, so that what is whole can be found when the index is not. A header is checked in full, against its
checksum and against limits, before anything of a size it claims is allocated.

    magic         4 bytes  bb 61 6e 61: the first is no ASCII, so that a transfer as text is noticed
    version       1 byte   0; also the seed of the checksums of headers and index
    groups        one behind the other, each a header and its payload
    index         see below
    tail          10 bytes

The header of a group:

    marker        2 bytes  bb 67: what to look for when the index is damaged
    length        varint   bytes of the fields from here to the header's checksum
    form          1 byte   kind + 2 x mode + 128 if a chain has particles. Kinds are 0: chain, one message for all
                           pictures, 1: file, a whole .bbans file with one picture; modes as in a .bbans file
    model         8 bytes  the id of the model that made the payload
    width         varint   pixels
    height        varint   pixels
    runs          varint   of pictures that follow one another; for each:
      gap         varint   pictures of other groups since the run before, or since the first picture
      count       varint   pictures in the run
    names, until there are as many as pictures: count x 2 + (1 if they are a prefix and a number), varint; and then
      start       varint   the first number
      digits      1 byte   to which numbers are padded with zeros
      prefix      varint size, and UTF-8 (bytes of names that are no text: as they are)
    if there are others:
      size        varint   bytes of the other names, with a zero byte between them
      packed      varint   bytes that these take as raw deflate; 0: they are stored as they are
      names       bytes
    size          varint   bytes of the payload
    checksum      4 bytes  xxh32 of the payload: differs when the file is damaged
    checksum      4 bytes  xxh32 of the pixels [n, h, w, c]: differs when this machine computes differently
    checksum      4 bytes  xxh32 of the header before it

The index:

    pictures      varint   in all groups
    groups        varint   for each:
      header      varint   bytes
      payload     varint   bytes

The tail:

    size          4 bytes  of the index
    checksum      4 bytes  xxh32 of index and size
    end           2 bytes  bb 7a

Integers are little-endian; varints are those of `bbans.image.fields`.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import xxhash

from bbans.archive import names
from bbans.archive.names import Listed, Names, Numbered
from bbans.errors import BadFile, TooLarge
from bbans.image.container import ARCHIVE_MAGIC, MODEL_ID_BYTES, check_size
from bbans.image.fields import HASH_BYTES, Reader, read_varint, write_varint
from bbans.image.modes import MODES

MAGIC = ARCHIVE_MAGIC
VERSION = 0
START = len(MAGIC) + 1
"""Where the first group begins."""

MARKER = b"\xbbg"
END = b"\xbbz"
TAIL = struct.Struct("<II2s")

TAKEN = ("L", "RGB", "1")
"""The modes of pictures that archives hold."""

CHAIN, FILE = "chain", "file"
_KINDS = (CHAIN, FILE)  # by their codes, which are part of the format
_PARTICLES = 128  # an earlier bbans takes it for a mode, and says that it doesn't know that

MAX_COUNT = 1 << 16
"""Pictures in a group."""

MAX_SAMPLES = 1 << 26
"""Samples in a chain, which is decoded as a whole. New ones have far fewer (`plan.GROUP_SAMPLES`)."""

MAX_NAME_BYTES = 1 << 22
"""Of the names of a group that aren't numbered."""

MAX_PICTURES = 1 << 20
"""In an archive."""

MAX_HEADER_BYTES = MAX_NAME_BYTES + (1 << 21)


@dataclass(frozen=True)
class Run:
    """`count` pictures that follow one another, the first at `position` in the archive."""

    position: int
    count: int


@dataclass(frozen=True)
class Header:
    """What a group says of itself. Its pictures are in the order of `runs`, and so are their names."""

    kind: str
    mode: str
    width: int
    height: int
    model_id: bytes
    runs: tuple[Run, ...]
    names: tuple[Names, ...]
    size: int
    payload_sum: int
    pixels_sum: int
    particles: bool = False

    @property
    def channels(self) -> int:
        return MODES[self.mode].channels

    @property
    def count(self) -> int:
        """Pictures."""
        return sum(run.count for run in self.runs)

    @property
    def name_bytes(self) -> int:
        """What the names that aren't numbered take in memory, roughly."""
        return sum(len(name) for part in self.names if isinstance(part, Listed) for name in part.names)

    @property
    def dims(self) -> int:
        """Samples of all pictures."""
        return self.count * self.height * self.width * self.channels

    def pack(self) -> bytes:
        """The header's bytes, marker and checksum included."""
        body = bytearray([_KINDS.index(self.kind) + 2 * MODES[self.mode].code + _PARTICLES * self.particles])
        assert len(self.model_id) == MODEL_ID_BYTES
        body += self.model_id
        body += write_varint(self.width) + write_varint(self.height)
        body += write_varint(len(self.runs))
        end = 0
        for run in self.runs:
            body += write_varint(run.position - end) + write_varint(run.count)
            end = run.position + run.count
        body += _pack_names(self.names)
        body += write_varint(self.size) + _hash(self.payload_sum) + _hash(self.pixels_sum)
        head = MARKER + write_varint(len(body)) + body
        return head + _hash(_checksum(head))

    @classmethod
    def parse(cls, data: bytes) -> Header:
        """The header that `data` is. Raises `BadFile` and `TooLarge`."""
        reader = Reader(data[:-HASH_BYTES])
        if header_size(data[:16]) != len(data) or _checksum(reader.data) != int.from_bytes(
            data[-HASH_BYTES:], "little"
        ):
            raise BadFile("the checksum of its header does not match")
        reader.take(len(MARKER))
        reader.varint()
        particles, form = divmod(reader.byte(), _PARTICLES)
        kind = _KINDS[form % 2]
        mode = next((mode for mode in TAKEN if MODES[mode].code == form // 2), None)
        if mode is None:
            raise BadFile(f"it has a picture mode (code {form // 2}) that this bbans does not know")
        model_id = reader.take(MODEL_ID_BYTES)
        width, height = reader.varint(), reader.varint()
        if not width or not height:
            raise BadFile("its pictures have no pixels")
        check_size(width, height)
        runs = _parse_runs(reader)
        count = sum(run.count for run in runs)
        if kind == FILE and (count != 1 or particles):
            raise BadFile("it is one file, and yet several pictures or particles")
        if kind == CHAIN and count * width * height * MODES[mode].channels > MAX_SAMPLES:
            raise TooLarge(f"it has more than {MAX_SAMPLES} samples")
        parts = _parse_names(reader, count)
        ends = reader.varint(), reader.hash(), reader.hash(), bool(particles)
        header = cls(kind, mode, width, height, model_id, runs, parts, *ends)
        if reader.left():
            raise BadFile("its header is longer than its fields")
        return header


def header_size(begin: bytes) -> int:
    """Bytes of the header whose first bytes (11, or all there are) these are. Raises `BadFile` where none begins."""
    if begin[: len(MARKER)] != MARKER:
        raise BadFile("no group begins here")
    length, at = read_varint(begin, len(MARKER))
    if length > MAX_HEADER_BYTES:
        raise BadFile("its header is too long")
    return at + length + HASH_BYTES


@dataclass(frozen=True)
class Index:
    """The number of pictures, and (bytes of the header, bytes of the payload) of each group."""

    pictures: int
    sizes: tuple[tuple[int, int], ...]

    def pack(self) -> bytes:
        """Index and tail."""
        body = write_varint(self.pictures) + write_varint(len(self.sizes))
        body += b"".join(write_varint(header) + write_varint(payload) for header, payload in self.sizes)
        size = struct.pack("<I", len(body))
        return body + TAIL.pack(len(body), _checksum(body + size), END)

    @classmethod
    def parse(cls, data: bytes, file_size: int) -> Index:
        """The index in `data`, which is index and tail of a file of so many bytes. Raises `BadFile` and `TooLarge`."""
        size, expected, end = TAIL.unpack(data[-TAIL.size :])
        body = data[: -TAIL.size]
        if end != END or size != len(body) or _checksum(data[: len(body) + HASH_BYTES]) != expected:
            raise BadFile("the checksum of its index does not match")
        reader = Reader(body)
        pictures, count = reader.varint(), reader.varint()
        if 2 * count > reader.left():
            raise BadFile("its index is too short")
        if pictures > MAX_PICTURES:
            raise TooLarge(f"it has {pictures} pictures; bbans takes up to {MAX_PICTURES}")
        sizes = tuple((reader.varint(), reader.varint()) for _ in range(count))
        if reader.left() or START + sum(map(sum, sizes)) + len(data) != file_size:
            raise BadFile("its index does not fit the file")
        return cls(pictures, sizes)


def index_size(tail: bytes) -> int:
    """Bytes of index and tail, from the last bytes of the file. Raises `BadFile` when these are no tail."""
    if len(tail) < TAIL.size or TAIL.unpack(tail[-TAIL.size :])[2] != END:
        raise BadFile("its end is missing")
    return int(TAIL.unpack(tail[-TAIL.size :])[0]) + TAIL.size


def _checksum(data: bytes) -> int:
    return xxhash.xxh32_intdigest(data, VERSION)


def _hash(number: int) -> bytes:
    return number.to_bytes(HASH_BYTES, "little")


def _parse_runs(reader: Reader) -> tuple[Run, ...]:
    number = reader.varint()
    if not 0 < number <= reader.left() // 2:
        raise BadFile("it has an impossible number of pictures")
    runs: list[Run] = []
    at = total = 0
    for _ in range(number):
        position = at + reader.varint()
        count = reader.varint()
        at, total = position + count, total + count
        if not count or total > MAX_COUNT:
            raise BadFile("it has an impossible number of pictures")
        runs.append(Run(position, count))
    return tuple(runs)


def _pack_names(parts: tuple[Names, ...]) -> bytes:
    packed = bytearray()
    listed: list[str] = []
    for part in parts:
        packed += write_varint(2 * part.count + isinstance(part, Numbered))
        if isinstance(part, Numbered):
            prefix = _to_bytes(part.prefix)
            packed += write_varint(part.start) + bytes([part.digits]) + write_varint(len(prefix)) + prefix
        else:
            listed += part.names
    if listed:
        plain = _to_bytes("\0".join(listed))
        deflate = zlib.compressobj(9, wbits=-15)
        small = deflate.compress(plain) + deflate.flush()
        shorter = len(small) < len(plain)
        packed += write_varint(len(plain)) + write_varint(len(small) * shorter) + (small if shorter else plain)
    return bytes(packed)


def _parse_names(reader: Reader, count: int) -> tuple[Names, ...]:
    """`count` names, none of which leads anywhere. Raises `BadFile`."""
    parts: list[Numbered | int] = []  # the number of names that stand in the list
    left = count
    while left:
        number, numbered = divmod(reader.varint(), 2)
        if not 0 < number <= left:
            raise BadFile("it has another number of names than of pictures")
        left -= number
        if not numbered:
            parts.append(number)
            continue
        start, digits = reader.varint(), reader.byte()
        if digits > names.MAX_DIGITS:
            raise BadFile("its numbers have too many digits")
        parts.append(Numbered(_to_text(reader.take(reader.varint())), start, number, digits))
    listed = _parse_list(reader, sum(part for part in parts if isinstance(part, int)))
    found: list[Names] = []
    for part in parts:
        if isinstance(part, int):
            found.append(Listed(tuple(listed[:part])))
            del listed[:part]
        else:
            found.append(part)
        if flaw := names.flaw(found[-1]):
            raise BadFile(f"refused: {flaw}")
    return tuple(found)


def _parse_list(reader: Reader, count: int) -> list[str]:
    if not count:
        return []
    size, packed = reader.varint(), reader.varint()
    if size > MAX_NAME_BYTES:
        raise BadFile("its names are too long")
    plain = reader.take(packed or size)
    if packed:
        inflate = zlib.decompressobj(-15)
        try:
            plain = inflate.decompress(plain, size + 1)
        except zlib.error as error:
            raise BadFile("its names are damaged") from error
        if len(plain) != size or not inflate.eof or inflate.unused_data:
            raise BadFile("its names are damaged")
    if plain.count(b"\0") != count - 1:
        raise BadFile("it has another number of names than of pictures")
    return _to_text(plain).split("\0")


def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _to_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
