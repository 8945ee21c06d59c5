"""The coders that the benchmarks compare with, and the table of speeds."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from bbans.image.picture import Picture

CJXL = pytest.param("cjxl", marks=pytest.mark.skipif(not shutil.which("cjxl"), reason="cjxl is not installed"))


@pytest.fixture
def peers():
    import bench.peers

    return bench.peers


@pytest.fixture
def speed():
    import bench.speed

    return bench.speed


def waves(height: int, width: int, channels: int) -> np.ndarray:
    y, x, c = np.ogrid[:height, :width, :channels]
    return (128 + 70 * np.sin(x / 9 + c) + 50 * np.cos(y / 7)).astype(np.uint8)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("release", [CJXL, "libjxl"])
def test_both_releases_of_jpeg_xl_give_pixels_back(peers, release: str, mode: str) -> None:
    if release == "libjxl":
        pytest.importorskip("imagecodecs")
    picture = Picture(waves(37, 300, len(mode)), mode)
    peer = getattr(peers, release)(7)
    data, seconds = peer.encode(picture)
    pixels, more = peer.decode(data)
    assert peers.same_pixels(pixels, picture) and seconds > 0 and more > 0
    assert data[:2] == b"\xff\x0a", "a codestream without a container"
    assert peer.name.startswith(f"{release} 0.") and peer.name.endswith(" e7")


def test_each_release_decodes_the_files_of_the_other(peers) -> None:
    pytest.importorskip("imagecodecs")
    if not shutil.which("cjxl"):
        pytest.skip("cjxl is not installed")
    picture, (old, new) = Picture(waves(40, 36, 3), "RGB"), (peers.cjxl(7), peers.libjxl(7))
    for encoder, decoder in ((old, new), (new, old)):
        assert peers.same_pixels(decoder.decode(encoder.encode(picture)[0])[0], picture)


def test_what_is_not_installed_takes_a_line(peers, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(peers.shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    assert peers.jxls(7, 9) == []
    cjxl, libjxl = capsys.readouterr().err.splitlines()
    assert "cjxl and djxl" in cjxl and "imagecodecs" in libjxl


def test_a_release_is_asked_only_for_efforts_it_has(peers, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(peers, "cjxl_version", lambda: "cjxl 0.7.0")
    monkeypatch.setattr(peers, "libjxl_version", lambda: "libjxl 0.11.2")
    monkeypatch.setitem(sys.modules, "imagecodecs", type("", (), {"jpegxl_encode": None, "jpegxl_decode": None}))
    names = [peer.name for peer in peers.jxls(7, 9, 10)]
    assert names == ["cjxl 0.7.0 e7", "cjxl 0.7.0 e9", "libjxl 0.11.2 e7", "libjxl 0.11.2 e9", "libjxl 0.11.2 e10"]
    assert capsys.readouterr().err == "cjxl 0.7.0 has efforts up to 9: nothing of it above\n"


def test_rows_are_models_and_efforts(speed) -> None:
    def rows(models: list[str], *efforts: list[int]) -> list[str]:
        return [str(setting) for setting in speed.settings_of(models, efforts)]

    assert rows([], [3, 5]) == ["photo-fast e3", "photo e5"]
    assert rows(["photo", "x/y"], [5, 4]) == ["photo e5", "photo e4", "x/y e5", "x/y e4"]
    assert rows(["photo", "x/y"], [5, 4], [3]) == ["photo e5", "photo e4", "x/y e3"]
    assert str(speed.Setting("photo", 5, "int8")) == "photo e5 int8"
    for models in ([], ["photo"], ["a", "b", "c"]):
        with pytest.raises(click.BadParameter, match="once"):
            rows(models, [5], [4])


def test_rows_of_all_backends(speed, tiny_models: dict[int, Path]) -> None:
    name = str(tiny_models[8])
    rows = speed.with_backends([speed.Setting(name, 5), speed.Setting(name, 4)], 1)
    assert [(row.effort, row.backend) for row in rows[:2]] == [(5, None), (4, None)]
    assert {(row.effort, row.backend) for row in rows[2:]} <= {(5, "int8"), (5, "float32"), (5, "float64")}
    assert len(rows) == 4


def test_ratios_are_to_the_first_effort_of_each_release(speed) -> None:
    jxls = {"cjxl 0.7.0 e7": (0.5, 10), "cjxl 0.7.0 e9": (0.1, 9), "libjxl 0.11.2 e7": (1, 20)}
    rows = [speed.Speed(name, *both) for name, both in {"photo e5": (0.4, 5), **jxls, "PNG": (1, 50)}.items()]
    head, _, own, *_ = ([cell.strip() for cell in line.split("|")[1:-1]] for line in speed.speed_table(rows, [*jxls]))
    assert dict(zip(head, own, strict=True)) == {
        "MP/s": "photo e5",
        "compress": "0.40",
        "decompress": "5.00",
        "compress / cjxl 0.7.0 e7": "0.80",
        "decompress / cjxl 0.7.0 e7": "10.00",
        "decompress / djxl 0.7.0 e7": "0.50",
        "decompress / libjxl 0.11.2 e7": "0.25",
    }
    *_, last = speed.speed_table(rows)
    assert last.split()[-4:] == ["-", "|", "-", "|"], "nothing to compare with"


def test_speeds_of_several_models(
    speed, peers, tmp_path: Path, tiny_models: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All models take turns in one run; what is said of a model is said of each."""
    monkeypatch.setattr(speed, "load_seconds", lambda model, threads: 1.0)
    monkeypatch.setattr(speed, "peak_bytes", lambda picture, setting, threads: {"compress": 1, "decompress": 1})
    monkeypatch.setattr(peers, "jxls", lambda *efforts: [peers.png()])
    Image.fromarray(waves(40, 36, 3)).save(tmp_path / "a.png")
    one, other = (str(tiny_models[kind]) for kind in (2, 8))
    options = ["-m", one, "-m", other, "--efforts", "5,4", "--efforts", "3", "--runs", "1", "--threads", "1"]
    result = CliRunner().invoke(speed.main, [str(tmp_path / "a.png"), "-o", str(tmp_path), *options])
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "speed.json").read_text())
    ours = [f"{one} e5", f"{one} e4", f"{other} e3"]
    assert [row["coder"] for row in record["speeds"]][:3] == ours == [*record["settings"]]
    assert [*record["models"]] == [one, other] and all(mine["parameters"] > 0 for mine in record["models"].values())
    for model in (one, other):
        assert model in (tmp_path / "speed.md").read_text()


