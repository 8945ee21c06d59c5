from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image


def test_info(run: Callable, photo: Path) -> None:
    run("compress", "photo.png")
    size = Path("photo.png.bbans").stat().st_size
    result = run("info", "photo.png.bbans")
    assert result.code == 0 and "7 x 5 RGB, 1 tile, model fake" in result.out
    assert json.loads(run("info", "--json", "photo.png.bbans").out) == {
        "input": "photo.png.bbans",
        "bytes": size,
        "version": 1,
        "width": 7,
        "height": 5,
        "mode": "RGB",
        "dims": 105,
        "tiles": 1,
        "pieces": {"model": 1},
        "model": "fake",
        "model_id": "000166616b656964",
        "attributes": {},
        "total": 8 * size / 105,
    }


def test_info_names_models_that_are_not_here_by_their_id(run: Callable, photo: Path, fake_zoo: object) -> None:
    run("compress", "photo.png")
    vars(fake_zoo)["available"] = lambda: []
    assert "model 000166616b656964 (not found here)" in run("info", "photo.png.bbans").out
    assert json.loads(run("info", "--json", "photo.png.bbans").out)["model"] is None


def test_info_names_models_in_the_folder_of_an_option(run: Callable, photo: Path, fake_zoo: object) -> None:
    run("compress", "photo.png")
    here = vars(fake_zoo)["available"]()
    vars(fake_zoo)["available"] = lambda extra=None: here if extra == Path("mine") else []
    assert "model fake," in run("info", "-m", "mine", "photo.png.bbans").out
    assert "(not found here)" in run("info", "-m", "other", "photo.png.bbans").out


def test_plot(run: Callable, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bbans.image import accounts

    monkeypatch.setattr(accounts, "account", lambda data, find: {"likelihood": 210.0, "bits back": -105.0, "x": 0.0})
    run("compress", "photo.png")
    assert run("info", "--plot", "photo.png.bbans").out.splitlines()[1:] == [
        "  likelihood    2.0000  " + "█" * 50,
        "  bits back    -1.0000  " + "░" * 25,
        "  x             0.0000",
    ]
    record = json.loads(run("info", "--plot", "--json", "photo.png.bbans").out)
    assert record["parts"] == {"likelihood": 2.0, "bits back": -1.0, "x": 0.0}


def test_info_of_a_bad_file(run: Callable, photo: Path) -> None:
    result = run("info", "photo.png")
    assert (result.code, result.out, result.err) == (1, "", "bbans: photo.png: is not a bbans file\n")


def test_models(run: Callable) -> None:
    result = run("models")
    assert result.code == 0 and "fake" in result.out and "/models/fake" in result.out


def test_info_names_metadata(run: Callable) -> None:
    Image.new("L", (7, 5)).save("x.png", dpi=(72, 72), icc_profile=b"a profile")
    run("compress", "x.png")
    assert run("info", "x.png.bbans").out.endswith(" bits per dim, with dpi, icc\n")
