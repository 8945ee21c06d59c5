from __future__ import annotations

import dataclasses
import io
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbans.errors import BadFile, BbansError, TooLarge, UnsupportedVersion
from bbans.image import container
from bbans.image.container import Header, Piece, checksum
from bbans.image.fields import write_varint
from bbans.image.modes import MODES

MODEL = bytes(range(8))
PAYLOADS = [b"first", b"", b"third tile", b"4"]


def header_for(payloads: list[bytes], *, width: int = 30, height: int = 20, tile: int = 16) -> Header:
    pieces = tuple(Piece(len(p), checksum(p), checksum(p[::-1])) for p in payloads)
    return Header("RGB", width, height, tile, pieces, MODEL)


def file_of(payloads: list[bytes]) -> bytes:
    return container.join(header_for(payloads), payloads)


def read(data: bytes) -> list[bytes]:
    header = Header.parse(data)
    payloads = container.payloads(header, data)
    for number, payload in enumerate(payloads):
        container.check_payload(header, number, payload)
    return [bytes(payload) for payload in payloads]


def sealed(body: bytes) -> bytes:
    """A header with any fields and a right checksum, as only malice writes it."""
    head = container.MAGIC + b"\1" + write_varint(len(body)) + body
    return head + checksum(head).to_bytes(4, "little")


def fields(width: int, height: int, tile: int, *sizes: int, mode: int = 1) -> bytes:
    numbers = b"".join(write_varint(n) for n in (width, height, tile))
    return bytes([mode]) + numbers + MODEL + b"\0" + b"".join(b"\0" + write_varint(n) + bytes(8) for n in sizes)


def test_golden_header() -> None:
    """A change of these bytes is a change of the format."""
    header = Header("L", 300, 200, 0, (Piece(1000, 0x01020304, 0xA0B0C0D0),), MODEL)
    assert header.pack().hex(" ") == (
        "bb 61 6e 73 01 1a 00 ac 02 c8 01 00 00 01 02 03 04 05 06 07 00 00 e8 07 04 03 02 01 d0 c0 b0 a0 b0 71 39 a5"
    )
    old = dataclasses.replace(header, version=0)
    assert old.pack().hex(" ") == (
        "bb 61 6e 73 00 18 00 00 01 02 03 04 05 06 07 ac 02 c8 01 00 e8 07 04 03 02 01 d0 c0 b0 a0 85 85 63 6f"
    )
    assert Header.parse(old.pack() + bytes(1000)) == old
    assert len(header.pack()) < 40


@st.composite
def headers(draw: st.DrawFn) -> Header:
    u32 = st.integers(0, 2**32 - 1)
    side = draw(st.sampled_from([0, 1, 7, 100, 1408]))
    width, height = draw(st.integers(1, 20 * (side or 1000))), draw(st.integers(1, 5 * (side or 1000)))
    mode = draw(st.sampled_from([*MODES]))
    count = container.tile_count(width, height, side) * len(MODES[mode].sheets)
    piece = st.builds(
        Piece, st.integers(0, 9), u32, u32, st.sampled_from((container.MODEL, container.WEBP, container.RAW))
    )
    pieces = tuple(draw(st.lists(piece, min_size=count, max_size=count)))
    if MODES[mode].together and draw(st.booleans()):
        sheets = len(MODES[mode].sheets)
        pieces = tuple(Piece(0 if i % sheets else 5, 1, 2, container.TOGETHER) for i in range(count))
    modelled = any(piece.method == container.MODEL for piece in pieces)
    model = draw(st.binary(min_size=8, max_size=8).filter(any)) if modelled else container.NO_MODEL
    attributes = draw(st.dictionaries(st.text(max_size=9), st.binary(max_size=40), max_size=3))
    return Header(mode, width, height, side, pieces, model, attributes)


@given(headers())
def test_round_trip(header: Header) -> None:
    data = header.pack() + bytes(sum(piece.size for piece in header.pieces))
    assert Header.parse(data) == Header.read(io.BytesIO(data)) == header
    assert header.dims == header.width * header.height * MODES[header.mode].channels


@pytest.mark.parametrize(
    ("mode", "methods", "last"), [("RGB", [3], 0), ("RGBA", [3, 1], 0), ("RGBA", [1, 3], 0), ("RGBA", [3, 3], 1)]
)
def test_sheets_that_cannot_be_together(mode: str, methods: list[int], last: int) -> None:
    sizes = [9] * (len(methods) - 1) + [last]
    pieces = tuple(Piece(size, 0, 0, method) for size, method in zip(sizes, methods, strict=True))
    with pytest.raises(BadFile, match="together"):
        Header.parse(Header(mode, 5, 4, 0, pieces).pack() + bytes(sum(sizes)))


def test_payloads_round_trip() -> None:
    assert read(file_of(PAYLOADS)) == PAYLOADS


def test_every_flipped_bit_is_noticed() -> None:
    data = file_of(PAYLOADS)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BbansError):
            read(bytes(damaged))


