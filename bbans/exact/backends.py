"""Which arithmetic computes a network: the fastest that is proved to give its known answers here.

    int8       bytes by the integer units: oneDNN's on CPUs, matrix products on GPUs
    float32    the reference, on every device
    float64    the last resort, on the CPU

Networks without layers on bytes know no int8. A backend is proved for the real weights on small inputs
(`bbans.exact.selftest`), and for weights and inputs of the largest magnitude on maps of the sizes that tiles have.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from bbans.exact import selftest
from bbans.exact.bytes import FLOATS, IntByteConv
from bbans.exact.bytes import INT8 as BYTES_IN_INT8
from bbans.exact.export import largest_byte_sum
from bbans.exact.layers import EXACT_LIMIT, arithmetic
from bbans.vae.families import Network
from bbans.vae.layers import BYTE_MAX, BYTE_WEIGHT_MAX, channels_last

INT8, FLOAT32, FLOAT64 = BACKENDS = ("int8", "float32", "float64")
SIZES = ((1, 256, 384), (1, 37, 51), (16, 24, 32), (2, 1, 5))  # batch, rows, columns
TIMED = (1, 64, 192)
RUNS = 3  # of what is timed, after a first: the shortest counts
WITH_FAST_BYTES = ("AVX2", "AVX512")  # of PyTorch's names of instruction sets: where int8 needs no clock to be chosen

_LACKING = (RuntimeError, NotImplementedError, AttributeError, TypeError)  # of an operation that this PyTorch has not


def use(network: Network, backend: str) -> Network:
    """Have the network computed by a backend, in place; on the CPU if that is float64."""
    carrier = getattr(network, "carrier", torch.float32)
    network = network.to("cpu", torch.float64) if backend == FLOAT64 else network.to(carrier)
    for layer in network.modules():
        if isinstance(layer, IntByteConv):
            layer.use(BYTES_IN_INT8 if backend == INT8 else FLOATS)
    return channels_last(network)


def backend_of(network: Network) -> str:
    """What the network is computed by."""
    layers = [layer for layer in network.modules() if isinstance(layer, IntByteConv)]
    if layers and layers[0].backend == BYTES_IN_INT8:
        return INT8
    return FLOAT64 if next(network.buffers()).dtype == torch.float64 else FLOAT32


def possible(network: Network) -> tuple[str, ...]:
    """Backends that the network knows."""
    on_bytes = any(isinstance(layer, IntByteConv) for layer in network.modules())
    return BACKENDS if on_bytes else (FLOAT32, FLOAT64)


def candidates(network: Network, device: torch.device) -> list[str]:
    """Backends worth trying, the fastest first."""
    if INT8 not in possible(network):
        return [FLOAT32, FLOAT64]
    sure = device.type != "cpu" or torch.backends.cpu.get_cpu_capability().startswith(WITH_FAST_BYTES)
    slow = not sure and seconds(network, INT8) > seconds(network, FLOAT32)
    return [FLOAT32, INT8, FLOAT64] if slow else [INT8, FLOAT32, FLOAT64]


def proved(network: Network, backend: str, known: list[int]) -> bool:
    """Have the network computed by a backend, and say whether it computes exactly. known: its `answers`."""
    network = use(network, backend)
    try:
        return _extremes_hold(network, backend) and selftest.answers(network) == known
    except _LACKING:
        return False


def seconds(network: Network, backend: str) -> float:
    """What one layer on bytes of each shape takes, on a map of `TIMED`; nothing where the backend can't be used."""
    device = next(network.buffers()).device
    taken = 0.0
    try:
        with arithmetic():
            for layer in _kinds(network, backend):
                x = _input(layer, TIMED, device)
                taken += _shortest(functools.partial(layer, x, _added(layer, x)), device)
    except _LACKING:
        return 0.0
    return taken


