"""The benchmark of the yardsticks, on noise and with models of random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

MODES = {"mnist-binary": "1", "mnist": "L", "cifar10": "RGB"}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """bench.yardsticks and bench.sets, whose data folder is `tmp_path`."""
    monkeypatch.delenv("BBANS_CIFAR10", raising=False)
    from bench import common, sets, yardsticks

    monkeypatch.setattr(common, "DATA", tmp_path)
    threads = torch.get_num_threads()
    yield yardsticks, sets
    torch.set_num_threads(threads)


@pytest.fixture
def models(tiny_thumbnails: dict[str, Path], tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    for name, mode in MODES.items():
        (folder / name).symlink_to(tiny_thumbnails[mode], target_is_directory=True)
    return folder


def save(path: Path, *shape: int) -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    path.parent.mkdir(exist_ok=True)
    np.savez(path, images=images, labels=np.zeros(len(images)))
    return images


def test_every_set_is_measured(bench, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yardsticks, _ = bench
    monkeypatch.setattr(yardsticks, "GROUP", 3)
    monkeypatch.setattr(yardsticks, "plot", lambda found, path: False)
    save(tmp_path / "mnist" / "test.npz", 5, 8, 12)
    save(tmp_path / "cifar10" / "test.npz", 5, 8, 12, 3)
    arguments = ["--models", str(models), "--limit", "4", "-j", "1", "--runs", "1", "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(yardsticks.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "yardsticks.json").read_text())
    assert list(record["sets"]) == list(MODES)
    for name, found in record["sets"].items():
        assert [each["images"] for each in found["archives"]] == [1, 3, 4]
        assert found["dims"] == 4 * 8 * 12 * (3 if name == "cifar10" else 1)
        rates = found["per_dim"]
        assert rates["total"] == pytest.approx(rates["net"] + rates["initial"] + rates["container"])
        assert rates["net"] == pytest.approx(rates["elbo"], rel=0.01)
        assert found["singles"]["files"] > found["singles"]["archived"] > found["singles"]["chained"]
        assert {other["coder"] for other in found["others"]} >= {"PNG", "WebP", "zlib, level 9"}
        assert [each["jobs"] for each in found["speeds"]] == [1]
        assert f"## {name}" in result.output


def test_without_data_nothing_is_measured(bench, tmp_path: Path) -> None:
    yardsticks, _ = bench
    result = CliRunner().invoke(yardsticks.main, ["-o", str(tmp_path / "out")], catch_exceptions=False)
    assert result.exit_code == 0 and not (tmp_path / "out").exists()
    for name in MODES:
        assert f"{name} is skipped: " in result.output


def test_without_the_model_it_fails(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yardsticks, _ = bench
    monkeypatch.setattr("bbans.zoo._PLACES", ())
    save(tmp_path / "mnist" / "test.npz", 2, 8, 12)
    result = CliRunner().invoke(yardsticks.main, ["mnist", "-o", str(tmp_path / "out")])
    assert result.exit_code == 1 and not (tmp_path / "out").exists()


def test_other_pixels_are_no_figure(bench, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yardsticks, sets = bench
    save(tmp_path / "mnist" / "test.npz", 3, 8, 12)
    images, model = sets.SETS["mnist"](), yardsticks.load("mnist", models)
    assert yardsticks.coded(images, model, 1).images == 3
    monkeypatch.setattr(yardsticks.np, "load", lambda path: np.zeros((3, 8, 12), np.uint8))
    with pytest.raises(yardsticks.BbansError, match="other pixels"):
        yardsticks.coded(images, model, 1)


def test_the_binary_digits_are_the_same_for_all(bench, tmp_path: Path) -> None:
    from bbans.train.stacks import binarise

    _, sets = bench
    images = save(tmp_path / "mnist" / "test.npz", 3, 28, 28)
    drawn = sets.SETS["mnist-binary"]().array
    assert drawn.dtype == bool and sets.BINARY_SEED == 0
    np.testing.assert_array_equal(drawn, binarise(images, np.random.default_rng(0)))


def test_cifar10_is_put_together_from_its_strips(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, sets = bench
    with pytest.raises(sets.Absent, match="BBANS_CIFAR10"):
        sets.SETS["cifar10"]()
    script = "import sys, numpy as np; np.savez(sys.argv[1] + '/test.npz', images=np.ones((2, 32, 32, 3), np.uint8))"
    (tmp_path / "decode_cifar10.py").write_text(script)
    assert sets.SETS["cifar10"]().pixels.shape == (2, 32, 32, 3)
    kept = tmp_path / "kept"
    kept.mkdir()
    monkeypatch.setenv("BBANS_CIFAR10", str(kept))
    sets.SETS["cifar10"]()
    (tmp_path / "decode_cifar10.py").unlink()
    assert sets.SETS["cifar10"]().array.shape == (2, 32, 32, 3)


@pytest.mark.parametrize(("images", "expected"), [(1, [1]), (10, [1, 3, 10]), (200, [1, 3, 10, 30, 100, 200])])
def test_counts(bench, images: int, expected: list[int]) -> None:
    assert bench[0].counts(images) == expected


def test_a_plot_is_a_png(bench, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    yardsticks, _ = bench
    archives = [yardsticks.Coded(n, 100 * n, 40.0 * n, 32, 48 * n + 80, 1, 1) for n in (1, 10)]
    alone = yardsticks.Singles(1, 100, 16, 16, 5.0)
    bits = dict.fromkeys(yardsticks.WORDS, 400.0)
    found = yardsticks.Results("mnist", "00", 10, 1000, bits, archives, alone, [], [], 10, {})
    assert yardsticks.plot(found, tmp_path / "new" / "plot.png")
    assert (tmp_path / "new" / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_groups_are_measured_on_training_pictures(
    bench, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench import groups

    monkeypatch.setattr(groups, "SIZES", (2, 3))
    monkeypatch.setattr(groups, "COUNT", 5)
    monkeypatch.setenv("BBANS_MODELS", str(models))
    save(tmp_path / "mnist" / "train.npz", 8, 8, 12)
    arguments = ["mnist", "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(groups.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    small, large = json.loads((tmp_path / "out" / "groups.json").read_text())["mnist"]
    assert (small["group"], large["group"]) == (2, 3) and small["total"] > large["total"] > 0
    assert CliRunner().invoke(groups.main, ["cifar10"], catch_exceptions=False).output.startswith("cifar10 is skipped")
