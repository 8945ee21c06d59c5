from __future__ import annotations

import io
import json
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bbans.cli.decompress import png_name
from bbans.image.files import read_picture
from tests.image.test_png import COLOURS, deep_pixels, deep_png


@pytest.fixture
def packed(run: Callable, photo: Path) -> Path:
    """packed.bbans, of photo.png."""
    assert run("compress", "photo.png", "-o", "packed.bbans").code == 0
    return Path("packed.bbans").resolve()


@pytest.mark.parametrize(
    ("name", "png"),
    [
        ("photo.png.bbans", "photo.png"),
        ("photo.PNG.bbans", "photo.PNG"),
        ("photo.jpg.bbans", "photo.png"),
        ("photo.tar.TIFF.bbans", "photo.tar.png"),
        ("photo.bbans", "photo.png"),
        ("photo.v2.bbans", "photo.v2.png"),
        ("photo", "photo.png"),
        (".bbans", ".bbans.png"),
    ],
)
def test_default_names(name: str, png: str) -> None:
    assert png_name(name) == png


@pytest.mark.parametrize("name", ["out.png", "out.bmp", "out.tiff", "out.ppm"])
def test_lossless_outputs(name: str, run: Callable, packed: Path) -> None:
    assert run("decompress", "packed.bbans", "-o", name).code == 0
    assert Image.open(name).tobytes() == Image.open("photo.png").tobytes()


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("mode", COLOURS)
def test_png_of_16_bits(mode: str, interlaced: bool, run: Callable) -> None:
    before = deep_png(deep_pixels(mode), mode, interlaced=interlaced)
    Path("x.png").write_bytes(before)
    assert run("compress", "x.png").code == 0 and mode in run("info", "x.png.bbans").out
    assert run("decompress", "x.png.bbans", "-f").code == 0
    one, other = read_picture(io.BytesIO(before)), read_picture(Path("x.png"))
    assert (one.mode, one.attributes) == (other.mode, other.attributes)
    np.testing.assert_array_equal(one.pixels, other.pixels)
    result = run("decompress", "x.png.bbans", "-o", "x.tiff")
    assert result.code == 1 and result.err == f"bbans: x.tiff: TIFF files can't hold mode {mode} exactly; PNG can\n"


def test_json(run: Callable, packed: Path) -> None:
    record = json.loads(run("decompress", "packed.bbans", "--json").out)
    assert (record["input"], record["output"]) == ("packed.bbans", "packed.png")
    assert (record["width"], record["height"], record["mode"]) == (7, 5, "RGB")


