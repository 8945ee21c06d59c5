"""Unsigned integers in as few bytes as they need: seven bits a byte, lowest first, the top bit set but in the last."""

from __future__ import annotations

from bbans.errors import BadFile


def write_varint(n: int) -> bytes:
    """n >= 0 as 1 to 9 bytes."""
    if n < 0:
        raise ValueError("a varint is not negative")
    out = bytearray()
    while n >= 128:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """(n, where the next thing begins). Raises `BadFile` at the end of the data and beyond 63 bits."""
    n = 0
    for i in range(9):
        if at + i >= len(data):
            raise BadFile("the file is truncated")
        byte = data[at + i]
        n |= (byte & 127) << (7 * i)
        if byte < 128:
            return n, at + i + 1
    raise BadFile("the file holds an impossible number")
