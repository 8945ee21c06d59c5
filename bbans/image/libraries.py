"""Coders that aren't ours: for sheets on which a model would be a waste, and the bound of what any sheet takes.

Screenshots, line art and palettes are what WebP is made for; noise is best left as it is. Knows sheets [h, w, c] and
bytes; refuses to know models.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, features

from bbans.errors import BadFile, BbansError
from bbans.image.sheets import Sheet

WEBP_SIDE = 16383  # the most that WebP takes
SYNTHETIC = 0.25  # the share of samples that equal their left neighbours from which on a sheet may be no photograph
PLAIN = 0.5  # bits for a sample of a synthetic sheet up to which WebP is good enough to try nothing else


def looks_synthetic(sheet: Sheet) -> bool:
    """Whether so many pixels of every fourth row equal their neighbours that it may be no photograph."""
    rows = sheet[::4]
    if rows.shape[1] < 2:
        return True
    same = (rows[:, 1:] == rows[:, :-1]).all(axis=2)
    return bool(same.mean() >= SYNTHETIC)


def to_webp(sheet: Sheet) -> bytes | None:
    """A lossless WebP file, or None where that can't be."""
    if max(sheet.shape[:2]) > WEBP_SIDE or not features.check("webp"):
        return None
    image = Image.fromarray(sheet if sheet.shape[2] == 3 else sheet[:, :, 0]).convert("RGB")
    file = io.BytesIO()
    image.save(file, "WEBP", lossless=True, method=4, quality=80)
    return file.getvalue()


def from_webp(data: bytes, height: int, width: int, channels: int) -> Sheet:
    """The inverse of `to_webp`. Raises `BadFile`; and `BbansError` when Pillow knows no WebP."""
    if not features.check("webp"):
        raise BbansError("has parts in WebP, which this Pillow was built without")
    try:
        with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
            if image.size != (width, height) or getattr(image, "n_frames", 1) != 1 or image.mode != "RGB":
                raise ValueError("another picture")
            pixels = np.array(image)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise nearly anything at hostile files
        raise BadFile(f"has a part that is no such WebP ({error})") from error
    return np.ascontiguousarray(pixels[:, :, :channels])


def to_raw(sheet: Sheet, mode: str) -> bytes:
    """The samples; of mode 1, eight in a byte."""
    return (np.packbits(sheet) if mode == "1" else sheet).tobytes()


def raw_size(sheet: Sheet, mode: str) -> int:
    """Bytes of `to_raw`."""
    return -(-sheet.size // 8) if mode == "1" else sheet.size


def from_raw(data: bytes, height: int, width: int, channels: int, mode: str) -> Sheet:
    """The inverse of `to_raw`. Raises `BadFile`."""
    samples = np.frombuffer(data, np.uint8)
    size = height * width * channels
    if len(samples) != (-(-size // 8) if mode == "1" else size):
        raise BadFile("has a part of another size than its samples")
    if mode == "1":
        samples = np.unpackbits(samples)[:size]
    return samples.reshape(height, width, channels)
