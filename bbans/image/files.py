"""Files in and out: pictures through Pillow, and bytes that appear under their name whole or not at all.

Knows image formats and the file system; refuses to know how pictures are compressed. A picture is taken only if its
pixels can be given back as they are: nothing is converted, reduced to 8 bits or flattened on the way.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import secrets
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from PIL import Image, TiffImagePlugin

from bbans.errors import BadFile, BadImage, BadOutput, BbansError
from bbans.image import metadata, png
from bbans.image.container import MAX_PIXELS, check_size
from bbans.image.modes import MODES, NOT_PILLOWS, PALETTE, PALETTE_ALPHA
from bbans.image.picture import Picture
from bbans.image.sheets import Pixels

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "GIF")
"""What Pillow is asked to read: formats whose hidden losses are known and looked for in `_check_exact`."""

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".gif"}
"""What is looked for in folders."""

LOSSLESS_SUFFIXES = {".png": "PNG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF", ".ppm": "PPM", ".pgm": "PPM"}
"""Suffixes of the files that `write_picture` writes, and Pillow's names of their formats."""

HOLDS = {
    "PNG": set(MODES),
    "TIFF": {"1", "L", "RGB", "RGBA", "I;16"},
    "BMP": {"1", "L", "RGB"},
    "PPM": {"1", "L", "RGB"},
}
"""The modes that come back as they were from files of each format that `write_picture` writes."""

SUPPORTED = "supported are 1, L, LA, P, RGB and RGBA of 8 bits per channel, I;16 (grey of 16 bits), and PNG of 16 bits"

_BITS_PER_SAMPLE, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _UNSIGNED, _ALPHA = 258, 338, 339, 1, 2
_GLANCE = 1 << 16  # bytes behind a picture that are looked at
_PICTURES = 0xB001  # how many a JPEG holds, in its "multi-picture" index


# -- pictures ----------------------------------------------------------------------------------------------------------


