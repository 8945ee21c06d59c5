from __future__ import annotations

import json
import pickle
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bbans.cli.shared import ModelLoader


def test_compress_then_decompress(run: Callable, photo: Path, tmp_path: Path) -> None:
    before = photo.read_bytes()
    result = run("compress", "photo.png")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("photo.png -> photo.png.bbans: ") and "bits per dim" in result.out
    assert photo.read_bytes() == before
    photo.rename("original.png")
    assert run("decompress", "photo.png.bbans").code == 0
    assert Image.open("photo.png").tobytes() == Image.open("original.png").tobytes()


def test_json_names_everything(run: Callable, photo: Path) -> None:
    record = json.loads(run("compress", "photo.png", "--json").out)
    assert list(record) == [
        *("input", "output", "width", "height", "mode", "dims", "model", "model_id", "bytes"),
        *("elbo", "net", "initial", "container", "total", "verified", "seconds"),
    ]
    assert record["bytes"] == Path("photo.png.bbans").stat().st_size
    assert record["total"] == 8 * record["bytes"] / record["dims"]
    assert record["net"] + record["initial"] + record["container"] == pytest.approx(record["total"])
    assert (record["width"], record["height"], record["mode"], record["dims"]) == (7, 5, "RGB", 105)
    assert (record["input"], record["output"], record["model"]) == ("photo.png", "photo.png.bbans", "fake")


def test_output_file_and_directory(run: Callable, photo: Path, tmp_path: Path) -> None:
    assert run("compress", "photo.png", "-o", "x").code == 0
    (tmp_path / "dir").mkdir()
    assert run("compress", "photo.png", "-o", "dir").code == 0
    assert Path("x").read_bytes() == Path("dir/photo.png.bbans").read_bytes()


def test_several_inputs_and_one_bad_among_them(run: Callable, photo: Path) -> None:
    Path("bad.png").write_text("no image")
    Image.open(photo).save("other.png")
    result = run("compress", "photo.png", "bad.png", "other.png", "--json")
    assert result.code == 1
    assert [json.loads(line)["input"] for line in result.out.splitlines()] == ["photo.png", "other.png"]
    first, last = result.err.splitlines()
    assert first.startswith("bbans: bad.png: is not an image") and last == "bbans: 1 of 3 failed: bad.png"
    assert not Path("bad.png.bbans").exists()


@pytest.mark.parametrize("force", [False, True])
def test_existing_output(force: bool, run: Callable, photo: Path) -> None:
    Path("photo.png.bbans").write_text("mine")
    result = run("compress", "photo.png", *(["-f"] if force else []))
    assert result.code == (0 if force else 1)
    assert (Path("photo.png.bbans").read_bytes() != b"mine") == force
    assert force or "exists already" in result.err


def test_inputs_and_other_outputs_are_never_overwritten(run: Callable, photo: Path, tmp_path: Path) -> None:
    before = photo.read_bytes()
    assert run("compress", "photo.png", "-o", "photo.png", "-f").code == 2
    assert photo.read_bytes() == before
    (tmp_path / "a").mkdir()
    (tmp_path / "out").mkdir()
    Image.new("L", (3, 3)).save("a/photo.png")
    result = run("compress", "photo.png", "a/photo.png", "-o", "out", "-f", "--json")
    assert result.code == 1 and "would overwrite the output of photo.png" in result.err
    assert [json.loads(line)["input"] for line in result.out.splitlines()] == ["photo.png"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.png"], "none.png: no such file"),
        (["folder"], "folder: is a directory"),
        (["text.png"], "text.png: is not an image that bbans reads"),
        (["half.png"], "half.png: is damaged"),
        (["deep.ppm"], "deep.ppm: mode RGB with 16 bits per channel is not supported; supported are 1, L, LA, P, RGB"),
        (["inks.jpg"], "inks.jpg: mode CMYK (inks) is not supported; supported are"),
        (["photo.png", "-o", "none/x"], "none/x: there is no directory 'none'"),
        (["photo.png", "-m", "unheard-of"], "no model 'unheard-of'"),
        (["new\nline.png"], "new line.png: no such file"),
        (["photo.png", "--particles", "5"], "photo.png: the model fake takes no particles"),
    ],
)
def test_bad_inputs(arguments: list[str], words: str, run: Callable, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.png").write_text("text")
    (tmp_path / "half.png").write_bytes(photo.read_bytes()[:80])
    Image.new("CMYK", (2, 2)).save(tmp_path / "inks.jpg")
    (tmp_path / "deep.ppm").write_bytes(b"P6 1 1 65535\n" + bytes(6))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    result = run("compress", *arguments)
    assert result.code == 1
    assert result.err.startswith(f"bbans: {words}") and result.err.count("\n") == 1
    assert result.out == ""
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.png", "b.png", "-o", "file"],
        ["a.png", "--device", "abacus"],
        ["a.png", "--threads", "0"],
        ["a.png", "--particles", "0"],
        ["a.png", "--particles", "4097"],
        ["a.png", "--independent"],
        ["a.png", "--unheard-of"],
    ],
)
def test_wrong_usage(arguments: list[str], run: Callable) -> None:
    result = run("compress", *arguments)
    assert result.code == 2
    assert result.err.startswith("bbans: ") and result.err.count("\n") == 1 and result.out == ""


