"""Inputs and outputs of the commands: folders, streams, several at a time, and what becomes of the inputs."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bbans.cli.batch import Batch, Source, Task
from bbans.errors import BadOutput


@pytest.fixture
def album(tmp_path: Path, random_pixels: Callable[..., np.ndarray]) -> Path:
    """album/a.png, album/inner/b.PNG, album/inner/notes.txt and the empty album/none."""
    (tmp_path / "album" / "inner").mkdir(parents=True)
    (tmp_path / "album" / "none").mkdir()
    Image.fromarray(random_pixels(5, 7, 3)).save(tmp_path / "album" / "a.png")
    Image.fromarray(random_pixels(3, 4)).save(tmp_path / "album" / "inner" / "b.PNG")
    (tmp_path / "album" / "inner" / "notes.txt").write_text("no picture")
    return tmp_path / "album"


class Stream:
    """Bytes as standard input or output."""

    def __init__(self, data: bytes = b"", *, terminal: bool = False) -> None:
        self.buffer, self.terminal = io.BytesIO(data), terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes]:
    """stream(run, *arguments, data=...) -> what goes to standard output."""

    def through(run: Callable, *arguments: str, data: bytes = b"", terminal: bool = False, code: int = 0) -> bytes:
        with monkeypatch.context() as patch:
            out = Stream(terminal=terminal)
            patch.setattr(sys, "stdin", Stream(data))
            patch.setattr(sys, "stdout", out)
            result = run(*arguments)
        assert result.code == code, result.err
        return out.buffer.getvalue() if code == 0 else result.err.encode()

    return through


def test_a_file_called_like_the_stream(run: Callable, photo: Path) -> None:
    photo.rename("-")
    assert run("compress", "./-").code == 0 and Path("-.bbans").exists()
    assert run("decompress", "./-").err.endswith("is not a bbans file\n")


# -- folders -----------------------------------------------------------------------------------------------------------


def test_folders_need_recursive(run: Callable, album: Path) -> None:
    result = run("compress", "album")
    assert (result.code, result.err) == (1, "bbans: album: is a directory; -r takes what is in it\n")


def test_recursive_takes_what_is_a_picture(run: Callable, album: Path) -> None:
    assert run("compress", "-r", "album").code == 0
    assert sorted(p.relative_to(album).as_posix() for p in album.rglob("*.bbans")) == [
        "a.png.bbans",
        "inner/b.PNG.bbans",
    ]
    names = run("test", "-r", "album").out.splitlines()
    assert names == [f"{Path('album', 'a.png.bbans')}: ok", f"{Path('album', 'inner', 'b.PNG.bbans')}: ok"]


def test_an_output_directory_mirrors_folders(run: Callable, album: Path, tmp_path: Path) -> None:
    assert run("compress", "-r", "album", "--output-dir", "out/small").code == 0
    small = tmp_path / "out" / "small"
    assert sorted(p.relative_to(small).as_posix() for p in small.rglob("*.*")) == ["a.png.bbans", "inner/b.PNG.bbans"]
    assert run("decompress", "-r", "out", "--output-dir", "back").code == 0
    for name in ("a.png", "inner/b.PNG"):
        assert Image.open(tmp_path / "back" / "small" / name).tobytes() == Image.open(album / name).tobytes()


def test_a_folder_that_cannot_be_read(run: Callable, album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def refuse(path: object) -> object:
        if Path(str(path)).name in ("inner", "none"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", refuse)
    result = run("compress", "-r", "album")
    inner, none = Path("album", "inner"), Path("album", "none")
    assert result.code == 1 and Path("album/a.png.bbans").exists()
    assert result.err.splitlines() == [
        f"bbans: {inner}: cannot be read: Permission denied",
        f"bbans: {none}: cannot be read: Permission denied",
        f"bbans: 2 of 3 failed: {inner}, {none}",
    ]
    result = run("compress", "-r", "album/none")
    assert (result.code, result.err) == (1, f"bbans: {none}: cannot be read: Permission denied\n")


def test_a_folder_without_pictures(run: Callable, album: Path) -> None:
    result = run("compress", "-r", "album/none", "album/a.png")
    assert result.code == 1 and result.err.startswith(f"bbans: {Path('album', 'none')}: holds no .bmp, ")
    assert Path("album/a.png.bbans").exists()


def test_an_output_directory_that_cannot_be_made(run: Callable, photo: Path) -> None:
    result = run("compress", "photo.png", "--output-dir", "photo.png/x")
    assert result.code == 1 and result.err.startswith(f"bbans: {Path('photo.png', 'x')}: cannot be made: ")


# -- streams -----------------------------------------------------------------------------------------------------------


def test_from_stream_to_stream(run: Callable, stream: Callable, photo: Path) -> None:
    packed = stream(run, "compress", "-", data=photo.read_bytes())
    assert run("compress", "photo.png").code == 0
    assert packed == Path("photo.png.bbans").read_bytes()
    png = stream(run, "decompress", "-", data=packed)
    assert Image.open(io.BytesIO(png)).tobytes() == Image.open(photo).tobytes()


def test_streams_and_files(run: Callable, stream: Callable, photo: Path) -> None:
    packed = stream(run, "compress", "photo.png", "-o", "-", "--json")
    assert stream(run, "compress", "-", "-o", "x", "-q", data=photo.read_bytes()) == b""
    assert Path("x").read_bytes() == packed


@pytest.mark.parametrize("command", ["info", "test"])
def test_what_is_said_of_standard_input(
    command: str, run: Callable, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("compress", "photo.png").code == 0
    monkeypatch.setattr(sys, "stdin", Stream(Path("photo.png.bbans").read_bytes()))
    result = run(command, "-")
    assert (result.code, result.err) == (0, "") and result.out.startswith("standard input: ")


def test_nothing_binary_goes_to_a_terminal(run: Callable, stream: Callable, photo: Path) -> None:
    said = stream(run, "compress", "photo.png", "-o", "-", terminal=True, code=1)
    assert said == b"bbans: standard output is a terminal, which shows no such bytes; -o names a file\n"


def test_errors_name_standard_input(run: Callable, stream: Callable) -> None:
    assert stream(run, "compress", "-", data=b"no picture", code=1).startswith(
        b"bbans: standard input: is not an image"
    )
    assert stream(run, "decompress", "-", data=b"no file", code=1).startswith(b"bbans: standard input: is not a bbans")


@pytest.mark.parametrize(
    "arguments",
    [
        ["-", "-"],
        ["a.png", "b.png", "-o", "-"],
        ["-r", ".", "-o", "-"],
        ["-r", ".", "-o", "file"],
        ["a.png", "-o", "x", "--output-dir", "y"],
        ["a.png", "-k", "--rm"],
        ["a.png", "-o", "-", "--rm"],
        ["a.png", "--rm", "--no-verify"],
        ["a.png", "-j", "0"],
    ],
)
def test_wrong_usage(arguments: list[str], run: Callable) -> None:
    result = run("compress", *arguments)
    assert result.code == 2 and result.err.count("\n") == 1 and result.out == ""


# -- what is said ------------------------------------------------------------------------------------------------------


def test_quiet_and_verbose(run: Callable, photo: Path) -> None:
    assert run("compress", "photo.png", "-q").out == ""
    said = run("compress", "photo.png", "-f", "-v").out
    assert all(word in said for word in ("elbo", "net", "initial", "container", "fake", " s)"))
    assert run("test", "photo.png.bbans", "-q").out == ""


def test_a_progress_bar_only_at_a_terminal(run: Callable, album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[int] = []
    monkeypatch.setattr("rich.progress.Progress.add_task", lambda self, text, *, total: bars.append(total) or 0)
    monkeypatch.setattr("rich.progress.Progress.advance", lambda self, bar: None)
    assert run("compress", "-r", "album").err == "" and not bars
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert run("compress", "-rf", "album").code == 0 and bars == [2]
    assert run("compress", "-rfq", "album").code == 0 and bars == [2]


# -- inputs afterwards -------------------------------------------------------------------------------------------------


def test_outputs_have_times_and_permissions_of_inputs(run: Callable, photo: Path) -> None:
    photo.chmod(0o640)
    os.utime(photo, ns=(10**18, 10**18 + 10**9))
    assert run("compress", "photo.png").code == 0
    assert run("decompress", "photo.png.bbans", "-o", "back.png").code == 0
    for name in ("photo.png.bbans", "back.png"):
        status = Path(name).stat()
        assert status.st_mtime_ns == photo.stat().st_mtime_ns
        assert os.name == "nt" or stat.S_IMODE(status.st_mode) == 0o640


def test_inputs_are_removed_once_their_outputs_are_verified(run: Callable, photo: Path) -> None:
    before = Image.open(photo).tobytes()
    assert run("compress", "photo.png", "--rm").code == 0 and not photo.exists()
    assert run("decompress", "photo.png.bbans", "--rm").code == 0 and not Path("photo.png.bbans").exists()
    assert Image.open(photo).tobytes() == before


@pytest.mark.parametrize("arguments", [[], ["--rm"]])
def test_what_does_not_decode_is_not_written(
    arguments: list[str], run: Callable, photo: Path, fake_codec: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_codec, "decode_tile", lambda model, payload, h, w, c, _: np.zeros((h, w, c), np.uint8))
    result = run("compress", "photo.png", *arguments)
    assert result.code == 1 and result.err.startswith("bbans: photo.png: decodes to other pixels")
    assert photo.exists() and not Path("photo.png.bbans").exists()
    assert run("compress", "photo.png", "--no-verify").code == 0


def test_an_input_stays_when_its_output_cannot_be_written(run: Callable, photo: Path) -> None:
    Path("photo.png.bbans").write_text("mine")
    assert run("compress", "photo.png", "--rm").code == 1
    assert photo.exists() and Path("photo.png.bbans").read_text() == "mine"


# -- processes ---------------------------------------------------------------------------------------------------------


def test_several_processes_write_the_same_files(tmp_path: Path, tiny_models: dict[int, Path], album: Path) -> None:
    from bbans.cli.main import main

    Path(album / "bad.png").write_text("no picture")
    for jobs in ("1", "2"):
        code = main(
            [
                "compress",
                "-q",
                "-r",
                str(album),
                "-m",
                str(tiny_models[2]),
                "-j",
                jobs,
                "--output-dir",
                str(tmp_path / jobs),
            ]
        )
        assert code == 1  # for the bad one
    for name in ("a.png.bbans", "inner/b.PNG.bbans"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_order_is_that_of_the_inputs(
    tiny_models: dict[int, Path], album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bbans.cli.main import main

    paths = [str(album / "inner" / "b.PNG"), str(album / "none.png"), str(album / "a.png")]
    assert main(["compress", *paths, "-m", str(tiny_models[2]), "-j", "2", "--json"]) == 1
    out, err = capsys.readouterr()
    assert [json.loads(line)["input"] for line in out.splitlines()] == [paths[0], paths[2]]
    assert err.splitlines() == [f"bbans: {paths[1]}: no such file", f"bbans: 1 of 3 failed: {paths[1]}"]


def test_inputs_are_named_whose_outputs_are_there_already(run: Callable, album: Path) -> None:
    assert run("compress", "-r", "album").code == 0
    last = run("compress", "-r", "album").err.splitlines()[-1]
    assert " failed: album/" in last and ".bbans" not in last


def test_a_standard_output_that_takes_no_more(run: Callable, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(Full()))
    with pytest.raises(BadOutput, match=r"^standard output: cannot be written: No space left on device$"):
        Batch((photo,), suffixes=list, writes=True, output=Path("-")).write(Task(Source("x", photo, photo)), b"x")


def test_names_tell_the_terminal_nothing(run: Callable, photo: Path) -> None:
    name = "\x1b[31mred.png"
    Path(name).write_bytes(photo.read_bytes())
    result = run("compress", name)
    assert result.code == 0 and "\x1b" not in result.out and "\ufffd[31mred.png" in result.out
