"""The pictures of a set that is to be measured: an image file, a folder of them, or arrays.

Knows names and what reads each picture; refuses to know what is done with them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bbans.errors import BadImage

if TYPE_CHECKING:
    from bbans.image.picture import Picture
    from bbans.zoo import Model

ARRAYS = (".npz", ".npy")

Pictures = dict[Path, Callable[[], "Picture"]]


def is_array(path: Path) -> bool:
    """Whether its pictures are all of one size and mode, being those of one array."""
    return path.suffix.lower() in ARRAYS


def pictures_of(path: Path) -> Pictures:
    """The pictures by their names, each with what reads it. Raises `BbansError`."""
    from bbans.image.files import read_picture

    if is_array(path):
        from bbans.train.stacks import load_array

        if not len(array := load_array(path)):
            raise BadImage(f"{path}: an array of no pictures")
        return {Path(f"{path}[{i}]"): partial(read_picture, pixels) for i, pixels in enumerate(array)}
    if path.is_dir():
        from bbans.train.data import find_images

        return {file: partial(read_picture, file) for file in find_images([path])}
    return {path: partial(read_picture, path)}


def binarised(pictures: Pictures, seed: int) -> Pictures:
    """The same pictures, the grey ones made bilevel as they are read, which should be in their order."""
    import numpy as np

    random = np.random.default_rng(seed)

    def drawn(read: Callable[[], Picture]) -> Picture:
        from bbans.image.picture import Picture
        from bbans.train.stacks import binarise

        picture = read()
        return Picture(binarise(picture.pixels, random), "1") if picture.mode == "L" else picture

    return {name: partial(drawn, read) for name, read in pictures.items()}


def refusal(picture: Picture, model: Model) -> str | None:
    """Why the model doesn't take a picture, if it doesn't."""
    from bbans.image.codec import takes

    width, height, mode = picture.width, picture.height, picture.mode
    if takes(model, height, width, mode):
        return None
    bilevel = mode == "L" and takes(model, height, width, "1")
    advice = "--binarise makes them bilevel" if bilevel else "-m names another, `bbans models` lists them"
    return f"the model {model.name} takes no pictures of {width} x {height} of mode {mode}; {advice}"
