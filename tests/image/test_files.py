from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from bbans.errors import BadFile, BadImage, BadOutput, BbansError, TooLarge
from bbans.image import files
from bbans.image.files import read_bytes, read_picture, to_pillow, write_bytes, write_picture
from bbans.image.picture import Picture

Pixels = Callable[..., np.ndarray]


def png(
    width: int,
    height: int,
    depth: int,
    colour: int,
    rows: bytes,
    extra: tuple[tuple[bytes, bytes], ...] = (),
    behind: tuple[tuple[bytes, bytes], ...] = (),
    interlaced: bool = False,
) -> bytes:
    """A PNG that Pillow itself would not write, with chunks before and behind the pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    ihdr = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    chunks = [(b"IHDR", ihdr), *extra, (b"IDAT", zlib.compress(rows)), *behind, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks)


def tiff(bits: tuple[int, ...], strips: list[bytes], *, planar: int = 1, extra: dict[int, int] | None = None) -> bytes:
    """An uncompressed little-endian TIFF of 2 x 2 pixels."""
    count = len(bits)
    tags: dict[int, tuple[int, ...]] = {
        256: (2,),
        257: (2,),
        258: bits,
        259: (1,),
        262: (2 if count >= 3 else 1,),
        273: (0,) * len(strips),
        277: (count,),
        278: (2,),
        279: tuple(len(s) for s in strips),
        284: (planar,),
        **{tag: (value,) for tag, value in (extra or {}).items()},
    }
    at = 8 + 2 + 12 * len(tags) + 4
    tail = b"".join(strips)
    offsets = [at + sum(len(s) for s in strips[:i]) for i in range(len(strips))]
    tags[273] = tuple(offsets)
    ifd = struct.pack("<H", len(tags))
    for tag, values in sorted(tags.items()):
        if len(values) == 1:
            ifd += struct.pack("<HHII", tag, 4, 1, values[0])
        else:
            ifd += struct.pack("<HHII", tag, 4, len(values), at + len(tail))
            tail += struct.pack(f"<{len(values)}I", *values)
    return b"II*\0" + struct.pack("<I", 8) + ifd + struct.pack("<I", 0) + tail


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


# -- what is taken -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "mode"),
    [*((kind, mode) for kind in ("PNG", "BMP", "TIFF", "PPM") for mode in ("L", "RGB")), ("WEBP", "RGB")],
)
def test_lossless_formats_are_read_exactly(kind: str, mode: str, random_pixels: Pixels) -> None:
    image = Image.fromarray(random_pixels(9, 7, 3)).convert(mode)
    picture = read_picture(io.BytesIO(saved(image, kind, lossless=True)))
    assert picture.mode == mode
    assert picture.pixels.tobytes() == image.tobytes()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_bilevel_pictures_stay_bilevel(kind: str, random_pixels: Pixels) -> None:
    image = Image.fromarray(random_pixels(9, 7, 1)[:, :, 0] > 127)
    picture = read_picture(io.BytesIO(saved(image, kind)))
    assert picture.mode == image.mode == to_pillow(picture).mode == "1" and picture.pixels.max() == 1
    np.testing.assert_array_equal(np.asarray(to_pillow(picture)), np.asarray(image))
    np.testing.assert_array_equal(read_picture(np.asarray(image)).pixels, picture.pixels)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "I;16", "P"])
@pytest.mark.parametrize("kind", files.HOLDS)
def test_other_modes_come_back_from_the_formats_that_hold_them(
    kind: str, mode: str, random_pixels: Pixels, tmp_path: Path
) -> None:
    channels = {"LA": 2, "RGBA": 4}.get(mode, 1)
    pixels = random_pixels(9, 7, channels)
    picture = Picture(pixels * np.uint16(257) if mode == "I;16" else pixels, mode, palette_for(mode))
    path = (tmp_path / "x").with_suffix("." + kind.lower())
    if mode not in files.HOLDS[kind]:
        with pytest.raises(BadOutput, match="can't hold mode"):
            write_picture(picture, path)
        assert not path.exists()
        return
    write_picture(picture, path)
    again = read_picture(path)
    assert (again.mode, again.attributes) == (mode, picture.attributes)
    np.testing.assert_array_equal(again.pixels, picture.pixels)


def palette_for(mode: str) -> dict[str, bytes]:
    return {"palette": bytes(i % 251 for i in range(768)), "palette-alpha": bytes(range(256))} if mode == "P" else {}


@pytest.mark.parametrize(
    ("transparency", "alpha"), [(None, b""), (b"\x05\xff\x00", b"\x05\xff\x00"), (2, b"\xff\xff\x00")]
)
def test_palettes(transparency: bytes | int | None, alpha: bytes) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([1, 2, 3, 40, 50, 60, 7, 8, 9])
    image.putdata([0, 1, 2])
    options = {} if transparency is None else {"transparency": transparency}
    picture = read_picture(io.BytesIO(saved(image, "PNG", **options)))
    assert picture.attributes["palette"][:9] == bytes([1, 2, 3, 40, 50, 60, 7, 8, 9])
    assert picture.attributes.get("palette-alpha", b"") == alpha
    shown = to_pillow(picture).convert("RGBA")
    assert shown.tobytes() == Image.open(io.BytesIO(saved(image, "PNG", **options))).convert("RGBA").tobytes()


@pytest.mark.parametrize("largest", [1, 2, 3, 4, 15, 16, 200, 255])
@pytest.mark.parametrize("colours", [0, 1, 2, 3, 4, 5, 16, 17, 256])
def test_pixels_beyond_the_palette_come_back(colours: int, largest: int) -> None:
    """Pillow writes 1, 2 or 4 bits when the palette is that short."""
    palette = bytes(i % 251 for i in range(3 * colours))
    picture = Picture(np.array([[[0], [1], [largest]]], np.uint8), "P", {"palette": palette})
    for data in (files.encoded(picture, ".png"), saved(to_pillow(picture), "PNG")):
        again = read_picture(io.BytesIO(data))
        assert again.pixels.ravel().tolist() == [0, 1, largest]
        assert again.attributes["palette"].rstrip(b"\0") == palette.rstrip(b"\0")


def test_alpha_of_the_palette_itself() -> None:
    colours = [(1, 2, 3, 0), (40, 50, 60, 128), (7, 8, 9, 255)]
    image = Image.new("P", (3, 1))
    image.putpalette(bytes(sum(colours, ())), "RGBA")
    image.putdata([0, 1, 2])
    for transparency, alpha in [(None, b"\0\x80"), (2, b"\0\x80\0"), (b"\x09", b"\x09\x80")]:
        given = image.copy()
        if transparency is not None:
            given.info["transparency"] = transparency
        picture = read_picture(given)
        assert picture.attributes == {"palette": bytes([1, 2, 3, 40, 50, 60, 7, 8, 9]), "palette-alpha": alpha}
        written = Image.open(io.BytesIO(files.encoded(picture, ".png")))
        assert to_pillow(picture).convert("RGBA").tobytes() == given.convert("RGBA").tobytes()
        assert written.convert("RGBA").tobytes() == given.convert("RGBA").tobytes()


@pytest.mark.parametrize("transparent_pixel", [1, 200])
def test_a_transparent_colour_beyond_the_palette(transparent_pixel: int) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([1, 2, 3, 40, 50, 60])
    image.putdata([0, transparent_pixel])
    image.info["transparency"] = 200
    picture = read_picture(image)
    assert picture.attributes.get("palette-alpha", b"")[200:] == (b"\0" if transparent_pixel == 200 else b"")
    assert to_pillow(picture).convert("RGBA").tobytes() == image.convert("RGBA").tobytes()


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiff(compression: str, random_pixels: Pixels) -> None:
    image = Image.fromarray(random_pixels(9, 7, 3))
    assert read_picture(io.BytesIO(saved(image, "TIFF", compression=compression))).pixels.tobytes() == image.tobytes()


@pytest.mark.parametrize(
    ("depth", "row", "values"), [(2, b"\0\x1b", [0, 85, 170, 255]), (4, b"\0\x0f\x80", [0, 255, 136, 0])]
)
def test_grey_png_of_2_and_4_bits_is_exact(depth: int, row: bytes, values: list[int]) -> None:
    picture = read_picture(io.BytesIO(png(4, 1, depth, 0, row)))
    assert picture.mode == "L" and picture.pixels.ravel().tolist() == values


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_orientation(kind: str, orientation: int, random_pixels: Pixels) -> None:
    """It leaves the pixels alone, but for a TIFF's, and the picture is shown as it was."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(random_pixels(4, 6, 3)), kind, exif=exif, lossless=True)
    picture = read_picture(io.BytesIO(data))
    assert (picture.width, picture.height) == ((4, 6) if kind == "TIFF" and orientation > 4 else (6, 4))
    before, after = (Image.open(io.BytesIO(file)) for file in (data, bytes(files.encoded(picture, ".png"))))
    assert ImageOps.exif_transpose(after).tobytes() == ImageOps.exif_transpose(before).tobytes()
    if kind != "TIFF":
        assert after.tobytes() == before.tobytes() and after.getexif()[0x0112] == orientation


