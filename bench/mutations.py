"""Ways to damage .bbans and .bbansa files. Knows their fields, to put checksums right again behind what it changed;
refuses to know what reads them. All randomness is the caller's."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random

import numpy as np

from bbans.archive import format as archives
from bbans.archive.names import Listed, Numbered
from bbans.image import container
from bbans.image.container import NO_MODEL, Header, checksum, pack_attributes, tile_count
from bbans.image.fields import HASH_BYTES, Reader, write_varint
from bbans.image.modes import MODES

NUMBERS = (0, 1, 2, 3, 127, 128, 255, 256, 1000, 16384, 65536, 2**24, 2**31 - 1, 2**32, 2**40, 2**62, 2**63 - 1)
NO_VARINTS = (b"", b"\x80", b"\x80\x00", b"\xff" * 9, b"\xff" * 30)
LENGTHS = (1, 1, 2, 4, 16, 64, 256)
MAGICS = (
    b"",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"RIFF\0\0\0\0WEBP",
    b"PK\3\4",
    b"\xbban",
    b"bban",
    b"\xef\xbb\xbf",
)
NAMES = ("palette", "palette-alpha", "icc", "exif", "xmp", "comment", "dpi", "gamma", "srgb", "chromaticity")
NAMES += ("transparent", "text/", "text/a", "text/" + "k" * 90, "text/\0", "", "note", "\U0010ffff")
VALUES = (
    b"",
    b"0",
    b"-1",
    b"255",
    b"70000",
    b"1 2",
    b"1 2 3",
    b"inf inf",
    b"nan",
    b"1e400 1",
    b"0.3 " * 8,
    b"9" * 5000,
)
VALUES += (b"i", b"t", b"ia\0b\0c", b"i\0\0", b"\xff\xfe", bytes(3), bytes(768), bytes(771), bytes(70_000))


def cuts(data: bytes) -> Iterator[bytes]:
    """Every beginning."""
    return (data[:size] for size in range(len(data)))


def flips(data: bytes) -> Iterator[bytes]:
    """Every bit changed, one at a time."""
    damaged = bytearray(data)
    for bit in range(8 * len(data)):
        damaged[bit // 8] ^= 1 << bit % 8
        yield bytes(damaged)
        damaged[bit // 8] ^= 1 << bit % 8


def mutated(data: bytes, random: Random) -> bytes:
    """A few runs of bytes overwritten, put in, left out, exchanged or doubled."""
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4))):
        start, other = random.randrange(len(out) + 1), random.randrange(len(out) + 1)
        length = random.choice(LENGTHS)
        run = out[start : start + length]
        fresh = random.choice((random.randbytes(length), bytes(length), b"\xff" * length))
        match random.randrange(5):
            case 0:
                out[start : start + len(run)] = fresh[: len(run)]
            case 1:
                out[start:start] = fresh
            case 2:
                del out[start : start + length]
            case 3:
                out[start : start + len(run)], out[other : other + len(run)] = out[other : other + len(run)], run
            case 4:
                out[start:start] = run
    return bytes(out)


def foreign(data: bytes, random: Random) -> bytes:
    """With another beginning, version or end."""
    more = random.randbytes(random.choice((1, 4, 1000)))
    return random.choice(
        (
            random.choice(MAGICS) + data[4:],
            random.choice(MAGICS) + data,
            data[:4] + bytes([random.randrange(256)]) + data[5:],
            data + more,
            data + data,
            more + data,
            data[random.randrange(len(data)) :],
            data[: random.randrange(len(data))] + more,
        )
    )


# -- pictures ----------------------------------------------------------------------------------------------------------


def sealed(version: int, body: bytes, payloads: Sequence[bytes] = ()) -> bytes:
    """A file whose header has these fields, and a right checksum, as only malice writes it."""
    head = container.MAGIC + bytes([version]) + write_varint(len(body)) + body
    return b"".join([head, _hash(head), *payloads])


def hostile_header(data: bytes, random: Random, ids: Sequence[bytes]) -> bytes:
    """Some fields of the header are others. ids: of models."""
    header, payloads = _taken_apart(data)
    fields = _fields(header)
    for _ in range(random.choice((1, 1, 2, 3))):
        at = random.randrange(len(fields))
        number = write_varint(random.choice(NUMBERS))
        others = (number, number, random.choice(NO_VARINTS), random.choice(ids), mutated(fields[at], random))
        fields[at] = random.choice((*others, bytes([random.randrange(256)])))
    return sealed(header.version, b"".join(fields), payloads)


def hostile_body(data: bytes, random: Random) -> bytes:
    """The header's bytes are changed, whatever they mean."""
    header, payloads = _taken_apart(data)
    return sealed(header.version, mutated(b"".join(_fields(header)), random), payloads)


