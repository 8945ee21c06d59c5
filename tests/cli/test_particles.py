"""`--particles` with real models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bbans.cli.main import main

SIZE = (8, 12)


@pytest.fixture
def model(tiny_thumbnails: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder of one for grey pictures; the current folder is `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bbans.workers.cores", lambda: 1)
    return str(tiny_thumbnails["L"])


@pytest.mark.parametrize("way", [(), ("--coupled",), ("--independent",)])
def test_pictures(model: str, way: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(0).integers(100, 140, SIZE, np.uint8)
    Image.fromarray(x).save("x.png")
    assert main(["compress", "x.png", "-m", model, "--particles", "3", *way, "--json", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["verified"]
    assert main(["decompress", "x.png.bbans", "-m", model, "-o", "y.png", "--device", "cpu"]) == 0
    np.testing.assert_array_equal(np.asarray(Image.open("y.png")), x)


@pytest.mark.parametrize("way", ["--coupled", "--independent"])
def test_archives(model: str, way: str) -> None:
    x = np.random.default_rng(0).integers(100, 140, (3, *SIZE), np.uint8)
    np.save("x.npy", x)
    assert main(["archive", "create", "x.bbansa", "x.npy", "-m", model, "--particles", "3", way]) == 0
    assert main(["archive", "extract", "x.bbansa", "-m", model, "-o", "y.npy"]) == 0
    np.testing.assert_array_equal(np.load("y.npy"), x)


def test_photo_takes_none(model: str, tiny_models: dict[int, Path], capsys: pytest.CaptureFixture[str]) -> None:
    np.save("x.npy", np.zeros((3, *SIZE), np.uint8))
    Image.fromarray(np.zeros(SIZE, np.uint8)).save("x.png")
    for words in (["compress", "x.png"], ["archive", "create", "x.bbansa", "x.npy"]):
        assert main([*words, "-m", str(tiny_models[2]), "--particles", "3"]) == 1
        out, err = capsys.readouterr()
        assert not out and err.count("\n") == 1 and "takes no particles: those with latents for pictures of one" in err
    assert not Path("x.bbansa").exists() and not Path("x.png.bbans").exists()
