"""Lossless image compression with bits-back coding from a VAE.

    data = bbans.compress(image)       # a Pillow image, or a NumPy array such as uint8 [h, w, 3]
    image = bbans.decompress(data)     # a Pillow image of the same mode
    image = bbans.open("photo.bbans")  # as PIL.Image.open does, from now on; image.save("photo.bbans") works, too

For arrays there are names like those of imagecodecs: `bbans_encode`, `bbans_decode`, `bbans_check`. The public names of
the package, and nothing else: NumPy and torch are loaded by the first call that needs them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from bbans.errors import (
    BadBackend,
    BadFile,
    BadImage,
    BadModel,
    BadOutput,
    BbansError,
    DecodedDiffers,
    InexactDevice,
    ModelMissing,
    OutOfBits,
    TooLarge,
    UnsupportedVersion,
)
from bbans.pillow_plugin import FORMAT, register

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from PIL.Image import Image

    from bbans.image.picture import Picture
    from bbans.zoo import Model

__version__ = "0.1.0"

__all__ = [
    "BadBackend",
    "BadFile",
    "BadImage",
    "BadModel",
    "BadOutput",
    "BbansError",
    "DecodedDiffers",
    "InexactDevice",
    "ModelMissing",
    "OutOfBits",
    "TooLarge",
    "UnsupportedVersion",
    "__version__",
    "bbans_check",
    "bbans_decode",
    "bbans_encode",
    "compress",
    "decompress",
    "open",
]

Device = Literal["auto", "cpu", "cuda"]

_models: dict[tuple[Any, ...], Model] = {}

register()


def compress(
    image: Image | np.ndarray[Any, Any],
    *,
    model: Model | str | Path | None = None,
    effort: int = 5,
    strip: bool = False,
    device: Device = "auto",
    threads: int | None = None,
) -> bytes:
    """The bytes of a .bbans file that holds the pixels of `image` exactly, and its metadata.

    image: a Pillow image of mode 1, L, LA, P, RGB, RGBA or I;16, or an array [h, w] or [h, w, 1 to 4] of uint8 or
    uint16, or [h, w] of bool.
    model: a name, a folder, or what `bbans.zoo.load` returned; None is the default model, which the effort chooses.
    effort: 1 to 9. Up to 3, the default model is `photo-fast`, from 4 on `photo`. 3, and 5 and more, fit last layers to
    the picture; above 5, networks are tuned to it, which takes from seconds to minutes.
    strip: leave metadata out: colour profile, EXIF, XMP, resolution, texts and the like.
    device, threads: where the networks run; the bytes don't depend on it. A loaded model is kept for the next call.

    Raises `BadImage`, `TooLarge`, `ModelMissing`; and `ValueError` for another effort.
    """
    from bbans.image.effort import LEAST, MOST, default_model
    from bbans.image.files import read_picture
    from bbans.image.picture import compress_picture

    if isinstance(image, (str, bytes, os.PathLike)):
        raise TypeError("compress takes an image or an array, not its path: PIL.Image.open reads it")
    if effort not in range(LEAST, MOST + 1):
        raise ValueError(f"effort is a whole number from {LEAST} to {MOST}, not {effort!r}")
    picture = read_picture(image, strip=strip)
    if model is None or isinstance(model, (str, os.PathLike)):
        from pathlib import Path

        from bbans.zoo import load

        default = default_model(effort)
        place = Path(model) if isinstance(model, os.PathLike) else model  # a folder, where a string may be a name
        key = (place, default if place is None else None, device, threads)
        if key not in _models:
            _models[key] = load(place, default=default, device=device, threads=threads)
        model = _models[key]
    return compress_picture(picture, model, effort=effort)[0]


def decompress(
    data: bytes | bytearray | memoryview,
    *,
    search: str | Path | None = None,
    device: Device = "auto",
    threads: int | None = None,
) -> Image:
    """The picture in the bytes of a .bbans file, as a Pillow image of its mode.

    search: a folder in which to look for the model, besides the shipped ones and those in BBANS_MODELS.

    Raises `BadFile`, `UnsupportedVersion`, `ModelMissing`, `DecodedDiffers`; and `BadOutput` for modes that Pillow
    doesn't have, of 16 bits for each of several channels: `bbans_decode` gives them as arrays.
    """
    from bbans.image.files import to_pillow

    return to_pillow(_decoded(data, search, device, threads))


def _decoded(
    data: bytes | bytearray | memoryview, search: str | Path | None, device: Device, threads: int | None
) -> Picture:
    from pathlib import Path

    from bbans.image.picture import decompress_picture

    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError("decompress takes the bytes of a .bbans file, not its path")
    folder = None if search is None else Path(search)

    def find(model_id: bytes) -> Model:
        from bbans.zoo import load_by_id

        key = (model_id, folder, device, threads)
        if key not in _models:
            _models[key] = load_by_id(model_id, search=folder, device=device, threads=threads)
        return _models[key]

    return decompress_picture(bytes(data), find)


def open(file: str | os.PathLike[str] | BinaryIO) -> Image:
    """A .bbans file as a Pillow image, whose pixels are decoded when they are first needed.

    Raises `OSError` when there is no such file, `PIL.UnidentifiedImageError` when it is none of bbans', and `BadFile`
    when its header is damaged; the first use of the pixels raises what `decompress` does.
    """
    import PIL.Image

    return PIL.Image.open(file, formats=[FORMAT])


def bbans_encode(
    data: np.ndarray[Any, Any], level: int | None = None, *, out: bytearray | None = None
) -> bytes | memoryview:
    """The bytes of a .bbans file that holds an array, of the kinds that `compress` takes.

    level: the effort, 1 to 9; out: to be written to from its beginning; what was written is returned, as a view of it.
    Raises `BadImage`, `TooLarge`.
    """
    encoded = compress(data, effort=5 if level is None else level)
    if out is None:
        return encoded
    if len(out) < len(encoded):
        raise ValueError(f"out has {len(out)} bytes, of {len(encoded)} that are needed")
    out[: len(encoded)] = encoded
    return memoryview(out)[: len(encoded)]


def bbans_decode(
    data: bytes | bytearray | memoryview, *, out: np.ndarray[Any, Any] | None = None
) -> np.ndarray[Any, Any]:
    """The array [h, w] or [h, w, 2 to 4] in the bytes of a .bbans file: uint8, uint16 or bool. Of mode P these are
    indices of the palette. out: to be written to, and returned.

    Raises as `decompress` does.
    """
    picture = _decoded(data, None, "auto", None)
    decoded = picture.pixels[:, :, 0] if picture.pixels.shape[2] == 1 else picture.pixels
    decoded = decoded.astype(bool) if picture.mode == "1" else decoded
    if out is None:
        return decoded
    if out.shape != decoded.shape:
        raise ValueError(f"out has the shape {list(out.shape)}, but the picture is {list(decoded.shape)}")
    if out.dtype != decoded.dtype:
        raise ValueError(f"out is of {out.dtype}, but the picture of {decoded.dtype}")
    out[...] = decoded
    return out


def bbans_check(data: bytes | bytearray | memoryview) -> bool:
    """Whether these are the first bytes of a .bbans file."""
    from bbans.image.container import MAGIC

    return bytes(data[: len(MAGIC)]) == MAGIC
