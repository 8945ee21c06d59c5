"""What image files say beside their pixels: taken from Pillow's images as attributes of a picture, and given back.

    icc, exif, xmp       as they are; exif without the "Exif\\0\\0" that some formats put before it. That of a TIFF is
                         made of those of its tags that describe the picture
    comment              that of a JPEG or GIF; in a PNG the text of the key Comment
    dpi                  "x y", in decimals
    gamma, srgb          of PNG: the number, and the rendering intent
    chromaticity         of PNG: eight numbers
    transparent          of PNG and GIF: the value, or three, of the transparent colour of grey, or of RGB
    text/KEY             of PNG: "t" and the text, or "i", the language, 0, the translated key, 0 and the text, in UTF-8
    text-2/KEY ...       further ones of that key, in their order

Numbers are in decimals with spaces between, as Python writes them, so that they come back as they were. What a format
can't hold is left out of it; PNG holds all. The orientation of a TIFF is applied by Pillow, and so no attribute.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Mapping
from typing import Any

from PIL import ExifTags, Image, PngImagePlugin
from PIL.ExifTags import Base

from bbans.image import png
from bbans.image.modes import MODES, PALETTE, PALETTE_ALPHA

EXIF_PREFIX = b"Exif\0\0"
TRANSPARENT = "transparent"  # the only one here that says what pixels look like
XMP_KEY = "XML:com.adobe.xmp"
PNG_UNIT = 100_000  # of gamma and chromaticity
_AS_THEY_ARE = {"icc": "icc_profile", "comment": "comment"}
_KEYS = _AS_THEY_ARE | {TRANSPARENT: "transparency"}  # in `info`, where they differ from ours
_NUMBERS = ("dpi", "gamma", "srgb", "chromaticity")
_COUNTS = {"dpi": (2,), "gamma": (1,), "srgb": (1,), "chromaticity": (8,), "transparent": (1, 3)}  # how many there are
_INTEGERS = ("srgb", "transparent")
_MOST = 2**32 - 1  # what chunks of PNG hold, and the header of a BMP
_LARGEST = {
    "dpi": _MOST * 0.0254,
    "gamma": _MOST / PNG_UNIT,
    "srgb": 3,
    "chromaticity": _MOST / PNG_UNIT,
    "transparent": 65535,
}
_BMP_UNITS = 39.3701  # of Pillow, to the inch: a little more than there are
_GREY_STEPS = {"L;2": 85, "L;4": 17}  # what Pillow multiplies samples of so few bits by, but not the transparent one
_SAVED = {  # options of Pillow's `save` that are called as in `info`
    "PNG": ("icc_profile", "exif", "dpi", "transparency"),
    "TIFF": ("icc_profile", "dpi"),  # and no EXIF, by whose orientation Pillow would turn what it reads
    "BMP": ("dpi",),
}
_TEXT = re.compile(r"text(?:-([1-9][0-9]{0,8}))?/(.*)", re.DOTALL)
_DESCRIPTIVE = (  # of the tags of a TIFF
    Base.ImageDescription,
    Base.Make,
    Base.Model,
    Base.Software,
    Base.DateTime,
    Base.Artist,
    Base.HostComputer,
    Base.Copyright,
    Base.Rating,
    Base.RatingPercent,
    Base.XPTitle,
    Base.XPComment,
    Base.XPAuthor,
    Base.XPKeywords,
    Base.XPSubject,
)


def taken_from(image: Image.Image, *, strip: bool = False) -> dict[str, bytes]:
    """The attributes of an image, which is loaded by this; those of a palette are not among them. strip: only those
    that say what pixels look like."""
    given = [] if strip else png.texts(image)  # before the file is closed
    tiles = getattr(image, "tile", ()) if image.format == "PNG" else ()
    step = next((_GREY_STEPS.get(arguments, 1) for _, _, _, arguments in tiles), 1)
    image.load()
    found = {} if strip else _told(image)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        transparent *= step
    if image.mode != "P" and (numbers := _numbers(transparent)) is not None:
        found[TRANSPARENT] = b"1" if image.mode == "1" and numbers != b"0" else numbers  # Pillow says 255
    seen: Counter[str] = Counter()
    for key, text in given:
        if key != XMP_KEY:
            seen[key] += 1
            number = f"-{seen[key]}" if seen[key] > 1 else ""
            found[f"text{number}/{key}"] = _packed(text)
    return found


def _told(image: Image.Image) -> dict[str, bytes]:
    """Of what is no text."""
    info = image.info
    found: dict[str, bytes] = {}
    for name, key in _AS_THEY_ARE.items():
        if isinstance(value := info.get(key), (bytes, str)) and value:
            found[name] = _bytes(value)
    exif = _tiff_exif(image) if image.format == "TIFF" else info.get("exif")
    if isinstance(exif, bytes) and exif.removeprefix(EXIF_PREFIX):
        found["exif"] = exif.removeprefix(EXIF_PREFIX)
    if xmp := info.get("xmp") or info.get(XMP_KEY):
        found["xmp"] = _bytes(xmp)
    for name in _NUMBERS:
        if (numbers := _numbers(info.get(name))) is not None:
            found[name] = numbers
    if image.format == "TIFF" and info.get("dpi") == (1, 1):  # what Pillow says when the file says nothing
        del found["dpi"]
    return found


def _tiff_exif(image: Image.Image) -> bytes:
    """What a TIFF says in its own tags where others have EXIF: without those that say how its pixels are stored."""
    tags, kept = image.getexif(), Image.Exif()
    for tag in _DESCRIPTIVE:
        if tag in tags:
            kept[tag] = tags[tag]
    for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if found := tags.get_ifd(directory):
            kept[directory] = {tag: value for tag, value in found.items() if tag != ExifTags.IFD.Interop}
    return kept.tobytes() if kept else b""


def as_info(mode: str, attributes: Mapping[str, bytes]) -> dict[str, Any]:
    """What Pillow's images of that mode have in `info`, of the attributes that it knows."""
    info: dict[str, Any] = {key: attributes[name] for name, key in _AS_THEY_ARE.items() if name in attributes}
    if "exif" in attributes:
        info["exif"] = EXIF_PREFIX + attributes["exif"]
    if "xmp" in attributes:
        info["xmp"] = attributes["xmp"]
    for name in _NUMBERS:
        if numbers := _parsed(name, attributes):
            info[name] = numbers if len(numbers) > 1 else numbers[0]
    if len(colour := _parsed(TRANSPARENT, attributes)) == MODES[mode].channels:
        info["transparency"] = colour if len(colour) > 1 else colour[0]
    return info


