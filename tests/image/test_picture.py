from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import bbans
from bbans import zoo
from bbans.errors import BadFile, BadImage, BbansError, DecodedDiffers, OutOfBits, TooLarge
from bbans.image import container
from bbans.image.container import Header, Piece, checksum
from bbans.image.modes import MODES
from bbans.image.picture import Picture, compress_picture, decompress_picture, verify_picture
from bbans.image.view import View

Pixels = Callable[..., np.ndarray]


class Model:
    """All that compression itself asks of a model."""

    id = b"12345678"
    name = "any"
    device = torch.device("cpu")


def picture_of(pixels: np.ndarray) -> Picture:
    return Picture(pixels, "RGB" if pixels.shape[2] == 3 else "L")


def decode(data: bytes) -> Picture:
    return decompress_picture(data, lambda model_id: Model())


def encode(picture: Picture) -> bytes:
    return compress_picture(picture, Model())[0]


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "ONE_TILE", 100)
    monkeypatch.setattr(container, "TILE_SIDE", 16)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 3), (1, 9, 3), (10, 10, 1), (33, 40, 3), (16, 32, 3), (300, 1, 1)])
def test_round_trip(
    shape: tuple[int, ...], fake_codec: types.ModuleType, small_tiles: None, random_pixels: Pixels
) -> None:
    picture = picture_of(random_pixels(*shape))
    data = encode(picture)
    out = decode(data)
    assert out.mode == picture.mode
    np.testing.assert_array_equal(out.pixels, picture.pixels)
    tiles = container.Header.parse(data).pieces
    assert len(tiles) == (1 if shape[0] * shape[1] <= 100 else -(-shape[0] // 16) * -(-shape[1] // 16))


def test_report_accounts_for_every_bit(fake_codec: types.ModuleType, small_tiles: None, random_pixels: Pixels) -> None:
    picture = picture_of(random_pixels(20, 20, 3))
    data, report = compress_picture(picture, Model(), want_elbo=True)
    rates = report.per_dim()
    assert report.total == 8 * len(data) and report.dims == 1200 and report.initial == 4 * 32
    assert rates["net"] + rates["initial"] + rates["container"] == pytest.approx(rates["total"])
    assert report.elbo == report.net - 4
    assert compress_picture(picture, Model())[1].elbo is None


@pytest.mark.parametrize("error", [BadFile("wrong end"), OutOfBits("3 words short")])
def test_decoding_gone_astray_is_not_called_damage(
    error: Exception, fake_codec: types.ModuleType, random_pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(picture_of(random_pixels(4, 4, 1)))

    def astray(*args: object) -> np.ndarray:
        raise error

    monkeypatch.setattr(fake_codec, "decode_tile", astray)
    with pytest.raises(DecodedDiffers, match="computes differently"):
        decode(data)


def test_other_pixels_are_noticed(
    fake_codec: types.ModuleType, random_pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = picture_of(random_pixels(4, 4, 1))
    data = encode(picture)
    monkeypatch.setattr(fake_codec, "decode_tile", lambda *args: picture.pixels ^ np.uint8(1))
    with pytest.raises(DecodedDiffers, match="computes differently"):
        decode(data)


def test_another_shape_is_noticed(
    fake_codec: types.ModuleType, random_pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = picture_of(random_pixels(2, 8, 1))
    data = encode(picture)
    monkeypatch.setattr(fake_codec, "decode_tile", lambda *args: picture.pixels.reshape(4, 4, 1))
    with pytest.raises(DecodedDiffers, match="computes differently"):
        decode(data)


def test_every_flipped_bit_is_noticed(fake_codec: types.ModuleType, random_pixels: Pixels) -> None:
    data = encode(picture_of(random_pixels(3, 3, 1)))
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadFile):
            decode(bytes(damaged))


@pytest.mark.parametrize("mode", ["RGB", "LA", "RGB;16"])
@pytest.mark.parametrize("view", [View((17, 3, 20, 30)), View(preview=2), View((5, 14, 28, 5), 1)], ids=str)
def test_a_view_decodes_what_it_shows(
    mode: str,
    view: View,
    fake_codec: types.ModuleType,
    small_tiles: None,
    random_pixels: Pixels,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pixels = random_pixels(40, 41, MODES[mode].channels)
    picture = Picture(pixels * np.uint16(255) if MODES[mode].deep else pixels, mode)
    data = encode(picture)
    decoded = []
    for name in ("decode_tile", "decode_preview"):
        plain = getattr(fake_codec, name)
        monkeypatch.setattr(fake_codec, name, lambda *args, plain=plain: decoded.append(args) or plain(*args))
    out = decompress_picture(data, lambda _: Model(), view=view)
    x, y, w, h = view.region or (0, 0, 41, 40)
    rows, columns = np.arange(y, y + h), np.arange(x, x + w)
    rows, columns = rows[rows % view.step == 0], columns[columns % view.step == 0]
    np.testing.assert_array_equal(out.pixels, picture.pixels[np.ix_(rows, columns)])
    touched = len({row // 16 for row in rows}) * len({column // 16 for column in columns})
    assert len(decoded) == touched * len(MODES[mode].sheets)


def test_what_is_left_of_a_damaged_file(fake_codec: types.ModuleType, small_tiles: None, random_pixels: Pixels) -> None:
    picture = picture_of(random_pixels(33, 40, 3))  # tiles of 16: three a row, three rows
    data = bytearray(encode(picture))
    begin = len(data) - sum(piece.size for piece in container.Header.parse(bytes(data)).pieces)
    data[begin] ^= 1  # in the first tile
    data[-3:] = b""  # of the last one
    lost: list[BbansError] = []
    out = decompress_picture(bytes(data), lambda _: Model(), lost=lost)
    assert [str(error).partition(": ")[2] for error in lost] == [
        "3 bytes are missing at the end",
        "the checksum of tile 1 of 9 (0,0,16,16) does not match",
        "the checksum of tile 9 of 9 (32,32,8,1) does not match",
    ]
    expected = picture.pixels.copy()
    expected[:16, :16] = expected[32:, 32:] = 0
    np.testing.assert_array_equal(out.pixels, expected)
    with pytest.raises(BadFile, match="truncated"):
        decode(bytes(data))
    whole_tile = View((16, 0, 16, 16))
    with pytest.raises(BadFile, match="truncated"):
        decompress_picture(bytes(data), lambda _: Model(), view=whole_tile)
    data = bytearray(encode(picture))
    data[begin] ^= 1
    out = decompress_picture(bytes(data), lambda _: Model(), view=whole_tile)  # of other tiles nothing is asked
    np.testing.assert_array_equal(out.pixels, picture.pixels[:16, 16:32])


def test_tiles_in_threads(tiny_models: dict[int, Path], small_tiles: None, random_pixels: Pixels) -> None:
    picture = picture_of(random_pixels(20, 30, 3))
    model = zoo.load(tiny_models[0], device="cpu", threads=1)
    data, report = compress_picture(picture, model, want_elbo=True)
    with threads(2):
        assert compress_picture(picture, model, want_elbo=True) == (data, report)
        verify_picture(data, picture, lambda _: model)
        damaged = bytearray(data)
        damaged[-1] ^= 1
        lost: list[BbansError] = []
        out = decompress_picture(bytes(damaged), lambda _: model, lost=lost)
        assert torch.get_num_threads() == 2
    assert len(lost) == 1 and np.array_equal(out.pixels[:16], picture.pixels[:16])


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Let PyTorch use that many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def test_pictures_are_checked(fake_codec: types.ModuleType) -> None:
    for pixels, mode in [
        (np.zeros((2, 2, 3), np.uint8), "L"),
        (np.zeros((2, 2, 3), np.uint8), "RGBA"),
        (np.zeros((2, 2), np.uint8), "L"),
        (np.zeros((2, 2, 1), np.uint16), "L"),
        (np.zeros((0, 2, 1), np.uint8), "L"),
    ]:
        with pytest.raises(BadImage):
            Picture(pixels, mode)
    huge = np.broadcast_to(np.zeros((1, 1, 1), np.uint8), (20_000, 20_000, 1))
    with pytest.raises(TooLarge):
        encode(Picture(huge, "L"))


# -- the public functions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
def test_public_api_takes_arrays(
    shape: tuple[int, ...], fake_codec: types.ModuleType, fake_zoo: types.ModuleType, random_pixels: Pixels
) -> None:
    pixels = random_pixels(*shape)
    image = bbans.decompress(bbans.compress(pixels))
    np.testing.assert_array_equal(np.asarray(image), pixels[:, :, 0] if shape[2:] == (1,) else pixels)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_public_api_takes_pillow_images(
    mode: str, fake_codec: types.ModuleType, fake_zoo: types.ModuleType, random_pixels: Pixels
) -> None:
    image = Image.fromarray(random_pixels(6, 5, 3)).convert(mode)
    out = bbans.decompress(bbans.compress(image))
    assert out.mode == mode and out.size == image.size and out.tobytes() == image.tobytes()


def test_public_api_takes_strided_arrays(
    fake_codec: types.ModuleType, fake_zoo: types.ModuleType, random_pixels: Pixels
) -> None:
    pixels = random_pixels(8, 8, 3).transpose(1, 0, 2)[::-1, ::2, ::-1]
    np.testing.assert_array_equal(np.asarray(bbans.decompress(bbans.compress(pixels))), pixels)


def test_import_is_light() -> None:
    import subprocess
    import sys

    code = "import sys, bbans; assert not {'torch', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.usefixtures("fake_codec")
@pytest.mark.parametrize("tile", [0, 4096])
def test_no_model_decodes_a_tile_that_fills_the_memory(tile: int) -> None:
    payload = b"few bytes"
    piece = Piece(len(payload), checksum(payload), 0)
    header = Header("L", 4096, 1025, tile, (piece,), Model.id)
    with pytest.raises(BadFile, match="codes no such pictures"):
        decode(container.join(header, [payload]))
