"""The benchmark of ablations, on noise and for two steps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

CHANGED = [
    "E does not see B",
    "channels apart",
    "G, R-G, B-G, which may be beyond 0..255",
    "R, G, B",
    "one filter",
    "a fifth more steps, rounded, activations of 8 bits",
]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """bench.ablations, whose lists name two pictures in `tmp_path`."""
    from bench import ablations

    for name in ("train", "validation"):
        pixels = np.random.default_rng(0).integers(0, 256, (80, 96, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(f"{name}.png\n")
    monkeypatch.setattr(ablations, "LISTS", tmp_path)
    return ablations


def test_every_row_is_a_recipe(bench) -> None:
    base = bench.read_recipe(bench.BASE, "photo")
    assert bench.changed(base, bench.ROWS["base"]) == base
    distinct = {repr((bench.changed(base, row), row.get("code"), row.get("after"))) for row in bench.ROWS.values()}
    assert len(distinct) == len(bench.ROWS)


def test_rows_are_trained_once_and_measured(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = bench.changed(bench.read_recipe(bench.BASE, "photo"), {"model": {"channels": 8, "regional": 8}})
    monkeypatch.setattr(bench, "read_recipe", lambda *_: replace(small, batch=2, levels=2))
    command = ["base", "no latents", "--steps", "2", "--data", str(tmp_path), "-o", str(tmp_path / "out")]
    for _ in range(2):
        result = CliRunner().invoke(bench.main, command)
        assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "out" / "ablations.json").read_text())["rows"]
    assert list(rows) == ["base", "no latents"] and all(row["total"] > 7 for row in rows.values())
    assert rows["base"]["parameters"] > rows["no latents"]["parameters"]
    runs = list((tmp_path / "out" / "ablations").iterdir())
    assert len(runs) == 2 and all(len((run / "log.jsonl").read_text().splitlines()) == 1 for run in runs)


@pytest.mark.parametrize("name", CHANGED)
def test_changed_code_still_codes(bench, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench.ROWS[name]["code"]
    small = bench.changed(bench.read_recipe(bench.BASE, "photo"), {"model": {"channels": 8, "regional": 8}})
    monkeypatch.setattr(bench, "read_recipe", lambda *_: replace(small, batch=2, levels=2))
    command = [name, "--steps", "1", "--data", str(tmp_path), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(bench.main, command)
    assert result.exit_code == 0, result.output


def test_without_pictures_nothing_is_measured(bench, tmp_path: Path) -> None:
    result = CliRunner().invoke(bench.main, ["base", "--data", str(tmp_path / "nowhere"), "-o", str(tmp_path / "out")])
    assert result.exit_code == 0 and "nothing measured" in result.output
