"""Files in and out: pictures through Pillow, and bytes that appear under their name whole or not at all.

Knows image formats and the file system; refuses to know how pictures are compressed. A picture is taken only if its
pixels can be given back as they are: nothing is converted, reduced to 8 bits, flattened or rotated on the way.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, TiffImagePlugin
from PIL.Image import DecompressionBombError

from bbans.errors import BadFile, BadImage, BadOutput, BbansError, TooLarge
from bbans.image.container import CHANNELS, check_size
from bbans.image.picture import Picture, Pixels

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "GIF")
"""What Pillow is asked to read: formats whose hidden losses are known and looked for in `_check_exact`."""

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".gif"}
"""What is looked for in folders."""

LOSSLESS_SUFFIXES = {".png": "PNG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF", ".ppm": "PPM", ".pgm": "PPM"}
"""Suffixes of the files that `write_picture` writes, and Pillow's names of their formats."""

SUPPORTED = "supported are L (grey) and RGB, 8 bits per channel, and 1 (bilevel)"

_BITS_PER_SAMPLE, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _UNSIGNED = 258, 338, 339, 1


# -- pictures ----------------------------------------------------------------------------------------------------------


def read_picture(source: str | os.PathLike[str] | BinaryIO | Image.Image | np.ndarray[Any, Any]) -> Picture:
    """A picture from a file, an open file, a Pillow image, or an array uint8 [h, w], [h, w, 1] or [h, w, 3], or bool
    [h, w], which is mode "1".

    Pixels are taken as stored: an EXIF orientation or a colour profile is not applied. Raises `BadImage` or `TooLarge`;
    the message begins with the path, if there is one.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _from_pillow(source)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        with naming(path), open_regular(path, BadImage) as file:
            return _from_file(file)
    return _from_file(source)


def picture_size(path: Path) -> tuple[int, int, str]:
    """(height, width, mode) of an image file, from its header alone: the pixels may still prove damaged.

    Raises `BadImage` or `TooLarge`, as `read_picture` would; the message begins with the path.
    """
    with naming(path), open_regular(path, BadImage) as file, _opened(file) as image:
        check_size(*image.size)
        with _pillow_errors():
            _check_exact(image)
        return image.height, image.width, image.mode


def to_pillow(picture: Picture) -> Image.Image:
    """The picture as a Pillow image of its mode."""
    pixels = picture.pixels
    if picture.mode == "1":
        return Image.fromarray(pixels[:, :, 0].astype(bool))
    return Image.fromarray(pixels[:, :, 0] if picture.mode == "L" else pixels)


def write_picture(picture: Picture, path: Path, *, force: bool = False) -> None:
    """Write an image file in the lossless format that the suffix names. Raises `BadOutput`."""
    check_lossless(path)
    write_bytes(path, encoded(picture, path.suffix), force=force)


def encoded(picture: Picture, suffix: str) -> memoryview:
    """An image file's bytes, in the lossless format that the suffix names."""
    file = io.BytesIO()
    # PNG at the fastest level: it is written to be looked at, the small file is the one it came from
    to_pillow(picture).save(file, LOSSLESS_SUFFIXES[suffix.lower()], compress_level=1)
    return file.getbuffer()


def check_lossless(path: Path) -> None:
    """Raises `BadOutput` unless the suffix names a format that holds every picture's pixels exactly."""
    if path.suffix.lower() not in LOSSLESS_SUFFIXES:
        known = ", ".join(LOSSLESS_SUFFIXES)
        raise BadOutput(f"{path}: pictures are written losslessly, as {known}; not as '{path.suffix or path.name}'")


def _from_array(pixels: np.ndarray[Any, Any]) -> Picture:
    if pixels.dtype == np.bool_ and pixels.ndim == 2:
        check_size(pixels.shape[1], pixels.shape[0])
        return Picture(pixels[:, :, None].astype(np.uint8), "1")
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3))):
        raise BadImage(f"an array is uint8 [h, w], [h, w, 1] or [h, w, 3], not {pixels.dtype} {list(pixels.shape)}")
    planes = pixels if pixels.ndim == 3 else pixels[:, :, None]
    check_size(planes.shape[1], planes.shape[0])
    return Picture(planes, "RGB" if planes.shape[2] == 3 else "L")


def _from_file(file: BinaryIO) -> Picture:
    with _opened(file) as image:
        return _from_pillow(image)


@contextlib.contextmanager
def _opened(file: BinaryIO) -> Iterator[Image.Image]:
    """An image whose header was read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large pictures, and of metadata that isn't used
        try:
            image = Image.open(file, formats=FORMATS)
        except DecompressionBombError as error:
            raise TooLarge(f"has too many pixels ({error})") from error
        except Exception as error:  # Pillow's readers raise nearly anything at hostile files
            raise BadImage(f"is not an image that bbans reads ({', '.join(FORMATS)})") from error
        with image:
            yield image


def _from_pillow(image: Image.Image) -> Picture:
    check_size(*image.size)
    with _pillow_errors():
        _check_exact(image)
        image.load()
        _check_exact(image)
        pixels: Pixels = np.array(image, dtype=np.uint8)
    return Picture(pixels if pixels.ndim == 3 else pixels[:, :, None], image.mode)


@contextlib.contextmanager
def _pillow_errors() -> Iterator[None]:
    """Whatever Pillow raises is a `BadImage`, and what it warns of is nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (BbansError, MemoryError):
            raise
        except Exception as error:
            raise BadImage(f"is damaged: Pillow cannot decode it ({error})") from error


