"""The benchmark of particles, on noise and a model of random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from bench import particles


def test_every_number_of_particles_is_measured(tiny_thumbnails: dict[str, Path], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 256, (5, 8, 12), np.uint8))
    arguments = [str(tmp_path / "x.npy"), "-m", str(tiny_thumbnails["1"]), "--images", "3", "-o", str(tmp_path)]
    threads = torch.get_num_threads()
    result = CliRunner().invoke(particles.main, [*arguments, "--particles", "1,3"], catch_exceptions=False)
    torch.set_num_threads(threads)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "particles.json").read_text())
    assert (record["images"], record["dims"]) == (3, 3 * 96)
    assert [(row["particles"], row["coupled"]) for row in record["rows"]] == [(1, False), (3, False), (3, True)]
    for row in record["rows"]:
        assert row["net"] == pytest.approx(row["elbo"], abs=0.05) and row["net"] + row["initial"] < row["total"]
    assert "| 3 coupled" in (tmp_path / "particles.md").read_text()


@pytest.mark.parametrize("numbers", ["0", "5000", "1,x"])
def test_numbers(numbers: str) -> None:
    assert CliRunner().invoke(particles.main, ["--particles", numbers]).exit_code == 2
