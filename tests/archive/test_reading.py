from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from bbans import archive
from bbans.archive import reading
from bbans.archive.format import FILE, MAGIC, MARKER, MAX_HEADER_BYTES, MAX_SAMPLES, Header, Run
from bbans.archive.names import Numbered
from bbans.errors import BadFile, TooLarge, UnsupportedVersion
from bbans.image.fields import write_varint

from .helpers import archive_of, grey, pixels, save

pytestmark = pytest.mark.usefixtures("fakes")


@pytest.fixture
def data() -> bytes:
    """An archive x.bbansa of five groups: three files, and then four times ten pictures of an array."""
    for i in range(3):
        save(f"in/{i}.png", pixels(5, 4, 3, seed=i))
    np.save("digits.npy", pixels(40, 4, 6))
    archive.create("x.bbansa", ["in", "digits.npy"], group=10)
    return Path("x.bbansa").read_bytes()


def positions(opened: archive.Archive) -> list[int]:
    return [entry.position for entry in opened.entries]


def test_entries(data: bytes) -> None:
    opened = archive.read("x.bbansa")
    entries = list(opened.entries)
    assert [entry.position for entry in entries] == list(range(43))
    assert [entry.name for entry in entries][:5] == ["in/0.png", "in/1.png", "in/2.png", "digits/00", "digits/01"]
    first, last = entries[0], entries[-1]
    assert (first.height, first.width, first.mode, first.group, first.kind) == (5, 4, "RGB", 0, "chain")
    assert (last.height, last.width, last.mode, last.group, last.name) == (4, 6, "L", 4, "digits/39")
    assert (opened.images, opened.dims, opened.size, opened.damage) == (43, 3 * 60 + 40 * 24, len(data), ())


def test_only_headers_are_read(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = archive.read("x.bbansa")
    spoilt = bytearray(data)
    for group in opened.groups:
        spoilt[group.offset : group.offset + group.header.size] = bytes(group.header.size)
    Path("x.bbansa").write_bytes(spoilt)
    assert list(archive.read("x.bbansa").entries) == list(opened.entries)


def test_pictures_of_several_groups_come_in_order() -> None:
    path = archive_of(
        "x.bbansa",
        [
            (dataclasses.replace(grey("a", "d", "e")[0], runs=(Run(0, 1), Run(3, 2))), pixels(3, 2, 3, 1)),
            (dataclasses.replace(grey("b", "c", "f")[0], runs=(Run(1, 2), Run(5, 1))), pixels(3, 2, 3, 1)),
        ],
    )
    assert [(e.position, e.name, e.group) for e in archive.read(path).entries] == [
        (0, "a", 0),
        (1, "b", 1),
        (2, "c", 1),
        (3, "d", 0),
        (4, "e", 0),
        (5, "f", 1),
    ]


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (b"", "is empty"),
        (b"\x89PNG\r\n", "not a bbans archive"),
        (b"\xbbans\0", "one picture: bbans decompress"),
        (b"\xbban", "is truncated"),
        (b"\xbbana", "is truncated"),
        (b"\xbbana\0", "its end is missing"),
    ],
)
def test_files_that_are_no_archive(damaged: bytes, words: str) -> None:
    Path("x.bbansa").write_bytes(damaged)
    for keep_going in (False, True):
        with pytest.raises(BadFile, match=f"^x.bbansa: .*{words}"):
            archive.read("x.bbansa", keep_going=keep_going)
    with pytest.raises(BadFile, match=r"none.bbansa: no such file"):
        archive.read("none.bbansa")


def test_a_later_version(data: bytes) -> None:
    Path("x.bbansa").write_bytes(data[:4] + b"\1" + data[5:])
    with pytest.raises(UnsupportedVersion, match="needs a newer bbans"):
        archive.read("x.bbansa")
    assert archive.read("x.bbansa", keep_going=True).images == 43  # the checksums tell that it is none
    Path("x.bbansa").write_bytes(data[:4] + b"\1")
    with pytest.raises(UnsupportedVersion):
        archive.read("x.bbansa", keep_going=True)


def test_every_flipped_bit_outside_payloads_is_noticed(data: bytes) -> None:
    opened = archive.read("x.bbansa")
    payloads = {i for g in opened.groups for i in range(g.offset, g.offset + g.header.size)}
    for at in range(len(data)):
        if at in payloads:
            continue
        Path("x.bbansa").write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        with pytest.raises(BadFile, match=r"^x.bbansa: "):
            archive.read("x.bbansa")
        rest = archive.read("x.bbansa", keep_going=True)
        assert rest.damage and len(rest.groups) >= 4
        lost = set(range(43)) - set(positions(rest))
        assert not lost or f"{min(lost)} to {max(lost)} are lost" in rest.damage[-1]
        if at < 5 or at >= opened.groups[-1].offset:
            assert not lost  # groups are found without magic and index


