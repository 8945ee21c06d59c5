"""Training crops from a folder of pictures: mixed sources, sizes, resampling filters and histories.

A file compressor meets clean downscales, decoded JPEGs, enlarged pictures, subsampled chroma, scanner grain and grey
pictures; so do the crops. Knows files and pixels, nothing of models.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from bbans.errors import BadImage, BbansError
from bbans.image.files import SUFFIXES

FILTERS = (
    Image.Resampling.BOX,
    Image.Resampling.BILINEAR,
    Image.Resampling.HAMMING,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
    Image.Resampling.LANCZOS,
)


def find_images(paths: Iterable[Path], root: Path | None = None) -> list[Path]:
    """Image files named by `paths`: files, folders (searched recursively), or .txt lists of paths.

    A line of a list is relative to `root`, or else to the list's own folder. Raises `BbansError` when nothing is found.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        elif path.suffix == ".txt":
            lines = [line.strip() for line in path.read_text().splitlines()]
            found += [(root or path.parent) / line for line in lines if line and not line.startswith("#")]
        else:
            found.append(path)
    if not found:
        raise BbansError(f"no images found in: {', '.join(map(str, paths))}")
    if missing := [p for p in found if not p.is_file()]:
        raise BbansError(f"{missing[0]}: no such file ({len(missing)} of {len(found)} images are missing)")
    return found


def load_rgb(path: Path) -> Image.Image:
    """A file as an RGB Pillow image."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError) as error:
        raise BadImage(f"{path}: not an image that Pillow can read ({error})") from error


@dataclass(frozen=True)
class Mix:
    """How crops are made: probabilities of each history, and ranges of scale. Raises `BbansError`."""

    crop: int = 128
    per_view: int = 8  # crops cut from one resampled picture
    smallest: float = 0.35  # of the scales a clean source is resized to
    untouched: float = 0.35  # a clean source at its own scale
    chroma: float = 0.0  # whose chroma was halved and interpolated, as in video and on Photo CDs
    jpeg: float = 0.15
    grain: float = 0.08
    enlarge: float = 0.1
    grey: float = 0.04

    def __post_init__(self) -> None:
        for name in ("crop", "per_view"):
            if getattr(self, name) < 1:
                raise BbansError(f"{name} is at least 1, not {getattr(self, name)}")


class Crops:
    """An endless, seeded stream of uint8 batches [n, crop, crop, 3].

    Sources whose files are JPEGs are only used scaled down (1.25 to 2.2 times), so that their block artefacts go.
    """

    def __init__(self, files: list[Path], mix: Mix, seed: int) -> None:
        self.mix = mix
        self.random = np.random.default_rng(seed)
        self.sources = [(load_rgb(path), path.suffix.lower() in (".jpg", ".jpeg")) for path in files]
        area = np.array([image.width * image.height for image, _ in self.sources], float)
        weight = np.sqrt(area) * np.array([0.7 if jpeg else 1.0 for _, jpeg in self.sources])
        self.weights = weight / weight.sum()
        self.pool: list[np.ndarray] = []

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Batches mix crops of many views: the pool holds 64 views' worth, or a batch; it is refilled as it is used."""
        views = 64
        while True:
            while len(self.pool) < max(views * self.mix.per_view, size):
                self.pool += self.view()
            picks = self.random.choice(len(self.pool), size, replace=False)
            yield np.stack([self.pool[i] for i in picks])
            keep = np.ones(len(self.pool), bool)
            keep[picks] = False
            self.pool = [crop for crop, kept in zip(self.pool, keep, strict=True) if kept]

    def view(self) -> list[np.ndarray]:
        """Crops of one picture, resampled and treated alike."""
        mix, random = self.mix, self.random
        image, is_jpeg = self.sources[random.choice(len(self.sources), p=self.weights)]
        if is_jpeg:
            scale = 1 / random.uniform(1.25, 2.2)
        elif random.random() < mix.untouched:
            scale = 1.0
        else:
            scale = random.uniform(mix.smallest, 1.0)
        image = _resize(image, scale, random, mix.crop)
        if mix.chroma and random.random() < mix.chroma:
            image = _chroma_halved(image, random)
        if random.random() < mix.jpeg:
            image = _through_jpeg(image, random)
        if random.random() < mix.enlarge:
            image = _resize(image, random.uniform(1.05, 1.8), random, mix.crop)
        pixels = np.asarray(image)
        if random.random() < mix.grain:
            pixels = _with_grain(pixels, random)
        if random.random() < mix.grey:
            pixels = np.repeat(np.asarray(Image.fromarray(pixels).convert("L"))[..., None], 3, axis=2)
        return [self._crop(pixels) for _ in range(mix.per_view)]

    def _crop(self, pixels: np.ndarray) -> np.ndarray:
        size, random = self.mix.crop, self.random
        y = random.integers(pixels.shape[0] - size + 1)
        x = random.integers(pixels.shape[1] - size + 1)
        crop = pixels[y : y + size, x : x + size]
        if random.random() < 0.5:
            crop = crop[:, ::-1]
        if random.random() < 0.25:
            crop = crop[::-1]
        if random.random() < 0.25:
            crop = crop.transpose(1, 0, 2)
        return np.ascontiguousarray(crop)


def _resize(image: Image.Image, scale: float, random: np.random.Generator, smallest: int) -> Image.Image:
    """Resized by `scale`, but to no side below `smallest`."""
    scale = max(scale, smallest / min(image.size))
    if scale == 1.0:
        return image
    size = (max(smallest, round(image.width * scale)), max(smallest, round(image.height * scale)))
    return image.resize(size, FILTERS[random.integers(len(FILTERS))])


def _through_jpeg(image: Image.Image, random: np.random.Generator) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(random.integers(85, 99)), subsampling=int(random.choice([0, 2])))
    return Image.open(file).convert("RGB")


def _chroma_halved(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Chroma of half the width, and mostly of half the height, made as large as luma again."""
    luma, *chroma = image.convert("YCbCr").split()
    width, height = image.size
    half = (max(1, width // 2), max(1, height // 2) if random.random() < 0.8 else height)
    down, up = (FILTERS[random.integers(1, len(FILTERS))] for _ in range(2))
    chroma = [plane.resize(half, down).resize((width, height), up) for plane in chroma]
    return Image.merge("YCbCr", [luma, *chroma]).convert("RGB")


def _with_grain(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Gaussian noise, alike or independent over the channels, as of film or of a sensor."""
    sigma = random.uniform(0.5, 4.0)
    shape = pixels.shape if random.random() < 0.6 else (*pixels.shape[:2], 1)
    noise = random.normal(0.0, sigma, shape)
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)