def hostile_attributes(data: bytes, random: Random) -> bytes:
    """Attributes that no encoder writes, or bytes that are none."""
    header, payloads = _taken_apart(data)
    found = dict(header.attributes)
    for _ in range(random.randrange(4)):
        found[random.choice(NAMES)] = random.choice((*VALUES, random.randbytes(random.randrange(300))))
    packed = pack_attributes(found)
    records = zlib.decompress(packed) if packed else b""
    packed = random.choice(
        (
            packed,
            packed,
            packed,
            zlib.compress(mutated(records, random)),
            mutated(packed, random),
            packed + packed,
            zlib.compress(records[: random.randrange(len(records) + 1)]),
        )
    )
    return sealed(header.version, b"".join(_fields(header, packed)), payloads)


def hostile_payload(data: bytes, random: Random) -> bytes:
    """A payload is another, with its right checksum; that of the samples stays."""
    header, payloads = _taken_apart(data)
    at = random.randrange(len(payloads))
    begin = random.choice((mutated(payloads[at][:8], random) + payloads[at][8:], mutated(payloads[at], random)))
    payloads[at] = random.choice((begin, begin, mutated(payloads[at], random), random.randbytes(len(payloads[at]))))
    pieces = list(header.pieces)
    pieces[at] = replace(pieces[at], size=len(payloads[at]), payload_sum=checksum(payloads[at]))
    return container.join(replace(header, pieces=tuple(pieces)), payloads)


def other_picture(data: bytes, random: Random, ids: Sequence[bytes]) -> bytes:
    """The payloads, said to be tiles of a picture of any other size, mode, method and model; no sum of samples fits."""
    header, payloads = _taken_apart(data)
    mode = random.choice((header.mode, *MODES))
    side = random.choice((header.width, header.height, 1, 2, 3, 12, 28, 40))
    width, height = random.choice(((side, side), (header.width, side), (side, header.height), (1, 5000), (99, 70)))
    tile = random.choice((0, 0, 0, 1, 16, 1408, 2**31, 2**62))
    count = tile_count(width, height, tile) * len(MODES[mode].sheets)
    if count > 1 << 10:
        tile, count = 0, len(MODES[mode].sheets)
    chosen = [random.choice(payloads) for _ in range(count)]
    method = random.choice((container.MODEL, container.MODEL, container.WEBP, container.RAW))
    pieces = tuple(container.Piece(len(one), checksum(one), random.getrandbits(32), method) for one in chosen)
    model = random.choice((header.model_id, *ids)) if method == container.MODEL else NO_MODEL
    return container.join(
        replace(header, mode=mode, width=width, height=height, tile=tile, pieces=pieces, model_id=model, version=1),
        chosen,
    )


def _taken_apart(data: bytes) -> tuple[Header, list[bytes]]:
    header = Header.parse(data)
    return header, list(container.payloads(header, data))


def _fields(header: Header, attributes: bytes | None = None) -> list[bytes]:
    """The fields of a header, from the mode on. attributes: others, as they are packed."""
    packed = pack_attributes(header.attributes) if attributes is None else attributes
    fields = [bytes([MODES[header.mode].code]), *map(write_varint, (header.width, header.height, header.tile))]
    if header.version:
        fields += [header.model_id, write_varint(len(packed)), packed]
    else:
        fields.insert(1, header.model_id)
    for piece in header.pieces:
        fields += [bytes([piece.method])] if header.version else []
        fields += [write_varint(piece.size)]
        fields += [hash_.to_bytes(HASH_BYTES, "little") for hash_ in (piece.payload_sum, piece.samples_sum)]
    return fields


def bombs(model_id: bytes) -> Iterator[bytes]:
    """A few bytes that ask for much, as pictures. model_id: of a model for all sizes."""
    heads = np.array([0, 1 << 31], "<u4").tobytes()
    for payload in (b"\0" + heads + Random(1).randbytes(20_000), heads):
        for width, height in ((13_000, 13_000), (1, 100_000_000), (2**40, 2**40), (4096, 1025)):
            for method in container.METHODS:
                model = model_id if method == container.MODEL else NO_MODEL
                piece = container.Piece(len(payload), checksum(payload), 0, method)
                yield sealed(1, b"".join(_fields(Header("L", width, height, 0, (piece,), model))), [payload])
    tiny = Header("L", 1, 1, 0, (container.Piece(1, checksum(b"x"), 0, container.RAW),))
    for records in (
        b"".join(b"\x07%07d\0" % i for i in range(1_000_000)),
        b"\3icc" + write_varint((1 << 26) - 8) + bytes((1 << 26) - 8),
        bytes(1 << 30),
    ):
        yield sealed(1, b"".join(_fields(tiny, zlib.compress(records))), [b"x"])


