from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

import bbans
from bbans.errors import BadImage, BadOutput
from bbans.image import metadata, png
from bbans.image.files import encoded, left_out, read_picture, to_pillow, write_picture
from bbans.image.modes import MODES
from bbans.image.picture import Picture
from tests.image.test_files import png as png_of

pytestmark = pytest.mark.usefixtures("fake_codec", "fake_zoo")
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>\xc3\xa9</x:xmpmeta>"


def exif() -> Image.Exif:
    made = Image.Exif()
    made[0x0112], made[0x010F] = 6, "A maker"
    return made


def full_png(mode: str = "RGB", *, icc: bool = True, **more: Any) -> bytes:
    """With everything that a PNG can say; that is either a colour profile or that it is sRGB."""
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", struct.pack(">I", 45455))
    info.add(b"sRGB", b"\2")
    more |= {"icc_profile": ICC} if icc else {}
    info.add(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))
    info.add_text("Title", "caf\xe9")
    info.add_text("Comment", "long " * 300, zip=True)
    info.add_itxt("Author", "\u0141ukasz", "pl", "Autor")
    info.add_itxt(metadata.XMP_KEY, XMP.decode())
    file = io.BytesIO()
    image = Image.new(mode, (3, 2), 1)
    image.save(file, "PNG", pnginfo=info, exif=exif(), dpi=(300, 72), **more)
    return file.getvalue()


def chunks(data: bytes) -> dict[bytes, bytes]:
    """By their kinds, but for pixels and texts."""
    found, at = {}, 8
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        found[kind] = data[at + 8 : at + 8 + size]
        at += 12 + size
    return {kind: data for kind, data in found.items() if kind not in (b"IDAT", b"zTXt", b"tEXt", b"iTXt", b"iCCP")}


def through(data: bytes) -> bytes:
    """A PNG compressed and decompressed."""
    packed = bbans.compress(Image.open(io.BytesIO(data)))
    from bbans.image.picture import decompress_picture
    from tests.conftest import FakeModel

    return bytes(encoded(decompress_picture(packed, lambda _: FakeModel()), ".png"))


@pytest.mark.parametrize("icc", [True, False])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_png_keeps_everything(mode: str, icc: bool) -> None:
    before = full_png(mode, icc=icc)
    after = through(before)
    assert chunks(after) == chunks(before)
    one, other = (Image.open(io.BytesIO(data)) for data in (before, after))
    one.load()
    other.load()
    assert other.text == one.text and other.text["Author"].lang == "pl" and other.text["Author"].tkey == "Autor"
    assert other.info.get("icc_profile") == (ICC if icc else None) and other.mode == mode
    kept = read_picture(io.BytesIO(after)).attributes
    assert kept == read_picture(io.BytesIO(before)).attributes
    assert {"icc" if icc else "srgb", "exif", "xmp", "dpi", "gamma", "chromaticity", "text/Title"} <= set(kept)


@pytest.mark.parametrize(("mode", "colour"), [("L", 1), ("RGB", (1, 0, 0)), ("1", 1)])
def test_transparent_colours(mode: str, colour: Any) -> None:
    before = full_png(mode, transparency=colour)
    assert b"tRNS" in chunks(before) and chunks(through(before)) == chunks(before)
    stripped = read_picture(io.BytesIO(before), strip=True)
    assert set(stripped.attributes) == {"transparent"}
    with pytest.raises(BadOutput, match="transparent colour"):
        encoded(stripped, ".tiff")


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_of_other_formats(kind: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (9, 9)).save(file, kind, icc_profile=ICC, exif=exif(), xmp=XMP, lossless=True)
    kept = to_pillow(read_picture(file))
    assert kept.info["icc_profile"] == ICC and kept.info["xmp"] == XMP
    assert Image.open(io.BytesIO(bytes(encoded(read_picture(file), ".png")))).getexif()[0x010F] == "A maker"


def test_of_tiff() -> None:
    told, file = exif(), io.BytesIO()
    told.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2020:01:01 00:00:00"
    told.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (1.0, 2.0, 3.5)
    Image.new("RGB", (3, 2)).save(file, "TIFF", exif=told.tobytes())
    kept = Image.open(io.BytesIO(bytes(encoded(read_picture(file), ".png")))).getexif()
    assert set(kept) == {ExifTags.Base.Make, ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo}
    assert kept[ExifTags.Base.Make] == "A maker"
    assert kept.get_ifd(ExifTags.IFD.Exif) == {ExifTags.Base.DateTimeOriginal: "2020:01:01 00:00:00"}
    assert kept.get_ifd(ExifTags.IFD.GPSInfo) == {ExifTags.GPS.GPSLatitude: (1.0, 2.0, 3.5)}


