from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bbans import zoo
from bbans.ans import Message
from bbans.errors import BadFile
from bbans.exact.tuning import MOST_STEPS
from bbans.image import tuning
from bbans.image.codec import TUNED, _planes, decode_tile, decode_tiles, encode_tile
from bbans.image.fields import read_varint

from .test_codec import picture


@pytest.fixture(scope="module")
def model(tiny_models: dict[int, Path]) -> zoo.Model:
    return zoo.load(tiny_models[2], device="cpu")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "STAGES", (10, 10))


@pytest.mark.parametrize("lanes", [1, 16])
def test_steps_come_back(model: zoo.Model, lanes: int) -> None:
    found = tuning.groups(model.network)
    random = np.random.default_rng(0)
    values = [
        np.clip(random.laplace(0, i, sum(g.sizes)).round().astype(np.int64), -63, 63) for i, g in enumerate(found)
    ]
    values[1][:] = MOST_STEPS
    codec = tuning.codec(model.tables.logistic, found)
    message = Message.empty(lanes, seed=0)
    codec.push(message, values)
    popped = codec.pop(message)
    assert all(np.array_equal(a, b) for a, b in zip(popped, values, strict=True)) and message.is_initial(0)


def test_no_steps_take_few_bits(model: zoo.Model) -> None:
    found = tuning.groups(model.network)
    message = Message.empty(1)
    before = message.bits()
    tuning.codec(model.tables.logistic, found).push(message, [np.zeros(sum(g.sizes), np.int64) for g in found])
    assert message.bits() - before == pytest.approx(4 * len(found), abs=0.1)


def test_only_what_pixels_depend_on_is_tuned(model: zoo.Model) -> None:
    found = tuning.groups(model.network)
    layers = {name for group in found for name in group.layers}
    assert len(found) == 2 * 2 * 3  # two levels; gains and biases; trunks, heads and their last layers
    assert all(name.split(".")[2].startswith(("enter_", "blocks_", "head_")) for name in layers)
    expected = {n for n, m in model.network.named_modules() if hasattr(m, "shift")}
    assert all(
        name.split(".")[2].startswith(("region", "encoder", "posterior", "from_", "bias_"))
        for name in expected - layers
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_a_tuned_tile_is_smaller_and_comes_back(model: zoo.Model, short: None, channels: int) -> None:
    pixels = picture("smooth", 40, 36, channels)
    state = torch.get_rng_state()
    sizes = []
    for effort in (1, 5, 6, 7, 9):
        payload, stats = encode_tile(model, pixels, effort=effort, want_elbo=True)
        np.testing.assert_array_equal(decode_tile(model, payload, *pixels.shape), pixels)
        sizes.append(len(payload))
        assert stats.elbo is not None and abs(stats.net - stats.elbo) < 0.01 * stats.net + 64
    assert torch.equal(torch.get_rng_state(), state)
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == sizes[1] > sizes[-1]
    assert read_varint(payload, 0)[0] >= TUNED


def test_tuned_tiles_beside_others(model: zoo.Model, short: None) -> None:
    tiles = np.stack([picture(kind, 40, 36, 3) for kind in ("smooth", "noise")])
    payloads = [encode_tile(model, tile, effort=effort)[0] for tile, effort in zip(tiles, (6, 5), strict=True)]
    assert [read_varint(payload, 0)[0] >= TUNED for payload in payloads] == [True, False]
    np.testing.assert_array_equal(decode_tiles(model, payloads, 40, 36, 3), tiles)


def test_a_tuning_that_does_not_pay_is_dropped(model: zoo.Model, short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = picture("smooth", 9, 20, 3)
    monkeypatch.setattr(tuning, "_rounded", lambda values: np.full(len(values), MOST_STEPS))
    assert encode_tile(model, pixels, effort=9) == encode_tile(model, pixels)


def test_a_picture_of_one_pixel(model: zoo.Model, short: None) -> None:
    pixels = np.full((1, 1, 3), 7, np.uint8)
    payload, _ = encode_tile(model, pixels, effort=9)
    np.testing.assert_array_equal(decode_tile(model, payload, 1, 1, 3), pixels)


def test_a_tuning_that_cannot_be_exact_is_a_bad_file(
    model: zoo.Model, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = picture("smooth", 40, 36, 3)
    payload, _ = encode_tile(model, pixels, effort=6)
    for end in (3, 20, len(payload) // 2):
        with pytest.raises(BadFile):
            decode_tile(model, payload[:end], *pixels.shape)
    with pytest.raises(BadFile):  # said to be tuned, but it isn't
        plain, _ = encode_tile(model, pixels)
        start, at = read_varint(plain, 0)
        decode_tile(model, bytes([start % 128 + 128, (start + TUNED) // 128]) + plain[at:], *pixels.shape)


def test_gradients_are_of_squares_of_the_picture(model: zoo.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "STAGES", (2,))
    monkeypatch.setattr(tuning, "CROP", 16)
    seen = []
    bits = tuning.photo_bits
    monkeypatch.setattr(tuning, "photo_bits", lambda net, x, **kw: seen.append(x.shape) or bits(net, x, **kw))
    planes = _planes(model, picture("smooth", 40, 10, 3)[None])
    assert len(list(tuning.search(model.network, planes, grey=False))) == 1
    assert seen == [(1, 3, 16, 10)] * 2
