"""Where learning with rounding begins: activations that will be bytes are made to fill them.

Bytes are 64ths, so activations above 4 would be clamped. Each output of a layer is scaled, and the weights that read it
by the inverse, which changes nothing that a network with ReLUs computes (Nagel et al. 2019, arXiv:1906.04721, section
4.1).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bbans.vae.layers import BYTE_MAX, ByteConv, Conv, is_byte

CLIPPED = 1e-3  # the share of the activations seen that may be clipped
SMALLEST = 4.0  # 64ths: an output that is hardly ever above 0 is made for activations up to this
EVENNESS = 0.5  # of outputs: 0 leaves them as they are, 1 makes all as large as the largest
MOST_GAIN = 8.0


def may_round(network: nn.Module) -> bool:
    """Whether the network has layers on bytes that do not round yet."""
    return any(isinstance(layer, ByteConv) and not layer.rounds for layer in network.modules())


@torch.no_grad()
def begin_rounding(network: nn.Module, run: Callable[[], object]) -> None:
    """Have all layers on bytes round, and scale them such that most of the activations seen during `run()` fit.

    Does nothing to a network that rounds already, or has no such layers. The weights change; but for rounding, the
    network computes what it did.
    """
    if not may_round(network):
        return
    on_bytes = [m for m in network.modules() if isinstance(m, ByteConv)]
    layers = [m for m in network.modules() if isinstance(m, Conv)]
    for name, outputs in _largest(on_bytes, run, by_output=True).items():
        gains = (outputs.max() / outputs.clamp_min(SMALLEST)).clamp(1.0) ** EVENNESS
        _scale(layers, name, gains.clamp_max(MOST_GAIN))
    for name, largest in _largest(on_bytes, run, by_output=False).items():
        _scale(layers, name, BYTE_MAX / largest.clamp_min(SMALLEST))
    for layer in on_bytes:
        layer.rounds = True


def _largest(layers: list[ByteConv], run: Callable[[], object], *, by_output: bool) -> dict[str, Tensor]:
    """What the activations of each scale are seldom above: [outputs], or [1] for all."""
    found: dict[str, Tensor] = {}

    def hook(layer: nn.Module, _inputs: object, output: Tensor) -> None:
        assert isinstance(layer, ByteConv)
        rows = output.float().transpose(0, 1).flatten(1) if by_output else output.float().reshape(1, -1)
        largest = rows.topk(max(1, round(CLIPPED * rows.shape[1])), 1).values[:, -1]
        found[layer.target] = torch.maximum(found.get(layer.target, largest), largest)

    handles = [layer.register_forward_hook(hook) for layer in layers]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return found


def _scale(layers: list[Conv], name: str, gains: Tensor) -> None:
    """Multiply the outputs of a scale [outputs], or all alike [1], wherever they are written, and divide the weights
    that read them. What a layer reads beside them stays as it is."""
    assert is_byte(name)
    gains = gains.expand(next(len(one.weight) for one in layers if one.target == name and isinstance(one, ByteConv)))
    for layer in layers:
        if layer.target == name:
            each = gains.repeat(len(layer.weight) // len(gains))  # what is told of a region is for several phases
            layer.weight *= each[:, None, None, None]
            assert layer.bias is not None
            layer.bias *= each
            if isinstance(layer, ByteConv) and layer.beside is not None:
                layer.beside.mul_(each[:, None, None, None])
        if layer.source == name:
            layer.weight /= gains[:, None, None]
