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
MOST_WHOLE = 1 << 25  # pixels of a picture that it is given in one piece: it takes some 30 bytes of memory for each
SYNTHETIC = 0.25  # the share of samples that equal their left neighbours from which on a sheet may be no photograph
SMALL = 64 * 64  # pixels up to which everything is tried, because it takes no time
SIMPLE = 2.0  # bits for a sample up to which a quick WebP tells that it may be no photograph: those take 2.4 and more
PLAIN = 0.5  # bits for a sample of a synthetic sheet up to which WebP is good enough to try nothing else


def looks_synthetic(sheet: Sheet) -> bool:
    """Whether it may be no photograph: it is small, or so many pixels of every fourth row equal their neighbours, or a
    quick WebP is so short."""
    return quick_look(sheet)[0]


def quick_look(sheet: Sheet) -> tuple[bool, float]:
    """`looks_synthetic`, and the bytes of a quick WebP, which are counted (else 0) unless that is plain to see."""
    rows = sheet[::4]
    if rows.shape[1] < 2 or sheet.shape[0] * sheet.shape[1] <= SMALL:
        return True, 0
    if (rows[:, 1:] == rows[:, :-1]).all(axis=2).mean() >= SYNTHETIC:
        return True, 0
    quick = quick_size(sheet)
    return 8 * quick <= SIMPLE * sheet.size, quick


def quick_size(sheet: Sheet) -> float:
    """Bytes of a WebP file that is made in a hundredth of the time that a model takes: what `to_webp` needs at most, or
    hardly more. Infinite where there is none."""
    data = _webp(sheet, method=0, quality=0)
    return float("inf") if data is None else len(data)


def to_webp(sheet: Sheet) -> bytes | None:
    """A lossless WebP file of a sheet, or of RGBA [h, w, 4]; None where that can't be."""
    return _webp(sheet, method=4, quality=80)


def _webp(sheet: Sheet, **options: int) -> bytes | None:
    if max(sheet.shape[:2]) > WEBP_SIDE or not features.check("webp"):
        return None
    image = Image.fromarray(sheet[:, :, 0] if sheet.shape[2] == 1 else sheet)
    file = io.BytesIO()
    # exact: colours stay where nothing is seen
    image.convert("RGBA" if sheet.shape[2] == 4 else "RGB").save(file, "WEBP", lossless=True, exact=True, **options)
    return file.getvalue()


def from_webp(data: bytes, height: int, width: int, channels: int) -> Sheet:
    """The inverse of `to_webp`. Raises `BadFile`; and `BbansError` when Pillow knows no WebP."""
    if not features.check("webp"):
        raise BbansError("has parts in WebP, which this Pillow was built without")
    try:
        with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
            modes = ("RGB", "RGBA") if channels == 4 else ("RGB",)  # an alpha of 255 everywhere is left out
            if image.size != (width, height) or getattr(image, "n_frames", 1) != 1 or image.mode not in modes:
                raise ValueError("another picture")
            pixels = np.array(image.convert(modes[-1]))
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