def texts(attributes: Mapping[str, bytes]) -> list[tuple[str, str]]:
    """Keys and texts; those of one key are in their order."""
    names = filter(None, map(_TEXT.fullmatch, attributes))
    kept = [(name[2], int(name[1] or 1), attributes[name[0]]) for name in names]
    return [(key, _unpacked(value)) for key, _, value in sorted(kept) if _is_key(key)]


def save_options(kind: str, mode: str, attributes: Mapping[str, bytes]) -> dict[str, Any]:
    """For Pillow's `save` in that format of a picture of that mode."""
    info = as_info(mode, attributes)
    options: dict[str, Any] = {key: info[key] for key in _SAVED.get(kind, ()) if key in info}
    if kind == "BMP" and any(number > _MOST / _BMP_UNITS for number in options.get("dpi", ())):
        del options["dpi"]
    if kind != "PNG":
        return options
    chunks = PngImagePlugin.PngInfo()
    if "gamma" in info:
        chunks.add(b"gAMA", struct.pack(">I", round(info["gamma"] * PNG_UNIT)))
    if "srgb" in info:
        chunks.add(b"sRGB", bytes([int(info["srgb"])]))
    if "chromaticity" in info:
        chunks.add(b"cHRM", struct.pack(">8I", *(round(number * PNG_UNIT) for number in info["chromaticity"])))
    if "xmp" in info:
        chunks.add_itxt(XMP_KEY, info["xmp"].decode("utf-8", "replace"))
    for key, text in texts(attributes):
        if isinstance(text, PngImagePlugin.iTXt):
            chunks.add_itxt(key, text, text.lang or "", text.tkey or "")
        else:
            chunks.add_text(key, text)
    if "comment" in info and not _has_comment(attributes):
        chunks.add_text("Comment", _decoded(info["comment"]).replace("\0", ""))
    return options | {"pnginfo": chunks}


def _decoded(comment: bytes) -> str:
    """A comment says nothing of its encoding."""
    try:
        return comment.decode()
    except UnicodeDecodeError:
        return comment.decode("latin-1")


def _has_comment(attributes: Mapping[str, bytes]) -> bool:
    """Among its texts, where a PNG has no place for another."""
    return any(key.lower() == "comment" for key, _ in texts(attributes))


def left_out(kind: str, mode: str, attributes: Mapping[str, bytes]) -> tuple[str, ...]:
    """Names of the attributes that `save_options` has nothing of for that format and mode, in their order; those of a
    palette are not among them."""
    info = as_info(mode, attributes)
    held = set(info) if kind == "PNG" else set(save_options(kind, mode, attributes))
    if "icc_profile" in info:
        held.discard("srgb")  # by Pillow: a PNG has one or the other
    if _has_comment(attributes):
        held.discard("comment")

    def is_held(name: str) -> bool:
        if text := _TEXT.fullmatch(name):
            return kind == "PNG" and _is_key(text[2])
        return name in (PALETTE, PALETTE_ALPHA) or _KEYS.get(name, name) in held

    return tuple(name for name in attributes if not is_held(name))


def _bytes(value: bytes | str) -> bytes:
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def _numbers(value: Any) -> bytes | None:
    """One number or several; None for what is none."""
    several = value if isinstance(value, tuple) else (value,)
    try:
        return " ".join(
            repr(number if isinstance(number, (int, float)) else float(number)) for number in several
        ).encode()
    except (TypeError, ValueError):
        return None


def _parsed(name: str, attributes: Mapping[str, bytes]) -> tuple[int | float, ...]:
    """The inverse of `_numbers`, of an attribute; nothing if these are none, or none that can be."""
    try:
        numbers = tuple(int(part) if name in _INTEGERS else float(part) for part in attributes.get(name, b"").split())
    except ValueError:
        return ()
    possible = all(0 <= number <= _LARGEST[name] for number in numbers)
    return numbers if possible and len(numbers) in _COUNTS[name] else ()


def _is_key(key: str) -> bool:
    """Of a text in a PNG."""
    try:
        return 0 < len(key.encode("latin-1")) < 80 and "\0" not in key
    except UnicodeEncodeError:
        return False


def _packed(text: str) -> bytes:
    if isinstance(text, PngImagePlugin.iTXt):
        parts = ("" if part is None else str(part) for part in (text.lang, text.tkey, str(text)))
        return b"i" + "\0".join(parts).encode("utf-8", "replace")
    return b"t" + text.encode("utf-8", "replace")


def _unpacked(data: bytes) -> str:
    text = data[1:].decode("utf-8", "replace")
    if data[:1] == b"i" and text.count("\0") >= 2:
        lang, key, text = text.split("\0", 2)
        return PngImagePlugin.iTXt(text, lang, key)
    return text
