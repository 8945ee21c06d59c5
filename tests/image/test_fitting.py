from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bbans import zoo
from bbans.ans import Message
from bbans.errors import BadFile, BadModel
from bbans.exact import backends
from bbans.exact.layers import arithmetic
from bbans.image import fitting
from bbans.image.codec import _planes, decode_chain, decode_tile, decode_tiles, encode_chain, encode_tile, encode_tiles
from bbans.vae import lattice
from bbans.vae.phases import PHASES

from .test_codec import picture

CODES = 3


@pytest.fixture(autouse=True)
def small_planes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "FEWEST", 64)


@pytest.fixture(scope="module")
def plain(tiny_models: dict[int, Path]) -> zoo.Model:
    return zoo.load(tiny_models[2], device="cpu")


@pytest.fixture(scope="module")
def model(plain: zoo.Model) -> zoo.Model:
    """The same model with directions of the last layers of two levels, among them one that makes scales smaller."""
    tensors: dict[str, np.ndarray] = {}
    random = np.random.default_rng(0)
    for depth in range(2):
        for phase in PHASES:
            for channel in range(3):
                last = plain.network.level(depth).head(phase).out[channel]
                outputs = len(last.weight)
                rows = 2.0 ** last.shift.numpy()[:, None]  # of the weight that makes an output 1 larger
                directions = random.normal(0, 1, (CODES, outputs, last.weight.shape[1] + 1)) * rows / 2**13
                directions[0] = 0
                scales = np.s_[2 * outputs // 3 :]
                directions[0, scales, -1] = -rows[scales, 0] / 2**6
                name = f"fits.{depth}.{phase}.{channel}."
                tensors[name + "directions"] = directions.round().astype(np.int16)
                tensors[name + "scales"] = np.array([24, 8, 0], np.int16)
                tensors[name + "digits"] = np.array([2], np.int16)
    return replace(plain, fits=tensors)


def fit_of(model: zoo.Model) -> tuple[fitting.Fit, Any]:
    """Of the finest Y of phase D, and its last layer."""
    fits = fitting.Fits.of(model.network, model.fits)
    return fits.planes[0, "d"][0], model.network.level(0).head("d").out[0]


@pytest.mark.parametrize("lanes", [1, 2, 16])
@pytest.mark.parametrize("codes", [[0, 0, 0], [1, 0, -2], [fitting.MOST_CODE, -fitting.MOST_CODE, 0]])
def test_codes_come_back(model: zoo.Model, lanes: int, codes: list[int]) -> None:
    fit, _ = fit_of(model)
    tables = model.tables.logistic
    message = Message.empty(lanes, seed=0)
    before = message.bits()
    fit.codec(tables, 256).push(message, np.array(codes))
    assert message.bits() - before == pytest.approx(fit.bits(tables, 256, np.array(codes)), abs=0.1)
    assert fit.codec(tables, 256).pop(message).tolist() == codes and message.is_initial(0)


def test_no_codes_take_half_a_byte(model: zoo.Model) -> None:
    fit, last = fit_of(model)
    assert fit.bits(model.tables.logistic, 256, np.zeros(CODES, np.int64)) == 4
    assert fit.layer(last, np.zeros(CODES, np.int64), 256) is last


@pytest.mark.parametrize(("count", "finer"), [(64, 0), (255, 0), (256, 1), (1023, 1), (4096, 3)])
def test_steps_become_finer_with_the_plane(model: zoo.Model, count: int, finer: int) -> None:
    fit, last = fit_of(model)
    codes = np.array([3, -7, 1])
    total = sum(int(code) * direction for code, direction in zip(codes, fit.directions, strict=True))
    expected = np.floor(total / 2.0 ** (fit.digits + finer) + 0.5).astype(int)
    np.testing.assert_array_equal(fit.moves(codes, count), expected)
    weight, bias, _ = last.integers()
    moved = fit.layer(last, codes, count)
    new_weight, new_bias, shift = moved.integers()
    assert torch.equal(shift, last.shift)
    np.testing.assert_array_equal((new_weight - weight)[:, :, 0, 0], expected[:, :-1])
    np.testing.assert_array_equal(new_bias - bias, fitting.CONSTANT * expected[:, -1])


def plane_of(last: Any, seed: int = 0, shape: tuple[int, int] = (24, 20)) -> fitting.Plane:
    """Pixels drawn about what a last layer says of random features, but with half the scale."""
    torch.manual_seed(seed)
    features = torch.randint(0, 200, (1, last.weight.shape[1], *shape)).float()
    params = last(features) * torch.exp2(-torch.tensor(last.digits).float())[:, None, None]
    middle = params.shape[1] // 3
    u = torch.rand(1, 1, *shape).clamp(1e-3, 1 - 1e-3)
    noise = torch.logit(u) * torch.exp2(params[:, 2 * middle : 2 * middle + 1] - 1)
    x = (128 + 16 * params[:, middle : middle + 1] + noise).round().clamp(0, 255)
    return fitting.Plane(features, x, torch.full_like(x, 128.0), 0, 255)


@pytest.mark.parametrize("search", [fitting.QUICK, fitting.USUAL, fitting.THOROUGH])
def test_codes_make_the_plane_shorter(model: zoo.Model, search: fitting.Search) -> None:
    fit, last = fit_of(model)
    with arithmetic():
        plane = plane_of(last)
        codes, fitted = fitting.find_codes(fit, model.tables.logistic, last, plane, search)
        assert torch.equal(fitted.weight, fit.layer(last, codes, plane.count).weight)
        layers = last, fitted
        before, after = (plane.sample(None).nats(fitting.matrix(layer)) for layer in layers)
    assert codes[0] > 0  # smaller scales
    assert (before - after) / np.log(2) > fit.bits(model.tables.logistic, plane.count, codes)


def test_codes_that_do_not_pay_are_none(model: zoo.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    fit, last = fit_of(model)
    with arithmetic():
        plane = plane_of(last)
        assert not fitting.find_codes(fit, model.tables.logistic, last, plane, None)[0].any()
        monkeypatch.setattr(fitting, "_newton", lambda *_: np.array([-40.0, 0.2, 0.4]))
        assert not fitting.find_codes(fit, model.tables.logistic, last, plane)[0].any()


def test_samples_of_a_plane(model: zoo.Model) -> None:
    _, last = fit_of(model)
    plane = plane_of(last)
    with arithmetic():
        every, some, others = plane.sample(None), plane.sample(100), plane.sample(100, other=True)
    step = -(-plane.count // 100)
    assert torch.equal(every.x.flatten(), plane.x.flatten()) and every.times == 1
    assert torch.equal(some.features, every.features[:, ::step]) and torch.equal(some.x, every.x[..., ::step])
    assert torch.equal(others.features, every.features[:, step // 2 :: step])
    few = every.every(7)
    assert torch.equal(few.features, every.features[:, ::7]) and torch.equal(few.prediction, every.prediction[..., ::7])
    assert few.times * few.x.numel() == plane.count and every.every(1) is every
    for sample in (some, others):
        assert 50 < sample.x.numel() <= 100 and sample.times * sample.x.numel() == plane.count


def test_a_matrix_is_the_layer_without_rounding(model: zoo.Model) -> None:
    _, last = fit_of(model)
    with arithmetic():
        plane = plane_of(last)
        found = fitting.matrix(last) @ plane.sample(None).features
        exact = last(plane.features).flatten(2)[0]
    unit = torch.exp2(-torch.tensor(last.digits).float())[:, None]
    assert ((found - exact * unit).abs() <= 0.51 * unit).all()


def test_slopes_are_those_of_the_nats(model: zoo.Model) -> None:
    _, last = fit_of(model)
    with arithmetic():
        sample, matrix = plane_of(last).sample(None), fitting.matrix(last)
        nats, slopes = sample.slopes(matrix)
        assert nats == pytest.approx(sample.nats(matrix), rel=1e-4)
        gradient = slopes @ sample.features.T
        random = np.random.default_rng(0)
        for _ in range(5):
            i, j = random.integers(matrix.shape[0]), random.integers(matrix.shape[1])
            nearby = torch.zeros_like(matrix)
            nearby[i, j] = 1e-2 / sample.features[j].mean()
            change = sample.nats(matrix + nearby) - sample.nats(matrix - nearby)
            assert change == pytest.approx(2 * float(nearby[i, j] * gradient[i, j]), rel=0.02, abs=0.02)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["smooth", "flat", "noise", "extremes"])
def test_a_fitted_tile_comes_back(model: zoo.Model, plain: zoo.Model, kind: str, channels: int) -> None:
    pixels = picture(kind, 40, 36, channels)
    sizes = []
    for effort in (1, 4, 5, 6):
        payload, stats = encode_tile(model, pixels, effort=effort, want_elbo=True)
        np.testing.assert_array_equal(decode_tile(model, payload, *pixels.shape), pixels)
        sizes.append(len(payload))
        assert stats.elbo is not None
        if kind == "smooth":  # the model of tests is far from the others
            assert abs(stats.net - stats.elbo) < 0.01 * stats.net + 64
    assert sizes[0] == sizes[1] >= sizes[2] >= sizes[3]
    # not fitted, it has half a byte for each plane of 64 pixels and more
    assert sizes[0] <= len(encode_tile(plain, pixels)[0]) + 3 * channels // 2 + 8


def test_fitting_makes_a_tile_smaller(model: zoo.Model) -> None:
    pixels = picture("flat", 64, 64, 3)
    sizes = [len(encode_tile(model, pixels, effort=effort)[0]) for effort in (4, 5)]
    assert sizes[1] < 0.98 * sizes[0]


def test_each_picture_has_codes_of_its_own(model: zoo.Model) -> None:
    tiles = np.stack([picture(kind, 40, 36, 3) for kind in ("smooth", "flat", "noise")])
    alone = [encode_tile(model, tile)[0] for tile in tiles]
    together = [payload for payload, _ in encode_tiles(model, tiles)]
    assert together == alone
    np.testing.assert_array_equal(decode_tiles(model, together, 40, 36, 3), tiles)
    chain, _ = encode_chain(model, tiles)
    np.testing.assert_array_equal(decode_chain(model, chain, 3, 40, 36, 3), tiles)


def test_small_planes_are_not_fitted(model: zoo.Model, plain: zoo.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "FEWEST", 1000)
    pixels = picture("smooth", 40, 36, 3)
    assert encode_tile(model, pixels) == encode_tile(plain, pixels)


@pytest.mark.parametrize(
    ("tensor", "value"),
    [
        ("directions", np.zeros((CODES, 5, 5), np.int16)),
        ("directions", np.zeros(CODES, np.int16)),
        ("scales", np.zeros(CODES + 1, np.int16)),
        ("scales", np.zeros(CODES)),
        ("scales", np.full(CODES, 30_000, np.int16)),
        ("digits", np.array([-1], np.int16)),
        ("digits", np.array([], np.int16)),
        ("digits", None),
    ],
)
def test_directions_of_another_network(model: zoo.Model, tensor: str, value: np.ndarray | None) -> None:
    tensors = dict(model.fits)
    tensors["fits.1.b.2." + tensor] = value
    if value is None:
        del tensors["fits.1.b.2." + tensor]
    with pytest.raises(BadModel, match="of another network"):
        encode_tile(replace(model, fits=tensors), picture("smooth", 9, 20, 3))


def test_damage_is_a_bad_file(model: zoo.Model) -> None:
    pixels = picture("smooth", 40, 36, 3)
    payload, _ = encode_tile(model, pixels)
    for end in (3, 20, len(payload) // 2):
        with pytest.raises(BadFile):
            decode_tile(model, payload[:end], *pixels.shape)


def test_codes_for_weights_that_cannot_be_exact(model: zoo.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = picture("smooth", 40, 36, 3)
    payload, _ = encode_tile(model, pixels)

    def impossible(*_: Any) -> Any:
        raise BadModel("no")

    monkeypatch.setattr(fitting.Fit, "layer", impossible)
    with pytest.raises(BadFile, match="no"):
        decode_tile(model, payload, *pixels.shape)


def test_what_is_fitted_to_is_what_is_coded(model: zoo.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        "bbans.image.planes.find_codes",
        lambda fit, tables, last, plane, search: seen.append(plane) or (np.zeros(CODES, np.int64), last),
    )
    pixels = picture("smooth", 40, 36, 3)
    encode_tile(model, pixels)
    x = _planes(model, pixels[None])
    _, d, b, e = lattice.split(x)
    finest = [plane for plane in seen if plane.count == d[0, 0].numel()]
    expected = [phase[:, channel : channel + 1] for phase in (d, b, e) for channel in range(3)]
    assert len(finest) == 9
    assert all(any(torch.equal(plane.x, want) for plane in finest) for want in expected)


def test_float64_finds_the_same_codes(model: zoo.Model) -> None:
    pixels = picture("smooth", 40, 36, 3)
    payload, _ = encode_tile(model, pixels)
    other = replace(model, network=backends.use(copy.deepcopy(model.network), backends.FLOAT64))
    assert encode_tile(other, pixels)[0] == payload
    assert np.array_equal(decode_tile(other, payload, *pixels.shape), pixels)