def test_jpeg_gives_pillows_pixels(random_pixels: Pixels) -> None:
    data = saved(Image.fromarray(random_pixels(16, 16, 3)), "JPEG")
    np.testing.assert_array_equal(read_picture(io.BytesIO(data)).pixels, np.asarray(Image.open(io.BytesIO(data))))


# -- what is refused ---------------------------------------------------------------------------------------------------

SMALL = Image.new("RGB", (2, 2))


def several(kind: str, **options: object) -> bytes:
    """A file of two pictures."""
    return saved(SMALL.copy(), kind, save_all=True, append_images=[Image.new("RGB", (2, 2), "red")], **options)


def ultra_hdr(mpo: bytes) -> bytes:
    """What phones write: a JPEG whose second picture is a gain map. Newer versions of Pillow don't call it MPO."""
    says = b'http://ns.adobe.com/xap/1.0/\0<a hdrgm:Version="1.0"/>'
    return mpo[:2] + b"\xff\xe1" + struct.pack(">H", len(says) + 2) + says + mpo[2:]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (saved(SMALL.convert("CMYK"), "JPEG"), "CMYK"),
        (tiff((16, 16, 16), [bytes(24)]), "16 bits per channel"),
        (tiff((16, 16, 16), [bytes(8)] * 3, planar=2), "16 bits per channel"),
        (tiff((8, 8, 8, 8), [bytes(16)], extra={338: 0}), "further channel"),
        (tiff((8,), [bytes(4)], extra={339: 2}), "signed"),
        (b"P6 1 1 65535\n" + bytes(6), "16 bits per channel"),
        (b"P6 1 1 1023\n" + bytes(6), "10 bits per channel"),
        (b"P5 1 1 100\n" + bytes(1), "from 0 to 100"),
        (b"P5 1 1 65535\n" + bytes(2), "mode I"),
        (b"P5 2 1 255\nABP5 2 1 255\nCD", "more behind"),
        (b"P6 1 1 3\n\1\2\3P", "more behind"),
        (b"P4 9 1 \0\0P4 9 1 \0\0", "more behind"),
        (b"P2 2 1 255 1 2 # end\nP2 2 1 255 3 4", "more behind"),
        (b"P1 3 1 101 1", "more behind"),
        (saved(Image.new("RGBA", (2, 1), (1, 2, 3, 4)).crop((0, 0, 3, 1)), "BMP"), "fourth channel"),
        *((several(kind), "2 frames") for kind in ("GIF", "PNG", "WEBP", "TIFF", "MPO")),
        (several("PNG", default_image=True), "2 frames"),
        (ultra_hdr(several("MPO")), "2 frames"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[:4].decode("latin-1"),
)
def test_what_would_lose_something_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(BadImage, match=words) as caught:
        read_picture(io.BytesIO(data))
    assert "supported" in str(caught.value) or "single" in str(caught.value)


