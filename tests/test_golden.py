"""Files written by earlier versions decode to the same pixels, and today's encoder writes the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bbans import archive, zoo
from bbans.image.picture import Picture, compress_picture, decompress_picture

from .golden.make import (
    CHAINS,
    DENSE,
    HERE,
    MODEL,
    NEWEST,
    OTHERS,
    PARTICLES,
    PICTURES,
    THUMBNAILS,
    VERSION,
    VERSIONS,
    WITH_PARTICLES,
    archived,
    one,
    other,
    picture,
    stack,
    with_particles,
)


@pytest.fixture(scope="module")
def model() -> zoo.Model:
    return zoo.load(MODEL, device="cpu")


@pytest.mark.parametrize(("name", "height", "width", "channels", "folder"), PICTURES)
def test_golden_file(name: str, height: int, width: int, channels: int, folder: Path) -> None:
    model = zoo.load(folder, device="cpu")
    golden = (NEWEST / f"{name}.bbans").read_bytes()
    pixels = picture(height, width, channels)
    decoded = decompress_picture(golden, lambda _: model)
    assert np.array_equal(decoded.pixels, pixels)
    assert compress_picture(Picture(pixels, decoded.mode), model, by_model=True)[0] == golden


@pytest.mark.parametrize("name", OTHERS)
def test_golden_files_of_other_modes(model: zoo.Model, name: str) -> None:
    decoded, wanted = decompress_picture((NEWEST / f"{name}.bbans").read_bytes(), lambda _: model), other(name)
    assert (decoded.mode, decoded.attributes) == (wanted.mode, wanted.attributes)
    assert np.array_equal(decoded.pixels, wanted.pixels)
    again = decompress_picture(compress_picture(wanted, model)[0], lambda _: model)
    assert np.array_equal(again.pixels, wanted.pixels)


@pytest.mark.parametrize(("mode", "name"), CHAINS)
def test_golden_chains(mode: str, name: str, tmp_path: Path) -> None:
    """A picture alone, and an archive of two chains."""
    model = zoo.load(VERSION / name, device="cpu")
    for version in VERSIONS:
        if version == VERSIONS[-1] or name not in DENSE:  # version 0 of files is older than that family
            golden = (HERE / version / f"{name}.bbans").read_bytes()
            assert np.array_equal(decompress_picture(golden, lambda _: model).pixels, one(mode))
    assert compress_picture(Picture(one(mode), mode), model, by_model=True)[0] == golden

    archived(mode, model, tmp_path / "again.bbansa")
    assert (tmp_path / "again.bbansa").read_bytes() == (VERSION / f"{name}.bbansa").read_bytes()


@pytest.mark.parametrize("how", PARTICLES)
@pytest.mark.parametrize(("mode", "name"), THUMBNAILS.items())
def test_golden_particles(mode: str, name: str, how: str, tmp_path: Path) -> None:
    """A picture alone, and an archive of one chain."""
    model = zoo.load(VERSION / name, device="cpu")
    golden, again = WITH_PARTICLES / f"{name}-{how}.bbans", tmp_path / "again.bbans"
    assert golden.read_bytes()[4] == 2
    assert np.array_equal(decompress_picture(golden.read_bytes(), lambda _: model).pixels, one(mode))
    opened = archive.read(golden.with_suffix(".bbansa"))
    archive.extract_array(opened, tmp_path / "pictures.npy", search=VERSION)
    assert np.array_equal(np.load(tmp_path / "pictures.npy"), stack(mode)[: opened.images])

    with_particles(mode, model, how, again)
    for suffix in (".bbans", ".bbansa"):
        assert again.with_suffix(suffix).read_bytes() == golden.with_suffix(suffix).read_bytes()


@pytest.mark.parametrize("kind", ["", "-few-lanes"])  # the latter by an encoder that chose fewer lanes for a chain
@pytest.mark.parametrize(("mode", "name"), THUMBNAILS.items())
def test_golden_archives_decode(mode: str, name: str, kind: str, tmp_path: Path) -> None:
    opened = archive.read(VERSION / f"{name}{kind}.bbansa")
    assert len(opened.groups) == 2
    archive.extract_array(opened, tmp_path / "pictures.npy", search=VERSION)
    assert np.array_equal(np.load(tmp_path / "pictures.npy"), stack(mode))


def test_the_golden_model_is_found_by_its_id(model: zoo.Model) -> None:
    assert zoo.load_by_id(model.id, search=VERSION).id == model.id