@pytest.mark.parametrize(
    ("comment", "text"),
    [(b"gr\xc3\xbc\xc3\x9fe\0", "gr\xfc\xdfe"), (b"gr\xfc\xdfe", "gr\xfc\xdfe")],
    ids=["utf-8", "latin-1"],
)
def test_a_comment_becomes_a_text_of_png(comment: bytes, text: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (9, 9)).save(file, "JPEG", comment=comment)
    after = bytes(encoded(read_picture(file), ".png"))
    assert Image.open(io.BytesIO(after)).text["Comment"] == text
    assert png.texts(Image.open(io.BytesIO(through(after)))) == [("Comment", text)]


def test_several_texts_of_one_key() -> None:
    info, file = PngImagePlugin.PngInfo(), io.BytesIO()
    for number in range(12):
        info.add_text("Comment", f"{number}", zip=number % 2 == 1)
        info.add_itxt("Comment", f"\u0141 {number}", "pl", "Uwaga", zip=number % 2 == 0)
    info.add(b"tEXt", b"Title\0once", after_idat=True)
    info.add(b"tEXt", b"Comment\0last", after_idat=True)
    Image.new("L", (1, 1)).save(file, "PNG", pnginfo=info)
    before = png.texts(Image.open(file))
    kept = read_picture(file).attributes
    assert len(kept) == 26 and kept["text/Comment"] == b"t0" and kept["text-25/Comment"] == b"tlast"
    after = through(file.getvalue())
    assert png.texts(Image.open(io.BytesIO(after))) == before[:-2] + before[:-3:-1]  # by their keys
    assert Image.open(io.BytesIO(bbans.compress(Image.open(file)))).text["Comment"] == "last"


def test_texts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    info, file = PngImagePlugin.PngInfo(), io.BytesIO()
    for _ in range(3):
        info.add_text("Comment", "x" * 1000, zip=True)
    Image.new("L", (1, 1)).save(file, "PNG", pnginfo=info)
    image = Image.open(file)
    for limit in ("MAX_TEXT_CHUNK", "MAX_TEXT_MEMORY"):
        with monkeypatch.context() as patched:
            patched.setattr(PngImagePlugin, limit, 999 if limit == "MAX_TEXT_CHUNK" else 2999)
            with pytest.raises(BadImage, match="damaged"):
                read_picture(image)


@pytest.mark.parametrize(("depth", "row", "step"), [(2, b"\0\x1b", 85), (4, b"\0\x01\x23", 17)])
def test_a_transparent_grey_of_few_bits_is_scaled_like_its_samples(depth: int, row: bytes, step: int) -> None:
    picture = read_picture(io.BytesIO(png_of(4, 1, depth, 0, row, ((b"tRNS", struct.pack(">H", 2)),))))
    assert picture.pixels.ravel().tolist() == [0, step, 2 * step, 3 * step]
    shown = Image.open(io.BytesIO(bytes(encoded(picture, ".png")))).convert("RGBA")
    assert shown.getchannel("A").tobytes() == b"\xff\xff\0\xff"


MOST = 2**32 - 1


@pytest.mark.parametrize("per_metre", [4_000_000, MOST])
def test_every_number_of_a_png_comes_back(per_metre: int) -> None:
    told = {
        b"gAMA": struct.pack(">I", MOST),
        b"cHRM": struct.pack(">8I", *[MOST] * 8),
        b"pHYs": struct.pack(">IIB", per_metre, 1, 1),
    }
    picture = read_picture(io.BytesIO(png_of(1, 1, 8, 2, bytes(4), tuple(told.items()))))
    written = chunks(bytes(encoded(picture, ".png")))
    assert {kind: written[kind] for kind in told} == told and not left_out(picture, ".png")
    for suffix in (".tiff", ".bmp"):
        dpi = float(read_picture(io.BytesIO(encoded(picture, suffix))).attributes["dpi"].split()[0])
        assert (dpi == pytest.approx(per_metre * 0.0254)) != ("dpi" in left_out(picture, suffix))
        assert ("dpi" in left_out(picture, suffix)) == (suffix == ".bmp" and per_metre == MOST)