def read_picture(
    source: str | os.PathLike[str] | BinaryIO | Image.Image | np.ndarray[Any, Any],
    *,
    strip: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Picture:
    """A picture from a file, an open file, a Pillow image, or an array: uint8 [h, w] or [h, w, 1 to 4], which is L, LA,
    RGB or RGBA; uint16 likewise, of 16 bits per channel; or bool [h, w], which is mode "1".

    Pixels are taken as stored: an EXIF orientation or a colour profile is not applied, but kept with other metadata
    (`bbans.image.metadata`), unless they are to be stripped. Only the orientation of a TIFF is applied, by Pillow, and
    not kept. Raises `BadImage` or `TooLarge`; the message begins with the path, if there is one.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    if isinstance(source, Image.Image):
        return _from_pillow(source, strip, max_pixels)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        with naming(path), open_regular(path, BadImage) as file:
            return _from_file(file, strip, max_pixels)
    return _from_file(source, strip, max_pixels)


def picture_size(path: Path) -> tuple[int, int, str]:
    """(height, width, mode) of an image file, from its header alone: the pixels may still prove damaged.

    Raises `BadImage` or `TooLarge`, as `read_picture` would; the message begins with the path.
    """
    with naming(path), open_regular(path, BadImage) as file, _opened(file) as image:
        check_size(*image.size)
        with _pillow_errors():
            deep = png.deep_mode(image)
            (_check_single if deep else _check_exact)(image)
        return image.height, image.width, deep or _mode_of(image)


def to_pillow(picture: Picture) -> Image.Image:
    """The picture as a Pillow image of its mode, which Pillow saves with these pixels.

    Raises `BadOutput` for the modes that Pillow doesn't have.
    """
    pixels, attributes = picture.pixels, picture.attributes
    if picture.mode in NOT_PILLOWS:
        raise BadOutput(f"has mode {picture.mode}, which Pillow does not have; bbans.bbans_decode takes it")
    planes = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    image = Image.fromarray(planes.astype(bool) if picture.mode == "1" else planes)
    if picture.mode == "P":
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette(_padded(attributes[PALETTE], int(pixels.max()) + 1))
    image.info.update(metadata.as_info(picture.mode, attributes))
    if alpha := attributes.get(PALETTE_ALPHA):
        image.info["transparency"] = alpha
    return image


def _padded(palette: bytes, colours: int) -> bytes:
    """A palette that is long enough for pixels of so many colours: into a PNG Pillow writes as many bits of them as the
    palette needs, and cuts off others."""
    held = next(most for most in (2, 4, 16, 256) if len(palette) <= 3 * most)
    return palette if colours <= held else palette.ljust(3 * colours, b"\0")


def write_picture(picture: Picture, path: Path, *, force: bool = False) -> None:
    """Write an image file in the lossless format that the suffix names. Raises `BadOutput`."""
    check_lossless(path)
    write_bytes(path, encoded(picture, path.suffix), force=force)


def encoded(picture: Picture, suffix: str) -> bytes:
    """An image file's bytes, in the lossless format that the suffix names. Raises `BadOutput` when it can't hold the
    picture."""
    kind = LOSSLESS_SUFFIXES[suffix.lower()]
    if picture.mode not in HOLDS[kind]:
        raise BadOutput(f"{kind} files can't hold mode {picture.mode} exactly; PNG can")
    if kind != "PNG" and metadata.TRANSPARENT in picture.attributes:
        raise BadOutput(f"{kind} files can't hold a transparent colour; PNG can")
    options = metadata.save_options(kind, picture.mode, picture.attributes)
    # PNG at the fastest level: it is written to be looked at, the small file is the one it came from
    if picture.mode in NOT_PILLOWS:
        return png.encoded(picture.pixels, options)
    file = io.BytesIO()
    to_pillow(picture).save(file, kind, compress_level=1, **options)
    return file.getvalue()


def left_out(picture: Picture, suffix: str) -> tuple[str, ...]:
    """Names of the attributes that `encoded` doesn't write in the format that the suffix names."""
    return metadata.left_out(LOSSLESS_SUFFIXES[suffix.lower()], picture.mode, picture.attributes)


def check_lossless(path: Path) -> None:
    """Raises `BadOutput` unless the suffix names a format that holds every picture's pixels exactly."""
    if path.suffix.lower() not in LOSSLESS_SUFFIXES:
        known = ", ".join(LOSSLESS_SUFFIXES)
        raise BadOutput(f"{path}: pictures are written losslessly, as {known}; not as '{path.suffix or path.name}'")


def _from_array(pixels: np.ndarray[Any, Any], max_pixels: int) -> Picture:
    if pixels.dtype == np.bool_ and pixels.ndim == 2:
        check_size(pixels.shape[1], pixels.shape[0], max_pixels)
        return Picture(pixels[:, :, None].astype(np.uint8), "1")
    planes = pixels[:, :, None] if pixels.ndim == 2 else pixels
    known = planes.ndim == 3 and _OF_ARRAYS.get((pixels.dtype.name, planes.shape[2]))
    if not known:
        raise BadImage(
            "an array is uint8 or uint16, [h, w] or [h, w, 1 to 4], or bool [h, w]; "
            f"not {pixels.dtype} {[*pixels.shape]}"
        )
    check_size(planes.shape[1], planes.shape[0], max_pixels)
    return Picture(planes.astype(planes.dtype.newbyteorder("="), copy=False), known)


_OF_ARRAYS = {(mode.dtype, mode.channels): name for name, mode in MODES.items() if name not in ("1", "P")}


def _from_file(file: BinaryIO, strip: bool, max_pixels: int) -> Picture:
    with _opened(file) as image:
        mode = png.deep_mode(image)
        return _from_deep(image, mode, strip, max_pixels) if mode else _from_pillow(image, strip, max_pixels)


@contextlib.contextmanager
def _opened(file: IO[bytes]) -> Iterator[Image.Image]:
    """An image whose header was read."""
    with warnings.catch_warnings(), _no_limit():
        warnings.simplefilter("ignore")  # of metadata that isn't used
        try:
            image = Image.open(file, formats=FORMATS)
        except Exception as error:  # Pillow's readers raise nearly anything at hostile files
            raise BadImage(f"is not an image that bbans reads ({', '.join(FORMATS)})") from error
        with image:
            yield image


@contextlib.contextmanager
def _no_limit() -> Iterator[None]:
    """Pillow's own is fixed, and ours is looked at before pixels are."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _from_pillow(image: Image.Image, strip: bool, max_pixels: int) -> Picture:
    check_size(*image.size, max_pixels)
    with _pillow_errors():
        _check_exact(image)
        _check_origin(image)
        attributes = metadata.taken_from(image, strip=strip)
        _check_exact(image)
        mode = _mode_of(image)
        pixels: Pixels = np.array(image, dtype=MODES[mode].dtype)
        if mode == "P":
            attributes |= _palette(image, pixels)
    return Picture(pixels if pixels.ndim == 3 else pixels[:, :, None], mode, attributes)


def _from_deep(image: Image.Image, mode: str, strip: bool, max_pixels: int) -> Picture:
    """Of a PNG that is `png.deep_mode`: its pixels by imagecodecs, and what else it says by Pillow."""
    check_size(*image.size, max_pixels)
    with _pillow_errors():
        _check_single(image)
        pixels, told = png.decoded(image)
        with _opened(told) as rest:
            attributes = metadata.taken_from(rest, strip=strip)
    return Picture(pixels, mode, attributes)


def _mode_of(image: Image.Image) -> str:
    """Ours: the byte order of 16 bits is of no matter, and no PNG has more (Pillow before 11 says I)."""
    deep = image.mode in ("I;16L", "I;16B", "I;16N") or (image.mode == "I" and image.format == "PNG")
    return "I;16" if deep else image.mode


def _palette(image: Image.Image, pixels: Pixels) -> dict[str, bytes]:
    """The attributes of a palette and of the transparency of its colours, which `info` tells, or the palette itself."""
    colours = bytes(image.getpalette("RGB") or [])
    own = bytes(image.getpalette("RGBA") or [])[3::4] if image.palette and image.palette.mode == "RGBA" else b""
    alpha = image.info.get("transparency", b"")
    if isinstance(alpha, int):  # the only colour that can't be seen; GIFs may name one that they don't have
        if 3 * alpha >= len(colours) and (pixels == alpha).any():
            colours = colours.ljust(3 * (alpha + 1), b"\0")
        alpha = own[:alpha].ljust(alpha, b"\xff") + b"\0" if 3 * alpha < len(colours) else b""
    alpha += own[len(alpha) :].rstrip(b"\xff")
    return {PALETTE: colours} | ({PALETTE_ALPHA: alpha} if alpha else {})


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
            raise BadImage(f"is damaged: it cannot be decoded ({error})") from error


def _check_exact(image: Image.Image) -> None:
    """Raises `BadImage` when the file holds more than the 8-bit pixels that Pillow would give."""
    mode = _mode_of(image)
    if mode not in MODES:
        raise BadImage(f"mode {mode} ({_MODES.get(mode, 'another kind')}) is not supported; {SUPPORTED}")
    _check_single(image)
    if png.deep_mode(image):
        raise BadImage(
            "has 16 bits per channel, which Pillow's images do not hold; `bbans compress` takes the file, and "
            "bbans.bbans_encode its pixels as an array"
        )
    _check_fourth_bytes(image)
    depth = _bit_depth(image)
    if depth > (16 if MODES[mode].deep else 8):
        raise BadImage(f"mode {image.mode} with {depth} bits per channel is not supported; {SUPPORTED}")


def _check_origin(image: Image.Image) -> None:
    """`_check_exact` for an image that is loaded already, of the file it came from, if that is still there."""
    path = getattr(image, "filename", "")
    if getattr(image, "tile", ()) or image.format not in FORMATS or not path or not os.path.isfile(path):
        return
    with contextlib.ExitStack() as stack:
        try:
            origin = stack.enter_context(_opened(stack.enter_context(open(path, "rb"))))
        except (OSError, BadImage):
            return
        if (origin.format, origin.size) == (image.format, image.size):
            with naming(os.fsdecode(path)):
                _check_exact(origin)


def _check_single(image: Image.Image) -> None:
    """Raises `BadImage` when the file holds several pictures, of which Pillow would give the first."""
    frames = getattr(image, "n_frames", 1)
    if image.format == "JPEG" and "mp" in image.info:  # with a gain map (Ultra HDR), of which Pillow says nothing
        index = Image.Exif()
        index.load(image.info["mp"])
        frames = index.get(_PICTURES, 1)
    if frames > 1:
        raise BadImage(f"has {frames} frames, pages or other pictures, such as a gain map; bbans takes single pictures")
    if image.format == "PPM" and _goes_on(image):
        raise BadImage("has more behind its picture, such as another one; bbans takes single pictures")


def _goes_on(image: Image.Image) -> bool:
    """Whether a PNM has more behind its samples than white space. Known until the pixels are loaded."""
    for decoder, _, at, arguments in getattr(image, "tile", ()):
        samples = image.width * image.height * len(image.getbands())
        if decoder == "ppm_plain":
            told = re.sub(rb"#[^\r\n]*", b"", _bytes_at(image, at)).split()
            return (sum(map(len, told)) if image.mode == "1" else len(told)) > samples
        if image.mode == "1":
            size = (image.width + 7) // 8 * image.height
        else:
            size = samples * (2 if arguments[1:] and isinstance(arguments[1], int) and arguments[1] > 255 else 1)
        return bool(_bytes_at(image, at + size, _GLANCE).strip())
    return False


def _check_fourth_bytes(image: Image.Image) -> None:
    """Raises `BadImage` when a BMP of 32 bits says something in the bytes that Pillow skips, often alpha. Known until
    the pixels are loaded."""
    for _, _, at, arguments in getattr(image, "tile", ()) if image.format == "BMP" else ():
        order = arguments[0]
        if len(order) == 4 and "X" in order:  # such as BGRX
            data = _bytes_at(image, at, 4 * image.width * image.height)
            skipped = np.frombuffer(data, np.uint8)[order.index("X") :: 4]
            if (skipped != skipped[:1]).any():
                raise BadImage(f"has a fourth channel, perhaps alpha, which the BMP does not name; {SUPPORTED}")


def _bytes_at(image: Image.Image, at: int, size: int = -1) -> bytes:
    """Of the file of an image that isn't loaded."""
    file: IO[bytes] = image.fp  # type: ignore[attr-defined]
    before = file.tell()
    file.seek(at)
    data = file.read(size)
    file.seek(before)
    return data


_MODES = {
    "PA": "palette with alpha",
    "La": "grey with premultiplied alpha",
    "RGBa": "RGB with premultiplied alpha",
    "CMYK": "inks",
    "I": "grey of more than 16 bits, or signed",
    "F": "floating point",
}


def _bit_depth(image: Image.Image) -> int:
    """Bits per channel in the file, which Pillow silently reduces to 8. Known until the pixels are loaded."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _tiff_bit_depth(image)
    depth = 8
    for tile in getattr(image, "tile", ()):
        args = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if image.format == "PPM" and len(args) == 2 and isinstance(args[1], int):  # samples of 0..maxval
            if args[1] > 255:
                depth = args[1].bit_length()
            elif 255 % args[1]:
                raise BadImage(f"has samples from 0 to {args[1]}, which 8 bits cannot hold exactly; {SUPPORTED}")
    return depth


def _tiff_bit_depth(image: TiffImagePlugin.TiffImageFile) -> int:
    tags = image.tag_v2
    if tags.get(_EXTRA_SAMPLES) and (image.mode != "RGBA" or _numbers(tags[_EXTRA_SAMPLES]) != (_ALPHA,)):
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
