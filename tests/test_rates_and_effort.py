"""The benchmarks of rates, of efforts and of latents, on small pictures and a small model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from bbans.image import libraries, tuning


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    y, x, c = np.ogrid[:40, :36, :3]
    for i in range(2):
        waves = 128 + 60 * np.sin(x / (9 + i) + c) + 50 * np.cos(y / 7)
        Image.fromarray(waves.astype(np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    """The package of the benchmarks."""
    import bench.effort
    import bench.latents
    import bench.rates

    monkeypatch.setattr(tuning, "STAGES", (5, 5))
    # such small and smooth pictures are better coded by WebP
    monkeypatch.setattr(libraries, "looks_synthetic", lambda sheet: False)
    monkeypatch.setattr(libraries, "quick_look", lambda sheet: (False, float("inf")))
    return bench


def run(command, pictures: Path, model: Path, *options: str) -> dict:
    out = pictures.parent / "out"
    result = CliRunner().invoke(command, [str(pictures), "-m", str(model), "-o", str(out), *options])
    assert result.exit_code == 0, result.output
    return json.loads(next(out.glob("*.json")).read_text())


@pytest.mark.parametrize("grey", [False, True])
def test_rates_are_those_of_files(bench, pictures: Path, tiny_models: dict[int, Path], grey: bool) -> None:
    record = run(bench.rates.main, pictures, tiny_models[2], "--no-jxl", *(["--grey"] if grey else []))
    dims = 40 * 36 * (1 if grey else 3)
    assert [image["dims"] for image in record["images"]] == [dims] * 2 and record["sum"]["dims"] == 2 * dims
    for word, bits in record["sum"]["bits"].items():
        assert bits == pytest.approx(sum(image["bits"][word] for image in record["images"]))
    bits = record["sum"]["bits"]
    assert bits["total"] % 8 == 0 and bits["elbo"] < bits["net"] + 64 < bits["total"] + 64
    assert bits["PNG"] % 8 == 0 and bits["WebP"] < bits["PNG"]


def test_rates_leave_out_what_is_no_picture(bench, pictures: Path, tiny_models: dict[int, Path]) -> None:
    (pictures / "2.png").write_bytes(b"no picture")
    record = run(bench.rates.main, pictures, tiny_models[2], "--no-jxl")
    assert len(record["images"]) == 2 and len(record["left_out"]) == 1 and "2.png" in record["left_out"][0]


def test_more_effort_makes_no_file_larger(bench, pictures: Path, tiny_models: dict[int, Path]) -> None:
    record = run(bench.effort.main, pictures, tiny_models[2], "--efforts", "7,5")
    for trials in (*record["images"].values(), record["sum"]):
        assert [*trials] == ["5", "7"] and trials["7"]["bytes"] < trials["5"]["bytes"]
        assert all(trial["compress"] > 0 and trial["decompress"] > 0 for trial in trials.values())
    assert record["grown"] == []


def test_what_grows(bench) -> None:
    """Below 4 there is another default model, or with the same one another search: 3 fits, 4 does not."""

    def grow(**sizes: int) -> bool:
        return bench.effort._grow({int(level[1:]): bench.effort.Trial(size, 1, 1) for level, size in sizes.items()})

    assert not grow(e1=90, e3=80, e4=85, e5=70, e9=70)
    assert grow(e1=80, e3=81, e4=70) and grow(e3=90, e4=70, e5=71)


@pytest.mark.parametrize("efforts", ["5,10", "0", "five", ""])
def test_what_is_no_effort(bench, pictures: Path, efforts: str) -> None:
    result = CliRunner().invoke(bench.effort.main, [str(pictures), "--efforts", efforts])
    assert result.exit_code == 2 and "Traceback" not in result.output


def test_pictures_are_coded_with_latents_and_without(bench, pictures: Path, tiny_models: dict[int, Path]) -> None:
    none, some = (run(bench.latents.main, pictures, tiny_models[latents])["sum"] for latents in (0, 2))
    assert none["with"] == none["without"] and some["with"] != some["without"]
