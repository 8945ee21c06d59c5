"""Makes the golden files: `python -m tests.golden.make`. Only for a new format version; old golden files stay.

A tiny model with random weights and files that it wrote freeze the format: its bytes, and what decodes from them.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

HERE = Path(__file__).parent
VERSION = HERE / "v0"
MODEL = VERSION / "tiny"
# name of the file, height, width, channels
PICTURES = (("photo-rgb", 45, 67, 3), ("photo-grey", 40, 64, 1), ("one-pixel", 1, 1, 3), ("column", 19, 1, 1))


def picture(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """A smooth picture with some texture, from integer arithmetic alone: [height, width, channels]."""
    y, x, c = np.ogrid[:height, :width, :channels]
    smooth = (3 * x * (c + 2) + 5 * y + (x * y) // 11 + 40 * c) % 320
    texture = (x * 7919 + y * 104729 + c * 1299709 + x * y * 31) % 13
    return np.clip(np.abs(smooth - 160) + texture, 0, 255).astype(np.uint8)


def main() -> None:
    """Write the model and the files."""
    from bbans import zoo
    from bbans.image.picture import Picture, compress_picture
    from bbans.train.data import Mix
    from bbans.train.export import export
    from bbans.train.tasks import PhotoTask
    from bbans.vae.photo import PhotoConfig, PhotoVAE

    torch.manual_seed(0)
    config = PhotoConfig(channels=8, hidden=4, mixtures=2, latents=2, regional=8, blocks=(1, 1, 1))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "calibration.png"
        Image.fromarray(picture(96, 96, 3)).save(source)
        export(PhotoVAE(config), PhotoTask(config, [source], [], Mix(), levels=3), MODEL)
    (MODEL / zoo.FLOAT_WEIGHTS).unlink()
    model = zoo.load(MODEL)
    for name, height, width, channels in PICTURES:
        pixels = picture(height, width, channels)
        data, _ = compress_picture(Picture(pixels, "RGB" if channels == 3 else "L"), model)
        (VERSION / f"{name}.bbans").write_bytes(data)


if __name__ == "__main__":
    shutil.rmtree(VERSION, ignore_errors=True)
    main()
