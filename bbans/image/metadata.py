"""What image files say beside their pixels: taken from Pillow's images as attributes of a picture, and given back.

    icc, exif, xmp       as they are; exif without the "Exif\\0\\0" that some formats put before it
    comment              that of a JPEG or GIF
    dpi                  "x y", in decimals
    gamma, srgb          of PNG: the number, and the rendering intent
    chromaticity         of PNG: eight numbers
    transparent          of PNG and GIF: the value, or three, of the transparent colour of modes 1, L and RGB
    text/KEY             of PNG: "t" and the text, or "i", the language, 0, the translated key, 0 and the text, in UTF-8

Numbers are in decimals with spaces between, as Python writes them, so that they come back as they were. What a format
can't hold is left out of it; PNG holds all.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from PIL import Image, PngImagePlugin

EXIF_PREFIX = b"Exif\0\0"
TRANSPARENT = "transparent"  # the only one here that says what pixels look like
XMP_KEY = "XML:com.adobe.xmp"
_AS_THEY_ARE = {"icc": "icc_profile", "comment": "comment"}
_COUNTS = {"dpi": 2, "gamma": 1, "srgb": 1, "chromaticity": 8}  # how many numbers there are
_CHANNELS = {"1": 1, "L": 1, "I;16": 1, "RGB": 3}  # of a transparent colour, in modes that have one
_LARGEST = {"srgb": 3, "transparent": 65535}  # and integers; others are at most
_LARGE = 20_000
_SAVED = {  # options of Pillow's `save` that are called as in `info`
    "PNG": ("icc_profile", "exif", "dpi", "transparency"),
    "TIFF": ("icc_profile", "dpi"),  # and no EXIF, by whose orientation Pillow would turn what it reads
    "BMP": ("dpi",),
}
PNG_UNIT = 100_000  # of gamma and chromaticity


def taken_from(image: Image.Image) -> dict[str, bytes]:
    """The attributes of an image that is loaded; those of a palette are not among them."""
    info = image.info
    found: dict[str, bytes] = {}
    for name, key in _AS_THEY_ARE.items():
        if isinstance(value := info.get(key), (bytes, str)) and value:
            found[name] = _bytes(value)
    if isinstance(exif := info.get("exif"), bytes) and exif.removeprefix(EXIF_PREFIX):
        found["exif"] = exif.removeprefix(EXIF_PREFIX)
    if xmp := info.get("xmp") or info.get(XMP_KEY):
        found["xmp"] = _bytes(xmp)
    for name in _COUNTS:
        if (numbers := _numbers(info.get(name))) is not None:
            found[name] = numbers
    if image.format == "TIFF" and info.get("dpi") == (1, 1):  # what Pillow says when the file says nothing
        del found["dpi"]
    if image.mode != "P" and (numbers := _numbers(info.get("transparency"))) is not None:
        found["transparent"] = b"1" if image.mode == "1" and numbers != b"0" else numbers  # Pillow says 255
    for key, text in getattr(image, "text", {}).items():
        if key != XMP_KEY:
            found[f"text/{key}"] = _packed(text)
    return found


def as_info(attributes: Mapping[str, bytes], mode: str) -> dict[str, Any]:
    """What Pillow's images of that mode have in `info`, of the attributes that it knows."""
    info: dict[str, Any] = {key: attributes[name] for name, key in _AS_THEY_ARE.items() if name in attributes}
    if "exif" in attributes:
        info["exif"] = EXIF_PREFIX + attributes["exif"]
    if "xmp" in attributes:
        info["xmp"] = attributes["xmp"]
    for name, count in (_COUNTS | {TRANSPARENT: _CHANNELS.get(mode, 0)}).items():
        if name in attributes and (numbers := _parsed(name, attributes[name], count)):
            info["transparency" if name == TRANSPARENT else name] = numbers if count > 1 else numbers[0]
    return info


def texts(attributes: Mapping[str, bytes]) -> dict[str, str]:
    """The texts by their keys, as Pillow's images of PNGs have them in `text`."""
    kept = {name.removeprefix("text/"): value for name, value in attributes.items() if name.startswith("text/")}
    return {key: _unpacked(value) for key, value in kept.items() if _is_key(key)}


def save_options(kind: str, attributes: Mapping[str, bytes], mode: str) -> dict[str, Any]:
    """For Pillow's `save` of an image of that mode in that format."""
    info = as_info(attributes, mode)
    options: dict[str, Any] = {key: info[key] for key in _SAVED.get(kind, ()) if key in info}
    if kind != "PNG":
        return options
    png = PngImagePlugin.PngInfo()
    if "gamma" in info:
        png.add(b"gAMA", struct.pack(">I", round(info["gamma"] * PNG_UNIT)))
    if "srgb" in info:
        png.add(b"sRGB", bytes([int(info["srgb"])]))
    if "chromaticity" in info:
        png.add(b"cHRM", struct.pack(">8I", *(round(number * PNG_UNIT) for number in info["chromaticity"])))
    if "xmp" in info:
        png.add_itxt(XMP_KEY, info["xmp"].decode("utf-8", "replace"))
    for key, text in texts(attributes).items():
        if isinstance(text, PngImagePlugin.iTXt):
            png.add_itxt(key, text, text.lang or "", text.tkey or "")
        else:
            png.add_text(key, text)
    return options | {"pnginfo": png}


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


def _parsed(name: str, data: bytes, count: int) -> tuple[int | float, ...]:
    """The inverse of `_numbers`; nothing if these are not so many, or none that can be."""
    try:
        numbers = tuple(int(part) if name in _LARGEST else float(part) for part in data.split())
    except ValueError:
        return ()
    possible = all(0 <= number <= _LARGEST.get(name, _LARGE) for number in numbers)
    return numbers if possible and len(numbers) == count else ()


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
