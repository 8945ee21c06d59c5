from __future__ import annotations

import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ..archive import helpers
from ..archive.helpers import archive_of, files, grey, load, pixels, save


@pytest.fixture
def run(
    run: Callable, fake_codec: types.ModuleType, fake_zoo: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> Callable:
    """run("list", "x.bbansa"), with chains; in this process, to which the stand-ins are confined."""
    helpers.install(fake_codec, fake_zoo, monkeypatch)
    monkeypatch.setattr("bbans.workers.cores", lambda: 1)
    return lambda *arguments: run("archive", *arguments)


@pytest.fixture
def x(run: Callable) -> Path:
    """x.bbansa: two photos and 20 digits, in three groups."""
    save("in/a.png", pixels(5, 4, 3, seed=1))
    save("in/b.png", pixels(5, 4, 3, seed=2))
    np.save("digits.npy", pixels(20, 4, 6, seed=3))
    result = run("create", "x.bbansa", "in", "digits.npy", "-m", "small", "--group", "10")
    assert (result.code, result.err) == (0, "")
    size = Path("x.bbansa").stat().st_size
    rate = 8 * size / (120 + 480)
    assert result.out == f"x.bbansa: 22 images in 3 groups by photo and small, {size} bytes, {rate:.3f} bits per dim\n"
    return Path("x.bbansa")


def lines(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_create_json(run: Callable, x: Path) -> None:
    result = run("create", "x.bbansa", "in", "digits.npy", "--group", "10", "-f", "--json")
    (record,) = lines(result.out)
    assert list(record) == [
        *("output", "images", "dims", "groups", "models", "bytes"),
        *("net", "initial", "container", "total", "seconds"),
    ]
    assert record["net"] + record["initial"] + record["container"] == pytest.approx(record["total"])
    assert record["total"] == 8 * record["bytes"] / record["dims"] and record["bytes"] == x.stat().st_size
    assert (record["images"], record["groups"], record["models"]) == (22, 3, ["photo"])


def test_list(run: Callable, x: Path) -> None:
    result = run("list", "x.bbansa")
    rows = [row.split() for row in result.out.splitlines()]
    assert rows[0] == ["0", "4", "x", "5", "RGB", "group", "0", "photo", "in/a.png"]
    assert rows[21] == ["21", "6", "x", "4", "L", "group", "2", "small", "digits/19"]
    assert result.out.splitlines()[22].startswith("x.bbansa: 22 images in 3 groups, ")
    records = lines(run("list", "x.bbansa", "--json").out)
    assert records[2] == {
        **{"position": 2, "name": "digits/00", "width": 6, "height": 4, "mode": "L", "group": 1, "kind": "chain"},
        **{"model": "small", "model_id": b"small\0\0\0".hex()},
    }
    assert list(records[-1]) == ["input", "images", "dims", "groups", "bytes", "total"]


def test_list_needs_no_model(run: Callable, x: Path, fake_zoo: types.ModuleType) -> None:
    vars(fake_zoo)["available"] = lambda: []
    assert b"small\0\0\0".hex() in run("list", "x.bbansa").out
    assert lines(run("list", "x.bbansa", "--json").out)[0]["model"] is None


def test_extract(run: Callable, x: Path) -> None:
    result = run("extract", "x.bbansa", "-o", "out")
    assert (result.code, result.out, result.err) == (0, "x.bbansa -> out: 22 images\n", "")
    assert len(files(Path("out"))) == 22
    np.testing.assert_array_equal(load("out/in/b.png"), pixels(5, 4, 3, seed=2))
    Path("in/a.png").unlink()
    assert run("extract", "x.bbansa", "in/a.png").out == "x.bbansa -> .: 1 image\n"  # where it is
    np.testing.assert_array_equal(load("in/a.png"), pixels(5, 4, 3, seed=1))
    records = lines(run("extract", "x.bbansa", "in", "-f", "--json").out)
    assert records == [
        {"input": "x.bbansa", "output": f"in/{n}.png", "name": f"in/{n}.png", "width": 4, "height": 5, "mode": "RGB"}
        for n in "ab"
    ]


def test_extract_an_array(run: Callable, x: Path) -> None:
    assert run("extract", "x.bbansa", "digits", "-o", "out.npy").out == "x.bbansa -> out.npy: 20 images\n"
    np.testing.assert_array_equal(np.load("out.npy"), np.load("digits.npy"))
    result = run("extract", "x.bbansa", "digits/07", "-o", "out.npy", "--json", "-f")
    assert lines(result.out) == [{"input": "x.bbansa", "output": "out.npy", "images": 1}]
    np.testing.assert_array_equal(np.load("out.npy"), np.load("digits.npy")[7:8])


def test_test(run: Callable, x: Path) -> None:
    before = files(Path())
    result = run("test", "x.bbansa")
    assert (result.code, result.out, result.err) == (0, "x.bbansa: 22 images ok\n", "")
    assert lines(run("test", "x.bbansa", "--json").out) == [{"input": "x.bbansa", "images": 22, "ok": True}]
    assert files(Path()) == before


@pytest.mark.parametrize("command", ["test", "extract"])
def test_damage_is_one_line(command: str, run: Callable, x: Path) -> None:
    begin = next(at for at in range(len(x.read_bytes())) if x.read_bytes()[at : at + 2] == b"\x78\x9c")  # zlib
    flip(x, begin + 20)
    result = run(command, "x.bbansa", *(["-o", "out"] if command == "extract" else []))
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("bbans: x.bbansa: group 0: is damaged: ") and result.err.count("\n") == 1
    assert not Path("out").exists()


def test_keep_going(run: Callable, x: Path) -> None:
    begin = x.read_bytes().index(b"\x78\x9c")
    flip(x, begin + 20)
    x.write_bytes(x.read_bytes()[:-3])
    result = run("extract", "x.bbansa", "-o", "out", "--keep-going", "--json")
    assert result.code == 1
    index, payload = result.err.splitlines()
    assert index == "bbans: x.bbansa: is damaged or truncated: its end is missing"
    assert payload == ("bbans: x.bbansa: group 0: is damaged: its checksum does not match: lost in/a.png, in/b.png")
    records = lines(result.out)
    assert len(records) == 22 and records[-1]["lost"] == ["in/a.png", "in/b.png"] and records[-2]["lost"] == []
    assert files(Path("out")) == [f"digits/{n:02}.png" for n in range(20)]
    result = run("test", "x.bbansa", "--keep-going")
    assert (result.code, result.out) == (1, "x.bbansa: 20 images ok\n")
    assert lines(run("test", "x.bbansa", "--keep-going", "--json").out)[0] == {
        **{"input": "x.bbansa", "images": 20, "ok": False}
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["create", "y.bbansa", "none.png"], "none.png: no such file"),
        (["create", "y.bbansa", "empty"], "empty: no images in this folder"),
        (["create", "y.bbansa", "empty.npy"], "empty.npy: holds no pictures"),
        (["create", "y.bbansa", "in", "in/a.png"], "in/a.png: two pictures have this name"),
        (["create", "y.bbansa", "in", "text.png"], "text.png: is not an image"),
        (["create", "y.bbansa", "in", "tall.png"], "tall.png: the model photo takes no pictures of 5 x 13 of mode L"),
        (["create", "y.bbansa", "in", "-m", "unheard-of"], "no model 'unheard-of'"),
        (["create", "x.bbansa", "in"], "x.bbansa: exists already; -f"),
        (["create", "none/y.bbansa", "in"], "none/y.bbansa: there is no directory"),
        (["list", "none.bbansa"], "none.bbansa: no such file"),
        (["list", "in/a.png"], "in/a.png: is not a bbans archive"),
        (["list", "hostile.bbansa"], "hostile.bbansa: group 0 is lost: refused: the name '../evil.png'"),
        (["extract", "hostile.bbansa"], "hostile.bbansa: group 0 is lost: refused: the name '../evil.png'"),
        (["extract", "x.bbansa", "in/zz"], "x.bbansa: has no picture or folder 'in/zz'"),
        (["extract", "x.bbansa"], "in/a.png: exists already; -f overwrites it"),
        (["extract", "x.bbansa", "-o", "x.npy"], "x.npy: the pictures are not of one size and mode"),
        (["extract", "x.bbansa", "-o", "tall.png"], "tall.png: is no folder"),
        (["test", "stranger.bbansa"], "stranger.bbansa: group 0: the file needs model "),
    ],
)
def test_errors_are_one_line(arguments: list[str], words: str, run: Callable, x: Path) -> None:
    Path("empty").mkdir()
    np.save("empty.npy", pixels(0, 5, 5))
    Path("text.png").write_text("text")
    save("tall.png", pixels(13, 5))
    archive_of("hostile.bbansa", [grey("../evil.png")])
    header, array = grey("a")
    archive_of("stranger.bbansa", [(type(header)(**{**vars(header), "model_id": b"stranger"}), array)])
    before = {path: Path(path).read_bytes() for path in files(Path())}
    result = run(*arguments)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"bbans: {words}") and result.err.count("\n") == 1
    assert {path: Path(path).read_bytes() for path in files(Path())} == before


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["create"],
        ["create", "y.bbansa"],
        ["create", "a.png", "b.png", "-f"],  # forgotten: the archive's name
        ["create", "y.bbansa", "in", "--group", "0"],
        ["create", "y.bbansa", "in", "-j", "0"],
        ["extract"],
        ["list"],
        ["unheard-of"],
    ],
)
def test_wrong_usage(arguments: list[str], run: Callable) -> None:
    result = run(*arguments)
    assert result.code == 2 and result.out == ""
    assert not arguments or (result.err.startswith("bbans: ") and result.err.count("\n") == 1)


def test_interrupt(run: Callable, x: Path, fake_codec: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    before = files(Path())
    monkeypatch.setattr(fake_codec, "encode_chain", interrupted)
    result = run("create", "y.bbansa", "in")
    assert (result.code, result.err.strip()) == (130, "bbans: interrupted")
    assert files(Path()) == before


def test_help_loads_next_to_nothing() -> None:
    code = (
        "import sys; from bbans.cli.main import main; main(['archive', 'create', '--help']); "
        "assert not {'torch', 'numpy', 'bbans.archive'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
