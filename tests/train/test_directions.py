from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bbans import zoo
from bbans.image import tuning
from bbans.image.codec import decode_tile, encode_tile
from bbans.train.directions import CODE_STEPS, LARGEST, UNITS, find_directions, principal, quantised


def waves(seed: int, height: int, width: int) -> np.ndarray:
    """A picture uint8 [height, width, 3]."""
    random = np.random.default_rng(seed)
    y, x, c = np.ogrid[:height, :width, :3]
    smooth = 128 + 60 * np.sin(x / random.uniform(5, 12) + c) + 50 * np.cos(y / 7)
    return (smooth + random.normal(0, 2, (height, width, 3))).astype(np.uint8)


def test_what_pictures_differ_in_is_found() -> None:
    """Gradients of pictures that differ in two directions, under noise that isn't alike everywhere."""
    random = np.random.default_rng(0)
    noise = random.uniform(0.1, 3.0, 40)
    true = np.linalg.qr(random.normal(size=(40, 2)))[0].T * noise  # orthogonal once divided by the noise
    own = random.normal(size=(300, 1, 2)) * [40.0, 20.0] @ true
    gradients = own + random.normal(size=(300, 2, 40)) * noise
    directions, slopes = principal(gradients, 2)
    natural = true / noise**2  # the steepest ways down
    for found, expected in zip(directions, natural, strict=True):
        assert abs(found @ expected) / np.linalg.norm(found) / np.linalg.norm(expected) > 0.98
    np.testing.assert_allclose(slopes, ((own[:, 0] @ directions.T) ** 2).mean(0), rtol=0.2)
    # as long as pictures go along it: a quadratic whose curvature is the information has its minimum there
    np.testing.assert_allclose(np.sqrt(slopes), np.square(noise * directions).sum(1), rtol=0.2)


def test_steps_that_do_nothing_are_left_out() -> None:
    gradients = np.random.default_rng(0).normal(size=(20, 2, 6))
    gradients += gradients.mean(1, keepdims=True)
    gradients[..., 2] = 0
    directions, _ = principal(gradients, 4)
    assert len(directions) and np.isfinite(directions).all() and not directions[:, 2].any()


def test_pictures_that_do_not_differ_have_no_directions(model: zoo.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [len(found) for found in principal(np.zeros((5, 2, 6)), 3)] == [0, 0]
    count = tuning.Space.of(model.network, None).directions.shape[1]
    monkeypatch.setattr("bbans.train.directions._gradient", lambda *_: np.zeros(count))
    directions = find_directions(model.network, [np.zeros((2, 32, 32, 3), np.uint8)] * 3, 3)
    assert directions.shape == (0, count) and tuning.Space.of(model.network, directions).sizes[0][0] == 0


def test_too_far_is_cut() -> None:
    found = quantised(np.array([[1.0, -1e9, 0.0]]))
    assert found.dtype == np.int16 and found.tolist() == [[round(UNITS / CODE_STEPS), -LARGEST, 0]]


@pytest.fixture(scope="module")
def model(tiny_models: dict[int, Path]) -> zoo.Model:
    return zoo.load(tiny_models[2], device="cpu")


def test_tuning_goes_along_directions(model: zoo.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found on pictures of one kind, they suit others of that kind."""
    torch.manual_seed(0)
    views = [np.stack([waves(seed, 32, 32) for seed in range(i, i + 4)]) for i in range(0, 32, 4)]
    directions = find_directions(model.network, views, 3)
    space = tuning.Space.of(model.network, directions)
    assert 1 <= len(directions) <= 3 and directions.dtype == np.int16
    for group, part in zip(
        space.groups, np.split(directions, np.cumsum([g.count for g in space.groups])[:-1], 1), strict=True
    ):
        if group.kind == "gains":
            kernels = [model.network.get_submodule(name).weight.shape[-1] for name in group.layers]
            moved = np.concatenate(
                [np.full(size, kernel == 1) for kernel, size in zip(kernels, group.sizes, strict=True)]
            )
            assert not part[:, ~moved].any()

    guided = replace(model, directions=directions)
    monkeypatch.setattr(tuning, "STAGES", (10,))
    pixels = waves(99, 40, 36)
    payload, _ = encode_tile(guided, pixels, effort=6)
    assert len(payload) < len(encode_tile(guided, pixels)[0])
    np.testing.assert_array_equal(decode_tile(guided, payload, *pixels.shape), pixels)
