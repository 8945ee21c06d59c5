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
from bbans.exact.export import BYTE_SHIFT_MAX, calibrate, install, largest_byte_sum, quantise
from bbans.exact.layers import ACTIVATION_MAX, EXACT_LIMIT, IntConv, arithmetic
from bbans.vae.layers import BYTE_MAX, BYTE_WEIGHT_MAX, ByteConv, Conv, Enlarged, Residual

Compute = Callable[[IntByteConv, Tensor, "Tensor | None"], Tensor]


# -- backends ----------------------------------------------------------------------------------------------------------


def in_floats(layer: IntByteConv, x: Tensor, add: Tensor | None = None) -> Tensor:
    layer.backend = FLOATS
    return layer(x, add)


def in_float64(layer: IntByteConv, x: Tensor, add: Tensor | None = None) -> Tensor:
    return in_floats(copy.deepcopy(layer).double(), x, add)


def in_int8(layer: IntByteConv, x: Tensor, add: Tensor | None = None) -> Tensor:
    layer.backend = INT8
    try:
        return layer(x, None if add is None else add.clone())  # which is written to
    except (AttributeError, NotImplementedError):
        pytest.skip("this PyTorch lacks the operation")


def by_products(layer: IntByteConv, x: Tensor, add: Tensor | None = None) -> Tensor:
    """What GPUs do."""
    return copy.deepcopy(layer)._by_products(x, add)


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
    """A layer's integers. highest: as that of `IntByteConv`."""

    weight: Tensor
    bias: Tensor
    shift: Tensor
    highest: int | None = None

    def layer(self) -> IntByteConv:
        assert bool((largest_byte_sum(self.weight, self.bias, self.shift) < EXACT_LIMIT).all())
        return IntByteConv(self.weight, self.bias, self.shift, source="s", highest=self.highest)

    def __call__(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """In 64 bits, of which convolutions are sums of products."""
        n, _, h, w = x.shape
        k = self.weight.shape[-1]
        columns = F.unfold(x.double(), k, padding=k // 2).long()
        sums = (self.weight.long().flatten(1)[None, :, :, None] * columns[:, None]).sum(2) + self.bias[:, None]
        sums, shift = sums.view(n, -1, h, w), self.shift.long()[:, None, None]
        half = 1 << (shift - 1)
        if self.highest is not None:
            return ((sums + half) >> shift).clamp(-self.highest, self.highest)
        sums = sums if add is None else sums + (add.long() << shift)
        below, rest = sums >> shift, sums & ((1 << shift) - 1)
        up = (rest > half) | ((rest == half) & (below % 2 == 1))
        return (below + up).clamp(0, BYTE_MAX)


def integers(kernel: int, channels: int, outputs: int, highest: int | None, largest: int, seed: int = 0) -> Integers:
    """Random weights, up to `largest`; that of `BYTE_WEIGHT_MAX` means all of that magnitude."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randint(-largest, largest + 1, (outputs, channels, kernel, kernel), generator=generator)
    if largest == BYTE_WEIGHT_MAX:
        weight = largest * torch.where(weight < 0, -1, 1)
        weight[0], weight[1] = largest, -largest
    shift = torch.randint(1, 13, (outputs,), generator=generator)
    bias = torch.randint(-300, 301, (outputs,), generator=generator) << shift
    bias[1] += 250 * largest * channels * kernel**2  # what is negative would only be clamped
    return Integers(weight, bias, shift, highest)


def some_bytes(*shape: int, seed: int = 1) -> Tensor:
    """Random, and half of them 0 or 255."""
    x = torch.randint(-BYTE_MAX // 2, BYTE_MAX + BYTE_MAX // 2, shape, generator=torch.Generator().manual_seed(seed))
    return x.clamp(0, BYTE_MAX).to(torch.uint8)


KINDS = {  # kernel, inputs, outputs, whether bytes are added, highest
    "3x3": (3, 12, 12, False, None),
    "3x3 of odd sizes": (3, 7, 5, False, None),
    "1x1 with add": (1, 24, 24, True, None),
    "3x3 with add": (3, 5, 5, True, None),
    "wide": (1, 24, 36, False, ACTIVATION_MAX),
    "wide, 3x3": (3, 5, 6, False, 700),
}
SIZES = [(1, 1, 1), (1, 7, 11), (16, 6, 5), (2, 1, 9)]  # batch, rows, columns


@pytest.mark.parametrize("largest", [3, 40, BYTE_WEIGHT_MAX])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_64_bit_integers(backend: str, kind: str, largest: int) -> None:
    kernel, channels, outputs, adds, highest = KINDS[kind]
    given = integers(kernel, channels, outputs, highest, largest)
    layer, threads = given.layer(), torch.get_num_threads()
    for batch, height, width in SIZES:
        x = some_bytes(batch, channels, height, width)
        add = some_bytes(batch, outputs, height, width, seed=2) if adds else None
        expected = given(x, add)
        try:
            for count in (1, 2):
                torch.set_num_threads(count)
                for layout in (torch.contiguous_format, torch.channels_last):
                    found = BACKENDS[backend](layer, x.contiguous(memory_format=layout), add)
                    assert torch.equal(found.long(), expected)
        finally:
            torch.set_num_threads(threads)


@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_integers_where_a_sum_and_its_bias_come_near_to_the_limit(backend: str) -> None:
    """Each is near to 2^23, and they cancel: had float32 lost a digit of one, it would show."""
    taps = 57 * 9
    bias = torch.tensor([-1, 1]) * (BYTE_WEIGHT_MAX * BYTE_MAX * taps) + torch.tensor([137, 21])
    weight = torch.full((2, 58, 3, 3), BYTE_WEIGHT_MAX)
    weight[1] *= -1
    weight[:, -1] = torch.randint(-1, 3, (2, 3, 3), generator=torch.Generator().manual_seed(0))
    given = Integers(weight, bias, torch.tensor([1, 2]))
    assert float(largest_byte_sum(*given[:3]).max()) > 0.99 * EXACT_LIMIT
    x = torch.full((1, 58, 9, 9), BYTE_MAX, dtype=torch.uint8)
    x[:, -1] = some_bytes(9, 9)
    expected = given(x)
    inside = expected[..., 1:-1, 1:-1]
    assert inside.unique().numel() > 20 and bool((inside.amax((0, 2, 3)) > 0).all())
    assert torch.equal(BACKENDS[backend](given.layer(), x, None).long(), expected)


@pytest.mark.parametrize("shift", [1, BYTE_SHIFT_MAX - 1])
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


@pytest.mark.parametrize("backend", BACKENDS)
def test_rounds_half_up_where_outputs_are_wide(backend: str) -> None:
    layer = Integers(torch.ones(1, 1, 1, 1), torch.tensor([-9]), torch.tensor([1]), highest=3).layer()
    found = BACKENDS[backend](layer, torch.arange(18).byte().view(1, 1, 1, 18), None)
    assert found.flatten().tolist() == [-3, -3, -3, -3, -2, -2, -1, -1, 0, 0, 1, 1, 2, 2, 3, 3, 3, 3]


@pytest.mark.parametrize("backend", [FLOATS, INT8])
def test_the_parts_of_split_are_those_of_the_whole(backend: str) -> None:
    given = integers(1, 8, 12, ACTIVATION_MAX, 40)
    layer, x = given.layer(), some_bytes(2, 8, 5, 7)
    for _ in range(2):
        for each in (backend, FLOATS):
            layer.backend = each
            parts = layer.split(x, 3)
            for part in parts:
                assert part.is_contiguous() or part.is_contiguous(memory_format=torch.channels_last)
            assert torch.equal(torch.cat(parts, 1).long(), given(x))
    layer.double()
    assert torch.equal(torch.cat(layer.split(x, 3), 1).long(), given(x))


@pytest.mark.parametrize("backend", [FLOATS, INT8])
def test_a_copy_shares_weights_whether_they_are_packed_or_not(backend: str) -> None:
    given = integers(3, 8, 8, None, 40)
    layer, x = given.layer(), some_bytes(2, 8, 5, 7)
    layer.backend = backend
    for _ in range(2):
        made = copy.deepcopy(layer)
        assert made.backend == backend and made.weight.data_ptr() == layer.weight.data_ptr()
        assert torch.equal(made(x).long(), given(x)) and torch.equal(layer(x).long(), given(x))


def test_it_goes_to_float64_and_back() -> None:
    given = integers(1, 8, 8, None, 40)
    layer, x = given.layer(), some_bytes(2, 8, 5, 7)
    layer.backend = INT8
    add = some_bytes(2, 8, 5, 7, seed=2)
    for dtype in (torch.float32, torch.float64, torch.float32):
        layer.to(dtype)
        assert layer.weight.dtype == torch.int8 and layer.bias.dtype == dtype
        found = layer(x, add.clone())
        assert torch.equal(found.long(), given(x, add))
        assert found.dtype == (torch.uint8 if dtype == torch.float32 else torch.float64)


def test_bytes_are_read_as_floats_too() -> None:
    given = integers(1, 8, 8, None, 40)
    layer, x, add = given.layer(), some_bytes(2, 8, 5, 7), some_bytes(2, 8, 5, 7, seed=2)
    for compute in (in_floats, in_int8):
        for dtype in (torch.uint8, torch.float32):
            assert torch.equal(compute(layer, x.to(dtype), add.to(dtype)).long(), given(x, add))


# -- layers that write bytes from wider activations --------------------------------------------------------------------


@pytest.mark.parametrize("addends", ["none", "add", "told", "add and told"])
def test_writing_bytes_floors_as_writing_floats_does(addends: str) -> None:
    """The conversion to bytes floors in place of `floor`: of sums near to integers, and of those that are clamped."""
    shift = torch.tensor([1, 7, 12, BYTE_SHIFT_MAX])
    bias = torch.tensor([-1, 0, 1, 3]) + (1 << (shift - 1))
    layer = IntConv(
        *(torch.ones(4, 1, 1, 1), bias, shift), stride=1, lowest=0, highest=BYTE_MAX, source="input", writes_bytes=True
    )
    steps = torch.cat([torch.arange(-300, 300) * (1 << int(s)) + near for s in shift for near in (-2, -1, 0, 1, 2)])
    x = steps[steps.abs() < EXACT_LIMIT - (1 << 17)].float().view(1, 1, 1, -1)
    generator, shape = torch.Generator().manual_seed(0), (1, 4, 1, x.shape[-1])
    add = torch.randint(0, BYTE_MAX + 1, shape, generator=generator).byte() if "add" in addends else None
    told = None
    if "told" in addends:
        most = 2 * ACTIVATION_MAX
        told = Enlarged(torch.randint(-most, most + 1, shape, generator=generator).float(), 1)
        told.regions[..., ::2] //= 50
    sums = ((x.long() + bias[:, None, None] + (1 << (shift - 1))[:, None, None]) >> shift[:, None, None]).clone()
    sums += 0 if add is None else add.long()
    sums += 0 if told is None else told.regions.long()
    for layer.bytes in (False, True):
        found = layer(x, add=add, told=told)
        assert found.dtype == (torch.uint8 if layer.bytes else torch.float32)
        assert torch.equal(found.long(), sums.clamp(0, BYTE_MAX))


# -- learning with rounding --------------------------------------------------------------------------------------------


class Small(nn.Module):
    """A residual block of bytes, what it is told, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = ByteConv(2, 8, 3, source="input", target="stream", reads=False)
        self.told = ByteConv(3, 8, 1, source="input", target="stream", relu=False, reads=False)
        self.block = Residual(8, stream="stream", inner="inner", bytes=True)
        self.shared = ByteConv(8, 4, 1, source="stream", target="hidden", relu=False, writes=False)
        self.out = Conv(4, 2, 1, source="hidden", target="params", relu=False, digits=(8, 3))

    def forward(self, x: Tensor, regions: Tensor) -> tuple[Tensor, ...]:
        h = self.enter(x, told=Enlarged(self.told(regions), 4))
        inner = self.block.first(h)
        h = self.block.second(inner, add=h)
        return inner, h, self.shared(h)


DIGITS = {"stream": 5, "inner": 4}
INPUTS = (
    torch.randint(-255, 256, (3, 2, 9, 8), generator=torch.Generator().manual_seed(0)).float(),
    torch.randint(-99, 100, (3, 3, 3, 2), generator=torch.Generator().manual_seed(1)).float(),
)


def small() -> Small:
    """Weights that integers hold exactly: those on wider activations, and all biases, are multiples of 2^-8."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Small()
        nn.init.normal_(made.block.second.weight, std=0.3)
    for layer in made.modules():
        if isinstance(layer, Conv):
            assert layer.bias is not None
            layer.bias.data = (layer.bias.data * 8).round() / 8 + (0.0 if layer.target == "params" else 0.125)
            if not (isinstance(layer, ByteConv) and layer.reads):
                layer.weight.data = (layer.weight.data * 256).round() / 256
    for layer in made.modules():
        if isinstance(layer, ByteConv):
            layer.set_digits(DIGITS.get(layer.source), DIGITS.get(layer.target))
    return made


def test_learning_with_rounding_computes_what_integers_will() -> None:
    made, real = small(), [x / 64 for x in INPUTS]
    inner, stream, hidden = (out.detach() for out in made(*real))
    digits = calibrate(made, lambda: made.out(torch.relu(made(*real)[2])))
    assert {name: digits[name] for name in DIGITS} == DIGITS
    exact = Small()
    install(exact, quantise(made, digits))
    found = exact(*INPUTS)
    assert torch.equal(found[0], inner) and torch.equal(found[1], stream)
    assert torch.equal(found[2], torch.floor(hidden * 2 ** digits["hidden"] + 0.5))
    for bytes in (inner, stream):
        assert bytes.unique().numel() > 20 and torch.equal(bytes, bytes.round().clamp(0, BYTE_MAX))


def test_gradients_pass_rounding_and_stop_at_clamps() -> None:
    made = small()
    sum(out.sum() for out in made(*(x / 64 for x in INPUTS))).backward()
    for name, weights in made.named_parameters():
        assert name.startswith("out.") or bool(weights.grad.any()), name
    layer = ByteConv(1, 1, 1, source="s", target="t")
    layer.set_digits(0, 0)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.zero_()
    x = torch.tensor([-3.0, 100.4, 300.0]).view(1, 1, 1, 3).requires_grad_()
    layer(x).sum().backward()
    assert x.grad.flatten().tolist() == [0, 1, 0]


def test_digits_are_part_of_the_weights() -> None:
    made = small()
    for weights in (made.state_dict(), load(save(made.state_dict()))):
        other = Small()
        other.load_state_dict(weights)
        assert other.block.first.rounds and not Small().block.first.rounds
        layers = (other.enter, other.block.first, other.shared)
        assert [(layer.source_digits, layer.target_digits) for layer in layers] == [(None, 5), (5, 4), (5, None)]
        assert all(torch.equal(a, b) for a, b in zip(other(*INPUTS), made(*INPUTS), strict=True))
    made.load_state_dict(Small().state_dict())
    assert not made.block.first.rounds


@pytest.mark.parametrize("relu", [True, False])
def test_without_digits_it_is_a_conv(relu: bool) -> None:
    layer, plain = (kind(3, 4, 3, source="s", target="t", relu=relu) for kind in (ByteConv, Conv))
    plain.load_state_dict({name: value for name, value in layer.state_dict().items() if "extra" not in name})
    x, add = torch.randn(2, 3, 8, 8), torch.randn(2, 4, 8, 8)
    told = Enlarged(torch.randn(2, 4, 2, 2), 4)
    assert torch.equal(layer(x, add=add, told=told), plain(x, add=add, told=told))


# -- export ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", [5, 8, 12])
def test_outputs_that_do_next_to_nothing_are_exported(inner: int) -> None:
    """The second layers of blocks begin as nothing: with all their digits, shifts were too large for exact sums."""
    made, real = small(), [x / 64 for x in INPUTS]
    made.block.second.weight.data.mul_(1e-4)
    made.block.first.set_digits(5, inner)
    made.block.second.set_digits(inner, 5)
    expected = made(*real)[1].detach()
    digits = calibrate(made, lambda: made.out(torch.relu(made(*real)[2])))
    tensors = quantise(made, digits)
    assert int(tensors["block.second.shift"].max()) <= BYTE_SHIFT_MAX
    exact = Small()
    install(exact, tensors)
    assert float((exact(*INPUTS)[1] - expected).abs().max()) <= 1


def test_heads_of_small_activations_have_a_coarser_scale() -> None:
    made, real = small(), [x / 64 for x in INPUTS]
    digits = calibrate(made, lambda: made.out(torch.relu(made(*real)[2])))
    tensors = quantise(made, {**digits, "hidden": digits["hidden"] + 9})
    assert int(tensors["shared.shift"].min()) == 1
    install(Small(), tensors)
