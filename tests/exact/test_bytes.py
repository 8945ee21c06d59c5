"""Layers on bytes: each backend computes what 64-bit integers do, and learning with rounding computes the same."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from bbans.exact.bytes import FLOATS, INT8, IntByteConv
from bbans.exact.export import calibrate, install, largest_byte_sum, quantise
from bbans.exact.layers import EXACT_LIMIT, arithmetic
from bbans.vae.layers import BYTE_MAX, BYTE_UNIT, BYTE_WEIGHT_MAX, ByteConv, Conv, Enlarged, Residual, signed_bytes

Compute = Callable[[IntByteConv, Tensor, "Tensor | None"], Tensor]


# -- backends ----------------------------------------------------------------------------------------------------------


def in_floats(layer: IntByteConv, x: Tensor, add: Tensor | None = None) -> Tensor:
    layer.use(FLOATS)
    return layer(x, add)


def in_float64(layer: IntByteConv, x: Tensor, add: Tensor | None = None) -> Tensor:
    return in_floats(copy.deepcopy(layer).double(), x, add)


def in_int8(layer: IntByteConv, x: Tensor, add: Tensor | None = None) -> Tensor:
    layer.use(INT8)
    try:
        return layer(x, add)
    except (AttributeError, NotImplementedError):
        pytest.skip("this PyTorch lacks the operation")


def by_products(layer: IntByteConv, x: Tensor, add: Tensor | None = None) -> Tensor:
    """What GPUs do."""
    return copy.deepcopy(layer)._by_products(x, add, 0)


BACKENDS: dict[str, Compute] = {
    "float32": in_floats,
    "float64": in_float64,
    "int8": in_int8,
    "products": by_products,
}


@pytest.fixture(autouse=True)
def exactly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The settings of `arithmetic`, but with gradients; and products on the sizes that CUDA takes.

    On CPUs without VNNI, those of oneDNN saturate; bytes there use its convolution instead.
    """

    def int_mm(a: Tensor, b: Tensor) -> Tensor:
        assert a.dtype == b.dtype == torch.int8 and a.is_contiguous() and b.is_contiguous()
        assert len(a) > 16 and a.shape[1] % 8 == b.shape[1] % 8 == 0
        return mm(a, b) if saturates_not else a.int() @ b.int()

    mm, largest = torch._int_mm, torch.full((32, 32), -128, dtype=torch.int8)
    saturates_not = int(mm(largest, largest)[0, 0]) == 32 << 14
    monkeypatch.setattr(torch, "_int_mm", int_mm)
    with arithmetic(), torch.inference_mode(False), torch.enable_grad():
        yield


