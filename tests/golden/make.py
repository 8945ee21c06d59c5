"""Makes the golden files that are missing: `python -m tests.golden.make`. Those that are there stay.

Tiny models with random weights and files that they wrote freeze the format: its bytes, and what decodes from them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from bbans import archive, zoo
from bbans.image.modes import MODES
from bbans.image.picture import Picture, compress_picture
from bbans.image.weighted import Particles

HERE = Path(__file__).parent
VERSIONS = ("v0", "v1")  # of files of chains; models, and archives, whose version is 0, are in the first
WITH_PARTICLES = HERE / "v2"  # which no other file needs
VERSION = HERE / "v0"
NEWEST = HERE / VERSIONS[-1]
MODEL, ON_BYTES = VERSION / "tiny", VERSION / "tiny-bytes"
# name of the file, height, width, channels, model
PICTURES = (
    ("photo-rgb", 45, 67, 3, MODEL),
    ("photo-grey", 40, 64, 1, MODEL),
    ("one-pixel", 1, 1, 3, MODEL),
    ("column", 19, 1, 1, MODEL),
    ("bytes-rgb", 45, 67, 3, ON_BYTES),
    ("bytes-top", 300, 350, 3, ON_BYTES),  # its last C is more than 4 pixels
)
# names of models for pictures of one size, by mode; each writes an archive and a file of one picture
THUMBNAILS = {"RGB": "tiny-rgb", "1": "tiny-bilevel"}
PARTICLES = {"coupled": Particles(5), "independent": Particles(3, coupled=False)}  # by those, too
# models of the family `dense`, by name: the mode of their pictures, and their kinds; they write the same
DENSE: dict[str, tuple[str, dict[str, Any]]] = {
    "dense-flow": ("L", {"mixtures": 2, "latents": (4,), "posterior": "flow"}),
    "dense-full": ("L", {"likelihood": "normal", "latents": (4,), "posterior": "full"}),
    "dense-vamp": ("1", {"likelihood": "bernoulli", "depth": 1, "latents": (4,), "prior": "vamp", "components": 5}),
    "dense-two": ("L", {"likelihood": "normal", "scale": 0.1, "latents": (4, 2)}),
}
# of other modes, and what else they hold: by libraries, whose bytes may change, and by the model
OTHERS = {
    "bilevel": ("1", {}),
    "grey-alpha": ("LA", {}),
    "rgb-alpha": ("RGBA", {"note": b"kept"}),
    "palette": ("P", {"palette": bytes(range(96)), "palette-alpha": bytes([0, 128])}),
    "deep-grey": ("I;16", {}),
    "deep-rgb-alpha": ("RGBA;16", {}),
    "together-alpha": ("RGBA", {}),
    "together-palette": ("P", {"palette": bytes(8 * (5 * i % 32) for i in range(32) for _ in "RGB")}),
}
# mode and model of all whose pictures are of one size
CHAINS = [*THUMBNAILS.items(), *((mode, name) for name, (mode, _) in DENSE.items())]
COUNT, HEIGHT, WIDTH = 60, 12, 10  # of the pictures in an archive


def picture(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """A smooth picture with some texture, from integer arithmetic alone: [height, width, channels]."""
    y, x, c = np.ogrid[:height, :width, :channels]
    smooth = (3 * x * (c + 2) + 5 * y + (x * y) // 11 + 40 * c) % 320
    texture = (x * 7919 + y * 104729 + c * 1299709 + x * y * 31) % 13
    return np.clip(np.abs(smooth - 160) + texture, 0, 255).astype(np.uint8)


def stack(mode: str) -> NDArray[Any]:
    """Pictures cut from a large one: uint8 [COUNT, HEIGHT, WIDTH, 3] of mode RGB, uint8 [COUNT, HEIGHT, WIDTH] of L,
    bool [COUNT, HEIGHT, WIDTH] of 1."""
    large = picture(COUNT * HEIGHT, WIDTH, 3 if mode == "RGB" else 1).reshape(COUNT, HEIGHT, WIDTH, -1)
    if mode == "L":
        return large[..., 0]
    return large[..., 0] > 90 if mode == "1" else large


def other(name: str) -> Picture:
    """One of `OTHERS`, 20 x 30."""
    mode, attributes = OTHERS[name]
    kind = MODES[mode]
    pixels = picture(20, 30, kind.channels).astype(kind.dtype)
    if kind.deep:
        pixels = pixels * 251 + pixels[::-1]
    if name == "together-alpha":  # flat
        pixels = pixels // 32 * 5
    if name == "together-palette":  # smooth, but for the order of the palette
        pixels = pixels // 8 * 13
    limit = {"1": 2, "P": 32}.get(mode)
    return Picture(np.ascontiguousarray(pixels % limit if limit else pixels), mode, attributes)


def one(mode: str) -> NDArray[np.uint8]:
    """The first picture of `stack`: [HEIGHT, WIDTH, channels]."""
    return stack(mode)[0].reshape(HEIGHT, WIDTH, -1).astype(np.uint8)


def archived(mode: str, model: zoo.Model, file: Path) -> None:
    """Write `stack(mode)` in two groups."""
    archive.create(file, [stack(mode)], model=model, group=COUNT // 2)


def with_particles(mode: str, model: zoo.Model, how: str, file: Path) -> None:
    """Write the first pictures of `stack(mode)`: one to a file, some to an archive beside it."""
    particles = PARTICLES[how]
    data, _ = compress_picture(Picture(one(mode), mode), model, by_model=True, particles=particles)
    file.write_bytes(data)
    some = stack(mode)[: COUNT // 12]
    archive.create(file.with_suffix(".bbansa"), [some], model=model, particles=particles)


def write_model(folder: Path, bits: int) -> None:
    """A `photo` model whose residual blocks have activations of so many bits."""
    from bbans.train.data import Mix
    from bbans.train.export import export
    from bbans.train.tasks import PhotoTask
    from bbans.vae.photo import PhotoConfig, PhotoVAE

    torch.manual_seed(0)
    sizes = {"channels": 8, "hidden": 4, "mixtures": 2, "latents": 2, "regional": 8, "distinct": 2}
    config = PhotoConfig(**sizes, blocks=(1, 1, 1), bits=bits, overview=bits == 12)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "calibration.png"
        Image.fromarray(picture(96, 96, 3)).save(source)
        export(PhotoVAE(config), PhotoTask(config, [source], [], Mix(), levels=3), folder)


def write_thumbnail_model(folder: Path, mode: str) -> None:
    """A `thumbnail` model with latents of both layers."""
    from bbans.train.export import export
    from bbans.train.stacks import Deck
    from bbans.train.tasks import StackTask
    from bbans.vae.thumbnail import ThumbnailConfig, ThumbnailVAE

    samples, depth = (3, 8) if mode == "RGB" else (1, 1)
    sizes = ThumbnailConfig(
        height=HEIGHT,
        width=WIDTH,
        samples=samples,
        depth=depth,
        levels=2,
        channels=8,
        hidden=4,
        mixtures=2,
        blocks=(1, 1, 1),
        top=8,
        latents=(3, 2),
    )
    torch.manual_seed(0)
    network = ThumbnailVAE(sizes)
    with torch.no_grad():
        for weights in network.parameters():  # those that begin as zeros too
            weights.add_(0.05 * torch.randn_like(weights))
    pictures = stack(mode).reshape(COUNT, HEIGHT, WIDTH, samples) * np.uint8(255 if mode == "1" else 1)
    export(network, StackTask(sizes, pictures, pictures, Deck()), folder)


def write_dense_model(folder: Path, name: str) -> None:
    """A `dense` model whose posteriors are narrower than its prior."""
    from bbans.train.export import export
    from bbans.train.stacks import Deck
    from bbans.train.tasks import StackTask
    from bbans.vae.dense import DenseConfig, DenseVAE

    mode, kinds = DENSE[name]
    sizes = DenseConfig(height=HEIGHT, width=WIDTH, hidden=(12, 8), **kinds)
    torch.manual_seed(0)
    network = DenseVAE(sizes)
    with torch.no_grad():
        for part, weights in network.named_parameters():
            weights.add_(0.1 * torch.randn_like(weights))
            if part in ("posterior.bias", "flow.bias"):
                weights[4:8] -= 2.5  # log2 of the scales
    pictures = stack(mode)[..., None] * np.uint8(255 if mode == "1" else 1)
    export(network, StackTask(sizes, pictures, pictures, Deck()), folder)


def main() -> None:
    """Write the models and files that are missing."""

    def model(name: str) -> zoo.Model:
        folder = VERSION / name
        if not folder.exists():
            if name in (MODEL.name, ON_BYTES.name):
                write_model(folder, bits=8 if name == ON_BYTES.name else 12)
            elif name in DENSE:
                write_dense_model(folder, name)
            else:
                write_thumbnail_model(folder, next(mode for mode, of in THUMBNAILS.items() if of == name))
            (folder / zoo.FLOAT_WEIGHTS).unlink()
        return zoo.load(folder, device="cpu")

    def write(name: str, source: Picture, of: zoo.Model, *, by_model: bool = True) -> None:
        NEWEST.mkdir(exist_ok=True)
        file = NEWEST / f"{name}.bbans"
        if not file.exists():
            file.write_bytes(compress_picture(source, of, by_model=by_model)[0])

    for name, height, width, channels, of in PICTURES:
        mode = "RGB" if channels == 3 else "L"
        write(name, Picture(picture(height, width, channels), mode), model(of.name))
    for name in OTHERS:
        write(name, other(name), model(MODEL.name), by_model=False)
    for mode, name in CHAINS:
        write(name, Picture(one(mode), mode), model(name))
        if not (VERSION / f"{name}.bbansa").exists():
            archived(mode, model(name), VERSION / f"{name}.bbansa")
        WITH_PARTICLES.mkdir(exist_ok=True)
        for how in PARTICLES if name in THUMBNAILS.values() else ():
            if not (file := WITH_PARTICLES / f"{name}-{how}.bbans").exists():
                with_particles(mode, model(name), how, file)


if __name__ == "__main__":
    main()