def _kinds(network: Network, backend: str) -> Iterator[IntByteConv]:
    """A layer of each shape that the network has, with as many weights of the largest magnitude as can be exact."""
    device = next(network.buffers()).device
    shapes = {tuple(layer.weight.shape): layer for layer in network.modules() if isinstance(layer, IntByteConv)}
    for shape, layer in shapes.items():
        weight = torch.full(shape, BYTE_WEIGHT_MAX)
        weight[1::4] *= -1
        weight[2::4, ::2] *= -1  # pairs that cancel
        weight[3::4] = (torch.arange(weight[3::4].numel()) * 37 % 129 - 64).view(weight[3::4].shape)
        bias = (torch.arange(shape[0]) * 1009 % 20001 - 10000).to(torch.int32)
        fan = weight[0].numel()
        shift = torch.full((shape[0],), min(15, fan.bit_length() + 6), dtype=torch.int32)
        room = EXACT_LIMIT - 1 - int(largest_byte_sum(0 * weight, bias, shift).max())
        taps = torch.full((shape[0],), room // (BYTE_MAX * BYTE_WEIGHT_MAX))
        taps[1::4] //= 2  # the other half is for a bias that lifts them above 0
        taps = taps.clamp_max(fan)
        bias[1::4] += (BYTE_WEIGHT_MAX * BYTE_MAX * 7 // 8) * taps[1::4]
        kept = torch.arange(fan) < taps[:, None]
        kept[::2] = kept[::2].flip(1)
        weight *= kept.view(shape)
        made = IntByteConv(weight, bias, shift, source=layer.source).to(device)
        if backend == FLOAT64:
            made = made.double()
        made.use(BYTES_IN_INT8 if backend == INT8 else FLOATS)
        yield made


def _added(layer: IntByteConv, x: Tensor) -> Tensor:
    """Bytes to be added to what a layer makes of x, the same in every row."""
    n, _, h, w = x.shape
    count = n * len(layer.weight) * w
    rows = (torch.arange(count) * 6007 % 509).clamp_max(BYTE_MAX).view(n, -1, 1, w)
    return rows.to(x.device, torch.uint8).expand(-1, -1, h, -1).contiguous(memory_format=torch.channels_last)


def _input(layer: IntByteConv, size: tuple[int, int, int], device: torch.device) -> Tensor:
    """Bytes, half of them the largest, that are the same in every row: then so is what comes of all but the ends."""
    batch, height, width = size
    count = batch * layer.weight.shape[1] * width
    rows = (torch.arange(count) * 7919 % 509).clamp_max(BYTE_MAX).view(batch, -1, 1, width)
    x = rows.to(device, torch.uint8).expand(-1, -1, height, -1)
    return x.contiguous(memory_format=torch.channels_last)


def _extremes_hold(network: Network, backend: str) -> bool:
    device = next(network.buffers()).device
    with arithmetic():
        return all(_holds(layer, size, device) for layer in _kinds(network, backend) for size in SIZES)


def _holds(layer: IntByteConv, size: tuple[int, int, int], device: torch.device) -> bool:
    """Whether a layer computes what 64-bit integers do; of many rows, these need only the first, one, and the last."""
    x = _input(layer, size, device)
    few = [0, 1, 2] if size[1] > 3 else list(range(size[1]))
    for add in (None, _added(layer, x)):
        expected = _by_integers(layer, x[:, :, few].cpu(), None if add is None else add[:, :, few].cpu())
        found = layer(x, add).cpu()
        expected = expected.to(found.dtype)
        if size[1] > 3:
            if not bool((found[:, :, 1:-1] == expected[:, :, 1:2]).all()):
                return False
            found = found[:, :, [0, 1, -1]]
        if not torch.equal(found, expected):
            return False
    return True


def _by_integers(layer: IntByteConv, x: Tensor, add: Tensor | None) -> Tensor:
    """What the layer means, in float64, which holds all of it."""
    power = layer.power.cpu().double()[:, None, None]
    sums = F.conv2d(x.double(), layer.weight.cpu().double(), padding=layer.padding)
    bias = layer.bias.cpu().double()[:, None, None]
    y = sums * power + bias
    return (y if add is None else y + add).round().clamp(0, BYTE_MAX).long()


@dataclass(frozen=True)
class Tried:
    """How a backend does on a device. seconds: of `network_seconds`; None if it computes wrongly, or can't be used."""

    backend: str
    device: str
    seconds: float | None
    used: bool


def describe(network: Network) -> list[Tried]:
    """How each backend does here, of a network that is proved: what it is computed by is `used`, and stays."""
    known, before, place = selftest.answers(network), backend_of(network), next(network.buffers()).device
    found: dict[tuple[str, str], Tried] = {}
    for backend in possible(network):
        exact = proved(network.to(place), backend, known)
        # Whatever it was asked for, a network carried by float64 is computed in that.
        what = backend_of(network), str(next(network.buffers()).device)
        if what not in found:
            found[what] = Tried(*what, network_seconds(network) if exact else None, what == (before, str(place)))
    use(network.to(place), before)
    return list(found.values())


def network_seconds(network: Network) -> float:
    """What all networks of a model take, on a map of `TIMED` if they take any size."""
    like = next(network.buffers())
    batch, *size = TIMED
    made = selftest.inputs(network, like, 0, batch, 200, (size[0], size[1]))
    with arithmetic():
        return _shortest(lambda: network.probe(*made), like.device)


def _shortest(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the shortest of `RUNS`."""
    times = []
    for _ in range(1 + RUNS):
        begin = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begin)
    return min(times[1:])
