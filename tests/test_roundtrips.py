"""The benchmark of round trips on a few pictures, which is also a test of what it tests."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bbans.image.modes import MODES
from bbans.image.picture import Picture
from bench import roundtrips


def test_all_combinations() -> None:
    made = roundtrips.combinations()
    assert len(made) >= 2000 and {one.mode for one in made} == set(MODES)
    met = Counter((one.mode, one.metadata) for one in made)
    assert len(met) == len(MODES) * (len(roundtrips.METADATA) + 1) and min(met.values()) >= 15
    assert {(one.mode, one.content) for one in made} == {(m, c) for m in MODES for c in roundtrips.CONTENTS}


def test_a_few_come_back(tiny_models: dict[int, Path]) -> None:
    result = CliRunner().invoke(roundtrips.main, ["--quick", "-m", str(tiny_models[2])])
    assert result.exit_code == 0, result.output
    last = result.output.splitlines()[-1]
    assert last.replace(" ", "") == f"|sum|{roundtrips.QUICK}|0|"


def test_a_difference_is_noticed(tiny_models: dict[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def other(data: bytes, models: object) -> Picture:
        return Picture(np.zeros((1, 1, 1), np.uint8), "L")

    monkeypatch.setattr(roundtrips, "decompress_picture", other)
    result = CliRunner().invoke(roundtrips.main, ["--quick", "-m", str(tiny_models[2])])
    assert result.exit_code == 1 and "what is decoded has other pixels" in result.output
