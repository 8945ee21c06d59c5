"""Which arithmetic computes a network: the fastest that is proved to give its known answers here.

    int8       bytes by the integer units: oneDNN's on CPUs, matrix products on GPUs
    float32    the reference, on every device
    float64    the last resort, on the CPU

Networks without layers on bytes know no int8. A backend is proved for the real weights on small inputs
(`bbans.exact.selftest`), and for weights and inputs of the largest magnitude on maps of the sizes that tiles have.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from bbans.exact import selftest
from bbans.exact.bytes import FLOATS, IntByteConv
from bbans.exact.bytes import INT8 as BYTES_IN_INT8
from bbans.exact.export import largest_byte_sum
from bbans.exact.layers import EXACT_LIMIT, IntConv, arithmetic
from bbans.vae.families import Network
from bbans.vae.layers import BYTE_MAX, BYTE_WEIGHT_MAX, channels_last

INT8, FLOAT32, FLOAT64 = BACKENDS = ("int8", "float32", "float64")
SIZES = ((1, 256, 384), (1, 37, 51), (16, 24, 32), (2, 1, 5))  # batch, rows, columns
TIMED = (1, 64, 192)
RUNS = 3  # of what is timed, after a first: the shortest counts
MUCH_FASTER = 2.0  # where float32 is so many times as fast as int8, it is preferred: less may be chance

_LACKING = (RuntimeError, NotImplementedError, AttributeError, TypeError)  # of an operation that this PyTorch has not


def use(network: Network, backend: str) -> Network:
    """Have the network computed by a backend, in place; on the CPU if that is float64."""
    carrier = getattr(network, "carrier", torch.float32)
    network = network.to("cpu", torch.float64) if backend == FLOAT64 else network.to(carrier)
    for layer in network.modules():
        if isinstance(layer, IntByteConv):
            layer.backend = BYTES_IN_INT8 if backend == INT8 else FLOATS
        elif isinstance(layer, IntConv):
            layer.bytes = layer.writes_bytes and backend == INT8
    return channels_last(network)


def backend_of(network: Network) -> str:
    """What the network is computed by."""
    layers = [layer for layer in network.modules() if isinstance(layer, IntByteConv)]
    if layers and layers[0].backend == BYTES_IN_INT8:
        return INT8
    return FLOAT64 if next(network.buffers()).dtype == torch.float64 else FLOAT32


def candidates(network: Network, device: torch.device) -> list[str]:
    """Backends worth trying, the fastest first."""
    if not any(isinstance(layer, IntByteConv) for layer in network.modules()):
        return [FLOAT32, FLOAT64]
    slow = device.type == "cpu" and seconds(network, INT8) > MUCH_FASTER * seconds(network, FLOAT32)
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
                add = x.clone() if _adds(layer) else None
                times = []
                for _ in range(1 + RUNS):
                    begin = time.perf_counter()
                    layer(x, add)
                    if device.type == "cuda":
                        torch.cuda.synchronize(device)
                    times.append(time.perf_counter() - begin)
                taken += min(times[1:])
    except _LACKING:
        return 0.0
    return taken


def _kinds(network: Network, backend: str) -> Iterator[IntByteConv]:
    """A layer of each shape that the network has, with as many weights of the largest magnitude as can be exact."""
    device = next(network.buffers()).device
    shapes = {
        (tuple(layer.weight.shape), layer.highest): layer
        for layer in network.modules()
        if isinstance(layer, IntByteConv)
    }
    for (shape, highest), layer in shapes.items():
        weight = torch.full(shape, BYTE_WEIGHT_MAX)
        weight[1::4] *= -1
        weight[2::4, ::2] *= -1  # pairs that cancel
        weight[3::4] = (torch.arange(weight[3::4].numel()) * 37 % 129 - 64).view(weight[3::4].shape)
        fan = shape[1] * shape[2] * shape[3]
        bias = (torch.arange(shape[0]) * 1009 % 20001 - 10000).to(torch.int32)
        shift = torch.full((shape[0],), min(15, fan.bit_length() + 6), dtype=torch.int32)
        room = EXACT_LIMIT - 1 - int(largest_byte_sum(0 * weight, bias, shift).max())
        taps = torch.full((shape[0],), room // (BYTE_MAX * BYTE_WEIGHT_MAX))
        taps[1::4] //= 2  # the other half is for a bias that lifts them above 0
        taps = taps.clamp_max(fan)
        bias[1::4] += (BYTE_WEIGHT_MAX * BYTE_MAX * 7 // 8) * taps[1::4]
        kept = torch.arange(fan) < taps[:, None]
        kept[::2] = kept[::2].flip(1)
        weight *= kept.view(shape)
        made = IntByteConv(weight, bias, shift, source=layer.source, highest=highest).to(device)
        if backend == FLOAT64:
            made = made.double()
        made.backend = BYTES_IN_INT8 if backend == INT8 else FLOATS
        yield made


def _adds(layer: IntByteConv) -> bool:
    """Whether the layer adds to a stream: the second of a `Residual` does."""
    return layer.highest is None and layer.padding == 0 and layer.weight.shape[0] == layer.weight.shape[1]


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
    add = x.flip(-1).contiguous(memory_format=torch.channels_last) if _adds(layer) else None
    few = [0, 1, 2] if size[1] > 3 else list(range(size[1]))
    expected = _by_integers(layer, x[:, :, few].cpu(), None if add is None else add[:, :, few].cpu())
    found = layer(x, add).cpu().long()
    if size[1] <= 3:
        return torch.equal(found, expected)
    middle = found[:, :, 1:-1]
    ends = torch.equal(found[:, :, :1], expected[:, :, :1]) and torch.equal(found[:, :, -1:], expected[:, :, -1:])
    return ends and bool((middle == expected[:, :, 1:2]).all())


def _by_integers(layer: IntByteConv, x: Tensor, add: Tensor | None) -> Tensor:
    """What the layer means, in float64, which holds all of it."""
    power = layer.power.cpu().double()[:, None, None]
    sums = F.conv2d(x.double(), layer.weight.cpu().double(), padding=layer.padding)
    bias = layer.bias.cpu().double()[:, None, None]
    y = sums * power + bias
    if layer.highest is not None:
        return y.floor().clamp(-layer.highest, layer.highest).long()
    return (y if add is None else y + add).round().clamp(0, BYTE_MAX).long()


def describe(network: Network) -> list[tuple[str, float]]:
    """Each backend that gives right answers here, and its `seconds`; of a network with layers on bytes."""
    known = selftest.answers(use(network, FLOAT64))
    return [(backend, seconds(network, backend)) for backend in BACKENDS if proved(network, backend, known)]
