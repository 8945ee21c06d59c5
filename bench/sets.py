"""The yardsticks' test sets: where they are, and how they become pictures. Test sets are for measuring only; what is
to be chosen is chosen on pictures of the training sets that no model was trained on.

Knows files below the data folder; knows nothing of models.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbans.image.picture import Picture, Pixels
from bbans.train.stacks import binarise
from bench import common

BINARY_SEED = 0
"""Of the binarised test set: `binarise(images, np.random.default_rng(BINARY_SEED))`, all images at once."""


class Absent(Exception):
    """The set is not here; the message says where it was looked for."""


@dataclass(frozen=True, eq=False)
class TestSet:
    """Pixels [n, h, w, 1 or 3], of mode "1" as 0 and 1."""

    name: str
    mode: str
    pixels: Pixels

    def first(self, count: int) -> TestSet:
        """The first so many images."""
        return TestSet(self.name, self.mode, self.pixels[:count])

    @property
    def array(self) -> NDArray[Any]:
        """As archives take it: uint8 [n, h, w] or [n, h, w, 3], or bool [n, h, w]."""
        pixels = self.pixels if self.mode == "RGB" else self.pixels[..., 0]
        return pixels.astype(bool) if self.mode == "1" else pixels

    def pictures(self) -> list[Picture]:
        """One by one."""
        return [Picture(pixels, self.mode) for pixels in self.pixels]


def _mnist(part: str) -> TestSet:
    return TestSet("mnist", "L", _images(common.DATA / "mnist" / f"{part}.npz")[..., None])


def _mnist_binary(part: str) -> TestSet:
    return TestSet("mnist-binary", "1", binarise(_mnist(part).pixels, np.random.default_rng(BINARY_SEED)))


def _cifar10(part: str) -> TestSet:
    """From `test.npz`, or else put together from the strips, into the folder BBANS_CIFAR10 or for this once."""
    kept = os.environ.get("BBANS_CIFAR10")
    for folder in (common.DATA / "cifar10", *([Path(kept)] if kept else ())):
        if (folder / f"{part}.npz").is_file():
            return TestSet("cifar10", "RGB", _images(folder / f"{part}.npz"))
    script = common.DATA / "decode_cifar10.py"
    if not script.is_file():
        raise Absent(f"{common.DATA / 'cifar10' / 'test.npz'}, {script}: neither is here; nor does BBANS_CIFAR10 help")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(kept or temporary)
        print(f"{script}: putting CIFAR-10 together; BBANS_CIFAR10 names a folder to keep it in", file=sys.stderr)
        done = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True)
        if done.returncode:
            raise Absent(f"{script} failed: {done.stderr.strip()}")
        return TestSet("cifar10", "RGB", _images(folder / f"{part}.npz"))


_PARTS: dict[str, Callable[[str], TestSet]] = {"mnist-binary": _mnist_binary, "mnist": _mnist, "cifar10": _cifar10}
SETS: dict[str, Callable[[], TestSet]] = {name: partial(of, "test") for name, of in _PARTS.items()}
"""Each by its name, which is that of its model, too. Raise `Absent`."""

HELD_OUT = 5000
"""Pictures at the end of each training set that our models were not trained on: `hold_out` of their recipes."""


def held_out(name: str) -> TestSet:
    """Those pictures, for choices. Raises `Absent`."""
    whole = _PARTS[name]("train")
    return TestSet(name, whole.mode, whole.pixels[-HELD_OUT:])


def training(name: str) -> TestSet:
    """The pictures before those, for learning. Raises `Absent`."""
    whole = _PARTS[name]("train")
    return TestSet(name, whole.mode, whole.pixels[:-HELD_OUT])


def mnist_labels() -> NDArray[Any]:
    """The digits [n] that the pictures of the test set show. Raises `Absent`."""
    return _images(common.DATA / "mnist" / "test.npz", "labels")


def _images(path: Path, array: str = "images") -> NDArray[Any]:
    if not path.is_file():
        raise Absent(f"{path}: no such file; set BBANS_DATA to the folder that holds {path.parent.name}/{path.name}")
    with np.load(path, allow_pickle=False) as file:
        found: NDArray[Any] = file[array]
    return found