class Integers(NamedTuple):
    """A layer's integers."""

    weight: Tensor
    bias: Tensor
    shift: Tensor

    def layer(self) -> IntByteConv:
        assert bool((largest_byte_sum(self.weight, self.bias, self.shift) < EXACT_LIMIT).all())
        return IntByteConv(self.weight, self.bias, self.shift, source="byte.s")

    def __call__(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """In 64 bits, of which convolutions are sums of products. add: integers."""
        n, _, h, w = x.shape
        k = self.weight.shape[-1]
        columns = F.unfold(x.double(), k, padding=k // 2).long()
        sums = (self.weight.long().flatten(1)[None, :, :, None] * columns[:, None]).sum(2) + self.bias[:, None]
        sums, shift = sums.view(n, -1, h, w), self.shift.long()[:, None, None]
        sums = sums if add is None else sums + (add.long() << shift)
        half = 1 << (shift - 1)
        below, rest = sums >> shift, sums & ((1 << shift) - 1)
        up = (rest > half) | ((rest == half) & (below % 2 == 1))
        return (below + up).clamp(0, BYTE_MAX)


def integers(kernel: int, channels: int, outputs: int, largest: int, seed: int = 0) -> Integers:
    """Random weights, up to `largest`; that of `BYTE_WEIGHT_MAX` means all of that magnitude."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randint(-largest, largest + 1, (outputs, channels, kernel, kernel), generator=generator)
    if largest == BYTE_WEIGHT_MAX:
        weight = largest * torch.where(weight < 0, -1, 1)
        weight[0], weight[1] = largest, -largest
    shift = torch.randint(1, 13, (outputs,), generator=generator)
    bias = torch.randint(-300, 301, (outputs,), generator=generator) << shift
    bias[1] += 250 * largest * channels * kernel**2  # what is negative would only be clamped
    return Integers(weight, bias, shift)


def some_bytes(*shape: int, seed: int = 1) -> Tensor:
    """Random, and half of them 0 or 255."""
    x = torch.randint(-BYTE_MAX // 2, BYTE_MAX + BYTE_MAX // 2, shape, generator=torch.Generator().manual_seed(seed))
    return x.clamp(0, BYTE_MAX).to(torch.uint8)


KINDS = {  # kernel, inputs, outputs, whether bytes are added
    "3x3": (3, 12, 12, False),
    "3x3 of odd sizes": (3, 7, 5, False),
    "1x1 with add": (1, 24, 24, True),
    "3x3 with add": (3, 5, 7, True),
}
SIZES = [(1, 1, 1), (1, 7, 11), (16, 6, 5), (2, 1, 9)]  # batch, rows, columns


@pytest.mark.parametrize("largest", [3, 40, BYTE_WEIGHT_MAX])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_64_bit_integers(backend: str, kind: str, largest: int) -> None:
    kernel, channels, outputs, adds = KINDS[kind]
    given = integers(kernel, channels, outputs, largest)
    layer, threads = given.layer(), torch.get_num_threads()
    for batch, height, width in SIZES:
        x = some_bytes(batch, channels, height, width)
        add = some_bytes(batch, outputs, height, width, seed=2) if adds else None
        expected, before = given(x, add), None if add is None else add.clone()
        try:
            for count in (1, 2):
                torch.set_num_threads(count)
                for layout in (torch.contiguous_format, torch.channels_last):
                    found = BACKENDS[backend](layer, x.contiguous(memory_format=layout), add)
                    assert torch.equal(found.long(), expected)
        finally:
            torch.set_num_threads(threads)
        assert add is None or torch.equal(add, before), "what is added is left alone"


@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_integers_where_a_sum_and_its_bias_come_near_to_the_limit(backend: str) -> None:
    """Each is near to 2^23, and they cancel: had float32 lost a digit of one, it would show."""
    taps = 57 * 9
    bias = torch.tensor([-1, 1]) * (BYTE_WEIGHT_MAX * BYTE_MAX * taps) + torch.tensor([137, 21])
    weight = torch.full((2, 58, 3, 3), BYTE_WEIGHT_MAX)
    weight[1] *= -1
    weight[:, -1] = torch.randint(-1, 3, (2, 3, 3), generator=torch.Generator().manual_seed(0))
    given = Integers(weight, bias, torch.tensor([1, 2]))
    assert float(largest_byte_sum(*given).max()) > 0.99 * EXACT_LIMIT
    x = torch.full((1, 58, 9, 9), BYTE_MAX, dtype=torch.uint8)
    x[:, -1] = some_bytes(9, 9)
    expected = given(x)
    inside = expected[..., 1:-1, 1:-1]
    assert inside.unique().numel() > 20 and bool((inside.amax((0, 2, 3)) > 0).all())
    assert torch.equal(BACKENDS[backend](given.layer(), x, None).long(), expected)


@pytest.mark.parametrize("shift", [1, 14])
@pytest.mark.parametrize("backend", BACKENDS)
def test_rounds_half_to_even_with_what_is_added(backend: str, shift: int) -> None:
    """Sums of one half after 0, 1, 2, ...; and the next below and above, where shifts are so large that they count."""
    one = torch.ones(3, 1, 1, 1)
    bias = torch.tensor([-1, 0, 1]) * (shift > 1) + (1 << (shift - 1))
    layer = Integers(0 * one, bias, torch.full((3,), shift)).layer()
    x, add = torch.zeros(1, 1, 1, 256).byte(), torch.arange(256).byte().expand(1, 3, 1, 256)
    found = BACKENDS[backend](layer, x, add)[0, :, 0].long()
    whole = torch.arange(256)
    even = whole + whole % 2
    below, above = (whole, whole + 1) if shift > 1 else (even, even)
    assert torch.equal(found, torch.stack([below, even, above]).clamp_max(BYTE_MAX))


@pytest.mark.parametrize("size", [(8, 12), (9, 14), (3, 5)], ids=str)
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("backend", [FLOATS, INT8])
def test_what_is_told_of_regions_is_a_signed_byte_or_saturates(backend: str, adds: bool, size: tuple[int, int]) -> None:
    given = integers(3, 6, 4, 40)
    layer = given.layer()
    layer.use(backend)
    x, add = some_bytes(2, 6, *size), some_bytes(2, 4, *size, seed=2) if adds else None
    told = Enlarged(
        torch.randint(
            -400, 401, (2, 4, *(-(-side // 4) for side in size)), generator=torch.Generator().manual_seed(3)
        ).float(),
        4,
    )
    at = told.at(x).long()
    expected = given(x, (add.long() + at).clamp(0, BYTE_MAX) if add is not None else at.clamp(-128, 127))
    before = None if add is None else add.clone()
    try:
        assert torch.equal(layer(x, add, told).long(), expected)
    except (AttributeError, NotImplementedError):
        pytest.skip("this PyTorch lacks the operation")
    assert add is None or torch.equal(add, before)


@pytest.mark.parametrize("backend", [FLOATS, INT8])
def test_a_copy_shares_weights_whether_they_are_packed_or_not(backend: str) -> None:
    given = integers(3, 8, 8, 40)
    layer, x = given.layer(), some_bytes(2, 8, 5, 7)
    layer.use(backend)
    for _ in range(2):
        made = copy.deepcopy(layer)
        assert made.backend == backend and made.weight.data_ptr() == layer.weight.data_ptr()
        assert torch.equal(made(x).long(), given(x)) and torch.equal(layer(x).long(), given(x))


def test_it_goes_to_float64_and_back() -> None:
    given = integers(1, 8, 8, 40)
    layer, x = given.layer(), some_bytes(2, 8, 5, 7)
    layer.use(INT8)
    add = some_bytes(2, 8, 5, 7, seed=2)
    for dtype in (torch.float32, torch.float64, torch.float32):
        layer.to(dtype)
        assert layer.weight.dtype == torch.int8 and layer.bias.dtype == dtype
        found = layer(x, add)
        assert torch.equal(found.long(), given(x, add))
        assert found.dtype == (torch.uint8 if dtype == torch.float32 else torch.float64)


# -- learning with rounding --------------------------------------------------------------------------------------------


class Small(nn.Module):
    """A residual block of bytes, what it is told, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = ByteConv(4, 8, 3, source="byte.input", target="byte.stream")
        self.told = Conv(3, 8, 1, source="input", target="byte.stream", relu=False, writes=BYTE_UNIT)
        self.block = Residual(8, stream="byte.stream", inner="byte.inner", bytes=True)
        self.out = Conv(8, 2, 1, source="byte.stream", target="params", relu=False, digits=(8, 3), reads=BYTE_UNIT)

    def forward(self, x: Tensor, regions: Tensor) -> tuple[Tensor, ...]:
        h = self.enter(signed_bytes(x), told=Enlarged(self.told(regions), 4))
        inner = self.block.first(h)
        h = self.block.second(inner, add=h)
        return inner, h, self.out(h)


X = torch.randint(-255, 256, (3, 2, 9, 8), generator=torch.Generator().manual_seed(0)).float()
REGIONS = torch.randint(-99, 100, (3, 3, 3, 2), generator=torch.Generator().manual_seed(1)).float()


def small() -> Small:
    """Weights that integers hold exactly: those on wider activations, and all biases, are multiples of 2^-6 or so."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Small()
        nn.init.normal_(made.block.second.weight, std=0.3)
    for layer in made.modules():
        if isinstance(layer, ByteConv):
            layer.bias.data = (layer.bias.data * 64).round() / 64
            layer.rounds = True
        elif isinstance(layer, Conv):
            layer.weight.data, layer.bias.data = ((x.data * 64).round() / 64 for x in (layer.weight, layer.bias))
    made.told.weight.data = (made.told.weight.data * 2).round()  # told are whole numbers of 64ths
    return made


def test_learning_with_rounding_computes_what_integers_will() -> None:
    made = small()
    inner, stream, params = (out.detach() for out in made(X, REGIONS / 64))
    digits = calibrate(made, lambda: made(X, REGIONS / 64))
    exact = Small()
    install(exact, quantise(made, digits))
    found = exact(X, REGIONS)
    for bytes, mine in ((inner, found[0]), (stream, found[1])):
        assert bytes.unique().numel() > 20 and torch.equal(bytes, bytes.round().clamp(0, BYTE_MAX))
        assert torch.equal(bytes, mine)
    unit = torch.tensor([2.0**8, 2.0**3]).view(1, 2, 1, 1)
    assert float((found[2] - params * unit).abs().max()) < 4


def test_gradients_pass_rounding_and_stop_at_clamps() -> None:
    made = small()
    made(X, REGIONS / 64)[2].sum().backward()
    for name, weights in made.named_parameters():
        assert bool(weights.grad.any()), name
    layer = ByteConv(1, 1, 1, source="byte.s", target="byte.t")
    layer.rounds = True
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.zero_()
    x = torch.tensor([-3.0, 100.4, 300.0]).view(1, 1, 1, 3).requires_grad_()
    layer(x).sum().backward()
    assert x.grad.flatten().tolist() == [0, 1, 0]


def test_that_it_rounds_is_part_of_the_weights() -> None:
    made = small()
    for weights in (made.state_dict(), load(save(made.state_dict()))):
        other = Small()
        other.load_state_dict(weights)
        assert other.block.first.rounds and not Small().block.first.rounds
        assert all(torch.equal(a, b) for a, b in zip(other(X, REGIONS), made(X, REGIONS), strict=True))
    made.load_state_dict(Small().state_dict())
    assert not made.block.first.rounds


def test_before_it_rounds_it_is_a_conv_on_64ths() -> None:
    layer, plain = ByteConv(3, 4, 3, source="byte.s", target="byte.t"), Conv(3, 4, 3, source="s", target="t")
    plain.load_state_dict({name: value for name, value in layer.state_dict().items() if "extra" not in name})
    x, add = torch.rand(2, 3, 8, 8), torch.rand(2, 4, 8, 8)
    torch.testing.assert_close(layer(64 * x, add=64 * add), 64 * plain(x, add=add), rtol=1e-4, atol=1e-3)


def test_bytes_with_a_sign_are_two() -> None:
    x = torch.tensor([-300.0, -2.0, 0.0, 5.0, 999.0]).view(1, 1, 1, 5)
    assert signed_bytes(x)[0, :, 0].tolist() == [[0, 0, 0, 5, 255], [255, 2, 0, 0, 0]]


def test_outputs_that_do_next_to_nothing_are_exported() -> None:
    """The second layers of blocks begin as nothing: with all their digits, shifts were too large for exact sums."""
    made = small()
    made.block.second.weight.data.mul_(1e-5)
    expected = made(X, REGIONS / 64)[1].detach()
    exact = Small()
    install(exact, quantise(made, calibrate(made, lambda: made(X, REGIONS / 64))))
    assert float((exact(X, REGIONS)[1] - expected).abs().max()) <= 1
