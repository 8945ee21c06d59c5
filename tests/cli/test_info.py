from __future__ import annotations

import json
import shutil
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from bbans.errors import BadBackend


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


def test_models_as_json(run: Callable) -> None:
    record = {"model": "fake", "model_id": "000166616b656964", "bytes": 1000, "path": "/models/fake"}
    assert [json.loads(line) for line in run("models", "--json").out.splitlines()] == [record]
    assert json.loads(run("models", "--json", "-m", "fake").out) == record
    assert run("models", "-m", "other").err == "bbans: no model 'other'\n"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, fake_zoo: object) -> None:
    """A model whose networks are too slow by one backend, and wrong by another."""
    from bbans.exact import backends

    tried = [backends.Tried("int8", "cpu", None, False), backends.Tried("float32", "cpu", 0.0821, True)]
    monkeypatch.setattr(backends, "describe", lambda network: [*tried, backends.Tried("float64", "cpu", 0.5, False)])
    vars(fake_zoo)["load"] = lambda path, **how: types.SimpleNamespace(network=None)


@pytest.mark.usefixtures("measured")
def test_backends(run: Callable) -> None:
    assert run("models", "--backends").out.splitlines() == [
        "fake             int8     cpu    not exact here",
        "fake             float32  cpu        82.10 ms  used",
        "fake             float64  cpu       500.00 ms",
    ]


@pytest.mark.usefixtures("measured")
def test_backends_as_json(run: Callable) -> None:
    records = [json.loads(line) for line in run("models", "--backends", "--json").out.splitlines()]
    model = {"model": "fake", "model_id": "000166616b656964"}
    assert records[0] == {**model, "backend": "int8", "device": "cpu", "milliseconds": None, "used": False}
    assert records[1] == {**model, "backend": "float32", "device": "cpu", "milliseconds": 82.1, "used": True}


@pytest.mark.parametrize(
    ("command", "loads"),
    [("models --backends", "load"), ("test x.bbans x.bbans", "load_by_id"), ("compress a b", "load")],
)
def test_a_backend_that_cannot_be_used_ends_the_command(
    run: Callable, photo: Path, fake_zoo: object, monkeypatch: pytest.MonkeyPatch, command: str, loads: str
) -> None:
    """In one line, however many inputs there are."""
    run("compress", "photo.png", "-o", "x.bbans")
    for name in ("a", "b"):
        shutil.copy(photo, name)

    def refuse(*given: object, **how: object) -> None:
        raise BadBackend("BBANS_BACKEND is 'x', not one of y, z")

    vars(fake_zoo)[loads] = refuse
    result = run(*command.split())
    assert (result.code, result.out, result.err) == (1, "", "bbans: BBANS_BACKEND is 'x', not one of y, z\n")


def test_info_names_metadata(run: Callable) -> None:
    Image.new("L", (7, 5)).save("x.png", dpi=(72, 72), icc_profile=b"a profile")
    run("compress", "x.png")
    assert run("info", "x.png.bbans").out.endswith(" bits per dim, with dpi, icc\n")