def test_memory_of_a_model_by_its_name(
    speed, tmp_path: Path, tiny_models: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """bbans decompress takes a folder, and would look for one that is called so."""
    shutil.copytree(tiny_models[0], tmp_path / "tiny")
    monkeypatch.setenv("BBANS_MODELS", str(tmp_path))
    peaks = speed.peak_bytes(Picture(waves(40, 36, 3), "RGB"), speed.Setting("tiny", 4), 1)
    assert peaks["compress"] > 0 and peaks["decompress"] > 0


def test_layers_on_bytes_count(speed, tiny_models: dict[int, Path]) -> None:
    (model,) = speed.load([speed.Setting(str(tiny_models[8]), 4)], 1)
    (floats,) = speed.load([speed.Setting(str(tiny_models[8]), 4, "float64")], 1)
    picture = Picture(waves(40, 36, 3), "RGB")
    expected = sum(layer.weight.numel() + layer.bias.numel() for layer in model.network.modules() if _is_layer(layer))
    assert speed.size_of(model, picture)["parameters"] == expected
    coder = speed.own(speed.Setting(str(tiny_models[8]), 4, "float64"), floats)
    assert coder.how.endswith("float64") and len(speed.once(coder, picture)) == 2


def _is_layer(layer: object) -> bool:
    return hasattr(layer, "weight") and hasattr(layer, "bias")