def test_every_truncation_is_noticed() -> None:
    data = file_of(PAYLOADS)
    for size in range(len(data)):
        with pytest.raises(BadFile, match="truncated" if size else "empty"):
            Header.parse(data[:size])
        with pytest.raises(BadFile, match="truncated" if size else "empty"):
            Header.read(io.BytesIO(data[:size]))


def test_reading_a_header_reads_nothing_else() -> None:
    file = io.BytesIO(file_of([bytes(10**6)] * len(PAYLOADS)))
    Header.read(file)
    assert file.tell() < 256


@given(st.binary(max_size=100), st.booleans())
def test_junk_is_never_taken(junk: bytes, with_magic: bool) -> None:
    with pytest.raises(BbansError):
        read(container.MAGIC + junk if with_magic else junk)


@given(st.binary(max_size=60))
def test_junk_with_a_right_checksum_raises_nothing_else(body: bytes) -> None:
    data = sealed(body)
    try:
        header = Header.parse(data)
    except BbansError:
        return
    assert container.join(header, read(data)) == data


def test_messages_tell_the_causes_apart() -> None:
    data = file_of(PAYLOADS)
    size = len(header_for(PAYLOADS).pack())

    def flipped(at: int) -> bytes:
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    for damaged, words in [
        (b"\x89PNG\r\n\x1a\n" + data, "not a bbans file"),
        (flipped(7), "checksum of its header"),
        (flipped(size - 1), "checksum of its header"),
        (flipped(size), "checksum of tile 1 of 4"),
        (flipped(len(data) - 1), "checksum of tile 4 of 4"),
        (data[:-3], "truncated: 3 bytes are missing"),
        (data[:20], "truncated: it ends within its header"),
        (data + b"x", "1 bytes too many"),
    ]:
        with pytest.raises(BadFile, match=words):
            read(damaged)


def test_newer_version_asks_for_a_newer_bbans() -> None:
    data = bytearray(file_of(PAYLOADS))
    data[4] = container.WITH_PARTICLES + 1
    with pytest.raises(UnsupportedVersion, match="needs a newer bbans"):
        Header.parse(bytes(data))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (fields(1, 1, 0), "fewer tiles"),
        (fields(30, 20, 16, 0, 0, 0), "fewer tiles"),
        (fields(30, 20, 16, 0, 0, 0, 0, 0), "longer than its tiles"),
        (fields(10**8, 1, 1), "fewer tiles"),  # and no list of 10^8 tiles on the way
        (fields(0, 5, 0, 0), "no pixels"),
        (fields(1, 1, 0, 0, mode=10), "mode"),
        (fields(1, 1, 0, 2**60), "truncated"),
        (bytes([1]) + b"\x81\x00\x01\x00" + MODEL + bytes(11), "badly written"),
        (bytes([1]) + b"\xff" * 20, "impossible"),
        (b"", "too short"),
    ],
)
def test_claims_are_checked(body: bytes, words: str) -> None:
    with pytest.raises(BadFile, match=words):
        Header.parse(sealed(body))


def test_absurd_sizes_are_refused() -> None:
    with pytest.raises(TooLarge, match="up to"):
        Header.parse(sealed(fields(2**31, 2**31, 0, 0)))
    data = Header("L", 20_000, 20_000, 0, (Piece(0, checksum(b""), 0),), MODEL).pack()
    with pytest.raises(TooLarge, match=r"and up to [0-9]+ are allowed$"):
        Header.parse(data)
    assert Header.parse(data, limit=400_000_000) == Header.parse(data, limit=None)


def test_pack_refuses_nonsense() -> None:
    header = header_for(PAYLOADS)
    with pytest.raises(ValueError, match="tiles"):
        dataclasses.replace(header, width=40).pack()
    with pytest.raises(ValueError, match="id"):
        dataclasses.replace(header, model_id=b"short").pack()


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 20))
def test_tiles_cover_every_pixel_once(width: int, height: int, side: int) -> None:
    grid = container.tile_grid(width, height, side)
    assert len(grid) == container.tile_count(width, height, side)
    covered = sorted((y + i, x + j) for x, y, w, h in grid for i in range(h) for j in range(w))
    assert covered == [(y, x) for y in range(height) for x in range(width)]
    assert [(y, x) for x, y, _, _ in grid] == sorted((y, x) for x, y, _, _ in grid)


@pytest.mark.parametrize(
    ("width", "height", "side"),
    [(1, 1, 0), (1920, 1080, 0), (2_000_000, 1, 0), (6000, 4000, 1024), (3_000_000, 1, 1024)],
)
def test_tile_side(width: int, height: int, side: int) -> None:
    assert container.tile_side(width, height) == side


def test_many_attributes_take_no_time() -> None:
    attributes = {f"{i:06}": b"" for i in range(container.MOST_RECORDS)}
    assert container.unpack_attributes(container.pack_attributes(attributes)) == attributes
    one_more = zlib.compress(b"".join(b"\6%06d\0" % i for i in range(container.MOST_RECORDS + 1)))
    with pytest.raises(BadFile, match="more than 65536 attributes"):
        container.unpack_attributes(one_more)
    with pytest.raises(TooLarge, match="other metadata"):
        container.pack_attributes(attributes | {"x": b""})
