"""Where the pictures of a new archive come from: image files, folders of them, .npy and .npz files, arrays.

Knows files and their headers; refuses to know groups and models. What there is, is found out from headers alone;
pixels are read when they are asked for, and of an array's file never more than was asked for.

Names are paths as they were given, as with tar and zip, less what leads out of a folder (`/`, `..`). A picture of an
array is called by the array's file, without suffix, and its number: digits/00042.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Any, Protocol, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from bbans.archive import names
from bbans.archive.format import TAKEN
from bbans.archive.names import Listed, Names, Numbered
from bbans.errors import BadImage, BbansError
from bbans.image.container import check_size
from bbans.image.files import SUFFIXES, naming, picture_size, read_picture
from bbans.image.metadata import TRANSPARENT

CHUNK = 1 << 20
"""Bytes that are read at once from an array's file."""

Pixels = NDArray[np.uint8]
Input = str | os.PathLike[str] | np.ndarray[Any, Any]


class Source(Protocol):
    """Pictures of one size and mode, in their order."""

    @property
    def names(self) -> Names: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def mode(self) -> str: ...
    @property
    def path(self) -> Path | None:
        """The file, if it is one."""

    def read(self, start: int, stop: int) -> Pixels:
        """The pictures from `start` to before `stop`: [n, h, w, c]; of mode 1, the values are 0 and 1."""

    def close(self) -> None:
        """Close the file."""


def find(inputs: Sequence[Input]) -> list[Source]:
    """What the inputs hold, in their order: uint8 [n, h, w], [n, h, w, 1] and [n, h, w, 3] are L and RGB; bool
    [n, h, w] are of mode 1.

    Raises `BadImage` when one of them holds no pictures, or others than bbans takes.
    """
    found: list[Source] = []
    for number, given in enumerate(inputs):
        if isinstance(given, np.ndarray):
            found.append(_Array(given, "" if len(inputs) == 1 else f"{number}/"))
        elif Path(given).is_dir():
            files = list(_images(Path(given)))
            if not files:
                raise BadImage(f"{given}: no images in this folder")
            found += map(_image, files)
        elif Path(given).suffix.lower() in (".npy", ".npz"):
            found.append(_ArrayFile(Path(given)))
        else:
            found.append(_image(Path(given)))
    if not found:
        raise BadImage("no images are given")
    return found


# -- image files -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Image:
    path: Path
    names: Listed
    height: int
    width: int
    mode: str

    def read(self, start: int, stop: int) -> Pixels:
        assert (start, stop) == (0, 1)
        picture = read_picture(self.path)
        if (picture.height, picture.width, picture.mode) != (self.height, self.width, self.mode):
            raise BadImage(f"{self.path}: was changed while the archive was made")
        if TRANSPARENT in picture.attributes:
            raise BadImage(f"{self.path}: has a transparent colour, which archives do not keep")
        return picture.pixels[None]

    def close(self) -> None: ...


def _image(path: Path) -> _Image:
    with naming(path):
        name = _checked(Listed((_name(path),)))
    height, width, mode = picture_size(path)
    if mode not in TAKEN:
        raise BadImage(f"{path}: has mode {mode}; archives take {', '.join(TAKEN)}")
    return _Image(path, cast(Listed, name), height, width, mode)


def _images(folder: Path) -> Iterator[Path]:
    """The image files in a folder and those below it, in the order of their paths. Links to folders aren't followed."""

    def fail(error: OSError) -> None:
        raise BadImage(f"{error.filename}: cannot be read: {error.strerror}") from error

    files = (Path(where, name) for where, _, found in os.walk(folder, onerror=fail) for name in found)
    return iter(sorted(path for path in files if path.suffix.lower() in SUFFIXES))


def _name(path: Path) -> str:
    """The path as it was given, less what leads out of a folder."""
    parts = [part for part in PurePath(os.path.normpath(path)).parts if part != ".."]
    return "/".join(parts[1:] if path.anchor else parts)


def _checked(given: Names) -> Names:
    if flaw := names.flaw(given):
        raise BadImage(flaw)
    return given


# -- arrays ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shape:
    """What an array of pictures holds."""

    count: int
    height: int
    width: int
    channels: int
    mode: str

    @classmethod
    def of(cls, dtype: np.dtype[Any], shape: tuple[int, ...]) -> _Shape:
        """Raises `BadImage` and `TooLarge`."""
        grey = len(shape) == 3 or (len(shape) == 4 and shape[3] == 1)
        if not (
            (dtype == np.uint8 and (grey or (len(shape) == 4 and shape[3] == 3)))
            or (dtype == np.bool_ and len(shape) == 3)
        ):
            taken = "uint8 [n, h, w], [n, h, w, 1] or [n, h, w, 3], or bool [n, h, w]"
            raise BadImage(f"pictures are {taken}; not {dtype} {list(shape)}")
        count, height, width = shape[:3]
        if min(count, height, width) < 1:
            raise BadImage(f"holds no pictures: {list(shape)}")
        check_size(width, height)
        mode = "1" if dtype == np.bool_ else "L" if grey else "RGB"
        return cls(count, height, width, 1 if grey else 3, mode)

    @property
    def picture(self) -> int:
        """Bytes of a picture."""
        return self.height * self.width * self.channels

    def numbered(self, prefix: str) -> Numbered:
        return Numbered(prefix, 0, self.count, len(str(self.count - 1)))


