"""The plugin of Pillow, and the names for arrays, with the stand-ins for models and codec."""

from __future__ import annotations

import copy
import io
import pickle
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

import bbans
from bbans.errors import BadFile, BadImage
from bbans.image.files import encoded
from bbans.image.picture import Picture

pytestmark = pytest.mark.usefixtures("fake_codec", "fake_zoo")


@pytest.fixture
def pixels(random_pixels: Callable[..., np.ndarray]) -> np.ndarray:
    return random_pixels(5, 7, 3)


@pytest.fixture
def path(tmp_path: Path, pixels: np.ndarray) -> Path:
    """photo.bbans, saved by Pillow."""
    Image.fromarray(pixels).save(tmp_path / "photo.bbans", effort=3)
    return tmp_path / "photo.bbans"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_images_come_back(mode: str, pixels: np.ndarray, tmp_path: Path) -> None:
    image = Image.fromarray(pixels).convert("L" if mode == "I;16" else mode).convert(mode)
    if mode == "P":
        image.info["transparency"] = b"\x07\x80"
    image.save(tmp_path / "x.bbans")
    assert (tmp_path / "x.bbans").read_bytes() == bbans.compress(image)
    with Image.open(tmp_path / "x.bbans") as opened:
        assert (opened.format, opened.mode, opened.size) == ("BBANS", mode, (7, 5))
        assert opened.get_format_mimetype() == "image/x-bbans"
        assert opened.tobytes() == image.tobytes()
        assert mode != "P" or opened.convert("RGBA").tobytes() == image.convert("RGBA").tobytes()
    assert bbans.open(tmp_path / "x.bbans").tobytes() == image.tobytes()


def test_opening_reads_the_header_only(
    path: Path, pixels: np.ndarray, fake_codec: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    decode = fake_codec.decode_tile
    monkeypatch.setattr(fake_codec, "decode_tile", lambda *args: decoded.append(1) or decode(*args))
    with bbans.open(path) as image:
        assert image.size == (7, 5) and not decoded
        np.testing.assert_array_equal(np.asarray(image), pixels)
        np.testing.assert_array_equal(np.asarray(image.crop((1, 1, 3, 4))), pixels[1:4, 1:3])
    assert decoded == [1]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "I;16"])
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda image: pickle.loads(pickle.dumps(image))])
def test_images_are_pickled_and_copied(
    mode: str, again: Callable[[Image.Image], Image.Image], pixels: np.ndarray, tmp_path: Path
) -> None:
    image = Image.fromarray(pixels).convert("L" if mode == "I;16" else mode).convert(mode)
    image.info["icc_profile"] = b"a profile"
    image.save(tmp_path / "x.bbans")
    made = again(bbans.open(tmp_path / "x.bbans"))
    (tmp_path / "x.bbans").unlink()
    made.load()
    assert (made.mode, made.size, made.info["icc_profile"]) == (mode, (7, 5), b"a profile")
    assert made.tobytes() == image.tobytes() and made.getpalette() == image.getpalette()
    assert bbans.compress(made) == bbans.compress(image)


def test_options_of_save(tmp_path: Path, pixels: np.ndarray) -> None:
    image = Image.fromarray(pixels)
    image.info["icc_profile"] = b"a profile"
    for strip in (False, True):
        image.save(tmp_path / "x.bbans", effort=3, strip=strip)
        assert (tmp_path / "x.bbans").read_bytes() == bbans.compress(image, effort=3, strip=strip)
        with bbans.open(tmp_path / "x.bbans") as opened:
            assert ("icc_profile" in opened.info) != strip


def test_streams(pixels: np.ndarray) -> None:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "BBANS")
    file.seek(0)
    image = Image.open(file)
    image.load()
    assert not file.closed and image.convert("L").size == (7, 5)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data[:9], lambda data: data + b"x"])
def test_damage_is_named(change: Callable[[bytes], bytes], path: Path) -> None:
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(BadFile):
        Image.open(path)


