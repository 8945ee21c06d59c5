"""Small pictures of one size for training: read into one array, shuffled into batches, binarised.

Knows files and pixels, nothing of models.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bbans.errors import BadImage
from bbans.train.data import find_images

Pixels = NDArray[np.uint8]
BINARY_SEED = 0
ARRAYS = (".npy", ".npz")


@dataclass(frozen=True)
class Deck:
    """How batches are made: whether pictures are mirrored at random, and how many of the last validate."""

    flip: bool = False
    hold_out: int = 5000

    def batches(self, pictures: Pixels, size: int, seed: int, *, bilevel: bool) -> Iterator[Pixels]:
        """Endless batches [size, h, w, c], every picture once before any comes again.

        With `bilevel` each is drawn anew: a sample is 1 with probability value / 255.
        """
        random = np.random.default_rng(seed)
        order = np.zeros(0, np.int64)
        while True:
            while len(order) < size:
                order = np.concatenate([order, random.permutation(len(pictures))])
            batch, order = pictures[order[:size]], order[size:]
            if self.flip:
                mirrored = random.random(size) < 0.5
                batch[mirrored] = batch[mirrored, :, ::-1]
            yield binarise(batch, random) if bilevel else batch

    def binarised(self, pictures: Pixels) -> Pixels:
        """Bilevel pictures, the same at every call."""
        return binarise(pictures, np.random.default_rng(BINARY_SEED))


def binarise(pictures: Pixels, random: np.random.Generator) -> Pixels:
    """0 or 1 for each sample, 1 with probability value / 255: Salakhutdinov & Murray 2008, Townsend et al. 2019.

    Raises `BadImage` for pictures of 0 and 1, which would come out black.
    """
    if pictures.size and pictures.max() == 1:
        raise BadImage("has values of 0 and 1 only: bilevel pictures are bool, or 0 and 255")
    return (random.random(pictures.shape, np.float32) * 255 < pictures).astype(np.uint8)


def load_stack(paths: list[Path], shape: tuple[int, int, int]) -> Pixels:
    """All pictures of arrays (see `load_array`) and image files, uint8 [n, *shape], in order; bilevel as 0 and 255.

    Raises `BbansError` when one is of another size.
    """
    found: list[Pixels] = []
    for path in paths:
        for file in [path] if path.suffix.lower() in ARRAYS else find_images([path]):
            pictures = _array(file) if file.suffix.lower() in ARRAYS else _file(file, shape[-1])[None]
            if pictures.shape[1:] != shape:
                got, wanted = ("x".join(map(str, s)) for s in (pictures.shape[1:], shape))
                raise BadImage(
                    f"{file}: pictures of {got}, but the model is for {wanted}, as its recipe (--config) says"
                )
            found.append(pictures)
    return np.concatenate(found)


def load_array(path: Path) -> NDArray[Any]:
    """The pictures of an .npy, or of an .npz' array `images` or its only one: uint8 [n, h, w] or [n, h, w, c], or bool
    [n, h, w] (bilevel). Raises `BadImage`."""
    kind = path.suffix.lower()
    try:
        with path.open("rb") as opened:
            images: Any = np.load(opened, allow_pickle=False)
            if not isinstance(images, np.ndarray):
                names = images.files
                images = images["images"] if "images" in names else images[names[0]] if len(names) == 1 else None
    except (OSError, ValueError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise BadImage(f"{path}: cannot be read as an {kind} ({error})") from error
    if not isinstance(images, np.ndarray) or (images.dtype, images.ndim) not in (
        (np.uint8, 3),
        (np.uint8, 4),
        (np.bool_, 3),
    ):
        what = "an array 'images'" if kind == ".npz" else "pictures"
        raise BadImage(f"{path}: needs {what}, uint8 [n, h, w] or [n, h, w, c], or bool [n, h, w] (bilevel)")
    return images


def _array(path: Path) -> Pixels:
    """[n, h, w, c], of bilevel pictures 0 and 255."""
    images = load_array(path)
    if images.dtype == np.bool_:
        images = images * np.uint8(255)
    return images[..., None] if images.ndim == 3 else images


def _file(path: Path, channels: int) -> Pixels:
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except (OSError, ValueError) as error:
        raise BadImage(f"{path}: not an image that Pillow can read ({error})") from error
    return pixels[..., None] if pixels.ndim == 2 else pixels