# -- archives ----------------------------------------------------------------------------------------------------------


def hostile_group(data: bytes, random: Random, ids: Sequence[bytes]) -> bytes:
    """The header of a group says something else; all checksums and the index are right."""
    pictures, groups = _groups(data)
    at = random.randrange(len(groups))
    header, payload = groups[at]
    parsed = archives.Header.parse(header)
    number = random.choice(NUMBERS)
    changes: dict[str, object] = {
        "kind": random.choice((archives.CHAIN, archives.FILE)),
        "mode": random.choice(tuple(MODES)),
        "width": number,
        "height": number,
        "model_id": random.choice(ids),
        "runs": (archives.Run(random.choice((0, number)), random.choice((1, parsed.count, number))),),
        "names": random.choice(((Numbered("n", number, parsed.count, 3),), (Listed(("a",) * parsed.count),), ())),
        "size": number,
    }
    chosen = random.choice(tuple(changes))
    body = replace(parsed, **{chosen: changes[chosen]}).pack()  # type: ignore[arg-type]
    if random.random() < 0.5:
        reader = Reader(header, len(archives.MARKER))
        reader.varint()
        fields = mutated(header[reader.at : -HASH_BYTES], random)
        body = archives.MARKER + write_varint(len(fields)) + fields
        body += _hash(body)
    groups[at] = body, payload
    return archive_of(random.choice((pictures, pictures, number)), groups)


def hostile_chain(data: bytes, random: Random) -> bytes:
    """The payload of a group is another, with its right checksum; that of the pixels stays."""
    pictures, groups = _groups(data)
    at = random.randrange(len(groups))
    header, payload = groups[at]
    payload = random.choice((mutated(payload[:8], random) + payload[8:], mutated(payload, random)))
    parsed = archives.Header.parse(header)
    groups[at] = replace(parsed, size=len(payload), payload_sum=checksum(payload)).pack(), payload
    return archive_of(pictures, groups)


def hostile_index(data: bytes, random: Random) -> bytes:
    """The index says something else, with its right checksum."""
    pictures, groups = _groups(data)
    begin = archives.START + sum(len(header) + len(payload) for header, payload in groups)
    return archive_of(pictures, groups, index=mutated(data[begin : -archives.TAIL.size], random))


def archive_bombs(model_id: bytes) -> Iterator[bytes]:
    """Likewise, as archives."""
    size = 2**26
    for kind, width, count in ((archives.CHAIN, size, 1), (archives.CHAIN, 1024, 65536), (archives.FILE, size, 1)):
        names = (Numbered("n", 0, count, 3),)
        header = archives.Header(
            kind, "L", width, 1, model_id, (archives.Run(0, count),), names, 9, checksum(bytes(9)), 0
        )
        yield archive_of(count, [(header.pack(), bytes(9))])
    names = Listed(("a" * 1000,) * 4000)
    header = archives.Header(archives.CHAIN, "L", 1, 1, model_id, (archives.Run(0, 4000),), (names,), 0, 0, 0)
    yield archive_of(4000, [(header.pack(), b"")] * 500)
    header = archives.Header(archives.FILE, "L", 1, 1, model_id, (archives.Run(0, 1),), (Listed(("a",)),), size, 0, 0)
    for begin in (header.pack(), archives.MARKER + write_varint(archives.MAX_HEADER_BYTES)):
        yield archives.MAGIC + b"\0" + begin * (2**23 // len(begin))


def archive_of(pictures: int, groups: Sequence[tuple[bytes, bytes]], *, index: bytes | None = None) -> bytes:
    """An archive of groups (header, payload). index: its fields, if they are others than those that fit."""
    parts = archives.MAGIC + bytes([archives.VERSION]) + b"".join(header + payload for header, payload in groups)
    if index is None:
        return parts + archives.Index(pictures, tuple((len(h), len(p)) for h, p in groups)).pack()
    size = len(index).to_bytes(HASH_BYTES, "little")
    return parts + index + size + _hash(index + size) + archives.END


def _groups(data: bytes) -> tuple[int, list[tuple[bytes, bytes]]]:
    """(how many pictures, (header, payload) of each group)."""
    size = archives.index_size(data)
    index = archives.Index.parse(data[-size:], len(data))
    groups, at = [], archives.START
    for header, payload in index.sizes:
        groups.append((data[at : at + header], data[at + header : at + header + payload]))
        at += header + payload
    return index.pictures, groups


def _hash(data: bytes) -> bytes:
    return checksum(data).to_bytes(HASH_BYTES, "little")
