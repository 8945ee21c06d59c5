from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bbans import zoo
from bbans.ans import Message
from bbans.errors import BadFile, BadModel
from bbans.exact.tuning import MOST_STEPS, Steps
from bbans.image import tuning
from bbans.image.codec import TUNED, _planes, decode_tile, decode_tiles, encode_tile
from bbans.image.fields import read_varint

from .test_codec import picture


@pytest.fixture(scope="module")
def model(tiny_models: dict[int, Path]) -> zoo.Model:
    return zoo.load(tiny_models[2], device="cpu")


@pytest.fixture(scope="module")
def guided(model: zoo.Model) -> zoo.Model:
    """The same model with directions."""
    count = tuning.Space.of(model.network, None).directions.shape[1]
    directions = np.random.default_rng(0).normal(0, 200, (3, count)).round().astype(np.int16)
    return replace(model, directions=directions)


@pytest.fixture(params=["model", "guided"])
def either(request: pytest.FixtureRequest) -> zoo.Model:
    return request.getfixturevalue(request.param)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "STAGES", (10, 10))


def space_of(model: zoo.Model) -> tuning.Space:
    return tuning.Space.of(model.network, model.directions)


def nothing(space: tuning.Space) -> list[np.ndarray]:
    return [np.zeros(count, np.int64) for count, _ in space.sizes]


@pytest.mark.parametrize("lanes", [1, 16])
def test_values_come_back(either: zoo.Model, lanes: int) -> None:
    space = space_of(either)
    random = np.random.default_rng(0)
    values = [
        np.clip(random.laplace(0, i, count).round().astype(np.int64), -most, most)
        for i, (count, most) in enumerate(space.sizes)
    ]
    values[0][:], values[2][:] = tuning.MOST_CODE, -tuning.MOST
    codec = tuning.codec(either.tables.logistic, space)
    message = Message.empty(lanes, seed=0)
    codec.push(message, values)
    popped = codec.pop(message)
    assert all(np.array_equal(a, b) for a, b in zip(popped, values, strict=True)) and message.is_initial(0)


def test_no_steps_take_few_bits(either: zoo.Model) -> None:
    space = space_of(either)
    message = Message.empty(1)
    before = message.bits()
    tuning.codec(either.tables.logistic, space).push(message, nothing(space))
    rows = len(space.groups) + (len(space.directions) > 0)
    assert message.bits() - before == pytest.approx(4 * rows, abs=0.1)


def test_codes_and_steps_add_up(guided: zoo.Model) -> None:
    space = space_of(guided)
    values = nothing(space)
    values[0][:] = [7, 0, -2]
    values[1][:] = 3
    along = 7 * space.directions[0] - 2 * space.directions[2]
    expected = np.floor(along / 256 + 0.5).astype(int)
    expected[: space.groups[0].count] += 3 * 16
    found = space.steps(values)
    for kind in Steps._fields:
        mine = [group for group in space.groups if group.kind == kind]
        got = torch.cat([getattr(found[name], kind) for group in mine for name in group.layers]).numpy()
        starts = np.cumsum([0] + [group.count for group in space.groups])
        places = [np.arange(starts[i], starts[i + 1]) for i, group in enumerate(space.groups) if group.kind == kind]
        np.testing.assert_array_equal(got, np.clip(expected[np.concatenate(places)], -MOST_STEPS, MOST_STEPS))

    soft = tuning.unrounded(guided.network)
    space.soften(soft, torch.from_numpy(values[0]).float(), [torch.from_numpy(v).float() for v in values[1:]])
    for name, steps in found.items():
        for real, rounded in zip(soft.get_submodule(name).steps, steps, strict=True):
            inside = real.abs() < MOST_STEPS
            assert (real - rounded)[inside].abs().max() <= 0.5


@pytest.mark.parametrize("wrong", [np.zeros((2, 5), np.int16), np.zeros(5, np.int16), "real"])
def test_directions_of_another_network(model: zoo.Model, wrong: Any) -> None:
    directions = space_of(model).directions[:0].astype(float) if isinstance(wrong, str) else wrong
    other = replace(model, directions=directions)
    with pytest.raises(BadModel, match="of another network"):
        encode_tile(other, picture("smooth", 9, 20, 3), effort=6)


def test_only_what_pixels_depend_on_is_tuned(model: zoo.Model) -> None:
    found = space_of(model).groups
    layers = {name for group in found for name in group.layers}
    assert len(found) == 2 * 2 * 3  # two levels; gains and biases; trunks, heads and their last layers
    assert all(name.split(".")[2].startswith(("enter_", "blocks_", "head_")) for name in layers)
    expected = {n for n, m in model.network.named_modules() if hasattr(m, "shift")}
    assert all(
        name.split(".")[2].startswith(("region", "encoder", "posterior", "from_", "bias_"))
        for name in expected - layers
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_a_tuned_tile_is_smaller_and_comes_back(either: zoo.Model, short: None, channels: int) -> None:
    pixels = picture("smooth", 40, 36, channels)
    state = torch.get_rng_state()
    sizes = []
    for effort in (1, 5, 6, 7, 9):
        payload, stats = encode_tile(either, pixels, effort=effort, want_elbo=True)
        np.testing.assert_array_equal(decode_tile(either, payload, *pixels.shape), pixels)
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
    monkeypatch.setattr(tuning, "_rounded", lambda values, most, dead: np.full(len(values), most))
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
    assert len(list(tuning.search(model.network, space_of(model), planes, grey=False))) == 1
    assert seen == [(1, 3, 16, 10)] * 2
