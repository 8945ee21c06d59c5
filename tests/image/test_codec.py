from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bbans import zoo
from bbans.errors import BadFile
from bbans.exact import selftest
from bbans.image.codec import decode_preview, decode_tile, decode_tiles, encode_tile, encode_tiles
from bbans.image.fields import read_varint

SHAPES = [(1, 1), (1, 9), (9, 1), (2, 2), (3, 2), (17, 31), (40, 36)]


@pytest.fixture(scope="module", params=[2, 0, 3, 8], ids=["latents", "no_latents", "no_overview", "bytes"])
def model(request: pytest.FixtureRequest, tiny_models: dict[int, Path]) -> zoo.Model:
    return zoo.load(tiny_models[request.param], device="cpu")


@pytest.fixture(scope="module")
def vae(tiny_models: dict[int, Path]) -> zoo.Model:
    return zoo.load(tiny_models[2], device="cpu")


def picture(kind: str, *shape: int) -> np.ndarray:
    random = np.random.default_rng(sum(shape))
    if kind == "noise":
        return random.integers(0, 256, shape, np.uint8)
    if kind == "extremes":
        return random.choice(np.array([0, 255], np.uint8), shape)
    if kind == "flat":
        return np.full(shape, 200, np.uint8)
    y, x, c = np.ogrid[tuple(slice(n) for n in shape)]
    return (128 + 60 * np.sin(x / 9 + c) + 50 * np.cos(y / 7) + random.normal(0, 2, shape)).astype(np.uint8)


def latent_bits(payload: bytes) -> int:
    return read_varint(payload, 0)[0] % 16


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["smooth", "flat", "noise", "extremes"])
def test_the_same_pixels_come_back(model: zoo.Model, kind: str, shape: tuple[int, int], channels: int) -> None:
    pixels = picture(kind, *shape, channels)
    payload, stats = encode_tile(model, pixels)
    assert stats.dims == pixels.size and stats.elbo is None
    np.testing.assert_array_equal(decode_tile(model, payload, *pixels.shape), pixels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_preview_is_made_of_the_coarser_levels(model: zoo.Model, shape: tuple[int, int], channels: int) -> None:
    pixels = picture("smooth", *shape, channels)
    payload, _ = encode_tile(model, pixels)
    for levels in (1, 2, 7):
        preview = decode_preview(model, payload, *pixels.shape, levels)
        np.testing.assert_array_equal(preview, pixels[:: 1 << levels, :: 1 << levels])


@pytest.mark.parametrize("channels", [1, 3])
def test_tiles_together_are_the_tiles_alone(model: zoo.Model, channels: int) -> None:
    tiles = np.stack([picture(kind, 9, 20, channels) for kind in ("smooth", "flat", "noise", "extremes")])
    alone = [encode_tile(model, tile, want_elbo=True) for tile in tiles]
    assert encode_tiles(model, np.tile(tiles, (4, 1, 1, 1)), want_elbo=True) == alone * 4
    payloads = [payload for payload, _ in alone]
    np.testing.assert_array_equal(decode_tiles(model, payloads, 9, 20, channels), tiles)
    for tile, payload in zip(tiles, payloads, strict=True):
        np.testing.assert_array_equal(decode_tile(model, payload, *tile.shape), tile)


@pytest.mark.parametrize(("shape", "kind"), [((60, 70, 3), "smooth"), ((60, 70, 1), "flat"), ((1, 300, 3), "smooth")])
def test_the_message_is_as_long_as_the_elbo(model: zoo.Model, shape: tuple[int, ...], kind: str) -> None:
    pixels = picture(kind, *shape)
    payload, stats = encode_tile(model, pixels, want_elbo=True)
    assert stats.elbo is not None and stats.initial == 0
    assert stats.net == pytest.approx(stats.elbo, rel=2e-3, abs=4)
    assert 0 <= 8 * len(payload) - stats.net < 150  # the head, the schedule and what is left of a word
    float_elbo = model.float_elbo_bits(pixels)
    assert float_elbo is not None and stats.elbo == pytest.approx(float_elbo, rel=0.05)


def test_latents_are_coded_where_their_bits_are_affordable(vae: zoo.Model) -> None:
    payload, stats = encode_tile(vae, picture("smooth", 64, 64, 3))
    assert latent_bits(payload) == 8 and stats.initial == 0
    for shape in ((1, 1, 3), (2, 2, 1), (3, 3, 1)):
        pixels = picture("smooth", *shape)
        payload, stats = encode_tile(vae, pixels)
        assert latent_bits(payload) == 0 and stats.initial == 0
        np.testing.assert_array_equal(decode_tile(vae, payload, *shape), pixels)


def test_float64_writes_and_reads_the_same_bytes(
    vae: zoo.Model, tiny_models: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    right, asked = selftest.answers, []

    def wrong_at_first(network: object) -> list[int]:
        asked.append(network)
        return right(network) if len(asked) > 1 else []

    monkeypatch.setattr(selftest, "answers", wrong_at_first)
    with pytest.warns(RuntimeWarning):
        fallback = zoo.load(tiny_models[2])
    for channels in (1, 3):
        pixels = picture("smooth", 35, 22, channels)
        payload, _ = encode_tile(vae, pixels)
        assert encode_tile(fallback, pixels)[0] == payload
        np.testing.assert_array_equal(decode_tile(fallback, payload, *pixels.shape), pixels)


# -- damage: BadFile or other pixels, and never anything else --------------------------------------------------------


def is_noticed(model: zoo.Model, payload: bytes, pixels: np.ndarray) -> bool:
    try:
        out = decode_tile(model, payload, *pixels.shape)
    except BadFile:
        return True
    assert out.shape == pixels.shape and out.dtype == np.uint8
    return not np.array_equal(out, pixels)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 3), (9, 12, 3)], ids=str)
def test_an_altered_payload_is_noticed(model: zoo.Model, shape: tuple[int, ...]) -> None:
    pixels = picture("smooth", *shape)
    payload, _ = encode_tile(model, pixels)
    random = np.random.default_rng(0)
    for at in [*range(min(12, len(payload))), *random.integers(0, len(payload), 20)]:
        altered = bytearray(payload)
        altered[at] ^= 1 << random.integers(8)
        if at or latent_bits(payload):  # where there are no latents, their bits are not looked at
            assert is_noticed(model, bytes(altered), pixels), at


def test_a_truncated_or_extended_payload_is_noticed(model: zoo.Model) -> None:
    pixels = picture("smooth", 20, 20, 3)
    payload, _ = encode_tile(model, pixels)
    for length in (0, 1, 2, 9, len(payload) // 2, len(payload) - 4, len(payload) - 1):
        with pytest.raises(BadFile):
            decode_tile(model, payload[:length], *pixels.shape)
    assert is_noticed(model, payload + bytes(4), pixels)


@pytest.mark.parametrize("count", [0, 1, 40, 1000])
def test_garbage_is_noticed(model: zoo.Model, count: int) -> None:
    random = np.random.default_rng(count)
    for head in (b"", b"\x00", b"\x08", b"\x1a\x01", b"\xff" * 12):
        with pytest.raises(BadFile):
            decode_tile(model, head + random.bytes(count), 20, 9, 3)
