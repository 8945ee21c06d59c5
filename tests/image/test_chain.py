from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bbans import zoo
from bbans.errors import BadFile, BadImage, BadModel
from bbans.image import codec, weighted
from bbans.image.codec import decode_chain, decode_tile, encode_chain, encode_tile, takes
from bbans.image.container import Header
from bbans.image.fields import write_varint
from bbans.image.picture import Picture, compress_picture, decompress_picture
from bbans.image.weighted import Particles
from bbans.particles import MOST

KINDS = ("1", "L", "RGB", "plain")


@pytest.fixture(scope="module", params=KINDS)
def thumbnail(request: pytest.FixtureRequest, tiny_thumbnails: dict[str, Path]) -> zoo.Model:
    return zoo.load(tiny_thumbnails[request.param], device="cpu")


@pytest.fixture(scope="module")
def photo(tiny_models: dict[int, Path]) -> zoo.Model:
    return zoo.load(tiny_models[2], device="cpu")


def pictures(model: zoo.Model, count: int, seed: int = 0) -> np.ndarray:
    """Noise of the model's size and mode, on grounds of different grey."""
    config = model.network.config
    random = np.random.default_rng(seed)
    shape = (count, config.height, config.width, config.samples)
    if config.depth == 1:
        return (random.random(shape) < random.random((count, 1, 1, 1))).astype(np.uint8)
    return np.clip(random.integers(0, 256, (count, 1, 1, 1)) + random.integers(-20, 20, shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_the_same_pictures_come_back(thumbnail: zoo.Model, count: int) -> None:
    x = pictures(thumbnail, count)
    payload, stats = encode_chain(thumbnail, x)
    assert stats.dims == x.size and stats.elbo is None
    np.testing.assert_array_equal(decode_chain(thumbnail, payload, *x.shape), x)


def test_the_message_is_as_long_as_the_elbo(thumbnail: zoo.Model) -> None:
    x = pictures(thumbnail, 60)
    payload, stats = encode_chain(thumbnail, x, want_elbo=True)
    assert stats.elbo is not None and stats.net == pytest.approx(stats.elbo, rel=5e-3)
    assert 0 <= 8 * len(payload) - stats.net - stats.initial < 300  # heads, and the list of batches


def test_initial_bits_are_paid_once(thumbnail: zoo.Model) -> None:
    one, many = (encode_chain(thumbnail, pictures(thumbnail, count))[1].initial for count in (1, 40))
    assert many <= one + 64


@pytest.mark.parametrize("count", [2, 60])
def test_flat_pictures_pay_no_initial_bits_again_and_again(thumbnail: zoo.Model, photo: zoo.Model, count: int) -> None:
    for model, shape in ((thumbnail, pictures(thumbnail, 1).shape[1:]), (photo, (16, 16, 3))):
        flat = np.ones((count, *shape), np.uint8)
        payload, stats = encode_chain(model, flat)
        alone, initial = encode_chain(model, flat[:1])
        np.testing.assert_array_equal(decode_chain(model, payload, *flat.shape), flat)
        assert stats.initial <= initial.initial + 64
        assert len(payload) <= count * len(alone)


def test_batches_grow_with_the_bits_there_are(thumbnail: zoo.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_BATCH_DIMS", 12 * 8 * 3 * 16)
    x = pictures(thumbnail, 90)
    payload, _ = encode_chain(thumbnail, x)
    batches, _ = codec._read_batches(payload, 90, most=48)
    sizes, _, lanes = zip(*batches, strict=True)
    assert sizes[0] == 1 and sum(sizes) == 90 and len(sizes) < 40 and list(lanes) == sorted(lanes)
    np.testing.assert_array_equal(decode_chain(thumbnail, payload, *x.shape), x)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (5, 9), (24, 17)], ids=str)
def test_chains_of_photo(photo: zoo.Model, size: tuple[int, int], channels: int) -> None:
    x = np.random.default_rng(0).integers(90, 120, (9, *size, channels), np.uint8)
    payload, _ = encode_chain(photo, x)
    np.testing.assert_array_equal(decode_chain(photo, payload, *x.shape), x)


def test_a_thumbnail_is_also_a_file(thumbnail: zoo.Model) -> None:
    (x,) = pictures(thumbnail, 1)
    payload, _ = encode_tile(thumbnail, x)
    np.testing.assert_array_equal(decode_tile(thumbnail, payload, *x.shape), x)
    config = thumbnail.network.config
    mode = "1" if config.depth == 1 else "L" if config.samples == 1 else "RGB"
    data, _ = compress_picture(Picture(x, mode), thumbnail)
    back = decompress_picture(data, lambda _: thumbnail)
    assert back.mode == mode
    np.testing.assert_array_equal(back.pixels, x)


def test_a_model_takes_its_own_kind_only(thumbnail: zoo.Model, photo: zoo.Model) -> None:
    config = thumbnail.network.config
    mode = "1" if config.depth == 1 else "L" if config.samples == 1 else "RGB"
    assert [other for other in ("1", "L", "RGB") if takes(thumbnail, 8, 12, other)] == [mode]
    assert not takes(thumbnail, 12, 8, mode)
    assert [other for other in ("1", "L", "RGB") if takes(photo, 12, 8, other)] == ["L", "RGB"]
    with pytest.raises(BadImage, match="takes pictures of 12 x 8"):
        encode_chain(thumbnail, np.zeros((1, 12, 8, config.samples), np.uint8))
    if mode == "1":  # which libraries take
        return
    with pytest.raises(BadImage, match="takes no pictures of 8 x 12"):
        compress_picture(Picture(np.zeros((12, 8, config.samples), np.uint8), mode), thumbnail)


# -- damage: BadFile or other pixels, and never anything else --------------------------------------------------------


def is_noticed(model: zoo.Model, payload: bytes, x: np.ndarray) -> bool:
    try:
        out = decode_chain(model, payload, *x.shape)
    except BadFile:
        return True
    assert out.shape == x.shape and out.dtype == np.uint8
    return not np.array_equal(out, x)


def test_an_altered_chain_is_noticed(thumbnail: zoo.Model) -> None:
    x = pictures(thumbnail, 5)
    payload, _ = encode_chain(thumbnail, x)
    random = np.random.default_rng(0)
    has_latents = any(thumbnail.network.config.latents)
    for at in [*range(min(11, len(payload))), *random.integers(0, len(payload), 20)]:
        altered = bytearray(payload)
        altered[at] ^= 1 << random.integers(8)
        if has_latents or at > 10:  # without latents, their bits are not looked at
            assert is_noticed(thumbnail, bytes(altered), x), at


def test_a_truncated_or_extended_chain_is_noticed(thumbnail: zoo.Model) -> None:
    x = pictures(thumbnail, 5)
    payload, _ = encode_chain(thumbnail, x)
    for length in (0, 1, 2, 5, len(payload) // 2, len(payload) - 4, len(payload) - 1):
        with pytest.raises(BadFile):
            decode_chain(thumbnail, payload[:length], *x.shape)
    assert is_noticed(thumbnail, payload + bytes(4), x)


@pytest.mark.parametrize(
    "head", [b"", b"\0", b"\1\5", b"\1\1\x80", b"\1\5\x0f", b"\1\5\xf8", b"\2\3\x80\3\x80", b"\xff" * 12]
)
def test_garbage_is_noticed(thumbnail: zoo.Model, head: bytes) -> None:
    random = np.random.default_rng(0)
    for count in (0, 8, 400):
        with pytest.raises(BadFile):
            decode_chain(thumbnail, head + random.bytes(count), 5, *pictures(thumbnail, 1).shape[1:])


# -- particles ---------------------------------------------------------------------------------------------------------

WAYS = pytest.mark.parametrize("coupled", [False, True], ids=["independent", "coupled"])


@pytest.fixture(scope="module", params=[kind for kind in KINDS if kind != "plain"])
def latent(request: pytest.FixtureRequest, tiny_thumbnails: dict[str, Path]) -> zoo.Model:
    """A model with latents."""
    return zoo.load(tiny_thumbnails[request.param], device="cpu")


@WAYS
@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_same_pictures_come_back_with_particles(latent: zoo.Model, count: int, coupled: bool) -> None:
    x = pictures(latent, 5)
    payload, stats = encode_chain(latent, x, want_elbo=True, particles=Particles(count, coupled))
    np.testing.assert_array_equal(decode_chain(latent, payload, *x.shape), x)
    assert stats.elbo is not None and stats.net == pytest.approx(stats.elbo, rel=5e-3, abs=5)


def test_a_few_together_go_through_the_networks_as_all_do(latent: zoo.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    x = pictures(latent, 2)
    payload, _ = encode_chain(latent, x, particles=Particles(7))
    monkeypatch.setattr(weighted, "TOGETHER_DIMS", 3 * x[0].size)
    assert encode_chain(latent, x, particles=Particles(7))[0] == payload
    np.testing.assert_array_equal(decode_chain(latent, payload, *x.shape), x)


def test_pictures_alike_are_told_once(latent: zoo.Model) -> None:
    """Each is a batch of its own, and yet costs nothing in the head."""
    x = pictures(latent, 20)
    payload, _ = encode_chain(latent, x, particles=Particles(1))
    particles, at = Particles.parse(payload)
    batches, _ = codec._read_batches(payload[at:], 20, most=20)
    assert particles == Particles(1, coupled=True) and len(batches) < 15


def test_decoding_enters_what_encoding_does(latent: zoo.Model) -> None:
    x = pictures(latent, 3)
    payload, stats = encode_chain(latent, x, want_elbo=True, particles=Particles(5))
    ledger: dict[str, float] = {}
    decode_chain(latent, payload, *x.shape, ledger)
    assert sum(ledger.values()) - ledger["initial"] == pytest.approx(stats.elbo)


def test_coupled_particles_need_no_more_initial_bits_than_one(latent: zoo.Model) -> None:
    x = pictures(latent, 1)
    of_two, of_ten = (encode_chain(latent, x, particles=Particles(count))[1].initial for count in (2, 10))
    assert of_ten <= of_two + 32


def test_models_without_latents_or_of_all_sizes_take_no_particles(
    photo: zoo.Model, tiny_thumbnails: dict[str, Path]
) -> None:
    for model in (photo, zoo.load(tiny_thumbnails["plain"], device="cpu")):
        x = np.zeros((1, 8, 12, 3), np.uint8)
        with pytest.raises(BadModel, match="takes no particles"):
            encode_chain(model, x, particles=Particles(2))
        payload, _ = encode_chain(model, x)
        with pytest.raises(BadFile, match="particles"):
            decode_chain(model, Particles(2).pack() + payload, *x.shape)


def test_a_file_with_particles_is_of_version_2(latent: zoo.Model) -> None:
    (x,) = pictures(latent, 1)
    config = latent.network.config
    picture = Picture(x, "1" if config.depth == 1 else "L" if config.samples == 1 else "RGB")
    for particles, version in ((None, 1), (Particles(3), 2)):
        data, _ = compress_picture(picture, latent, by_model=True, particles=particles)
        assert Header.parse(data).version == version
        np.testing.assert_array_equal(decompress_picture(data, lambda _: latent).pixels, x)


@WAYS
def test_an_altered_chain_with_particles_is_noticed(latent: zoo.Model, coupled: bool) -> None:
    x = pictures(latent, 2)
    payload, _ = encode_chain(latent, x, particles=Particles(2, coupled))
    random = np.random.default_rng(0)
    for at in [*range(4), *random.integers(4, len(payload), 4)]:
        altered = bytearray(payload)
        altered[at] ^= 1 << random.integers(8)
        assert is_noticed(latent, bytes(altered), x), at
    for length in (0, 1, 2, 3, 5, len(payload) - 4):
        with pytest.raises(BadFile):
            decode_chain(latent, payload[:length], *x.shape)


@pytest.mark.parametrize("number", [0, 1, 2 * MOST + 2, 1 << 60])
def test_impossible_numbers_of_particles(latent: zoo.Model, number: int) -> None:
    x = pictures(latent, 1)
    payload, _ = encode_chain(latent, x)
    with pytest.raises(BadFile, match="impossible number of particles"):
        decode_chain(latent, write_varint(0) + write_varint(number) + payload, *x.shape)
