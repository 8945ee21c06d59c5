from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bbans import zoo
from bbans.errors import BadFile
from bbans.image import container, libraries
from bbans.image.accounts import account
from bbans.image.picture import Picture, compress_picture


def waves(h: int, w: int, c: int) -> np.ndarray:
    y, x, channel = np.ogrid[:h, :w, :c]
    noise = np.random.default_rng(0).normal(0, 2, (h, w, c))
    return (128 + 60 * np.sin(x / 9 + channel) + 50 * np.cos(y / 7) + noise).astype(np.uint8)


@pytest.mark.parametrize(("latents", "effort", "side"), [(2, 5, 0), (3, 5, 20), (0, 5, 0), (2, 6, 0)])
def test_a_decoder_counts_what_the_encoder_did(
    latents: int, effort: int, side: int, tiny_models: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "tile_side", lambda *_: side)
    model = zoo.load(tiny_models[latents], device="cpu")
    picture = Picture(waves(33, 38, 3), "RGB")
    data, report = compress_picture(picture, model, want_elbo=True, effort=effort, by_model=True)
    parts = account(data, lambda _: model)
    assert sum(parts.values()) == pytest.approx(8 * len(data))
    told = [parts[name] for name in ("likelihood", "prior", "bits back", "codes")]
    assert sum(told) == pytest.approx(report.elbo)
    assert parts["initial"] == report.initial and parts["container"] < report.container
    assert bool(latents) == (parts["prior"] > 0 > parts["bits back"]) or not latents
    assert parts["coder"] == pytest.approx(report.total - report.elbo - report.initial - parts["container"])


@pytest.mark.parametrize("mode", ["1", "RGB"])
def test_of_thumbnails(mode: str, tiny_thumbnails: dict[str, Path]) -> None:
    model = zoo.load(tiny_thumbnails[mode], device="cpu")
    pixels = waves(8, 12, 3 if mode == "RGB" else 1)
    picture = Picture(pixels if mode == "RGB" else pixels >> 7, mode)
    data, report = compress_picture(picture, model, want_elbo=True, by_model=True)
    parts = account(data, lambda _: model)
    assert sum(parts.values()) == pytest.approx(8 * len(data))
    assert parts["initial"] == report.initial
    assert sum(parts[name] for name in ("likelihood", "prior", "bits back")) == pytest.approx(report.elbo)


def test_damage_is_an_error(tiny_models: dict[int, Path]) -> None:
    model = zoo.load(tiny_models[0], device="cpu")
    data, _ = compress_picture(Picture(waves(20, 20, 3), "RGB"), model, by_model=True)
    with pytest.raises(BadFile, match="checksum of tile 1 of 1"):
        account(data[:-1] + bytes([data[-1] ^ 1]), lambda _: model)
    payload = b"few bytes"
    piece = container.Piece(len(payload), container.checksum(payload), 0)
    header = container.Header("L", 4096, 1025, 0, (piece,), model.id)
    with pytest.raises(BadFile, match="codes no such pictures"):
        account(container.join(header, [payload]), lambda _: model)


def test_of_libraries(tiny_models: dict[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "SMALL", 0)
    model = zoo.load(tiny_models[0], device="cpu")
    pixels = np.concatenate([waves(40, 40, 3), np.full((40, 40, 1), 9, np.uint8)], 2)
    pixels[..., :3] = np.random.default_rng(1).integers(0, 256, (40, 40, 3))
    data, _ = compress_picture(Picture(pixels, "RGBA"), model)
    parts = account(data, lambda _: model)
    assert parts["raw"] == 8 * 4800 and parts["WebP"] > 0 and not parts["likelihood"]
    assert sum(parts.values()) == 8 * len(data)
