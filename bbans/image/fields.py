"""The fields that headers are made of. Integers are little-endian.

A varint is an unsigned integer in as few bytes as it needs: seven bits a byte, lowest first, the top bit set but in the
last.
"""

from __future__ import annotations

from collections.abc import Callable

from bbans.errors import BadFile

HASH_BYTES = 4
MOST_VARINT_BYTES = 9


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
    """(n, where the next thing begins). Raises `BadFile` at the end of the data and beyond 63 bits, and at
    superfluous bytes."""
    n = 0
    for i in range(MOST_VARINT_BYTES):
        if at + i >= len(data):
            raise BadFile("the file is truncated")
        byte = data[at + i]
        n |= (byte & 127) << (7 * i)
        if byte < 128:
            if i and not byte:
                raise BadFile("the file holds a number that is badly written")
            return n, at + i + 1
    raise BadFile("the file holds an impossible number")


class Reader:
    """Reads fields one after the other. At a bad one it raises what `error` makes of the reason."""

    def __init__(self, data: bytes, at: int = 0, *, error: Callable[[str], BadFile] = BadFile) -> None:
        self.data, self.at, self._error = data, at, error

    def left(self) -> int:
        """Bytes that are not read yet."""
        return len(self.data) - self.at

    def take(self, size: int) -> bytes:
        if self.left() < size:
            raise self._error("it is too short for its fields")
        self.at += size
        return self.data[self.at - size : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def hash(self) -> int:
        """A checksum of 4 bytes."""
        return int.from_bytes(self.take(HASH_BYTES), "little")

    def varint(self) -> int:
        """Raises `BadFile`."""
        number, self.at = read_varint(self.data, self.at)
        return number
