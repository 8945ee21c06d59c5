"""Files written by earlier versions decode to the same pixels, and today's encoder writes the same bytes."""

from __future__ import annotations

import numpy as np
import pytest

from bbans import zoo
from bbans.image.picture import Picture, compress_picture, decompress_picture

from .golden.make import MODEL, PICTURES, VERSION, picture


@pytest.fixture(scope="module")
def model() -> zoo.Model:
    return zoo.load(MODEL, device="cpu")


@pytest.mark.parametrize(("name", "height", "width", "channels"), PICTURES)
def test_golden_file(model: zoo.Model, name: str, height: int, width: int, channels: int) -> None:
    golden = (VERSION / f"{name}.bbans").read_bytes()
    pixels = picture(height, width, channels)
    decoded = decompress_picture(golden, lambda _: model)
    assert np.array_equal(decoded.pixels, pixels)
    assert compress_picture(Picture(pixels, decoded.mode), model)[0] == golden


def test_the_golden_model_is_found_by_its_id(model: zoo.Model) -> None:
    assert zoo.load_by_id(model.id, search=VERSION).id == model.id
