"""Which backends a network knows, how each does here, and which one is used: what `bbans models --backends` tells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bbans import zoo
from bbans.errors import BadBackend
from bbans.exact import backends, selftest
from bbans.exact.backends import BACKENDS, FLOAT32, FLOAT64, INT8
from bbans.vae.families import Network


@pytest.fixture(scope="module")
def on_bytes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a `photo` model of random weights with layers on bytes."""
    from PIL import Image

    from bbans.train.data import Mix
    from bbans.train.export import export
    from bbans.train.tasks import PhotoTask
    from bbans.vae.photo import PhotoConfig, PhotoVAE

    folder = tmp_path_factory.mktemp("bytes")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(folder / "x.png")
    sizes = PhotoConfig(
        channels=8, hidden=4, mixtures=1, latents=0, overview=False, regional=8, blocks=(1, 1, 1), bits=8
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = PhotoVAE(sizes)
        with torch.no_grad():
            for weights in network.parameters():
                weights.add_(0.05 * torch.randn_like(weights))
    export(network, PhotoTask(sizes, [folder / "x.png"], [], Mix(), levels=2), folder / "tiny")
    return folder / "tiny"


def wrong_by(monkeypatch: pytest.MonkeyPatch, *wrong: str) -> None:
    """This machine computes wrongly with some backends, and int8 would be the fastest of all."""
    right = selftest.answers

    def answers(network: Network) -> list[int]:
        return [] if backends.backend_of(network) in wrong else right(network)

    monkeypatch.setattr(selftest, "answers", answers)
    monkeypatch.setattr(backends, "candidates", lambda network, place: list(BACKENDS))


def test_a_network_on_bytes_knows_all(on_bytes: Path) -> None:
    model = zoo.load(on_bytes, device="cpu")
    used = backends.backend_of(model.network)
    found = backends.describe(model.network)
    assert tuple(each.backend for each in found) == BACKENDS and {each.device for each in found} == {"cpu"}
    assert [each.backend for each in found if each.used] == [used] == [backends.backend_of(model.network)]
    assert all(each.seconds is None or each.seconds > 0 for each in found)
    assert {each.backend for each in found if each.seconds} >= {FLOAT32, FLOAT64}


def test_others_know_no_int8(tiny_models: dict[int, Path], tiny_dense: Callable[[str], Path]) -> None:
    photo, dense = (
        zoo.load(folder, device="cpu").network for folder in (tiny_models[2], tiny_dense("bernoulli-diagonal"))
    )
    assert [(each.backend, each.used) for each in backends.describe(photo)] == [(FLOAT32, True), (FLOAT64, False)]
    assert [(each.backend, each.used) for each in backends.describe(dense)] == [(FLOAT64, True)]  # carried by it


def test_one_that_is_wrong_is_named(on_bytes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong_by(monkeypatch, INT8, FLOAT64)
    with pytest.warns(RuntimeWarning, match="cannot compute exactly with int8: using float32, which is slower"):
        network = zoo.load(on_bytes, device="cpu").network
    found = backends.describe(network)
    assert [(each.backend, each.seconds is None, each.used) for each in found] == [
        (INT8, True, False),
        (FLOAT32, False, True),
        (FLOAT64, True, False),
    ]


def test_a_slower_one_is_told_once(on_bytes: Path, monkeypatch: pytest.MonkeyPatch, recwarn: Any) -> None:
    wrong_by(monkeypatch, INT8)
    for _ in range(3):
        zoo.load(on_bytes, device="cpu")
    assert len([each for each in recwarn if "int8" in str(each.message)]) == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_environment_chooses(
    on_bytes: Path, tiny_models: dict[int, Path], backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """int8 for layers on bytes: networks without them compute what is left, in float32."""
    monkeypatch.setenv("BBANS_BACKEND", backend)
    try:
        network = zoo.load(on_bytes, device="cpu").network
    except BadBackend:
        assert backend == INT8  # which not every machine has
    else:
        assert backends.backend_of(network) == backend
        assert [each.backend for each in backends.describe(network) if each.used] == [backend]
    other = zoo.load(tiny_models[2], device="cpu").network
    assert backends.backend_of(other) == (FLOAT64 if backend == FLOAT64 else FLOAT32)


def test_the_environment_names_a_wrong_one(on_bytes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong_by(monkeypatch, FLOAT32)
    monkeypatch.setenv("BBANS_BACKEND", "float32")
    with pytest.raises(BadBackend, match="BBANS_BACKEND is 'float32', with which cpu cannot compute"):
        zoo.load(on_bytes, device="cpu")
    monkeypatch.setenv("BBANS_BACKEND", "bfloat16")
    with pytest.raises(BadBackend, match="BBANS_BACKEND is 'bfloat16', not one of int8, float32, float64"):
        zoo.load(on_bytes, device="cpu")
