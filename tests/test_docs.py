"""The examples of the README and of `docs/` run: every command that begins with `bbans`, and all Python.

Those of a document run one after another, in a folder of its own that holds what they take: small pictures, and recipes
as the document shows them, but of tiny networks and a few steps. A block of shell commands whose first line says
`# not run by the tests` is left out.
"""

from __future__ import annotations

import importlib.util
import io
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from bbans import zoo
from bbans.cli.main import main
from bbans.train.run import read_recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HOME = Path(__file__).parent.parent
DOCUMENTS = [HOME / "README.md", *sorted((HOME / "docs").glob("*.md"))]
NOT_RUN = "# not run by the tests"

_SIZES = {"channels": 8, "hidden": 4, "mixtures": 2, "blocks": [1, 1, 1]}
_TINY: dict[str, Any] = {"steps": 2, "batch": 2, "fits": 0, "directions": 0}
_PHOTO = {**_TINY, "levels": 2, "model": {**_SIZES, "regional": 8}, "mix": {"crop": 32, "per_view": 2}}
RECIPES = {  # what is other in them than in what is shown
    "recipe.toml": _PHOTO,
    "longer.toml": {**_PHOTO, "steps": 10_001},  # it begins at 10,000
    "icons.toml": {**_TINY, "model": {**_SIZES, "top": 8}},
    "digits.toml": {**_TINY, "model": {"hidden": [8, 8]}},
    "weighted.toml": {**_TINY, "model": {"hidden": [8, 8], "components": 3}},
}


class Block(NamedTuple):
    """kind: what stands behind the fence; "" for what is indented."""

    kind: str
    text: str


def blocks(document: Path) -> Iterator[Block]:
    """What is fenced or indented, in order."""
    text = document.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w*)\n(.*?)^```|((?:^    [^\n]*\n)+)", text, re.DOTALL | re.MULTILINE):
        kind, fenced, indented = found.groups()
        yield Block(kind or "", fenced or re.sub(r"^    ", "", indented, flags=re.MULTILINE))


def commands(block: Block) -> list[str]:
    """The lines of a block that are run."""
    if block.kind not in ("", "sh") or block.text.startswith(NOT_RUN):
        return []
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line for line in lines if re.match(r"(\w+=\S+ )*bbans \w", line)]


def waves(height: int, width: int, seed: int) -> Image.Image:
    """A picture that a model is made for."""
    random = np.random.default_rng(seed)
    y, x, c = np.ogrid[:height, :width, :3]
    values = 128 + 60 * np.sin(x / random.uniform(3, 20) + c) + 50 * np.cos(y / random.uniform(3, 20))
    return Image.fromarray((values + random.normal(0, 5, values.shape)).clip(0, 255).astype(np.uint8))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the pictures that the documents name."""
    for folder in ("album", "held-out"):
        (tmp_path / folder).mkdir()
    for i, name in enumerate(["album/beach", "album/hills", "album/lake", "held-out/dunes", "photo", "kodim05"]):
        waves(48, 64, i).save(tmp_path / f"{name}.png")
    drawn = Image.new("RGB", (1600, 1400), "white")  # of several tiles, and quick, because WebP codes it
    drawn.paste((20, 60, 160), (500, 200, 1200, 700))
    drawn.save(tmp_path / "big.png")
    random = np.random.default_rng(0)
    np.savez(tmp_path / "digits.npz", images=random.integers(0, 2, (43, 28, 28), np.uint8) * np.uint8(200))
    for name in ("icons", "icons-test"):
        np.savez(tmp_path / f"{name}.npz", images=random.integers(0, 256, (12, 32, 32, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def toml(table: dict[str, Any]) -> str:
    flat = [f"{key} = {json.dumps(value)}\n" for key, value in table.items() if not isinstance(value, dict)]
    return "".join(flat) + "".join(f"[{k}]\n{toml(v)}" for k, v in table.items() if isinstance(v, dict))


def merged(table: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return table | {k: merged(table.get(k, {}), v) if isinstance(v, dict) else v for k, v in other.items()}


def write_recipe(text: str) -> None:
    """The recipe that is shown, once it is one, made tiny."""
    name = Path(text.splitlines()[0].removeprefix("# "))
    name.write_text(text)
    shown = tomllib.loads(text)
    read_recipe(name, shown["family"])
    name.write_text(toml(merged(shown, RECIPES[str(name)])))


def tiny_photo(folder: Path) -> None:
    """A model in `models/photo`, and the recipe of its sizes."""
    shutil.copytree(folder, "models/photo")
    sizes = zoo.read_weights(folder)[0]["config"]
    Path("models/photo/recipe.toml").write_text(toml(merged(_PHOTO, {"model": sizes})))


def run_command(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """In this process, which reads and writes what the shell would have it; its exit code."""
    if "heatmap" in line and importlib.util.find_spec("matplotlib") is None:
        return 0
    words = shlex.split(line)
    with monkeypatch.context() as patched, ExitStack() as stack:
        while "=" in words[0]:
            patched.setenv(*words.pop(0).split("=", 1))
        for sign, stream, mode in (("<", "stdin", "rb"), (">", "stdout", "wb")):
            if sign in words:
                at = words.index(sign)
                file = stack.enter_context(open(words[at + 1], mode))
                patched.setattr(sys, stream, stack.enter_context(io.TextIOWrapper(file)))
                del words[at : at + 2]
        return main(words[1:])


def run_python(text: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What it prints is what the comments behind its prints say, if there are any."""
    capsys.readouterr()
    exec(compile(text, name, "exec"), {})
    if expected := re.findall(r"^print\(.*\)  # (.*)$", text, re.MULTILINE):
        assert capsys.readouterr().out.splitlines() == expected


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_examples(
    document: Path,
    place: Path,
    tiny_models: dict[int, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = list(blocks(document))
    for block in shown:
        if block.kind == "toml":
            write_recipe(block.text)
    if any("--init models/photo" in line for block in shown for line in commands(block)):
        tiny_photo(tiny_models[3])
    for number, block in enumerate(shown):
        if block.kind == "python":
            run_python(block.text, f"{document.name}, block {number + 1}", capsys)
        for line in commands(block):
            code = run_command(line, monkeypatch)
            assert code == 0, f"{line}\n{capsys.readouterr().err}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_what_is_not_run_says_so(document: Path) -> None:
    for block in blocks(document):
        if block.kind == "sh" and not block.text.startswith(NOT_RUN):
            assert commands(block) == block.text.replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (document.parent / link).exists(), link


def test_there_are_examples() -> None:
    found = [block for document in DOCUMENTS for block in blocks(document)]
    assert sum(block.kind == "python" for block in found) >= 5
    assert sum(len(commands(block)) for block in found) >= 25
    assert sum(block.text.startswith(NOT_RUN) for block in found) <= 3
