"""`bbans eval`: the rates of a model on a set of pictures, in the words of every table here. Writes no files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bbans.cli import shared
from bbans.errors import BadImage

if TYPE_CHECKING:
    from bbans.image.picture import Picture, Report

WORDS = ("float_elbo", "elbo", "net", "initial", "container", "total")


@dataclass
class Sum:
    """Bits of each word over all pictures; a word that is unknown for one picture is unknown for all."""

    images: int = 0
    dims: int = 0
    bits: dict[str, float] | None = None

    def add(self, dims: int, rates: dict[str, float | None]) -> None:
        bits = {word: rate * dims for word, rate in rates.items() if rate is not None}
        self.bits = bits if self.bits is None else {w: self.bits[w] + bits[w] for w in self.bits if w in bits}
        self.images += 1
        self.dims += dims

    def per_dim(self) -> dict[str, float | None]:
        known = self.bits or {}
        return {word: known[word] / self.dims if word in known else None for word in WORDS}


@click.command("eval")
@click.argument("path", type=shared.any_path)
@shared.model_option
@shared.device_options
@shared.json_option
def evaluate(path: Path, model: str | None, device: str, threads: int | None, as_json: bool) -> None:
    """Measure a model: bits per dim of every picture in a folder, an image file or an .npz of uint8 arrays.

    float_elbo is that of the trained float model, elbo of the exact integer model, net the growth of the message,
    initial the padding brought in, container what the file has besides, total the whole file.
    """
    get_model = shared.model_loader(model, device, threads)
    pictures = _pictures(path)
    total = Sum()
    if not as_json:
        shared.say(" ".join([*(f"{word:>10}" for word in WORDS), "      dims  image"]))

    def one(name: Path) -> None:
        from bbans.image.files import naming
        from bbans.image.picture import compress_picture

        picture = pictures[name]()
        vae = get_model()
        with naming(name):
            report = compress_picture(picture, vae, want_elbo=True)[1]
            float_bits = vae.float_elbo_bits(picture.pixels)
        rates = _rates(report, float_bits)
        total.add(report.dims, rates)
        _show({"image": str(name)}, report.dims, rates, as_json)

    try:
        shared.for_each(pictures, one)
    finally:
        if total.images:
            _show({"images": total.images}, total.dims, total.per_dim(), as_json)


def _rates(report: Report, float_bits: float | None) -> dict[str, float | None]:
    return {"float_elbo": None if float_bits is None else float_bits / report.dims, **report.per_dim()}


def _show(what: dict[str, Any], dims: int, rates: dict[str, float | None], as_json: bool) -> None:
    if as_json:
        shared.say_json({**what, "dims": dims, **{word: rates[word] for word in WORDS}})
    else:
        columns = [f"{'-' if rates[word] is None else format(rates[word], '.4f'):>10}" for word in WORDS]
        label = what.get("image") or f"{what['images']} images"
        shared.say(" ".join([*columns, f"{dims:>10}", f" {label}"]))


def _pictures(path: Path) -> dict[Path, Callable[[], Picture]]:
    """The pictures by their names, each with what reads it. Raises `BbansError`."""
    from functools import partial

    from bbans.image.files import read_picture

    if path.suffix.lower() == ".npz":
        arrays = _npz_images(path)
        return {Path(f"{path}[{i}]"): partial(read_picture, pixels) for i, pixels in enumerate(arrays)}
    if path.is_dir():
        from bbans.train.data import find_images

        return {file: partial(read_picture, file) for file in find_images([path])}
    return {path: partial(read_picture, path)}


def _npz_images(path: Path) -> Iterator[Any]:
    """The pictures of the array `images`, or of the only one: uint8 [n, h, w] or [n, h, w, c]."""
    import zipfile
    import zlib

    import numpy as np

    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            name = "images" if "images" in file.files else file.files[0] if len(file.files) == 1 else None
            images = file[name] if name else None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BadImage(f"{path}: cannot be read as an .npz ({error})") from error
    if images is None or images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise BadImage(f"{path}: needs an array 'images', uint8 [n, h, w] or [n, h, w, c]")
    return iter(images)