def _check_exact(image: Image.Image) -> None:
    """Raises `BadImage` when the file holds more than the 8-bit pixels that Pillow would give."""
    if image.mode not in CHANNELS:
        raise BadImage(f"mode {image.mode} ({_MODES.get(image.mode, 'another kind')}) is not supported; {SUPPORTED}")
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise BadImage(f"has {frames} frames; bbans takes single pictures")
    if "transparency" in image.info:
        raise BadImage(f"mode {image.mode} with a transparent colour is not supported; {SUPPORTED}")
    depth = _bit_depth(image)
    if depth > 8:
        raise BadImage(f"mode {image.mode} with {depth} bits per channel is not supported; {SUPPORTED}")


_MODES = {
    "P": "palette",
    "PA": "palette with alpha",
    "LA": "grey with alpha",
    "La": "grey with alpha",
    "RGBA": "RGB with alpha",
    "RGBa": "RGB with alpha",
    "I;16": "16-bit grey",
    "I;16B": "16-bit grey",
    "I;16L": "16-bit grey",
    "I": "grey of more than 8 bits",
    "F": "floating point",
}


def _bit_depth(image: Image.Image) -> int:
    """Bits per channel in the file, which Pillow silently reduces to 8. Known until the pixels are loaded."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _tiff_bit_depth(image)
    depth = 8
    for tile in getattr(image, "tile", ()):
        args = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if image.format == "PNG" and str(args[0]).endswith((";16B", ";16L", ";16N")):
            depth = 16
        if image.format == "PPM" and len(args) == 2 and isinstance(args[1], int):  # samples of 0..maxval
            if args[1] > 255:
                depth = args[1].bit_length()
            elif 255 % args[1]:
                raise BadImage(f"has samples from 0 to {args[1]}, which 8 bits cannot hold exactly; {SUPPORTED}")
    return depth


def _tiff_bit_depth(image: TiffImagePlugin.TiffImageFile) -> int:
    tags = image.tag_v2
    if tags.get(_EXTRA_SAMPLES):
        raise BadImage(f"mode {image.mode} with a further channel is not supported; {SUPPORTED}")
    if any(kind != _UNSIGNED for kind in _numbers(tags.get(_SAMPLE_FORMAT, _UNSIGNED))):
        raise BadImage(f"mode {image.mode} with signed or floating-point samples is not supported; {SUPPORTED}")
    return max(_numbers(tags.get(_BITS_PER_SAMPLE, 1)), default=1)


def _numbers(value: Any) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


# -- bytes -------------------------------------------------------------------------------------------------------------


def read_bytes(path: Path) -> bytes:
    """The contents of a file. Raises `BadFile`, whose message begins with the path."""
    with naming(path), open_regular(path, BadFile) as file:
        return file.read()


def check_output(path: Path, *, force: bool) -> None:
    """Raises `BadOutput` when `write_bytes` would refuse: cheap, and so worth asking before the work."""
    if os.path.lexists(path):
        if path.is_dir():
            raise BadOutput(f"{path}: is a directory")
        if not path.is_file():
            raise BadOutput(f"{path}: exists, and is no regular file")
        if not force:
            raise BadOutput(f"{path}: exists already; -f overwrites it")
    elif not path.parent.is_dir():
        raise BadOutput(f"{path}: there is no directory '{path.parent}'")


def write_bytes(path: Path, data: bytes | memoryview, *, force: bool = False, like: Path | None = None) -> None:
    """Write a file that is there whole or not at all. Raises `BadOutput`, as `atomic_file` does."""
    with atomic_file(path, force=force, like=like) as file:
        file.write(data)


@contextlib.contextmanager
def atomic_file(path: Path, *, force: bool = False, like: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write to, in truth a temporary one beside `path` that takes its place in the end: there is a whole file
    or none. It gets the permissions and the time of modification of the file `like`, where the system allows it.

    Raises `BadOutput`: it exists and `force` is not given, its directory is missing, or the disk is full.
    """
    check_output(path, force=force)
    target = Path(os.path.realpath(path))  # a link stays a link
    temporary = target.parent / f".bbans-{secrets.token_hex(8)}.tmp"
    try:
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if like is not None:
                _make_alike(temporary, like)
            check_output(path, force=force)
            os.replace(temporary, target)
        except BaseException:  # KeyboardInterrupt too
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise BadOutput(f"{path}: cannot be written: {error.strerror or error}") from error


def _make_alike(path: Path, like: Path) -> None:
    with contextlib.suppress(OSError):
        status = like.stat()
        path.chmod(stat.S_IMODE(status.st_mode) & 0o777)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@contextlib.contextmanager
def naming(what: Path | str) -> Iterator[None]:
    """Puts a path, or another name, before the message of a `BbansError` that is raised within."""
    try:
        yield
    except BbansError as error:
        raise type(error)(f"{what}: {error}") from error


@contextlib.contextmanager
def open_regular(path: Path, kind: type[BbansError]) -> Iterator[BinaryIO]:
    """A regular file to read from; what goes wrong with it is an error of this kind."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise kind("is a directory")
        if not stat.S_ISREG(mode):
            raise kind("is no regular file")
        file = path.open("rb")
    except FileNotFoundError as error:
        raise kind("no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise kind(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    with file:
        try:
            yield file
        except OSError as error:
            raise kind(f"cannot be read: {error.strerror or error}") from error
