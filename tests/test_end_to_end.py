"""The whole path with the real default model: command line, files, codec, networks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bbans
from bbans.cli.main import main
from bbans.image import container

WEIGHTS = Path(__file__).parent.parent / "models" / "photo" / "weights.safetensors"

pytestmark = pytest.mark.skipif(not WEIGHTS.exists(), reason="models/photo has no weights")


def smooth(height: int, width: int, channels: int) -> np.ndarray:
    """Something like a picture: waves and a little noise, uint8 [h, w, c]."""
    random = np.random.default_rng(height * width + channels)
    y, x, c = np.ogrid[:height, :width, :channels]
    waves = 128 + 60 * np.sin(x / 17 + c) + 50 * np.cos(y / 23 - x / 60)
    return np.clip(waves + random.normal(0, 2, (height, width, channels)), 0, 255).astype(np.uint8)


def as_image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (1, 17), (3, 2), (5, 5), (16, 16), (31, 65)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size(shape: tuple[int, int], channels: int) -> None:
    image = as_image(smooth(*shape, channels))
    out = bbans.decompress(bbans.compress(image))
    assert out.mode == image.mode and out.size == image.size and out.tobytes() == image.tobytes()


@pytest.mark.parametrize("value", [0, 255])
def test_flat_and_noisy_pictures(value: int) -> None:
    flat = np.full((40, 30, 3), value, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    for pixels in (flat, noise):
        np.testing.assert_array_equal(np.asarray(bbans.decompress(bbans.compress(pixels))), pixels)


def test_tiles_are_independent_of_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "ONE_TILE", 1000)
    monkeypatch.setattr(container, "TILE_SIDE", 48)
    pixels = smooth(70, 100, 3)
    data = bbans.compress(pixels)
    assert len(container.Header.parse(data).pieces) == 6
    np.testing.assert_array_equal(np.asarray(bbans.decompress(data)), pixels)


def test_every_flipped_byte_is_noticed() -> None:
    data = bbans.compress(smooth(4, 4, 1))
    for at in range(len(data)):
        with pytest.raises(bbans.BadFile):
            bbans.decompress(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image = as_image(smooth(96, 128, 3))
    image.save("a.png")
    assert main(["compress", "a.png", "--json", "--threads", "1"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["model"] == "photo" and record["dims"] == 96 * 128 * 3
    assert record["net"] + record["initial"] + record["container"] == pytest.approx(record["total"])
    assert 0 <= record["net"] - record["elbo"] < 0.01 * record["elbo"] + 0.01
    assert record["bytes"] < Path("a.png").stat().st_size
    assert main(["test", "a.png.bbans"]) == main(["info", "a.png.bbans"]) == main(["models"]) == 0
    assert main(["decompress", "a.png.bbans", "-o", "b.png"]) == 0
    assert Image.open("b.png").tobytes() == image.tobytes()
    assert capsys.readouterr().err == ""


def test_info_needs_no_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    (tmp_path / "x.bbans").write_bytes(bbans.compress(smooth(4, 4, 3)))
    code = (
        f"import sys; from bbans.cli.main import main; assert main(['info', {str(tmp_path / 'x.bbans')!r}]) == 0;"
        "assert not {'torch', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
