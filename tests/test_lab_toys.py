"""The laboratory's distributions are what they say, and what needs no training holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.lab import channel, toys
from bench.lab.models import Lab
from bench.lab.toys import TOYS, Toy


@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.name)
def test_a_toy_is_of_its_density_and_entropy(toy: Toy) -> None:
    random, count = np.random.default_rng(0), 100_000
    points = toy.draw(count, random)
    assert points.shape == (count, 2) and (points >= 0).all() and (points < 1).all()
    assert -toy.log2_density(points).mean() == pytest.approx(toy.entropy, abs=0.02)
    density = np.exp2(toy.log2_density(toys.lattice(512)))
    assert density.mean() == pytest.approx(1, abs=0.002)
    expected = density.reshape(16, 32, 16, 32).mean((1, 3)) * count / 256  # [second coordinate, first]
    found = np.histogram2d(points[:, 1], points[:, 0], bins=16, range=[[0, 1], [0, 1]])[0]
    assert np.abs(found - expected).max() < 6 * np.sqrt(expected.max())


def test_entropies_are_the_texts() -> None:
    assert [round(toy.entropy, 2) for toy in TOYS] == [-1.92, -1.0, -2.34]


def test_points_on_the_grid(toy: Toy = TOYS[1]) -> None:
    pixels = toy.pixels(1000, np.random.default_rng(0))
    assert pixels.shape == (1000, 1, 2, 1) and pixels.dtype == np.int32
    assert pixels.min() >= 0 and 4000 < pixels.max() < 4096


def test_the_channel_holds(tmp_path: Path) -> None:
    page = channel.run(Lab(tmp_path, tmp_path, quick=True))
    assert page.holds, [claim for claim in page.claims if not claim.holds]
