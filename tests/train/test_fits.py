from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bbans import zoo
from bbans.image import fitting
from bbans.image.codec import decode_tile, encode_tile
from bbans.train.fits import LARGEST, find_fits, principal, quantised

from .test_directions import waves


@pytest.fixture(autouse=True)
def small_planes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "FEWEST", 64)


@pytest.fixture(scope="module")
def model(tiny_models: dict[int, Path]) -> zoo.Model:
    return zoo.load(tiny_models[2], device="cpu")


def test_what_pictures_differ_in_is_found() -> None:
    """Of a regression on 6 features that matter differently, whose best weights differ in one direction."""
    random = np.random.default_rng(0)
    root = random.normal(size=(6, 6)) * [3, 1, 1, 0.5, 1, 2]
    information = root @ root.T
    true, pixels = random.normal(size=6), np.full(400, 100)
    true /= np.sqrt(true @ information @ true)
    best = random.normal(0, 0.5, 400)[:, None] * true
    noise = random.normal(size=(400, 6)) @ np.linalg.cholesky(information).T
    directions, deviations = principal(100 * best @ information + 10 * noise, pixels, information, 1, 2)
    found = directions[0]
    assert found @ information @ found == pytest.approx(1)
    assert abs(found @ information @ true) > 0.98
    assert deviations[0] == pytest.approx(0.5, rel=0.1)


def test_pictures_that_do_not_differ_have_no_directions() -> None:
    random = np.random.default_rng(0)
    directions, deviations = principal(0.1 * random.normal(size=(50, 4)), np.full(50, 10), np.eye(4), 3, 2)
    assert directions.shape == (0, 4) and deviations.shape == (0,)


def test_what_is_not_known_is_left_out() -> None:
    """Such as the sum of all logits, or a feature that is always 0."""
    random = np.random.default_rng(0)
    gradients = random.normal(size=(90, 4)) * 30
    gradients[:, 1] = -gradients[:, 0]
    gradients[:, 3] = 0
    information = np.array([[1.0, -1, 0, 0], [-1, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0]])
    directions, _ = principal(gradients, np.full(90, 100), information, 4, 2)
    assert len(directions) == 2
    np.testing.assert_allclose(directions[:, 0], -directions[:, 1], atol=1e-9)
    np.testing.assert_allclose(directions[:, 3], 0, atol=1e-9)


def test_one_odd_picture_is_not_what_pictures_differ_in() -> None:
    random = np.random.default_rng(0)
    gradients = random.normal(size=(60, 3)) * [10, 40, 10]
    gradients[7] = [0, 0, 1e6]
    directions, _ = principal(gradients, np.full(60, 100), np.eye(3), 1, 1)
    assert np.argmax(np.abs(directions[0])) == 1


def test_integers_are_as_fine_as_they_can_be(model: zoo.Model) -> None:
    last = model.network.level(0).head("b").out[1]
    random = np.random.default_rng(0)
    shape = (2, len(last.weight) * (last.weight.shape[1] + 1))
    directions = np.asfortranarray(random.normal(size=shape) * 1e-3)
    tensors = quantised(last, directions, np.array([0.5, 0.25]))
    made = tensors["directions"]
    assert made.dtype == np.int16 and made.flags.c_contiguous and LARGEST / 2 < np.abs(made).max() <= LARGEST
    # a code of 1 in a plane of FEWEST pixels moves parameters by STEP / sqrt(FEWEST) along the direction
    units = 2.0 ** (last.shift.numpy() + np.array(last.digits) + tensors["digits"][0])
    expected = fitting.STEP / 8 * directions.reshape(made.shape) * units[:, None]
    np.testing.assert_allclose(made, expected, atol=0.51)
    assert np.diff(tensors["scales"]).tolist() == [-8]  # half as far is an octave less


def test_last_layers_are_fitted_along_what_was_found(model: zoo.Model) -> None:
    torch.manual_seed(0)
    views = [np.stack([waves(seed, 32, 32) for seed in range(i, i + 4)]) for i in range(0, 48, 4)]
    tensors = find_fits(model.network, views, 4)
    assert len(tensors) == 2 * 3 * 3 * 3
    fitted = replace(model, fits=tensors)
    pixels = waves(99, 48, 40)
    sizes = []
    for effort in (4, 5):
        payload, _ = encode_tile(fitted, pixels, effort=effort)
        np.testing.assert_array_equal(decode_tile(fitted, payload, *pixels.shape), pixels)
        sizes.append(len(payload))
    assert sizes[1] < sizes[0]
