"""Coders that aren't ours, and when they are chosen."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bbans import zoo
from bbans.errors import BadFile
from bbans.image import container, libraries
from bbans.image.container import METHOD_NAMES, NO_MODEL, Header
from bbans.image.modes import MODES
from bbans.image.picture import Picture, compress_picture, decompress_picture, verify_picture

Pixels = Callable[..., np.ndarray]
SHAPES = [(1, 1), (1, 9), (13, 5), (40, 36)]


@pytest.fixture(scope="module")
def model(tiny_models: dict[int, Path]) -> zoo.Model:
    return zoo.load(tiny_models[2], device="cpu")


def drawing(height: int, width: int, channels: int) -> np.ndarray:
    """Flat areas and lines."""
    y, x, c = np.ogrid[:height, :width, :channels]
    return (((x // 9 + y // 7) % 3) * 60 + 20 * c + 55 * (x % 11 == 0)).astype(np.uint8)


def photograph(height: int, width: int, channels: int) -> np.ndarray:
    y, x, c = np.ogrid[:height, :width, :channels]
    waves = (
        128 + 60 * np.sin(x / 9 + c) + 50 * np.cos(y / 7) + np.random.default_rng(0).normal(0, 2, (height, width, 1))
    )
    return waves.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_webp_round_trip(shape: tuple[int, int], channels: int, random_pixels: Pixels) -> None:
    sheet = random_pixels(*shape, channels)
    data = libraries.to_webp(sheet)
    assert data is not None
    np.testing.assert_array_equal(libraries.from_webp(data, *sheet.shape), sheet)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P"])
@pytest.mark.parametrize("shape", SHAPES)
def test_raw_round_trip(shape: tuple[int, int], mode: str, random_pixels: Pixels) -> None:
    sheet = random_pixels(*shape, 3 if mode == "RGB" else 1) & np.uint8(1 if mode == "1" else 255)
    data = libraries.to_raw(sheet, mode)
    assert len(data) == libraries.raw_size(sheet, mode)
    np.testing.assert_array_equal(libraries.from_raw(data, *sheet.shape, mode), sheet)
    for damaged in (data[:-1], data + b"x"):
        with pytest.raises(BadFile, match="another size"):
            libraries.from_raw(damaged, *sheet.shape, mode)


def _saved(kind: str, size: tuple[int, int], **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF",
        _saved("PNG", (5, 4)),
        _saved("WEBP", (4, 5), lossless=True),
        _saved("WEBP", (5, 4), lossless=True)[:-4],
        _saved("WEBP", (5, 4), lossless=True, save_all=True, append_images=[Image.new("RGB", (5, 4), "red")]),
    ],
)
def test_what_is_no_such_webp(data: bytes) -> None:
    with pytest.raises(BadFile, match="no such WebP"):
        libraries.from_webp(data, 4, 5, 3)


def test_sides_that_webp_does_not_take() -> None:
    assert libraries.to_webp(np.zeros((1, libraries.WEBP_SIDE + 1, 1), np.uint8)) is None


def test_drawings_and_photographs_are_told_apart(random_pixels: Pixels) -> None:
    assert libraries.looks_synthetic(drawing(50, 60, 3)) and libraries.looks_synthetic(np.zeros((9, 1, 1), np.uint8))
    assert not libraries.looks_synthetic(photograph(50, 60, 3)) and not libraries.looks_synthetic(
        random_pixels(50, 60, 3)
    )


# -- the choice --------------------------------------------------------------------------------------------------------


def methods(data: bytes) -> list[str]:
    return [METHOD_NAMES[piece.method] for piece in Header.parse(data).pieces]


def coded(pixels: np.ndarray, mode: str, model: zoo.Model, attributes: dict[str, bytes] | None = None) -> bytes:
    """The file, which was decoded and compared."""
    picture = Picture(pixels, mode, attributes or {})
    data, report = compress_picture(picture, model, want_elbo=True)
    verify_picture(data, picture, lambda _: model)
    assert report.elbo is not None and report.total == 8 * len(data)
    assert report.container == pytest.approx(report.total - report.net - report.initial)
    return data


@pytest.mark.parametrize("channels", [1, 3])
def test_drawings_are_left_to_webp(model: zoo.Model, channels: int) -> None:
    pixels = drawing(60, 70, channels)
    data = coded(pixels, "RGB" if channels == 3 else "L", model)
    assert methods(data) == ["WebP"] and Header.parse(data).model_id == NO_MODEL
    assert len(data) <= len(libraries.to_webp(pixels) or b"") + 64

    def none(model_id: bytes) -> zoo.Model:
        raise AssertionError("no model is needed")

    np.testing.assert_array_equal(decompress_picture(data, none).pixels, pixels)


def test_noise_is_left_as_it_is(model: zoo.Model, random_pixels: Pixels) -> None:
    data = coded(random_pixels(30, 40, 3), "RGB", model)
    assert methods(data) == ["raw"] and len(data) <= 30 * 40 * 3 + 64


def test_photographs_go_to_the_model(model: zoo.Model) -> None:
    assert methods(coded(photograph(40, 50, 3), "RGB", model)) == ["model"]


def test_each_sheet_has_its_own(model: zoo.Model) -> None:
    pixels = np.concatenate([photograph(40, 50, 3), np.full((40, 50, 1), 255, np.uint8)], 2)
    pixels[:9, :9] = 7  # also where nothing is seen
    pixels[:9, :9, 3] = 0
    assert methods(coded(pixels, "RGBA", model)) == ["model", "WebP"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_mode_comes_back(mode: str, shape: tuple[int, int], model: zoo.Model) -> None:
    kind = MODES[mode]
    for make in (drawing, photograph):
        pixels = make(*shape, kind.channels).astype(kind.dtype)
        if kind.deep:
            pixels = pixels * 257 - (pixels > 99)
        attributes = {"palette": bytes(768)} if mode == "P" else {"note": b"kept"}
        coded(pixels % 2 if mode == "1" else pixels, mode, model, attributes)


def test_tiles(model: zoo.Model, monkeypatch: pytest.MonkeyPatch, random_pixels: Pixels) -> None:
    monkeypatch.setattr(container, "ONE_TILE", 100)
    monkeypatch.setattr(container, "TILE_SIDE", 32)
    pixels = np.concatenate([photograph(32, 32, 3), drawing(32, 32, 3), random_pixels(32, 32, 3)], 1)
    assert methods(coded(pixels, "RGB", model)) == ["model", "WebP", "raw"]
    whole = coded(drawing(64, 64, 3), "RGB", model)
    assert methods(whole) == ["WebP"] and Header.parse(whole).tile == 0


def test_by_model_leaves_no_choice(model: zoo.Model) -> None:
    data, _ = compress_picture(Picture(drawing(20, 20, 3), "RGB"), model, by_model=True)
    assert methods(data) == ["model"]


@pytest.mark.parametrize(
    ("mode", "attributes"), [("P", {}), ("L", {"palette": bytes(3)}), ("P", {"palette": bytes(4)})]
)
def test_palettes_that_are_none(mode: str, attributes: dict[str, bytes]) -> None:
    from bbans.errors import BadImage

    with pytest.raises(BadImage, match="palette"):
        Picture(np.zeros((1, 1, 1), np.uint8), mode, attributes)
