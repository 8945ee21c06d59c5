"""Runs the command in this process, with the stand-ins for models and codec."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bbans.cli.main import main


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(
    fake_codec: types.ModuleType,
    fake_zoo: types.ModuleType,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    """run("info", "x.bbans") -> Result, in the folder `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        code = main(arguments)
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def photo(tmp_path: Path, random_pixels: Callable[..., np.ndarray]) -> Path:
    """photo.png, 7 x 5 RGB."""
    path = tmp_path / "photo.png"
    Image.fromarray(random_pixels(5, 7, 3)).save(path)
    return path