def test_a_missing_model_stops_at_once(run: Callable, photo: Path) -> None:
    Image.open(photo).save("other.png")
    assert run("compress", "photo.png", "other.png", "-m", "unheard-of").err.count("\n") == 1


def test_unexpected_errors_are_one_line(
    run: Callable, photo: Path, fake_codec: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **options: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(fake_codec, "encode_tile", broken)
    result = run("compress", "photo.png")
    assert result.code == 1 and result.err.count("\n") == 1
    assert "photo.png: unexpected error: RuntimeError: two lines" in result.err and "--debug" in result.err
    with pytest.raises(RuntimeError):
        run("--debug", "compress", "photo.png")
    assert not Path("photo.png.bbans").exists()


def test_interrupt(run: Callable, photo: Path, fake_codec: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fake_codec, "encode_tile", interrupted)
    result = run("compress", "photo.png", "none.png")
    assert result.code == 130 and "none.png" not in result.err
    assert not Path("photo.png.bbans").exists()


def test_names_that_are_no_text(run: Callable, photo: Path) -> None:
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    Path(name).write_bytes(photo.read_bytes())
    assert run("compress", name).code == 0
    result = run("compress", name)
    assert result.code == 1 and result.err.count("\n") == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1, 3), (3, 3, 3)])
def test_tiny_pictures_are_no_special_case(shape: tuple[int, ...], run: Callable) -> None:
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    Image.fromarray(pixels).save("tiny.png")
    assert run("compress", "tiny.png").code == 0
    assert run("decompress", "tiny.png.bbans", "-o", "out.png").code == 0
    np.testing.assert_array_equal(np.asarray(Image.open("out.png")), pixels)


def test_warnings_are_one_line_too(
    run: Callable, photo: Path, fake_codec: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import warnings

    encode = fake_codec.encode_tile

    def warn(*args: object, **options: object) -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("slow", RuntimeWarning, stacklevel=1)
        return encode(*args, **options)

    monkeypatch.setattr(fake_codec, "encode_tile", warn)
    result = run("compress", "photo.png")
    assert (result.code, result.err) == (0, "bbans: warning: slow\n")


def test_a_jpeg_that_is_smaller_is_told_of_once(run: Callable, random_pixels: Callable[..., np.ndarray]) -> None:
    for name in ("a.jpg", "b.JPEG", "c.png"):
        Image.fromarray(random_pixels(40, 40, 3)).save(name, **({} if name == "c.png" else {"quality": 20}))
    result = run("compress", "a.jpg", "b.JPEG", "c.png")
    assert result.code == 0
    assert result.err == "bbans: a.jpg: the JPEG itself is smaller than its pixels without loss\n"
    assert run("compress", "a.jpg", "-qf").err == ""
    result = run("compress", "a.jpg", "b.JPEG", "c.png", "-f", "--rm")
    assert result.err.count("the JPEG itself is smaller than its pixels without loss, and is kept") == 2
    assert Path("a.jpg").exists() and Path("b.JPEG").exists() and not Path("c.png").exists()


def test_a_bbans_file_is_not_called_an_image(run: Callable, photo: Path) -> None:
    result = run("compress", "photo.png", "-o", "small.PNG")
    assert result.code == 2 and "'small.PNG' is the name of an image" in result.err
    assert not Path("small.PNG").exists()


def test_pixels_are_limited(run: Callable, photo: Path) -> None:
    result = run("compress", "photo.png", "--max-pixels", "34")
    assert result.code == 1
    assert result.err == "bbans: photo.png: has 7 x 5 pixels, and up to 34 are allowed; --max-pixels allows more\n"
    assert run("compress", "photo.png", "--max-pixels", "35").code == 0


def test_the_default_model_is_that_of_the_effort(run: Callable, photo: Path) -> None:
    for level, model in ((1, "fake photo-fast"), (3, "fake photo-fast"), (4, "fake"), (9, "fake")):
        record = json.loads(run("compress", "photo.png", "-f", "--json", "--effort", str(level)).out)
        assert record["model"] == model
        assert run("test", "photo.png.bbans").code == 0
    assert json.loads(run("compress", "photo.png", "-f", "--json").out)["model"] == "fake"
    assert (
        json.loads(run("compress", "photo.png", "-f", "--json", "-m", "fake", "--effort", "1").out)["model"] == "fake"
    )


def test_workers_are_told_the_effort() -> None:
    loader = ModelLoader(None, "cpu", None, jobs=2, effort=1)
    assert pickle.loads(pickle.dumps(loader)).effort == 1
