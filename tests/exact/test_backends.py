"""Which backend a network gets, and that none is used that is wrong, or not there."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from bbans import zoo
from bbans.errors import BadBackend, BadModel, InexactDevice
from bbans.exact import backends, selftest
from bbans.exact.backends import BACKENDS, FLOAT32, FLOAT64, INT8, backend_of, candidates, proved, use
from bbans.exact.bytes import IntByteConv
from bbans.exact.export import largest_byte_sum
from bbans.exact.layers import EXACT_LIMIT, IntConv, arithmetic
from bbans.image.codec import decode_tile, encode_tile
from bbans.vae.families import Network

Folders = dict[int, Path]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def chosen_by_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by who runs the tests, nor by what machine this is, nor how busy."""
    monkeypatch.delenv("BBANS_BACKEND", raising=False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")


def lacks_int8(network: Network) -> bool:
    return not proved(network, INT8, selftest.answers(use(network, FLOAT64)))


@pytest.fixture
def of_bytes(tiny_models: Folders) -> Network:
    """A network that has layers on bytes, on a machine whose int8 is exact."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = zoo.load(tiny_models[8], device="cpu").network
    if lacks_int8(network):
        pytest.skip("no exact int8 here")
    return use(network, INT8)


@pytest.fixture
def known(of_bytes: Network) -> list[int]:
    found = selftest.answers(use(of_bytes, FLOAT64))
    use(of_bytes, INT8)
    return found


def byte_layers(network: nn.Module) -> list[IntByteConv]:
    return [layer for layer in network.modules() if isinstance(layer, IntByteConv)]


# -- choosing ----------------------------------------------------------------------------------------------------------


def test_each_backend_gives_the_known_answers(of_bytes: Network, known: list[int]) -> None:
    for backend in (*BACKENDS, *reversed(BACKENDS)):
        assert proved(of_bytes, backend, known) and backend_of(of_bytes) == backend
        wide = {buffer.dtype for buffer in of_bytes.buffers()} - {torch.int8}
        assert wide == {torch.float64 if backend == FLOAT64 else torch.float32}
    assert not proved(of_bytes, INT8, [0, *known[1:]])


def test_bytes_stay_bytes_between_layers(of_bytes: Network) -> None:
    """Else each layer would convert what it reads."""
    read: list[torch.dtype] = []
    for layer in (one for name, one in of_bytes.named_modules() if ".blocks_" in name and one in byte_layers(of_bytes)):
        layer.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].dtype))
    selftest.answers(of_bytes)
    assert {*read} == {torch.uint8}


def test_candidates_are_the_fastest_first(
    of_bytes: Network, tiny_models: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert candidates(of_bytes, CPU) == [INT8, FLOAT32, FLOAT64]
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    monkeypatch.setattr(backends, "seconds", lambda network, backend: {INT8: 1.0, FLOAT32: 0.5}[backend])
    assert candidates(of_bytes, CPU) == [FLOAT32, INT8, FLOAT64]
    monkeypatch.setattr(backends, "seconds", lambda network, backend: {INT8: 0.4, FLOAT32: 0.5}[backend])
    assert candidates(of_bytes, CPU) == [INT8, FLOAT32, FLOAT64]
    assert candidates(zoo.load(tiny_models[2], device="cpu").network, CPU) == [FLOAT32, FLOAT64]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_that_is_asked_for(
    backend: str, of_bytes: Network, tiny_models: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BBANS_BACKEND", backend)
    assert backend_of(zoo.load(tiny_models[8], device="cpu").network) == backend
    without = zoo.load(tiny_models[0], device="cpu").network
    assert backend_of(without) == (FLOAT64 if backend == FLOAT64 else FLOAT32)


def test_a_backend_that_is_none(tiny_models: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BBANS_BACKEND", "int4")
    with pytest.raises(BadBackend, match="int4"):
        zoo.load(tiny_models[8], device="cpu")


def test_all_backends_write_and_read_the_same_bytes(of_bytes: Network, tiny_models: Folders) -> None:
    model = zoo.load(tiny_models[8], device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (21, 34, 3), np.uint8)
    payloads = []
    for backend in BACKENDS:
        use(model.network, backend)
        payloads.append(encode_tile(model, pixels)[0])
        np.testing.assert_array_equal(decode_tile(model, payloads[0], *pixels.shape), pixels)
    assert len({*payloads}) == 1


# -- falling back ------------------------------------------------------------------------------------------------------


def spoil(monkeypatch: pytest.MonkeyPatch, method: str, when: object = None) -> None:
    """One number of what the method gives is wrong, of 64 rows at least if so many are asked for."""
    right = getattr(IntByteConv, method)

    def wrong(layer: IntByteConv, x: Tensor, *others: Any) -> Tensor:
        y = right(layer, x, *others)
        if x.shape[-2] >= (when or 0):
            y[-1, -1, -1, -1] += 1 if y[-1, -1, -1, -1] < 9 else -1
        return y

    monkeypatch.setattr(IntByteConv, method, wrong)


@pytest.mark.parametrize("rows", [0, 100])
def test_a_backend_with_one_wrong_number_is_not_used_but_named(
    rows: int, of_bytes: Network, tiny_models: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it is wrong for maps of the size of tiles alone, which known answers are too small for."""
    spoil(monkeypatch, "_in_int8", rows)
    with pytest.warns(RuntimeWarning, match="cannot compute exactly with int8: using float32"):
        assert backend_of(zoo.load(tiny_models[8], device="cpu").network) == FLOAT32
    monkeypatch.setenv("BBANS_BACKEND", INT8)
    with pytest.raises(BadBackend, match="int8"):
        zoo.load(tiny_models[8], device="cpu")


def test_where_all_are_wrong_nothing_is_coded(
    of_bytes: Network, tiny_models: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, "_in_int8")
    spoil(monkeypatch, "_in_floats")
    with pytest.raises(InexactDevice, match="with int8 and float32 and float64"):
        zoo.load(tiny_models[8], device="cpu")


def test_a_wrong_answer_of_other_layers_is_noticed(of_bytes: Network, known: list[int]) -> None:
    layer = next(layer for layer in of_bytes.modules() if isinstance(layer, IntConv))
    layer.bias += 1
    assert not any(proved(of_bytes, backend, known) for backend in BACKENDS)


@pytest.mark.parametrize("missing", [AttributeError, RuntimeError, NotImplementedError])
def test_an_operation_that_is_missing(
    missing: type[Exception], tiny_models: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(layer: IntByteConv, *_: Any) -> Tensor:
        raise missing("'_OpNamespace' 'onednn' object has no attribute 'qconv_prepack'")

    monkeypatch.setattr(IntByteConv, "_in_int8", lacking)
    with pytest.warns(RuntimeWarning, match="cannot compute exactly with int8: using float32"):
        network = zoo.load(tiny_models[8], device="cpu").network
    assert backend_of(network) == FLOAT32


# -- what is proved ----------------------------------------------------------------------------------------------------


class Layers(nn.Module):
    """The layers of a width, as `photo` has them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            IntByteConv(torch.zeros(out, width, k, k), torch.zeros(out), torch.ones(out), source="byte.s")
            for out, k in ((width, 3), (width, 1), (32, 1))
        )


@pytest.mark.parametrize("width", [3, 8, 57, 64, 128, 300])
def test_extremes_are_within_the_limits_and_not_only_clamped(width: int) -> None:
    for layer in backends._kinds(Layers(width), FLOAT32):
        shift = -torch.log2(layer.power)
        largest = largest_byte_sum(layer.weight, layer.bias / layer.power, shift)
        assert float(largest.max()) < EXACT_LIMIT and int(layer.weight.abs().max()) == 64
        with arithmetic():
            y = layer(backends._input(layer, (1, 3, 9), CPU))
        for rows in (y[:, 0::4], y[:, 1::4]):  # the largest sums, and the least
            assert float(((rows > 0) & (rows < 255)).float().mean()) > 0.3


def test_extremes_hold_for_the_layers_as_networks_use_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, bool]] = []
    right = IntByteConv._in_floats

    def watched(layer: IntByteConv, x: Tensor, add: Tensor | None, offset: int) -> Tensor:
        asked.append((layer.weight.shape[-1], add is not None))
        return right(layer, x, add, offset)

    monkeypatch.setattr(IntByteConv, "_in_floats", watched)
    monkeypatch.setattr(backends, "SIZES", ((1, 5, 9), (2, 1, 5)))
    assert backends._extremes_hold(Layers(8), FLOAT32)
    assert {*asked} == {(3, False), (3, True), (1, True), (1, False)}


# -- models that are refused -------------------------------------------------------------------------------------------


@pytest.fixture
def tampered(tiny_models: Folders, tmp_path: Path) -> Iterator[object]:
    """tampered(part, value): loads the model with all of a part of a layer on bytes set to a value."""
    described, _ = zoo.read_weights(tiny_models[8])
    arrays = load_file(tiny_models[8] / zoo.WEIGHTS)

    def load(part: str, value: int, name: str = "levels.0.blocks_d.0.first") -> zoo.Model:
        kind = arrays[f"{name}.{part}"]
        changed = arrays | {f"{name}.{part}": np.full_like(kind, value)}
        save_file(changed, tmp_path / zoo.WEIGHTS, {"bbans": json.dumps(described)})
        return zoo.load(tmp_path, device="cpu")

    yield load


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("weight", 65),
        ("weight", -65),
        ("weight", -128),
        ("shift", -1),
        ("shift", -3),
        ("shift", 17),
        ("bias", EXACT_LIMIT),
        ("bias", -EXACT_LIMIT),
        ("bias", -(1 << 31)),
    ],
)
def test_weights_out_of_range_are_refused(tampered, part: str, value: int) -> None:
    with pytest.raises(BadModel, match=r"blocks_d\.0\.first: the model's weights are not exact"):
        tampered(part, value)


def test_weights_of_another_type_are_refused(tiny_models: Folders, tmp_path: Path) -> None:
    described, _ = zoo.read_weights(tiny_models[8])
    arrays = load_file(tiny_models[8] / zoo.WEIGHTS)
    name = "levels.0.blocks_d.0.first.weight"
    save_file(arrays | {name: arrays[name].astype(np.int16)}, tmp_path / zoo.WEIGHTS, {"bbans": json.dumps(described)})
    with pytest.raises(BadModel, match="wrong type"):
        zoo.load(tmp_path, device="cpu")