def test_damaged_payloads_are_noticed_when_pixels_are_needed(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with bbans.open(path) as image:
        for _ in range(2):
            with pytest.raises(BadFile, match="checksum of tile 1"):
                image.load()


def test_bbans_open_opens_nothing_else(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "x.png")
    with pytest.raises(PIL.UnidentifiedImageError):
        bbans.open(tmp_path / "x.png")
    with pytest.raises(FileNotFoundError):
        bbans.open(tmp_path / "none.bbans")


def test_modes_that_are_not_taken(tmp_path: Path) -> None:
    with pytest.raises(BadImage):
        Image.new("CMYK", (2, 2)).save(tmp_path / "x.bbans")
    assert not (tmp_path / "x.bbans").exists()


def test_what_pillow_reduces_is_not_taken(tmp_path: Path, random_pixels: Callable[..., np.ndarray]) -> None:
    """Though the pixels are loaded when they are to be saved: the file they came from is looked at."""
    deep = Picture(random_pixels(5, 7, 3).astype(np.uint16) * 100, "RGB;16")
    (tmp_path / "deep.png").write_bytes(encoded(deep, ".png"))
    (tmp_path / "two.pgm").write_bytes(b"P5 2 1 255\nABP5 2 1 255\nCD")
    Image.fromarray(random_pixels(5, 7, 4)).save(tmp_path / "alpha.bmp")
    for name, words in [("deep.png", "16 bits"), ("two.pgm", "more behind"), ("alpha.bmp", "fourth channel")]:
        with Image.open(tmp_path / name) as image:
            image.load()
            for take in (lambda image: image.save(tmp_path / "x.bbans"), bbans.compress):
                with pytest.raises(BadImage, match=rf"{name}: has .*{words}"):
                    take(image)
            assert not (tmp_path / "x.bbans").exists()
            image.copy().save(tmp_path / "x.bbans")
            (tmp_path / name).write_bytes(b"another file")
            image.save(tmp_path / "x.bbans")
            (tmp_path / name).unlink()
            image.save(tmp_path / "x.bbans")
            (tmp_path / "x.bbans").unlink()


def test_arrays(pixels: np.ndarray) -> None:
    data = bbans.bbans_encode(pixels, level=3)
    np.testing.assert_array_equal(bbans.bbans_decode(data), pixels)
    assert bbans.bbans_check(data) and bbans.bbans_check(data[:4]) and not bbans.bbans_check(data[1:])
    out = np.zeros_like(pixels)
    assert bbans.bbans_decode(data, out=out) is out and (out == pixels).all()
    buffer = bytearray(len(data) + 3)
    written = bbans.bbans_encode(pixels, 3, out=buffer)
    assert written == data and buffer.startswith(data) and bbans.bbans_check(written)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_arrays_of_every_kind(channels: int, dtype: type, random_pixels: Callable[..., np.ndarray]) -> None:
    array = random_pixels(5, 7, channels).astype(dtype) * dtype(1 if dtype is np.uint8 else 255)
    array = array[:, :, 0] if channels == 1 else array
    data = bbans.bbans_encode(array)
    decoded = bbans.bbans_decode(data)
    assert decoded.dtype == dtype
    np.testing.assert_array_equal(decoded, array)
    if dtype is np.uint16 and channels > 1:
        with pytest.raises(BadImage, match="which Pillow does not have"):
            Image.open(io.BytesIO(data))
    swapped = bbans.bbans_encode(array.astype(array.dtype.newbyteorder()))
    assert swapped == data
    bits = array > 99
    if channels == 1:
        np.testing.assert_array_equal(bbans.bbans_decode(bbans.bbans_encode(bits)), bits)


def test_outs_that_do_not_fit(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="that are needed"):
        bbans.bbans_encode(pixels, out=bytearray(3))
    with pytest.raises(ValueError, match="the picture is"):
        bbans.bbans_decode(bbans.bbans_encode(pixels), out=np.zeros((5, 7), np.uint8))
    with pytest.raises(ValueError, match="out is of uint16, but the picture of uint8"):
        bbans.bbans_decode(bbans.bbans_encode(pixels), out=np.zeros(pixels.shape, np.uint16))
    for effort in (0, 10, 5.5, "5"):
        with pytest.raises(ValueError, match="effort is a whole number from 1 to 9"):
            bbans.compress(pixels, effort=effort)  # type: ignore[arg-type]


def test_paths_are_no_images() -> None:
    with pytest.raises(TypeError, match="not its path"):
        bbans.compress("photo.png")  # type: ignore[arg-type]
