from __future__ import annotations

import dataclasses
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbans.archive import format as archive_format
from bbans.archive.format import CHAIN, FILE, MARKER, START, Header, Index, Run, header_size, index_size
from bbans.archive.names import Listed, Names, Numbered
from bbans.errors import BadFile, BbansError, TooLarge
from bbans.image.container import checksum
from bbans.image.fields import write_varint

MODEL = bytes(range(8))


def header(**changes: object) -> Header:
    runs, names = (Run(0, 1000),), (Numbered("digits/", 0, 1000, 4),)
    whole = Header(CHAIN, "1", 28, 28, MODEL, runs, names, 15000, 0x01020304, 0xA0B0C0D0)
    return dataclasses.replace(whole, **changes)  # type: ignore[arg-type]


def sealed(body: bytes) -> bytes:
    """A header with any fields and a right checksum, as only malice writes it."""
    head = MARKER + write_varint(len(body)) + body
    return head + checksum(head).to_bytes(4, "little")


def numbers(*values: int) -> bytes:
    return b"".join(write_varint(n) for n in values)


def body(
    *, form: int = 4, size: tuple[int, int] = (28, 28), runs: bytes = numbers(1, 0, 2), names: bytes | None = None
) -> bytes:
    named = numbers(2 * 2 + 1, 0) + b"\1" + numbers(1) + b"x" if names is None else names
    return bytes([form]) + MODEL + numbers(*size) + runs + named + numbers(5) + bytes(8)


def test_golden_header() -> None:
    """A change of these bytes is a change of the format."""
    packed = header().pack()
    assert packed.hex(" ") == (
        "bb 67 25 04 00 01 02 03 04 05 06 07 1c 1c 01 00 e8 07 d1 0f 00 04 07 64 69 67 69 74 73 2f 98 75 04 03 02 01 "
        "d0 c0 b0 a0 78 0c 0b 56"
    )
    assert len(packed) == 44


def test_a_chain_with_particles_says_so() -> None:
    """In a way that an earlier bbans refuses, for that group only."""
    packed = header(particles=True).pack()
    assert packed[3] == header().pack()[3] + 128
    assert Header.parse(packed) == header(particles=True)
    with pytest.raises(BadFile, match="particles"):
        Header.parse(sealed(body(form=1 + 128, runs=numbers(1, 0, 1), names=numbers(3, 0) + b"\1" + numbers(1) + b"x")))


def test_golden_index() -> None:
    packed = Index(1000, ((46, 15000),)).pack()
    assert packed.hex(" ") == "e8 07 01 2e 98 75 06 00 00 00 f4 ba 92 fb bb 7a"


def test_what_a_group_costs() -> None:
    """Everything around the payloads of 10,000 pictures of an array, in ten groups."""
    names = Numbered("digits/", 0, 10000, 4)
    headers = [header(runs=(Run(n, 1000),), names=(names.part(n, n + 1000),)) for n in range(0, 10000, 1000)]
    packed = [len(one.pack()) for one in headers]
    index = len(Index(10000, tuple((size, 15000) for size in packed)).pack())
    assert max(packed) <= 46 and sum(packed) + index + START < 530


@st.composite
def headers(draw: st.DrawFn) -> Header:
    text = st.text("abcé /.-\udce9", min_size=1, max_size=9).map(lambda t: f"x{t.replace('/', '-')}y")
    counts = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    names: list[Names] = []
    for count in counts:
        if draw(st.booleans()):
            names.append(Numbered(draw(text) + "/", draw(st.integers(0, 2**40)), count, draw(st.integers(0, 18))))
        else:
            listed = Listed(tuple(draw(st.lists(text, min_size=count, max_size=count))))
            names.append(listed)
    position, runs = 0, []
    for count in draw(st.permutations(counts)):
        position += draw(st.integers(0, 300))
        runs.append(Run(position, count))
        position += count
    u32 = st.integers(0, 2**32 - 1)
    mode = draw(st.sampled_from(["L", "RGB", "1"]))
    size = (draw(st.integers(1, 500)), draw(st.integers(1, 500)))
    model = draw(st.binary(min_size=8, max_size=8))
    return Header(CHAIN, mode, *size, model, tuple(runs), tuple(names), *draw(st.tuples(u32, u32, u32)))


@given(headers())
def test_round_trip(one: Header) -> None:
    packed = one.pack()
    assert header_size(packed[:16]) == len(packed)
    parsed = Header.parse(packed)
    assert [name for part in parsed.names for name in part] == [name for part in one.names for name in part]
    assert dataclasses.replace(parsed, names=one.names) == one


def test_many_names_are_packed() -> None:
    names = Listed(tuple(f"holiday/in/the/mountains/IMG_{n}.jpg" for n in range(1000)))
    one = header(names=(names,))
    assert len(one.pack()) < 3000
    assert Header.parse(one.pack()) == one