@pytest.mark.parametrize(
    ("attributes", "names"),
    [
        ({"dpi": b"1e9 1", "gamma": b"1", "x": b"", "transparent": b"1"}, ("dpi", "x", "transparent")),
        ({"text/A": b"tB", "text/\u0141": b"tB", "text-2/\0": b"t"}, ("text/\u0141", "text-2/\0")),
        ({"text/Comment": b"tB", "comment": b"C", "icc": ICC, "srgb": b"0"}, ("comment", "srgb")),
        ({"comment": b"C", "exif": b"E", "xmp": b"X", "srgb": b"0", "transparent": b"1 2 3"}, ()),
    ],
)
def test_whatever_a_png_lacks_is_said(attributes: dict[str, bytes], names: tuple[str, ...]) -> None:
    picture = Picture(np.zeros((1, 1, 3), np.uint8), "RGB", attributes)
    assert left_out(picture, ".png") == names
    indexed = Picture(np.zeros((1, 1, 1), np.uint8), "P", {"palette": bytes(3), "palette-alpha": b"\0"})
    assert left_out(indexed, ".png") == ()


@pytest.mark.parametrize("suffix", [".tiff", ".bmp", ".ppm"])
def test_formats_that_hold_less(suffix: str, tmp_path: Path) -> None:
    picture = read_picture(io.BytesIO(full_png()))
    write_picture(picture, tmp_path / f"x{suffix}")
    again = read_picture(tmp_path / f"x{suffix}")
    assert (again.pixels == picture.pixels).all()
    if suffix == ".tiff":
        assert again.attributes["icc"] == ICC


def test_strip() -> None:
    image = Image.open(io.BytesIO(full_png()))
    assert not read_picture(image, strip=True).attributes
    assert len(bbans.compress(image, strip=True)) < len(bbans.compress(image)) - 100


def test_the_plugin_tells_them_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.open(io.BytesIO(full_png("P"))).save(tmp_path / "x.bbans")
    monkeypatch.setattr(bbans, "decompress", None)
    with bbans.open(tmp_path / "x.bbans") as image:
        assert image.info["icc_profile"] == ICC and image.text["Title"] == "caf\xe9"
        assert image.info["dpi"] == Image.open(io.BytesIO(full_png())).info["dpi"]


def test_numbers_that_are_none_are_left_out() -> None:
    assert metadata.as_info("L", {"dpi": b"x y", "gamma": b"", "srgb": b"1e", "icc": b"profile"}) == {
        "icc_profile": b"profile"
    }
    image = Image.new("L", (1, 1))
    image.info["dpi"] = "many"
    assert metadata.taken_from(image) == {}


@pytest.mark.parametrize(("mode", "colour"), [("L", b"0 0 0"), ("RGB", b"7"), ("LA", b"7"), ("P", b"1 2 3")])
def test_a_transparent_colour_of_another_mode_is_left_out(mode: str, colour: bytes) -> None:
    attributes = {"transparent": colour} | ({"palette": bytes(6)} if mode == "P" else {})
    pixels = np.zeros((2, 3, len(mode) if mode != "P" else 1), np.uint8)
    written = encoded(Picture(pixels, mode, attributes), ".png")
    assert b"tRNS" not in chunks(written) and "transparency" not in metadata.as_info(mode, attributes)


NAMES = st.sampled_from(
    ["icc", "exif", "xmp", *metadata._COUNTS, "comment", "text/", "text/A", "text-2/A", "text/\u0141", "text/\0", "x"]
)
NUMBERS = st.lists(st.integers() | st.floats(), max_size=9).map(lambda numbers: " ".join(map(repr, numbers)).encode())


COLOURS = st.sampled_from([b"1", b"1 2 3", b"65535"])


@given(
    st.dictionaries(NAMES, st.binary(max_size=30) | NUMBERS | COLOURS | st.just(b"i\0\0\xff"), max_size=6),
    st.sampled_from(["L", "LA", "RGB", "RGBA", "I;16", "LA;16", "RGB;16", "RGBA;16"]),
)
def test_whatever_attributes_say_pictures_are_written(attributes: dict[str, bytes], mode: str) -> None:
    picture = Picture(np.zeros((2, 3, MODES[mode].channels), MODES[mode].dtype), mode, attributes)
    suffixes = (
        (".png", ".tiff", ".bmp", ".ppm") if mode in ("L", "RGB") and "transparent" not in attributes else (".png",)
    )
    for suffix in suffixes:
        assert Image.open(io.BytesIO(bytes(encoded(picture, suffix)))).size == (3, 2)
