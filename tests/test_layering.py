"""The layers of the design: imports point down only, and everything up to bits-back has never heard of torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bbans

PACKAGE = Path(bbans.__file__).parent
# From the bottom; a room may import those to its left, and within itself.
ROOMS = (
    "errors",
    "memory",
    "ans",
    "codecs",
    "bitsback",
    "particles",
    "vae",
    "exact",
    "workers",
    "zoo",
    "image",
    "archive",
    "train",
    "pillow_plugin",
    "__init__",
    "cli",
)
WITHOUT_TORCH = ("errors", "memory", "ans", "codecs", "bitsback", "particles")
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "_models" not in path.parts and path.stem != "__main__")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Full names of the modules a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level and node.module, f"{path}: imports are absolute"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    own = ROOMS.index(room_of(path))
    parts = [name.split(".") for name in imports(path) if name.startswith("bbans.")]
    above = {name for _, name, *_ in parts if name in ROOMS and ROOMS.index(name) > own}
    assert not above, f"{room_of(path)} imports {', '.join(sorted(above))}"


@pytest.mark.parametrize("path", [path for path in FILES if room_of(path) in WITHOUT_TORCH], ids=lambda path: path.name)
def test_the_coder_knows_no_torch(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & {"torch", "safetensors", "PIL", "click"}


@pytest.mark.parametrize("module", ["bbans", "bbans.bitsback", "bbans.codecs", "bbans.zoo", "bbans.cli.main"])
def test_torch_is_loaded_when_a_model_is(module: str) -> None:
    code = f"import sys, {module}; assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_bbans_loads_next_to_nothing() -> None:
    code = "import sys, bbans; assert not {'torch', 'numpy', 'click'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