def test_a_picture_that_could_have_frames_is_taken() -> None:
    for kind in ("GIF", "PNG", "WEBP", "TIFF", "MPO"):
        assert read_picture(io.BytesIO(saved(SMALL.copy(), kind, save_all=True))).width == 2


@pytest.mark.parametrize(
    "data",
    [b"P5 2 1 255\nAB\n", b"P4 9 1 \0\0\r\n", b"P3 1 1 255 1 2 3 # 4\n", b"P1 3 1 1 01\n"],
    ids=["P5", "P4", "P3", "P1"],
)
def test_white_space_behind_a_pnm_is_nothing(data: bytes) -> None:
    assert read_picture(io.BytesIO(data)).height == 1


@pytest.mark.parametrize("fourth", [0, 255])
def test_a_bmp_of_32_bits_whose_fourth_bytes_say_nothing(fourth: int, random_pixels: Pixels) -> None:
    pixels = random_pixels(5, 4, 4)
    pixels[:, :, 3] = fourth
    picture = read_picture(io.BytesIO(saved(Image.fromarray(pixels), "BMP")))
    np.testing.assert_array_equal(picture.pixels, pixels[:, :, :3])


@pytest.mark.parametrize(("colour", "samples"), [(2, 3), (4, 2), (6, 4)])
def test_16_bits_are_noticed_in_an_open_pillow_image(colour: int, samples: int) -> None:
    with pytest.raises(BadImage, match=r"16 bits .*bbans_encode"):
        read_picture(Image.open(io.BytesIO(png(1, 1, 16, colour, bytes(1 + 2 * samples)))))


