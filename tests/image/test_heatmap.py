from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bbans import zoo
from bbans.errors import BadImage
from bbans.image import container
from bbans.image.codec import decode_tile, encode_tile
from bbans.image.heatmap import bits_of, draw
from bbans.image.picture import Picture, compress_picture

from .test_codec import picture


@pytest.fixture(scope="module")
def model(tiny_models: dict[int, Path]) -> zoo.Model:
    return zoo.load(tiny_models[0], device="cpu")  # without latents: all bits are of pixels


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(8, 8), (64, 32)])
def test_bits_add_up(model: zoo.Model, shape: tuple[int, int], channels: int) -> None:
    """Of sizes that all levels divide; the last 2 x 2 pixels are coded as they are, and have no bits here."""
    source = Picture(picture("smooth", *shape, channels), "RGB" if channels == 3 else "L")
    _, report = compress_picture(source, model, want_elbo=True, by_model=True)
    bits = bits_of(source, model)
    raw = 8 * channels * 2 * max(1, 2 * min(shape) // max(shape))
    assert bits.shape == shape and bits.min() > 0
    assert bits.sum() == pytest.approx(report.elbo - raw, rel=1e-6)


def test_noise_takes_more_bits_than_what_is_flat(model: zoo.Model) -> None:
    pixels = picture("flat", 64, 64, 3)
    pixels[:, 32:] = picture("noise", 64, 32, 3)
    bits = bits_of(Picture(pixels, "RGB"), model)
    assert bits[:, 40:].mean() > 1.5 * bits[:, :24].mean()


def test_tiles_and_sheets(model: zoo.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "ONE_TILE", 100)
    monkeypatch.setattr(container, "TILE_SIDE", 32)
    pixels = picture("smooth", 40, 36, 3)
    assert bits_of(Picture(pixels, "RGB"), model).min() > 0
    both = np.concatenate([pixels, pixels[:, :, :1]], 2)
    assert (bits_of(Picture(both, "RGBA"), model) > bits_of(Picture(pixels, "RGB"), model)).all()
    with pytest.raises(BadImage, match="takes nothing"):
        bits_of(Picture(pixels[:, :, :1] % 2, "1"), model)


@pytest.mark.parametrize("kind", ["RGB", "1", "L"])
def test_thumbnails(tiny_thumbnails: dict[str, Path], kind: str) -> None:
    model = zoo.load(tiny_thumbnails[kind], device="cpu")
    pixels = picture("smooth", 8, 12, 3 if kind == "RGB" else 1)
    bits = bits_of(Picture(pixels % 2 if kind == "1" else pixels, kind), model)
    assert bits.shape == (8, 12) and bits.min() > 0


def test_latents_of_other_bits_that_were_tried_do_not_count(tiny_thumbnails: dict[str, Path]) -> None:
    model = zoo.load(tiny_thumbnails["L"], device="cpu")
    pixels = picture("smooth", 8, 12, 1)
    ledger: dict[str, float] = {}
    decode_tile(model, encode_tile(model, pixels)[0], 8, 12, 1, ledger)
    assert bits_of(Picture(pixels, "L"), model).sum() == pytest.approx(ledger["likelihood"])


def test_drawing() -> None:
    pytest.importorskip("matplotlib")
    file = io.BytesIO()
    draw(np.arange(60.0).reshape(6, 10), file, "png", "a title")
    assert Image.open(file).size[0] > 1000


def test_the_command(tiny_models: dict[int, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bbans.cli.main import main

    pytest.importorskip("matplotlib")
    Image.fromarray(picture("smooth", 20, 30, 3)).save(tmp_path / "a.png")
    command = ["heatmap", str(tmp_path / "a.png"), "-m", str(tiny_models[2]), "-o"]
    assert main([*command, str(tmp_path / "map.png")]) == 0
    assert "bits per pixel" in capsys.readouterr().out and (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert main([*command, str(tmp_path / "map.png")]) == 1 and "exists already" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "map.txt")]) == 1 and "is a .png" in capsys.readouterr().err
