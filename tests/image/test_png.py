"""PNGs of 16 bits for each of several channels."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bbans.errors import BadImage, BadOutput, TooLarge
from bbans.image.files import encoded, picture_size, read_picture, to_pillow
from bbans.image.modes import MODES
from bbans.image.picture import Picture
from tests.image.test_files import png

COLOURS = {"RGB;16": 2, "LA;16": 4, "RGBA;16": 6}
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
BEFORE = (
    (b"gAMA", struct.pack(">I", 45455)),
    (b"cHRM", struct.pack(">8I", *range(8))),
    (b"iCCP", b"name\0\0" + zlib.compress(b"a profile")),
    (b"pHYs", struct.pack(">IIB", 11811, 2835, 1)),
    (b"tEXt", b"Comment\0one"),
)
BEHIND = (
    (b"zTXt", b"Comment\0\0" + zlib.compress(b"two")),
    (b"iTXt", b"Comment\0\0\0pl\0Uwaga\0" + "\u0141".encode()),
    (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>"),
    (b"eXIf", b"II*\0\x08\0\0\0\0\0\0\0\0\0"),
)
TRANSPARENT = ((b"tRNS", struct.pack(">3H", 1, 300, 65535)),)
KEPT = {
    "gamma",
    "chromaticity",
    "icc",
    "dpi",
    "xmp",
    "exif",
    "text/Comment",
    "text-2/Comment",
    "text-3/Comment",
}


def deep_pixels(mode: str, height: int = 9, width: int = 13) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 65536, (height, width, MODES[mode].channels), np.uint16)


def deep_png(pixels: np.ndarray, mode: str, *, interlaced: bool = False) -> bytes:
    """With everything that such a PNG can say, before its pixels and behind them."""
    parts = (pixels[y::dy, x::dx] for y, x, dy, dx in (ADAM7 if interlaced else ((0, 0, 1, 1),)))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for part in parts if part.size for row in part)
    before = BEFORE + (TRANSPARENT if mode == "RGB;16" else ())
    height, width, _ = pixels.shape
    return png(width, height, 16, COLOURS[mode], rows, before, BEHIND, interlaced)


@pytest.mark.parametrize("size", [(9, 13), (1, 1), (1, 4)])
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("mode", COLOURS)
def test_they_are_read_and_written(mode: str, interlaced: bool, size: tuple[int, int], tmp_path: Path) -> None:
    pixels = deep_pixels(mode, *size)
    path = tmp_path / "x.png"
    path.write_bytes(deep_png(pixels, mode, interlaced=interlaced))
    assert picture_size(path) == (*size, mode)
    picture = read_picture(path)
    assert picture.mode == mode and set(picture.attributes) == KEPT | ({"transparent"} if mode == "RGB;16" else set())
    assert picture.attributes["exif"] == BEHIND[-1][1] and picture.attributes["text-2/Comment"] == b"ttwo"
    assert picture.attributes.get("transparent", b"1 300 65535") == b"1 300 65535"
    np.testing.assert_array_equal(picture.pixels, pixels)
    made = bytes(encoded(picture, ".png"))
    again = read_picture(io.BytesIO(made))
    assert (again.mode, again.attributes) == (mode, picture.attributes)
    np.testing.assert_array_equal(again.pixels, pixels)
    theirs, ours = Image.open(path), Image.open(io.BytesIO(made))
    assert theirs.tobytes() == ours.tobytes()
    for image in (theirs, ours):
        image.info.pop("interlace", None)
    assert theirs.info == ours.info and theirs.text == ours.text


def test_strip() -> None:
    for mode in COLOURS:
        kept = read_picture(io.BytesIO(deep_png(deep_pixels(mode), mode)), strip=True).attributes
        assert set(kept) == ({"transparent"} if mode == "RGB;16" else set())


def test_what_cannot_hold_them() -> None:
    picture = Picture(deep_pixels("RGBA;16"), "RGBA;16")
    with pytest.raises(BadOutput, match=r"TIFF files can't hold mode RGBA;16 exactly; PNG can"):
        encoded(picture, ".tiff")
    with pytest.raises(BadOutput, match=r"Pillow does not have; bbans\.bbans_decode"):
        to_pillow(picture)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    data = deep_png(deep_pixels("RGB;16"), "RGB;16")
    picture = read_picture(io.BytesIO(data))
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(BadImage, match=r"pip install 'bbans\[deep\]'"):
        read_picture(io.BytesIO(data))
    with pytest.raises(BadOutput, match=r"pip install 'bbans\[deep\]'"):
        encoded(picture, ".png")


def test_damage() -> None:
    data = deep_png(deep_pixels("RGB;16"), "RGB;16")
    for size in (*range(33, data.index(b"zTXt") - 8, 7), data.index(b"zTXt") + 10):
        with pytest.raises(BadImage):
            read_picture(io.BytesIO(data[:size]))
    at = data.index(b"IDAT") + 20
    for damaged in (data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], data[:33] + data[8:]):  # or two headers
        with pytest.raises(BadImage, match="damaged"):
            read_picture(io.BytesIO(damaged))


def test_too_many_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(TooLarge, match="up to"):
        read_picture(io.BytesIO(png(20_000, 20_000, 16, 2, b"")))


def test_animations() -> None:
    control = struct.pack(">5I2H2B", 0, 2, 2, 0, 0, 1, 1, 0, 0)
    animation = ((b"acTL", struct.pack(">II", 2, 0)), (b"fcTL", control))
    with pytest.raises(BadImage, match="2 frames"):
        read_picture(io.BytesIO(png(2, 2, 16, 2, bytes(26), animation)))
    single = ((b"acTL", struct.pack(">II", 1, 0)), (b"fcTL", control))
    assert read_picture(io.BytesIO(png(2, 2, 16, 2, bytes(26), single))).mode == "RGB;16"
