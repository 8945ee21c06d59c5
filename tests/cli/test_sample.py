"""`bbans sample` with real models: what is written where, and what is refused."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bbans import zoo
from bbans.cli.main import main
from bbans.image import sampling
from bbans.train.stacks import load_array

Sample = Callable[..., tuple[int, str, str]]


@pytest.fixture
def models(tiny_thumbnails: dict[str, Path], tiny_models: dict[int, Path]) -> dict[str, Path]:
    return {**tiny_thumbnails, "photo": tiny_models[0]}


@pytest.fixture
def sample(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Sample:
    """sample("L", "-o", "a.png") -> (code, stdout, stderr), in `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def run(kind: str, *arguments: str) -> tuple[int, str, str]:
        code = main(["sample", "-m", str(models[kind]), "--device", "cpu", *arguments])
        return code, *capsys.readouterr()

    return run


def opened(name: str) -> tuple[str, tuple[int, int]]:
    """Mode and size."""
    with Image.open(name) as image:
        return image.mode, image.size


def test_a_contact_sheet(sample: Sample) -> None:
    assert sample("RGB", "-n", "6", "-o", "a.png") == (0, "a.png: 6 samples of RGB, 12 x 8, seed 0\n", "")
    assert opened("a.png") == ("RGB", (2 * 98 + 2, 3 * 66 + 2))
    assert sample("RGB", "-n", "6", "-o", "b.png")[0] == 0
    assert Path("b.png").read_bytes() == Path("a.png").read_bytes()
    assert sample("RGB", "-n", "6", "--seed", "1", "-o", "c.png")[0] == 0
    assert Path("c.png").read_bytes() != Path("a.png").read_bytes()
    assert sample("RGB", "-n", "1", "--mean", "-o", "d.png")[1] == "d.png: 1 mean of RGB, 12 x 8, seed 0\n"


@pytest.mark.parametrize(
    ("kind", "mean", "mode"), [("1", False, "L"), ("1", True, "L"), ("L", False, "L"), ("plain", True, "RGB")]
)
def test_sheets_have_the_mode_of_the_pictures(sample: Sample, kind: str, mean: bool, mode: str) -> None:
    assert sample(kind, "-n", "2", "-o", "a.png", *["--mean"] * mean)[0] == 0
    assert opened("a.png")[0] == mode


def test_any_size(sample: Sample) -> None:
    assert sample("photo", "-n", "1", "--size", "150x100", "-o", "a.png")[0] == 0
    assert opened("a.png") == ("RGB", (154, 104))


@pytest.mark.parametrize(
    ("kind", "mean", "wanted"),
    [("1", False, ("bool", (5, 8, 12))), ("L", True, ("uint8", (5, 8, 12))), ("RGB", False, ("uint8", (5, 8, 12, 3)))],
)
@pytest.mark.parametrize("name", ["a.npy", "a.NPZ"])
def test_arrays_are_what_archives_take(
    sample: Sample, models: dict[str, Path], kind: str, mean: bool, wanted: tuple, name: str
) -> None:
    assert sample(kind, "-n", "5", "-o", name, *["--mean"] * mean)[0] == 0
    array = load_array(Path(name))
    assert (array.dtype.name, array.shape) == wanted
    drawn = sampling.sample(zoo.load(models[kind], device="cpu"), 5, mean=mean)
    np.testing.assert_array_equal(array.reshape(drawn.shape), drawn)
    assert main(["archive", "create", "a.bbansa", name, "-m", str(models[kind]), "-j", "1"]) == 0
    assert main(["archive", "extract", "a.bbansa", "-o", "back.npy", "-m", str(models[kind]), "-j", "1"]) == 0
    np.testing.assert_array_equal(np.load("back.npy"), array)


def test_standard_output(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sample("L", "-n", "3", "-o", "a.png")[0] == 0
    with monkeypatch.context() as patch:
        stream = io.TextIOWrapper(io.BytesIO())
        patch.setattr(sys, "stdout", stream)
        code, _, said = sample("L", "-n", "3", "-o", "-")
    assert (code, said) == (0, "standard output: 3 samples of L, 12 x 8, seed 0\n")
    assert stream.buffer.getvalue() == Path("a.png").read_bytes()  # type: ignore[attr-defined]


def test_a_terminal_gets_no_bytes(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    code, out, said = sample("L", "-o", "-")
    assert code == 1 and out == "" and "is a terminal" in said


def test_nothing_is_overwritten(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.png").write_text("mine")
    with monkeypatch.context() as patch:
        patch.setattr(zoo, "load", lambda *arguments, **options: pytest.fail("no model is needed to refuse"))
        assert sample("L", "-o", "a.png") == (1, "", "bbans: a.png: exists already; -f overwrites it\n")
    assert Path("a.png").read_text() == "mine"
    assert sample("L", "-f", "-o", "a.png")[0] == 0
    assert opened("a.png")[0] == "L"


def test_a_failure_leaves_nothing(sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sampling, "sample", interrupted)
    assert sample("L", "-o", "a.png")[0] == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "arguments", "code", "why"),
    [
        ("L", "-o a.jpg", 1, "a.jpg: samples are written as .png, .npy, .npz"),
        ("L", "-o none/a.png", 1, "there is no directory 'none'"),
        ("L", "-o a.png --size 12x8", 1, "the model L has a size, 12 x 8: none can be chosen"),
        ("photo", "-o a.png --size 9999x9999", 1, "too large"),
        ("photo", "-o a.png --size 12", 2, "a width and a height, such as 128x96; not '12'"),
        ("photo", "-o a.png --size 0x5", 2, "a width and a height"),
        ("L", "-o a.png -n 0", 2, "x>=1"),
        ("L", "-o a.png --seed -1", 2, "seed"),
        ("L", "", 2, "--output"),
    ],
)
def test_what_is_refused(sample: Sample, tmp_path: Path, kind: str, arguments: str, code: int, why: str) -> None:
    got, out, said = sample(kind, *arguments.split())
    assert (got, out) == (code, "") and why in said and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sample", "-m", "unheard-of", "-o", "a.png"]) == 1
    assert "no model 'unheard-of'" in capsys.readouterr().err
