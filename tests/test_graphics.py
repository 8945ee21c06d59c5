"""The benchmark of graphics: what it draws, and that it sees a picture that is too large."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

DRAWN = [
    ("icon", Image.new("RGBA", (20, 10), (200, 10, 10, 100))),
    ("palette", Image.new("L", (20, 10)).quantize(2)),
    ("bilevel", Image.new("1", (20, 10))),
]


@pytest.fixture
def graphics(monkeypatch: pytest.MonkeyPatch):
    import bench.graphics

    monkeypatch.setattr(bench.graphics.drawings, "drawings", lambda: iter(DRAWN))
    return bench.graphics


@pytest.mark.parametrize("slack", [64, -1000])
def test_bytes_and_seconds(
    graphics, slack: int, tmp_path: Path, tiny_models: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphics, "SLACK", slack)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 80, 3), np.uint8)).save(tmp_path / "a.png")
    options = [str(tmp_path / "a.png"), "-m", str(tiny_models[2]), "-o", str(tmp_path)]
    result = CliRunner().invoke(graphics.main, options)
    assert result.exit_code == (slack < 0), result.output
    record = json.loads((tmp_path / "graphics.json").read_text())
    assert record["larger"] == ([name for name, _ in DRAWN] if slack < 0 else [])
    assert [row["raw"] for row in record["drawings"]] == [800, 200 + 3, 25]
    seconds, choosing = record["photographs"]["a.png"]
    assert 0 < choosing < seconds
