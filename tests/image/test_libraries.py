"""Coders that aren't ours, and when they are chosen."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bbans import zoo
from bbans.errors import BadFile, DecodedDiffers
from bbans.image import container, libraries
from bbans.image import picture as picture_module
from bbans.image.container import METHOD_NAMES, NO_MODEL, Header
from bbans.image.modes import MODES
from bbans.image.picture import Picture, compress_picture, decompress_picture, verify_picture

Pixels = Callable[..., np.ndarray]
SHAPES = [(1, 1), (1, 9), (13, 5), (40, 36)]


@pytest.fixture(scope="module")
def model(tiny_models: dict[int, Path]) -> zoo.Model:
    return zoo.load(tiny_models[2], device="cpu")


@pytest.fixture
def none_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures of these tests are small, and stand for large ones."""
    monkeypatch.setattr(libraries, "SMALL", 0)


@pytest.fixture
def good_model(none_small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model of these tests has random weights, and stands for one that WebP doesn't come near."""
    monkeypatch.setattr(libraries, "quick_size", lambda sheet: float("inf"))


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


@pytest.mark.usefixtures("none_small")
def test_drawings_and_photographs_are_told_apart(random_pixels: Pixels) -> None:
    assert libraries.looks_synthetic(drawing(50, 60, 3)) and libraries.looks_synthetic(np.zeros((9, 1, 1), np.uint8))
    checks = (np.indices((50, 60)).sum(0) % 2 * 255).astype(np.uint8)[..., None]
    assert libraries.looks_synthetic(checks)  # no pixel equals its neighbour
    assert not libraries.looks_synthetic(photograph(50, 60, 3)) and not libraries.looks_synthetic(
        random_pixels(50, 60, 3)
    )


def test_small_sheets_are_tried_in_every_way(random_pixels: Pixels) -> None:
    assert libraries.looks_synthetic(random_pixels(64, 64, 3)) and not libraries.looks_synthetic(
        random_pixels(64, 65, 3)
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


@pytest.mark.usefixtures("none_small")
def test_few_greys_go_to_webp_although_no_neighbours_are_equal(model: zoo.Model, random_pixels: Pixels) -> None:
    greys = random_pixels(60, 70, 1) // 32 * 32
    assert not libraries.looks_synthetic(greys) and methods(coded(greys, "L", model)) == ["WebP"]


@pytest.mark.usefixtures("good_model")
def test_photographs_go_to_the_model(model: zoo.Model) -> None:
    assert methods(coded(photograph(40, 50, 3), "RGB", model)) == ["model"]


@pytest.mark.usefixtures("good_model")
def test_each_sheet_has_its_own(model: zoo.Model) -> None:
    pixels = np.concatenate([photograph(40, 50, 3), np.full((40, 50, 1), 255, np.uint8)], 2)
    pixels[:9, :9] = 7  # also where nothing is seen
    pixels[:9, :9, 3] = 0
    assert methods(coded(pixels, "RGBA", model)) == ["model", "WebP"]


@pytest.mark.parametrize(("mode", "channels"), [("LA", 2), ("RGBA", 4)])
def test_icons_are_one_webp(model: zoo.Model, mode: str, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = drawing(60, 70, channels)
    pixels[20:40, 20:50, -1] = 0
    pixels[25:30, 30:40, :-1] = 77  # where nothing is seen
    assert methods(coded(pixels, mode, model)) == ["WebP together"] * 2
    monkeypatch.setattr(container, "ONE_TILE", 100)
    monkeypatch.setattr(container, "TILE_SIDE", 32)
    data = coded(pixels, mode, model)
    assert set(methods(data)) == {"WebP together"} and Header.parse(data).tile == 0
    monkeypatch.setattr(picture_module, "by_webp", lambda *_: None)
    assert set(methods(coded(pixels, mode, model))) == {"WebP together"}


@pytest.mark.parametrize(
    ("colours", "alpha", "method"),
    [(256, b"", "WebP together"), (256, b"\0", "WebP together"), (100, b"", "WebP"), (256, b"twice", "WebP")],
)
def test_palettes_are_coded_by_their_colours(model: zoo.Model, colours: int, alpha: bytes, method: str) -> None:
    """Unless indices couldn't be had back from these: where the palette ends, or has a colour twice."""
    order = np.random.default_rng(0).permutation(256)
    palette = np.stack([order, order // 2, 255 - order], 1).astype(np.uint8)
    pixels = np.argsort(order)[photograph(60, 70, 1)].astype(np.uint8)
    if alpha == b"twice":
        palette[5], alpha = palette[9], b""
    pixels[0, :4, 0] = [5, 9, 254, 255]
    attributes = {"palette": palette[:colours].tobytes()} | ({"palette-alpha": alpha} if alpha else {})
    assert methods(coded(pixels, "P", model, attributes)) == [method]


def test_a_picture_together_without_a_palette_is_no_picture(model: zoo.Model) -> None:
    payload = libraries.to_webp(np.zeros((4, 5, 4), np.uint8)) or b""
    for attributes in ({}, {"palette": bytes(4)}, {"palette": b""}):
        piece = container.Piece(len(payload), container.checksum(payload), 0, container.TOGETHER)
        data = container.join(Header("P", 5, 4, 0, (piece,), NO_MODEL, attributes), [payload])
        with pytest.raises((BadFile, DecodedDiffers)):
            decompress_picture(data, lambda _: model)


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


@pytest.mark.usefixtures("good_model")
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
