"""When the system fails while an output is written: what was there stays, byte for byte, and one line says why.

The commands run in processes of their own, on pictures that need no model, and stop where they would sync their output.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from bbans import zoo
from bbans.cli.main import main
from bbans.image.picture import Picture, compress_picture

BEFORE = b"what was there"
FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))"
STOPS = "import os; os.fsync = lambda file: (print('writing', flush=True), input())"


# a job in the background begins by ignoring it
FOREGROUND = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_codec: object) -> Path:
    """The current one: a.bbans and b.bbans, which differ, and out.png, which is there already."""
    monkeypatch.chdir(tmp_path)
    for name, value in (("a", 50), ("b", 60)):
        picture = Picture(np.full((20, 30, 1), value, np.uint8), "P", {"palette": bytes(range(240))})
        Path(f"{name}.bbans").write_bytes(compress_picture(picture, None)[0])  # type: ignore[arg-type]
    Path("out.png").write_bytes(BEFORE)
    return tmp_path


def started(first: str, *arguments: str) -> subprocess.Popen[str]:
    """A process that does something first, and then runs the command, as in the foreground."""
    code = f"{FOREGROUND}\n{first}\nimport sys; from bbans.cli.main import main; sys.exit(main(sys.argv[1:]))"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], text=True, **pipes)  # type: ignore[call-overload]


def writing(*arguments: str) -> subprocess.Popen[str]:
    """One that has written its output, and waits for a line before it is synced."""
    process = started(STOPS, "decompress", *arguments)
    assert process.stdout.readline() == "writing\n"
    return process


def left() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


@pytest.mark.parametrize("output", ["out.png", "new.png"])
def test_a_full_disk(output: str) -> None:
    process = started(FULL, "decompress", "-f", "a.bbans", "-o", output)
    assert process.communicate()[1] == f"bbans: {output}: cannot be written: File too large\n"
    assert process.returncode == 1 and left() == ["a.bbans", "b.bbans", "out.png"]
    assert Path("out.png").read_bytes() == BEFORE


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind")
def test_a_folder_that_may_not_be_written_to(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    folder.chmod(0o500)
    try:
        assert main(["decompress", "-f", "a.bbans", "-o", "out.png"]) == 1
    finally:
        folder.chmod(0o700)
    assert capsys.readouterr().err == "bbans: out.png: cannot be written: Permission denied\n"
    assert Path("out.png").read_bytes() == BEFORE


def test_interrupted_while_writing() -> None:
    process = writing("-f", "a.bbans", "b.bbans", "-o", ".")
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1].strip() == "bbans: interrupted"  # beneath the ^C of a terminal
    assert process.returncode == 130
    assert left() == ["a.bbans", "b.bbans", "out.png"]


def test_killed_while_writing() -> None:
    process = writing("-f", "a.bbans", "-o", "out.png")
    process.kill()
    process.communicate()
    assert Path("out.png").read_bytes() == BEFORE
    more = set(left()) - {"a.bbans", "b.bbans", "out.png"}
    assert len(more) == 1 and all(name.startswith(".bbans-") and name.endswith(".tmp") for name in more)
    assert main(["decompress", "-qf", "a.bbans", "-o", "out.png"]) == 0  # and it is in nobody's way
    with Image.open("out.png") as image:
        assert image.size == (30, 20)


@pytest.mark.parametrize("force", [True, False])
def test_two_processes_write_the_same_file(force: bool) -> None:
    output = "out.png" if force else "new.png"
    both = [writing(*(["-f"] if force else []), name, "-o", output) for name in ("a.bbans", "b.bbans")]
    said = [process.communicate("\n")[1] for process in both]
    assert [process.returncode for process in both] == ([0, 0] if force else [0, 1])
    assert said == ["", "" if force else "bbans: new.png: exists already; -f overwrites it\n"]
    image = np.asarray(Image.open(output))
    assert (image == (60 if force else 50)).all()
    assert set(left()) == {"a.bbans", "b.bbans", "out.png", output}


@pytest.mark.parametrize("damage", ["empty", "truncated", "folder", "another", "tables"])
@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_models_that_are_damaged(
    command: str, damage: str, tiny_models: dict[int, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`decompress` finds no model of that hash, `compress` says what is wrong with the one that it is told to take."""
    model = zoo.load(tiny_models[2], device="cpu")
    shutil.copytree(tiny_models[2], "model")
    weights = Path("model") / zoo.WEIGHTS
    data, arrays = weights.read_bytes(), load_file(weights)
    weights.unlink()
    match damage:
        case "empty":
            weights.touch()
        case "truncated":
            weights.write_bytes(data[:-100])
        case "folder":
            weights.mkdir()
        case "another":
            save_file(arrays, weights, {"other": "model"})
        case "tables":
            arrays["tables.edges"] = arrays["tables.edges"][::-1].copy()
            save_file(arrays, weights, {"bbans": json.dumps(zoo.read_weights(tiny_models[2])[0])})
    out = "out.bbans" if command == "compress" else "out.png"
    Path(out).write_bytes(BEFORE)
    if command == "compress":
        Image.new("RGB", (9, 9)).save("in.png")
        code = main(["compress", "-f", "in.png", "-m", "model", "-o", out])
        words = "weights.safetensors: " if damage != "folder" else "no model 'model'"
    else:
        path = Path("in.bbans")
        path.write_bytes(by_model(model))
        code = main(["decompress", "-f", str(path), "-m", "model", "-o", out])
        words = f"the file needs model {model.id.hex()}, which is not here"
    said = capsys.readouterr().err
    assert code == 1 and said.count("\n") == 1 and words in said
    assert Path(out).read_bytes() == BEFORE


def by_model(model: zoo.Model) -> bytes:
    """A file whose header names the model."""
    from bbans.image.container import Header, Piece, checksum, join

    return join(Header("L", 2, 2, 0, (Piece(1, checksum(b"x"), 0),), model.id), [b"x"])
