"""The coders that bbans is compared with: PNG and WebP by Pillow, JPEG XL by cjxl and djxl where they are installed.

All get the pixels and nothing else, and time themselves: from pixels in memory to a file's bytes, and back.
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


def jxl(effort: int) -> Peer:
    """JPEG XL by the reference coder on one thread.

    Seconds are those of the MP/s that cjxl and djxl print, which leave out process start and the files.
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
            seconds = _run("djxl", "--num_threads=0", source, target)
            with Image.open(target) as image:
                return _planes(image), seconds

    return Peer(f"JXL e{effort}", f"{jxl_version()}: cjxl -d 0 -e {effort} --num_threads=0", encode, decode)


def jxls(*efforts: int) -> list[Peer]:
    """JPEG XL at these efforts; nothing, and a line on stderr, where cjxl and djxl aren't installed."""
    if shutil.which("cjxl") and shutil.which("djxl"):
        return [jxl(effort) for effort in efforts]
    print("cjxl and djxl are not installed: nothing of JPEG XL", file=sys.stderr)
    return []


def jxl_version() -> str:
    """As cjxl says it, such as `cjxl v0.7.0`."""
    said = subprocess.run(["cjxl", "--version"], capture_output=True, text=True, check=True).stdout
    return said.partition("\n")[0].partition("[")[0].strip()


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
