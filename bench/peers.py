"""The coders that bbans is compared with: PNG and WebP by Pillow, JPEG XL by two releases where they are installed.

All get the pixels and nothing else, and time themselves: from pixels in memory to a file's bytes, and back.

JPEG XL comes twice: cjxl and djxl as the system packages them, and the libjxl that imagecodecs brings. The same effort
means different things to them: since 0.10 each is faster, and 10 does what 9 did before.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bbans.image.files import to_pillow
from bbans.image.picture import Picture, Pixels

JXL_MOST = 10  # the largest effort of JPEG XL


@dataclass(frozen=True)
class Peer:
    """A lossless coder. Both functions return (result, seconds); `how` names its settings."""

    name: str
    how: str
    encode: Callable[[Picture], tuple[bytes, float]]
    decode: Callable[[bytes], tuple[Pixels, float]]


def same_pixels(decoded: Pixels, picture: Picture) -> bool:
    """Whether a peer gave the pixels back; grey may have become RGB."""
    return decoded.shape[:2] == picture.pixels.shape[:2] and bool((decoded == picture.pixels).all())


def png() -> Peer:
    """PNG as Pillow writes it when told to look for the smallest."""
    return _pillow("PNG", "Pillow, optimize=True", optimize=True)


def webp() -> Peer:
    """WebP, lossless, at its slowest."""
    return _pillow("WebP", "Pillow, lossless, method 6, quality 100", lossless=True, method=6, quality=100)


def cjxl(effort: int) -> Peer:
    """JPEG XL by the commands cjxl and djxl, each on one thread.

    Seconds are those of the MP/s that they print, which leave out process start and the files.
    """

    def encode(picture: Picture) -> tuple[bytes, float]:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "in.ppm", Path(folder) / "out.jxl"
            to_pillow(picture).save(source)
            seconds = _run("cjxl", "-d", "0", "-e", str(effort), "--num_threads=0", source, target)
            return target.read_bytes(), seconds

    def decode(data: bytes) -> tuple[Pixels, float]:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "in.jxl", Path(folder) / "out.png"
            source.write_bytes(data)
            seconds = _run("djxl", "--num_threads=1", source, target)  # 0 would be all cores, unlike that of cjxl
            with Image.open(target) as image:
                return _planes(image), seconds

    how = f"cjxl -d 0 -e {effort} --num_threads=0, djxl --num_threads=1"
    return Peer(f"{cjxl_version()} e{effort}", how, encode, decode)


def libjxl(effort: int) -> Peer:
    """JPEG XL by the libjxl that imagecodecs brings, on one thread: what `cjxl -d 0` of that release does.

    The options that aren't given are those of libjxl. A container would add 40 bytes, and is never needed.
    """
    from imagecodecs import jpegxl_decode, jpegxl_encode

    options: dict[str, Any] = {"effort": effort, "lossless": True, "usecontainer": False, "numthreads": 1}

    def encode(picture: Picture) -> tuple[bytes, float]:
        pixels = picture.pixels[..., 0] if picture.pixels.shape[2] == 1 else picture.pixels
        begin = time.perf_counter()
        data = jpegxl_encode(pixels, **options)
        return data, time.perf_counter() - begin

    def decode(data: bytes) -> tuple[Pixels, float]:
        begin = time.perf_counter()
        pixels = jpegxl_decode(data, index=0, numthreads=1)  # the first frame, so that none are counted
        seconds = time.perf_counter() - begin
        return pixels if pixels.ndim == 3 else pixels[:, :, None], seconds

    said = ", ".join(f"{option}={value}" for option, value in options.items())
    return Peer(f"{libjxl_version()} e{effort}", f"imagecodecs.jpegxl_encode, {said}", encode, decode)


def jxls(*efforts: int) -> list[Peer]:
    """JPEG XL at these efforts by each release that is installed. What is missing takes a line on stderr."""
    found: list[Peer] = []
    for coder, version, missing in (
        (cjxl, cjxl_version(), "cjxl and djxl are not installed: nothing of theirs"),
        (libjxl, libjxl_version(), "imagecodecs is not installed (pip install 'bbans[deep]'): nothing of its libjxl"),
    ):
        if version is None:
            print(missing, file=sys.stderr)
            continue
        most = most_effort(version)
        found += [coder(effort) for effort in efforts if effort <= most]
        if max(efforts) > most:
            print(f"{version} has efforts up to {most}: nothing of it above", file=sys.stderr)
    return found


def most_effort(version: str) -> int:
    """The largest effort of a release that needs no expert options: 10 since 0.10, and 9 before."""
    major, minor = map(int, version.split()[1].split(".")[:2])
    return JXL_MOST if (major, minor) >= (0, 10) else 9


def cjxl_version() -> str | None:
    """Such as `cjxl 0.7.0`; None where cjxl or djxl isn't installed."""
    if not (shutil.which("cjxl") and shutil.which("djxl")):
        return None
    said = subprocess.run(["cjxl", "--version"], capture_output=True, text=True, check=True).stdout
    version = re.match(r"cjxl v(\d+\.\d+\S*)", said)
    if not version:
        raise RuntimeError(f"cjxl --version says no version: {said.strip()}")
    return f"cjxl {version[1]}"


def libjxl_version() -> str | None:
    """Such as `libjxl 0.11.2`; None where imagecodecs isn't installed, or was built without it."""
    try:
        from imagecodecs import jpegxl_version

        return str(jpegxl_version())
    except ImportError:
        return None


def _pillow(form: str, how: str, **options: Any) -> Peer:
    def encode(picture: Picture) -> tuple[bytes, float]:
        image, file = to_pillow(picture), io.BytesIO()
        begin = time.perf_counter()
        image.save(file, form, **options)
        return file.getvalue(), time.perf_counter() - begin

    def decode(data: bytes) -> tuple[Pixels, float]:
        begin = time.perf_counter()
        with Image.open(io.BytesIO(data)) as image:
            pixels = _planes(image)
        return pixels, time.perf_counter() - begin

    return Peer(form, how, encode, decode)


def _planes(image: Image.Image) -> Pixels:
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _run(*command: str | Path) -> float:
    """Seconds that the codec took by its own account: `W x H, 1.23 MP/s`."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    said = re.search(r"(\d+) x (\d+), (?:geomean: )?([\d.]+) MP/s", done.stdout + done.stderr)
    if done.returncode or not said:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.strip()}")
    return int(said[1]) * int(said[2]) / 1e6 / max(float(said[3]), 0.005)  # it prints two decimals