class _Array:
    """An array in memory."""

    path: None = None

    def __init__(self, array: np.ndarray[Any, Any], prefix: str) -> None:
        with _naming_array(prefix):
            self._shape = _Shape.of(array.dtype, array.shape)
        self._array = array
        self.height, self.width, self.mode = self._shape.height, self._shape.width, self._shape.mode
        self.names = self._shape.numbered(prefix)

    def read(self, start: int, stop: int) -> Pixels:
        part = np.ascontiguousarray(self._array[start:stop]).astype(np.uint8, copy=False)
        return part.reshape(stop - start, self.height, self.width, self._shape.channels)

    def close(self) -> None: ...


class _ArrayFile:
    """An .npy file, or the array of an .npz file that is called images, or its only one. Read as a stream."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open = contextlib.ExitStack()
        self._stream: IO[bytes] | None = None
        self._size = 0  # bytes of the stream, as far as the file tells the truth
        with naming(path), _reading():
            with contextlib.closing(self):
                stream = self._begin()
                self._shape = _header(stream)
                self._data = stream.tell()
            if self._size != self._data + self._shape.count * self._shape.picture:
                raise BadImage("is truncated, or has bytes behind its array")
            self.names = cast(Numbered, _checked(self._shape.numbered(f"{_name(path.with_suffix(''))}/")))
        self.height, self.width, self.mode = self._shape.height, self._shape.width, self._shape.mode

    def read(self, start: int, stop: int) -> Pixels:
        shape = self._shape
        pixels = np.empty((stop - start, shape.height, shape.width, shape.channels), np.uint8)
        with naming(self.path), _reading():
            stream = self._stream or self._begin()
            if stream.seek(self._data + start * shape.picture) != self._data + start * shape.picture:
                raise BadImage("is truncated")
            left = pixels.reshape(-1).data
            while left:
                count = cast(Any, stream).readinto(left[:CHUNK])
                if not count:
                    raise BadImage("is truncated")
                left = left[count:]
            if stop == shape.count:
                if stream.read(1):  # and an .npz's checksum is checked here, at its end
                    raise BadImage("has bytes behind its array")
                self.close()
        if shape.mode == "1" and pixels.max() > 1:
            raise BadImage(f"{self.path}: has other values than 0 and 1, though it is bool")
        return pixels

    def close(self) -> None:
        self._stream = None
        self._open.close()

    def _begin(self) -> IO[bytes]:
        """The array's bytes from their beginning, its header included."""
        if not self.path.is_file():
            raise BadImage("is no regular file" if self.path.exists() else "no such file")
        if self.path.suffix.lower() == ".npy":
            self._size = self.path.stat().st_size
            self._stream = self._open.enter_context(self.path.open("rb"))
        else:
            archive = self._open.enter_context(zipfile.ZipFile(self.path))
            members = archive.namelist()
            only = members[0] if len(members) == 1 else None
            member = "images.npy" if "images.npy" in members else only
            if member is None:
                raise BadImage("holds several arrays, and none is called images")
            self._size = archive.getinfo(member).file_size
            self._stream = self._open.enter_context(archive.open(member))
        return self._stream


def _header(stream: IO[bytes]) -> _Shape:
    """What the array holds that begins here; the stream is at its first picture then."""
    version = npy.read_magic(stream)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise BadImage(f"has version {version} of the .npy format, which bbans does not read")
    shape, fortran, dtype = read(stream)
    if fortran and dtype in (np.uint8, np.bool_):
        raise BadImage("is in Fortran order; save np.ascontiguousarray of it")
    return _Shape.of(dtype, shape)


@contextlib.contextmanager
def _naming_array(prefix: str) -> Iterator[None]:
    try:
        yield
    except BbansError as error:
        raise type(error)(f"array {prefix.rstrip('/') or 0}: {error}") from error


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Raises `BadImage` for what zipfile, zlib and NumPy raise at files that aren't what they seem."""
    try:
        yield
    except BbansError:
        raise
    except OSError as error:
        raise BadImage(f"cannot be read: {error.strerror or error}") from error
    except (
        ValueError,
        TypeError,
        EOFError,
        RuntimeError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise BadImage(f"cannot be read as an array ({error})") from error