def test_test_writes_nothing(run: Callable, packed: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    result = run("test", "packed.bbans")
    assert (result.code, result.out, result.err) == (0, "packed.bbans: ok\n", "")
    assert json.loads(run("test", "packed.bbans", "--json").out) == {"input": "packed.bbans", "ok": True}
    assert sorted(tmp_path.iterdir()) == before


def _foreign_model(data: bytes) -> bytes:
    from bbans.image import container
    from bbans.image.container import Header

    header = Header.parse(data)
    payloads = container.payloads(header, data)
    return container.join(Header(header.mode, header.width, header.height, 0, header.pieces, b"stranger"), payloads)


@pytest.mark.parametrize("command", ["decompress", "test"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: b"", "is empty"),
        (lambda data: b"GIF89a" + data, "is not a bbans file"),
        (lambda data: data[:-1], "is truncated: 1 bytes are missing"),
        (lambda data: data[:12], "is truncated: it ends within its header"),
        (lambda data: data + b"\0", "is damaged: 1 bytes too many"),
        (lambda data: data[:8] + bytes([data[8] ^ 4]) + data[9:], "is damaged: the checksum of its header"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 4]), "is damaged: the checksum of tile 1 of 1"),
        (lambda data: data[:4] + b"\3" + data[5:], "has format version 3; this bbans knows 2: it needs a newer bbans"),
        (_foreign_model, f"needs the model {b'stranger'.hex()}"),
    ],
)
def test_bad_files(
    command: str, change: Callable[[bytes], bytes], words: str, run: Callable, packed: Path, tmp_path: Path
) -> None:
    bad = change(packed.read_bytes())
    Path("bad.bbans").write_bytes(bad)
    before = sorted(tmp_path.iterdir())
    result = run(command, "bad.bbans")
    assert result.code == 1 and result.out == ""
    assert result.err.startswith(f"bbans: bad.bbans: {words}") and result.err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
    assert Path("bad.bbans").read_bytes() == bad


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.bbans"], "none.bbans: no such file"),
        (["."], ".: is a directory"),
        (["packed.bbans", "-o", "out.jpg"], "out.jpg: pictures are written losslessly"),
        (["packed.bbans", "-o", "photo.png"], "photo.png: exists already"),
        (["packed.bbans", "-o", "none/out.png"], "none/out.png: there is no directory"),
    ],
)
def test_bad_inputs(arguments: list[str], words: str, run: Callable, packed: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    result = run("decompress", *arguments)
    assert result.code == 1 and result.out == ""
    assert result.err.startswith(f"bbans: {words}") and result.err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_one_bad_file_does_not_stop_the_others(run: Callable, packed: Path) -> None:
    Path("bad.bbans").write_text("bad")
    result = run("decompress", "bad.bbans", "packed.bbans")
    assert result.code == 1 and result.err.splitlines()[1:] == ["bbans: 1 of 2 failed: bad.bbans"]
    assert Path("packed.png").exists() and not Path("bad.png").exists()


def test_a_machine_that_computes_differently(
    run: Callable, packed: Path, fake_codec: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_codec, "decode_tile", lambda model, payload, h, w, c, _: np.zeros((h, w, c), np.uint8))
    result = run("decompress", "packed.bbans")
    assert result.code == 1 and "this machine computes differently" in result.err
    assert not Path("packed.png").exists()


@pytest.mark.parametrize(("name", "left_out"), [("x.png", None), ("x.tif", "comment"), ("x.bmp", "comment, icc")])
def test_what_a_format_leaves_out_is_said_and_the_input_kept(name: str, left_out: str | None, run: Callable) -> None:
    Image.new("RGB", (7, 5)).save("x.jpg", comment=b"a comment", icc_profile=b"a profile", dpi=(72, 72))
    assert run("compress", "x.jpg", "-o", "x.bbans").code == 0
    result = run("decompress", "x.bbans", "--rm", "-o", name)
    said = f"bbans: {name}: its format leaves out {left_out}; PNG holds more, so x.bbans is kept\n" if left_out else ""
    assert (result.code, result.err, Path("x.bbans").exists()) == (0, said, bool(left_out))


# -- parts of a picture ------------------------------------------------------------------------------------------------


@pytest.fixture
def large(run: Callable, random_pixels: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The pixels of large.bbans, 40 x 33 in tiles of 16."""
    from bbans.image import container

    monkeypatch.setattr(container, "ONE_TILE", 100)
    monkeypatch.setattr(container, "TILE_SIDE", 16)
    pixels = random_pixels(33, 40, 3)
    Image.fromarray(pixels).save("large.png")
    assert run("compress", "large.png", "-o", "large.bbans").code == 0
    return pixels


def read(name: str) -> np.ndarray:
    return np.asarray(Image.open(name))


def test_region_and_preview(run: Callable, large: np.ndarray) -> None:
    assert run("decompress", "large.bbans", "--region", "15,3,20,30", "-o", "part.png").code == 0
    np.testing.assert_array_equal(read("part.png"), large[3:33, 15:35])
    result = run("decompress", "large.bbans", "--preview", "2", "-o", "small.png")
    assert result.out == "large.bbans -> small.png: 10 x 9 RGB\n"
    np.testing.assert_array_equal(read("small.png"), large[::4, ::4])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--region", "0,0,41,1"], 1, "large.bbans: has no region 0,0,41,1: it has 40 x 33 pixels"),
        (["--region", "0,0,1"], 2, "'0,0,1' is not X,Y,W,H in pixels"),
        (["--region", "a,b,c,d"], 2, "'a,b,c,d' is not X,Y,W,H in pixels"),
        (["--preview", "11"], 2, "11 is not in the range"),
        (["--preview", "5"], 1, "large.bbans: has no preview of 5 levels less: its tiles have 16 pixels a side"),
        (["--preview", "1", "--rm"], 2, "--rm removes only what was decompressed as a whole"),
        (
            ["--max-pixels", "1319"],
            1,
            "large.bbans: has 40 x 33 pixels, and up to 1319 are allowed; --max-pixels allows more",
        ),
    ],
)
def test_impossible_parts(arguments: list[str], code: int, words: str, run: Callable, large: np.ndarray) -> None:
    result = run("decompress", "large.bbans", *arguments, "-o", "out.png")
    assert result.code == code and words in result.err and result.err.count("\n") == 1
    assert not Path("out.png").exists() and Path("large.bbans").exists()


def test_keep_going_takes_what_is_left(run: Callable, large: np.ndarray) -> None:
    data = bytearray(Path("large.bbans").read_bytes())
    data[-1] ^= 1
    Path("large.bbans").write_bytes(data)
    result = run("decompress", "large.bbans", "-o", "out.png")
    wrong = "is damaged: the checksum of tile 9 of 9 (32,32,8,1) does not match"
    assert (result.code, result.err) == (1, f"bbans: large.bbans: {wrong}\n") and not Path("out.png").exists()
    result = run("decompress", "large.bbans", "-o", "out.png", "--keep-going", "--rm", "--json")
    assert (result.code, result.err) == (1, f"bbans: large.bbans: {wrong}; the rest is in out.png\n")
    assert json.loads(result.out)["lost"] == [wrong] and Path("large.bbans").exists()
    expected = large.copy()
    expected[32:, 32:] = 0
    np.testing.assert_array_equal(read("out.png"), expected)
    assert wrong in run("test", "large.bbans").err


def test_keep_going_keeps_what_has_more_behind_its_end(run: Callable, large: np.ndarray) -> None:
    Path("large.bbans").write_bytes(Path("large.bbans").read_bytes() + b"more")
    result = run("decompress", "large.bbans", "-o", "out.png", "--keep-going", "--rm", "--json")
    assert (result.code, json.loads(result.out)["lost"]) == (1, ["is damaged: 4 bytes too many after the end"])
    assert Path("large.bbans").exists()
    np.testing.assert_array_equal(read("out.png"), large)
