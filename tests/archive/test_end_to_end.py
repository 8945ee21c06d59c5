"""Archives with real networks and processes: small models of random weights."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from bbans import archive
from bbans.archive import plan
from bbans.archive.format import CHAIN, FILE
from bbans.errors import ModelMissing

from .helpers import load, save


def smooth(*shape: int) -> np.ndarray:
    """Something like pictures [n, h, w, c]."""
    n, y, x, c = np.ogrid[tuple(slice(0, size) for size in shape)]
    return (128 + 60 * np.sin(x / 7 + c + n) + 50 * np.cos(y / 9 - n)).astype(np.uint8)


@pytest.fixture
def models(tiny_models: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small `photo`, which is found instead of the shipped one; the current folder is `tmp_path`."""
    shutil.copytree(tiny_models[2], tmp_path / "models" / "photo")
    monkeypatch.setenv("BBANS_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "models"


def test_processes_make_no_difference(
    models: Path, tiny_thumbnails: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "ONE_TILE", 400)
    rgb, bits, large = smooth(3, 12, 9, 3), smooth(4, 8, 12, 1)[..., 0] > 128, smooth(1, 30, 20, 3)[0]
    np.savez_compressed("rgb.npz", images=rgb)
    save("large.png", large)
    inputs = ["rgb.npz", "large.png", bits]
    bilevel = Path(os.path.relpath(tiny_thumbnails["1"]))
    for jobs in (1, 2):
        report = archive.create(f"{jobs}.bbansa", inputs, model=bilevel, group=2, jobs=jobs)
        assert (report.images, report.groups, report.models) == (8, 5, ("photo", "1"))
        assert report.total == 8 * Path(f"{jobs}.bbansa").stat().st_size
    assert Path("1.bbansa").read_bytes() == Path("2.bbansa").read_bytes()

    opened = archive.read("1.bbansa")
    assert [(entry.kind, entry.mode) for entry in opened.entries] == [
        *[(CHAIN, "RGB")] * 3,
        (FILE, "RGB"),
        *[(CHAIN, "1")] * 4,
    ]
    with pytest.raises(ModelMissing, match=r"1.bbansa: group 3: .*-m"):
        archive.extract(opened, Path("out"))
    assert not Path("out").exists()
    outcome = archive.extract(opened, Path("out"), jobs=2, search=bilevel)
    assert (outcome.images, outcome.losses) == (8, ())
    for i, picture in enumerate(rgb):
        np.testing.assert_array_equal(load(f"out/rgb/{i}.png"), picture)
    np.testing.assert_array_equal(load("out/large.png"), large)
    archive.extract_array(opened, Path("bits.npy"), ["2"], search=bilevel)
    np.testing.assert_array_equal(np.load("bits.npy"), bits)
