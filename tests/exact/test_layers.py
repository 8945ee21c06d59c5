from __future__ import annotations

import contextlib
import threading

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bbans.exact.layers import ACTIVATION_MAX, EXACT_LIMIT, IntConv, arithmetic


def largest_layer(kernel: int, stride: int) -> tuple[tuple[Tensor, Tensor, Tensor], IntConv]:
    """Weights whose sums may come within a unit or so of 2^24, and their layer."""
    generator = torch.Generator().manual_seed(kernel)
    shift = torch.tensor([1, 7, 12, 16])
    share = EXACT_LIMIT // ACTIVATION_MAX // (9 * kernel**2)
    weight = torch.randint(1 - share, share, (4, 9, kernel, kernel), generator=generator)
    weight[:, 0, 0, 0] = 0
    room = EXACT_LIMIT - 1 - (1 << (shift - 1))
    weight[:, 0, 0, 0] = room // ACTIVATION_MAX - weight.abs().flatten(1).sum(1)
    bias = room - ACTIVATION_MAX * weight.abs().flatten(1).sum(1)
    assert (bias >= 0).all() and (weight[:, 0, 0, 0] > 0).all()
    tensors = (weight.to(torch.int16), bias.to(torch.int32), shift.to(torch.int32))
    return (weight, bias, shift), IntConv(*tensors, stride=stride, lowest=-(1 << 24), highest=1 << 24)


def on_integers(parts: tuple[Tensor, Tensor, Tensor], x: Tensor, stride: int) -> Tensor:
    """The layer in 64-bit integers."""
    weight, bias, shift = parts
    n, _, h, w = x.shape
    k = weight.shape[-1]
    columns = F.unfold(x.double(), k, padding=k // 2, stride=stride).long()
    sums = (weight.flatten(1)[None, :, :, None] * columns[:, None]).sum(2)
    out = (sums + bias[:, None] + (1 << (shift - 1))[:, None]) >> shift[:, None]
    return out.view(n, 4, -(-h // stride), -(-w // stride))


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # which PyTorch says of any change to oneDNN
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
def test_equals_integers_at_the_largest_magnitudes(kernel: int, stride: int, batch: int, dtype: torch.dtype) -> None:
    parts, layer = largest_layer(kernel, stride)
    layer = layer.to(dtype)
    x = torch.randint(
        -ACTIVATION_MAX, ACTIVATION_MAX + 1, (batch, 9, 7, 11), generator=torch.Generator().manual_seed(1)
    )
    # where inputs agree with the signs of the weights, a sum is as large as it can be
    x[0, :, 2 : 2 + kernel, 4 : 4 + kernel] = ACTIVATION_MAX * parts[0][2].sign()
    expected = on_integers(parts, x, stride)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            for onednn in (True, False):
                for layout in (torch.contiguous_format, torch.channels_last):
                    with arithmetic(), torch.backends.mkldnn.flags(enabled=onednn):
                        out = layer(x.to(dtype).contiguous(memory_format=layout))
                    assert torch.equal(out.long(), expected)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
def test_equals_integers_where_only_weights_have_signs(kernel: int, stride: int) -> None:
    """Of activations that are never negative, weights of either sign may sum up to the limit."""
    (weight, _, shift), _ = largest_layer(kernel, stride)
    weight = torch.cat([weight, -weight], 1)[:, torch.randperm(18, generator=torch.Generator().manual_seed(2))]
    mass = torch.maximum(weight.clamp_min(0).flatten(1).sum(1), -weight.clamp_max(0).flatten(1).sum(1))
    bias = EXACT_LIMIT - 1 - (1 << (shift - 1)) - ACTIVATION_MAX * mass
    tensors = (weight.to(torch.int16), bias.to(torch.int32), shift.to(torch.int32))
    layer = IntConv(*tensors, stride=stride, lowest=-(1 << 24), highest=1 << 24)
    x = torch.full((3, 18, 7, 11), ACTIVATION_MAX)
    x[1] = ACTIVATION_MAX * (weight[2, :, kernel // 2, kernel // 2] > 0)[:, None, None]
    x[2].random_(0, ACTIVATION_MAX + 1, generator=torch.Generator().manual_seed(1))
    for layout in (torch.contiguous_format, torch.channels_last):
        with arithmetic():
            out = layer(x.float().contiguous(memory_format=layout))
        assert torch.equal(out.long(), on_integers((weight, bias, shift), x, stride))


def test_the_largest_sum_occurs() -> None:
    parts, layer = largest_layer(3, 1)
    x = (ACTIVATION_MAX * parts[0].sign()).float()
    with arithmetic():
        middles = layer(x)[range(4), range(4), 1, 1].long()
    assert middles.tolist() == [(EXACT_LIMIT - 1) >> s for s in parts[2].tolist()]


def test_adds_and_then_clamps() -> None:
    one = torch.ones(1, 1, 1, 1, dtype=torch.int16)
    layer = IntConv(2 * one, torch.tensor([0]), torch.tensor([1]), stride=1, lowest=0, highest=1023)
    x, add = torch.tensor([-5.0, 3.0, 1000.0]), torch.tensor([2.0, 4.0, 100.0])
    with arithmetic():
        assert layer(x.view(1, 1, 1, 3)).flatten().tolist() == [0, 3, 1000]
        assert layer(x.view(1, 1, 1, 3), add=add.view(1, 1, 1, 3)).flatten().tolist() == [0, 7, 1023]


def test_rounds_half_up() -> None:
    one = torch.ones(1, 1, 1, 1, dtype=torch.int16)
    layer = IntConv(one, torch.tensor([0]), torch.tensor([1]), stride=1, lowest=-9, highest=9)
    with arithmetic():
        assert layer(torch.tensor([-3.0, -1.0, 1.0, 3.0]).view(1, 1, 1, 4)).flatten().tolist() == [-1, 0, 1, 2]


@pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "conv"), reason="this PyTorch has one setting for all backends")
@pytest.mark.parametrize("backend", ["conv", "matmul"])
def test_arithmetic_wants_float32_and_leaves_the_settings_as_they_were(backend: str) -> None:
    settings = getattr(torch.backends.mkldnn, backend)
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        with contextlib.suppress(KeyError), arithmetic():
            assert settings.fp32_precision == "ieee" and torch.is_inference_mode_enabled()
            raise KeyError
        assert settings.fp32_precision == "bf16" and not torch.is_inference_mode_enabled()
    finally:
        settings.fp32_precision = before


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_threads_share_the_settings_until_the_last_is_out() -> None:
    first_in, second_in, first_out = (threading.Event() for _ in range(3))
    backend, name = torch.backends.mkldnn.conv, "fp32_precision"
    if not hasattr(backend, name):
        pytest.skip("a PyTorch with one setting for all")
    before, seen = getattr(backend, name), []

    def first() -> None:
        with arithmetic():
            first_in.set()
            assert second_in.wait(10)
        first_out.set()

    setattr(backend, name, "bf16")
    try:
        thread = threading.Thread(target=first)
        thread.start()
        assert first_in.wait(10)
        with arithmetic():
            second_in.set()
            assert first_out.wait(10)
            seen.append(getattr(backend, name))
        thread.join()
        seen.append(getattr(backend, name))
    finally:
        setattr(backend, name, before)
    assert seen == ["ieee", "bf16"]