@pytest.mark.parametrize("data", [b"", b"no image at all", b"\xbbans" + bytes(40), b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image(data: bytes) -> None:
    with pytest.raises(BadImage, match="not an image"):
        read_picture(io.BytesIO(data))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "PPM", "WEBP"])
def test_truncated_images(kind: str, random_pixels: Pixels) -> None:
    data = saved(Image.fromarray(random_pixels(40, 40, 3)), kind)
    for size in (len(data) // 2, len(data) // 4, 30):
        with pytest.raises(BadImage):
            read_picture(io.BytesIO(data[:size]))


def test_decompression_bombs_are_refused_and_large_pictures_are_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TooLarge, match=r"are allowed$"):
            read_picture(io.BytesIO(png(20_000, 20_000, 8, 0, b"")))
        with pytest.raises(BadImage, match="damaged"):  # allowed, though Pillow's own limit would not
            read_picture(io.BytesIO(png(20_000, 20_000, 8, 0, b"")), max_pixels=400_000_000)
        with pytest.raises(BadImage, match="damaged"):  # large, not too large: fails for having no rows
            read_picture(io.BytesIO(png(10_000, 9_000, 8, 0, b"")))


def test_own_limit_holds_without_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(TooLarge, match="up to"):
        read_picture(io.BytesIO(png(20_000, 20_000, 8, 0, b"")))
    with pytest.raises(TooLarge):
        read_picture(np.broadcast_to(np.zeros((1, 1), np.uint8), (20_000, 20_000)))


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 2), np.uint32), np.zeros((2, 2), float), np.zeros((2, 2, 5), np.uint8), np.zeros(4, np.uint8)],
)
def test_arrays_of_other_kinds_are_refused(array: np.ndarray) -> None:
    with pytest.raises(BadImage, match="uint8"):
        read_picture(array)


def test_empty_arrays_are_refused() -> None:
    with pytest.raises(BadImage, match="no pixels"):
        read_picture(np.zeros((0, 4), np.uint8))


@pytest.mark.parametrize(("reader", "kind"), [(read_picture, BadImage), (read_bytes, BadFile)])
def test_paths_that_are_no_files(
    reader: Callable[[Path], object], kind: type[BbansError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    for path, words in [
        (tmp_path, "is a directory"),
        (tmp_path / "none", "no such file"),
        (tmp_path / "file" / "x", "cannot be read"),
        (tmp_path / "pipe", "no regular file"),
        (tmp_path / ("n" * 300), "cannot be read"),
    ]:
        with pytest.raises(kind, match=words) as caught:
            reader(path)
        assert str(caught.value).startswith(f"{path}: ")

    def denied(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(kind, match="cannot be read: Permission denied"):
        reader(tmp_path / "file")


# -- writing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"])
@pytest.mark.parametrize("channels", [1, 3])
def test_written_pictures_hold_the_same_pixels(
    suffix: str, channels: int, tmp_path: Path, random_pixels: Pixels
) -> None:
    picture = Picture(random_pixels(5, 4, channels), "L" if channels == 1 else "RGB")
    path = tmp_path / f"x{suffix}"
    write_picture(picture, path)
    out = read_picture(path)
    assert out.mode == picture.mode
    np.testing.assert_array_equal(out.pixels, picture.pixels)


@pytest.mark.parametrize("name", ["x.jpg", "x.webp", "x.gif", "x"])
def test_lossy_suffixes_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadOutput, match="losslessly"):
        write_picture(Picture(np.zeros((1, 1, 1), np.uint8), "L"), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_write_refuses_what_exists_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "out"
    write_bytes(path, b"one")
    with pytest.raises(BadOutput, match="exists already; -f"):
        write_bytes(path, b"two")
    assert path.read_bytes() == b"one"
    write_bytes(path, b"two", force=True)
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_write_refuses_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, words in [
        (tmp_path, "is a directory"),
        (tmp_path / "pipe", "no regular file"),
        (tmp_path / "none" / "out", "no directory"),
        (tmp_path / ("n" * 300), "cannot be written"),
    ]:
        with pytest.raises(BadOutput, match=words):
            write_bytes(path, b"", force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_of_a_write_that_fails(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise error

    (tmp_path / "out").write_bytes(b"before")
    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else BadOutput):
        write_bytes(tmp_path / "out", b"after", force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out").read_bytes() == b"before"


def test_written_files_have_usual_permissions_and_links_stay(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_bytes(tmp_path / "out", b"x")
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "link").symlink_to("out")
    write_bytes(tmp_path / "link", b"y", force=True)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "out").read_bytes() == b"y"