def test_every_truncation_is_noticed(data: bytes) -> None:
    groups = archive.read("x.bbansa").groups
    for size in range(0, len(data), 7):
        Path("x.bbansa").write_bytes(data[:size])
        with pytest.raises(BadFile, match=r"^x.bbansa: "):
            archive.read("x.bbansa")
        if size >= groups[0].offset:
            rest = archive.read("x.bbansa", keep_going=True)
            assert len(rest.groups) == sum(group.offset <= size for group in groups)
            assert "damaged or truncated" in rest.damage[0]


def test_missing_and_added_bytes(data: bytes) -> None:
    """All groups but the one that it happened in are found."""
    group = archive.read("x.bbansa").groups[2]
    middle = group.offset + 5
    for damaged in (data[:middle] + data[middle + 9 :], data[:middle] + b"123" + data[middle:]):
        Path("x.bbansa").write_bytes(damaged)
        rest = archive.read("x.bbansa", keep_going=True)
        assert [g.header.runs for g in rest.groups][:2] + [g.header.runs for g in rest.groups][-2:] == [
            (Run(0, 3),),
            (Run(3, 10),),
            (Run(23, 10),),
            (Run(33, 10),),
        ]


def test_bytes_before_and_behind(data: bytes) -> None:
    for damaged in (b"junk" + data, data + b"junk"):
        Path("x.bbansa").write_bytes(damaged)
        assert archive.read("x.bbansa", keep_going=True).images == 43


def test_markers_that_mean_nothing(data: bytes) -> None:
    Path("x.bbansa").write_bytes(data[:5] + MARKER * 50 + MARKER + b"\xff" * 9 + data[5:-1])
    assert archive.read("x.bbansa", keep_going=True).images == 43


@pytest.mark.parametrize(
    ("groups", "pictures", "words"),
    [
        ([grey("a", "b"), grey("c", position=1)], None, "pictures of another group"),
        ([grey("a", "b"), grey("c", position=3)], None, "picture 2 is lost"),
        ([grey("a", "b")], 4, "pictures 2 to 3 are lost"),
        ([grey("a", "b")], 1, "its index knows 1 pictures, its groups have 2"),
        ([grey("a", "../b")], None, "refused: the name '../b'"),
    ],
)
def test_contradictions(groups: list, pictures: int | None, words: str) -> None:
    path = archive_of("x.bbansa", groups, pictures=pictures)
    with pytest.raises(BadFile, match=words):
        archive.read(path)
    assert any(words in damage for damage in archive.read(path, keep_going=True).damage)


def test_an_archive_of_nothing() -> None:
    with pytest.raises(BadFile, match="holds no pictures"):
        archive.read(archive_of("x.bbansa", []))


def test_claims_of_many_pictures_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    header, array = grey("a")
    count = MAX_SAMPLES >> 10
    many = dataclasses.replace(header, runs=(Run(0, count),), names=(Numbered("x", 0, count, 1),))
    more = dataclasses.replace(many, runs=(Run(count, count),))
    path = archive_of("x.bbansa", [(many, array), (more, array)], pictures=2 * count)
    assert archive.read(path).images == 2 * count
    with monkeypatch.context() as patch:
        patch.setattr(reading, "MAX_PICTURES", 2 * count - 1)
        for keep_going in (False, True):
            with pytest.raises(TooLarge, match="pictures"):
                archive.read(path, keep_going=keep_going)
    monkeypatch.setattr(reading, "MAX_NAME_BYTES", 5)
    long = archive_of("y.bbansa", [grey("abc"), grey("abd", position=1)])
    with pytest.raises(TooLarge, match="names"):
        archive.read(long)


@pytest.mark.parametrize("kind", ["payloads", "headers"])
def test_markers_that_claim_much_are_not_looked_at_without_end(kind: str) -> None:
    """Each asks for a checksum of all that is behind it."""
    header = Header(FILE, "L", 1, 1, bytes(8), (Run(0, 1),), (Numbered("a", 0, 1, 1),), 1 << 23, 1, 2).pack()
    begin = header if kind == "payloads" else MARKER + write_varint(MAX_HEADER_BYTES)
    Path("x.bbansa").write_bytes(MAGIC + b"\0" + begin * (1 << 23 >> 5))
    with pytest.raises(BadFile, match="so damaged"):
        archive.read("x.bbansa", keep_going=True)