def test_every_flipped_bit_is_noticed() -> None:
    data = header(names=(Listed(("a", "b")), Numbered("x", 0, 998, 3))).pack()
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BbansError):
            Header.parse(bytes(damaged))


def test_every_truncation_is_noticed() -> None:
    data = header().pack()
    for size in range(len(data)):
        with pytest.raises(BbansError):
            Header.parse(data[:size])


def test_a_later_version_seeds_its_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a damaged version byte is told from a later version."""
    monkeypatch.setattr(archive_format, "VERSION", 1)
    data, index = header().pack(), Index(1, ((9, 9),)).pack()
    monkeypatch.undo()
    with pytest.raises(BadFile, match="checksum"):
        Header.parse(data)
    with pytest.raises(BadFile, match="checksum"):
        Index.parse(index, START + 18 + len(index))


@given(st.binary(max_size=80))
def test_junk_with_a_right_checksum_raises_nothing_else(junk: bytes) -> None:
    for data in (sealed(junk), sealed(body() + junk), sealed(body()[:9] + junk)):
        try:
            parsed = Header.parse(data)
        except BbansError:
            continue
        assert parsed.count == sum(part.count for part in parsed.names)


def bomb(size: int) -> bytes:
    """Names that take few bytes and say that they are `size`."""
    deflate = zlib.compressobj(9, wbits=-15)
    packed = deflate.compress(b"a" * (1 << 23)) + deflate.flush()
    return numbers(2 * 2, size, len(packed)) + packed


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (body(form=6), "mode"),
        (body(form=5), "one file, and yet several"),
        (body(size=(0, 5)), "no pixels"),
        (body(runs=numbers(0)), "impossible number"),
        (body(runs=numbers(1, 0, 0)), "impossible number"),
        (body(runs=numbers(1, 0, 1 << 60)), "impossible number"),
        (body(runs=numbers(1 << 60)), "impossible number"),
        (body(names=numbers(2 * 3 + 1)), "another number of names"),
        (body(names=numbers(0)), "another number of names"),
        (body(names=numbers(2 * 2 + 1, 0) + b"\xff" + numbers(1) + b"x"), "digits"),
        (body(names=numbers(2 * 2 + 1, 0) + b"\1" + numbers(1 << 60) + b"x"), "too short"),
        (body(names=numbers(2 * 2, 1 << 60, 0) + b"a\0b"), "too long"),
        (body(names=numbers(2 * 2, 1, 0) + b"a"), "another number of names"),
        (body(names=numbers(2 * 2, 4, 3) + b"abc"), "names are damaged"),
        (body(names=bomb(100)), "names are damaged"),
        (body(names=bomb(1 << 23)), "too long"),
        (body(names=numbers(2 * 2, 6, 0) + b"../a\0b"), "^refused: the name '../a'"),
        (body(names=numbers(2 * 2 + 1, 0) + b"\1" + numbers(3) + b"../"), "refused: the name '../0'"),
        (body() + b"x", "longer than its fields"),
        (body(runs=b"\xff" * 20), "impossible number"),
        (b"", "too short"),
    ],
)
def test_claims_are_checked(fields: bytes, words: str) -> None:
    with pytest.raises(BadFile, match=words):
        Header.parse(sealed(fields))


def test_absurd_sizes_are_refused() -> None:
    with pytest.raises(TooLarge):
        Header.parse(sealed(body(size=(1 << 30, 1 << 30))))
    with pytest.raises(TooLarge, match="samples"):
        Header.parse(sealed(body(size=(8000, 8000))))
    with pytest.raises(BadFile, match="too long"):
        header_size(MARKER + write_varint(1 << 40))
    names = numbers(2 + 1, 0) + b"\1" + numbers(1) + b"x"
    assert Header.parse(sealed(body(form=5, size=(8000, 8000), runs=numbers(1, 0, 1), names=names))).kind == FILE


def test_index() -> None:
    index = Index(7, ((50, 100), (60, 0)))
    data = index.pack()
    size = START + 210 + len(data)
    assert index_size(data[-10:]) == len(data)
    assert Index.parse(data, size) == index
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadFile):
            Index.parse(bytes(damaged), size)
    with pytest.raises(BadFile, match="does not fit"):
        Index.parse(data, size + 1)
    with pytest.raises(BadFile, match="end is missing"):
        index_size(data[:-1])
    with pytest.raises(BadFile, match="end is missing"):
        index_size(b"")


@pytest.mark.parametrize(
    ("fields", "words"), [(numbers(1, 1 << 60), "too short"), (numbers(1 << 60, 0), "takes up to")]
)
def test_an_index_is_checked_too(fields: bytes, words: str) -> None:
    size = len(fields).to_bytes(4, "little")
    tail = size + checksum(fields + size).to_bytes(4, "little") + b"\xbbz"
    with pytest.raises(BbansError, match=words):
        Index.parse(fields + tail, START + len(fields) + 10)
