"""PNG where Pillow tells less than the file: 16 bits for each of several channels, and several texts of one key.

Pillow reduces 16 bits to 8, unless they are grey, so such pixels are read and written by imagecodecs; all else stays
with Pillow. Each of them is given a file that holds its part only: chunks are moved from one PNG to another as they
are. Knows chunks, and which of them hold pixels; refuses to know what the others say.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngStream

from bbans.errors import BadImage, BadOutput

if TYPE_CHECKING:
    from bbans.image.sheets import Pixels

_MAGIC, _END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"
_DEEP = {2: "RGB;16", 4: "LA;16", 6: "RGBA;16"}  # by the colour types of PNG
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_PIXELS = (b"IHDR", b"IDAT", b"acTL", b"fcTL", b"fdAT")  # what they are, and how they are animated
_NEEDS = "16 bits for each of several channels, which needs imagecodecs: pip install 'bbans[deep]'"


def deep_mode(image: Image.Image) -> str | None:
    """Of an open PNG whose pixels Pillow would reduce to 8 bits; None of others, and of what is loaded already."""
    file = _file_of(image)
    if file is None:
        return None
    before = file.tell()
    at = next(at for kind, at, _ in _chunks(file) if kind == b"IHDR")
    file.seek(at + 8)
    depth, colour = file.read(2)
    file.seek(before)
    return _DEEP.get(colour) if depth == 16 else None


def texts(image: Image.Image) -> list[tuple[str, str]]:
    """Keys and texts of an open PNG in their order; what is loaded already has the last one of each key only.

    Pillow reads each, and so bounds them: they are not larger than `PngImagePlugin.MAX_TEXT_CHUNK` each, and
    `MAX_TEXT_MEMORY` all together, or ValueError is raised.
    """
    file = _file_of(image)
    if file is None:
        return list(getattr(image, "text", {}).items())
    before = file.tell()
    stream = PngStream(file)
    found: list[tuple[str, str]] = []
    for kind, at, size in _chunks(file):
        if kind in _TEXTS:
            stream.call(kind, at, size)
            found += stream.im_text.items()
            stream.im_text.clear()
    file.seek(before)
    return found


def decoded(image: Image.Image) -> tuple[Pixels, IO[bytes]]:
    """Of an open PNG that has a `deep_mode`: its pixels uint16 [h, w, c], and a PNG of one pixel that says all else.

    Raises `BadImage`, and what imagecodecs does.
    """
    try:
        from imagecodecs import png_decode, png_encode
    except ImportError as error:
        raise BadImage(f"has {_NEEDS}") from error
    file = _file_of(image)
    assert file is not None
    file.seek(0)
    png = file.read()
    pixels = png_decode(_grafted(png, b""))  # nothing else, by which libpng might change them
    return pixels, io.BytesIO(_grafted(bytes(png_encode(pixels[:1, :1])), png))


def encoded(pixels: Pixels, options: dict[str, Any]) -> bytes:
    """A PNG of pixels uint16 [h, w, 2 to 4], with what options of Pillow's `save` say of it. Raises `BadOutput`."""
    try:
        from imagecodecs import png_encode
    except ImportError as error:
        raise BadOutput(f"has {_NEEDS}") from error
    one_pixel = io.BytesIO()
    Image.new("RGB" if pixels.shape[2] == 3 else "RGBA", (1, 1)).save(one_pixel, "PNG", **options)
    return _grafted(bytes(png_encode(pixels, level=1)), one_pixel.getvalue())


def _file_of(image: Image.Image) -> IO[bytes] | None:
    return getattr(image, "fp", None) if isinstance(image, PngImageFile) else None


def _chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Kind, place of the data and their size, of each chunk before the end; the file is at the data."""
    file.seek(len(_MAGIC))
    while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
        at, size = file.tell(), int.from_bytes(head[:4], "big")
        yield head[4:], at, size
        file.seek(at + size + 4)


def _grafted(pixels: bytes, rest: bytes) -> bytes:
    """A PNG with the pixels of one, and before them, where any chunk may stand, all else of the other."""
    own = _whole_chunks(pixels)
    header, data = ([chunk for kind, chunk in own if kind == wanted] for wanted in (b"IHDR", b"IDAT"))
    others = [chunk for kind, chunk in _whole_chunks(rest) if kind not in _PIXELS]
    return b"".join([_MAGIC, *header, *others, *data, _END])


def _whole_chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    """Kind, and all the bytes, of each chunk before the end."""
    found = [(kind, at - 8, at + size + 4) for kind, at, size in _chunks(io.BytesIO(png))]
    if found and found[-1][2] > len(png):
        raise BadImage("is damaged: it ends within a chunk")
    return [(kind, png[start:stop]) for kind, start, stop in found]
