"""Hostile files, a few of each kind: nothing but a `BbansError` is raised, and no wrong picture comes out.

`python -m bench.faults` tries many more.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bbans import zoo
from bbans.errors import BadFile, BbansError
from bench import faults

from .golden.make import CHAINS, HERE, MODEL, ON_BYTES, VERSION


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folders = MODEL, ON_BYTES, *(VERSION / name for _, name in CHAINS)
    models = [zoo.load(folder, device="cpu") for folder in folders]
    return faults.Readers(models, tmp_path_factory.mktemp("fuzz"))


@pytest.fixture(scope="module")
def samples(readers: Any) -> list[Any]:
    """The golden files."""
    return [readers.sample(path.name, path.read_bytes()) for path in sorted(HERE.glob("*/*.bbans*"))]


@settings(max_examples=60)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_hostile_files_are_errors(readers: Any, samples: list[Any], data: st.DataObject, seed: int) -> None:
    ids = [*readers.models, bytes(range(8))]
    kind = data.draw(st.sampled_from([kind for kind in faults.kinds(ids) if any(map(kind.takes, samples))]))
    sample = data.draw(st.sampled_from([sample for sample in samples if kind.takes(sample)]))
    with contextlib.suppress(BbansError):
        sample.read(kind.make(sample.data, Random(seed)), kind.resealed)


def test_mutations_come_back_from_their_seeds(readers: Any, samples: list[Any]) -> None:
    for kind in faults.kinds([bytes(8)]):
        for sample in samples:
            if kind.takes(sample):
                assert kind.make(sample.data, Random(1)) == kind.make(sample.data, Random(1))


def test_faults_are_counted_and_kept(tmp_path: Path) -> None:
    """Those of a reader that does all that none should."""

    def read(data: bytes, resealed: bool) -> None:
        raise {0: faults.Wrong(), 1: faults.Hang(), 2: MemoryError(), 3: BadFile("damaged")}[data[0]]

    tally = faults.Tally("a kind")
    for what in range(4):
        faults.trial(tally, faults.Sample("x.bbans", b"", read), bytes([what]), False, tmp_path)
    assert dict(tally.faults) == {"wrong": 1, "hang": 1, "crash": 1} and dict(tally.errors) == {"BadFile": 1}
    kept = {path.name: path.read_bytes() for path in tmp_path.glob("*.bbans")}
    assert kept == {"wrong-a-kind-1-x.bbans": b"\0", "hang-a-kind-2-x.bbans": b"\1", "crash-a-kind-3-x.bbans": b"\2"}
    assert "MemoryError" in (tmp_path / "crash-a-kind-3-x.bbans.txt").read_text()
