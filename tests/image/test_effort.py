"""The rules of efforts, and that whoever takes a default model follows them."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bbans
from bbans import zoo
from bbans.errors import ModelMissing
from bbans.image import codec, effort, fitting
from bbans.image.container import Header

EFFORTS = range(effort.LEAST, effort.MOST + 1)


@pytest.fixture
def places(tiny_models: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Other models for photo and photo-fast, where BBANS_MODELS points."""
    folders = {"photo": tiny_models[2], "photo-fast": tiny_models[0]}
    for name, folder in folders.items():
        shutil.copytree(folder, tmp_path / "models" / name)
    monkeypatch.setenv("BBANS_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(bbans, "_models", {})
    monkeypatch.chdir(tmp_path)
    return {name: tmp_path / "models" / name for name in folders}


@pytest.fixture
def photograph() -> Image.Image:
    """What only a model is given a chance with."""
    random, (y, x, c) = np.random.default_rng(0), np.ogrid[:48, :40, :3]
    waves = 128 + 70 * np.sin(x / 9 + c) + 50 * np.cos(y / 7) + random.normal(0, 4, (48, 40, 3))
    return Image.fromarray(waves.clip(0, 255).astype(np.uint8))


@pytest.fixture
def by_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other coder, which a model of random weights would lose against."""
    from bbans.image import libraries

    monkeypatch.setattr(libraries, "looks_synthetic", lambda sheet: False)
    monkeypatch.setattr(libraries, "quick_look", lambda sheet: (False, float("inf")))
    monkeypatch.setattr(libraries, "raw_size", lambda sheet, mode: 1 << 60)


def model_of(file: bytes) -> bytes:
    return Header.read(io.BytesIO(file)).model_id


def id_in(folder: Path) -> bytes:
    return zoo.id_of((folder / zoo.WEIGHTS).read_bytes())


def test_efforts() -> None:
    assert [effort.default_model(level) for level in EFFORTS] == ["photo-fast"] * 3 + ["photo"] * 6
    assert [level for level in EFFORTS if effort.fits(level)] == [3, 5, 6, 7, 8, 9]
    assert [effort.tuning_stages(level) for level in EFFORTS] == [0] * 5 + [1, 2, 3, 4]
    assert effort.default_model(effort.DEFAULT) == zoo.DEFAULT


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_the_encoder_fits_where_it_should(
    level: int, tiny_models: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[fitting.Search | None] = []
    made = codec.encode_tiles
    monkeypatch.setattr(codec, "encode_tiles", lambda *a, search, **how: asked.append(search) or made(*a, **how))
    codec.encode_tile(zoo.load(tiny_models[0], device="cpu"), np.zeros((4, 4, 3), np.uint8), effort=level)
    wanted = {3: fitting.QUICK, 5: fitting.USUAL}
    assert asked == [wanted.get(level)]


@pytest.mark.usefixtures("by_models")
def test_python_follows(places: dict[str, Path], photograph: Image.Image, tmp_path: Path) -> None:
    """One after the other in one process, where models that were loaded are kept."""
    array = np.asarray(photograph)
    for level in (3, 4, 5, 1):
        photograph.save("photo.bbans", effort=level)
        files = (
            Path("photo.bbans").read_bytes(),
            bbans.compress(photograph, effort=level),
            bbans.bbans_encode(array, level),
        )
        assert {model_of(file) for file in files} == {id_in(places[effort.default_model(level)])}
        assert np.array_equal(bbans.decompress(files[0]), array)
    named = bbans.compress(photograph, model="photo", effort=1)
    assert model_of(named) == id_in(places["photo"])


@pytest.mark.usefixtures("by_models")
def test_a_path_is_not_the_name_that_it_looks_like(
    places: dict[str, Path], photograph: Image.Image, tiny_models: dict[int, Path]
) -> None:
    shutil.copytree(tiny_models[3], "photo")
    for model, folder in ((Path("photo"), Path("photo")), ("photo", places["photo"]), (None, places["photo"])):
        assert model_of(bbans.compress(photograph, model=model)) == id_in(folder)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_without_photo_fast(
    level: int, places: dict[str, Path], photograph: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder here of its name is no default: of its files, nobody would know that they need it."""
    shutil.move(places["photo-fast"], "photo-fast")
    monkeypatch.setattr(zoo, "_PLACES", ())
    with pytest.raises(
        ModelMissing, match=r"no model 'photo-fast': the default is not one of the models here \(photo\)"
    ):
        bbans.compress(photograph, effort=level)
