"""Dead units, whose activation is never above 0, made to live again: without it, they would never learn anything more.

A unit that is revived sees its inputs through random weights, is above 0 for about half of them, and is seen by nothing
at first, so that the network computes what it did before. Source: Sokar et al. 2023, "The Dormant Neuron Phenomenon in
Deep Reinforcement Learning" (arXiv:2302.12902), section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bbans.vae.layers import ByteConv, Conv


@torch.no_grad()
def revive(network: nn.Module, run: Callable[[], object]) -> int:
    """Revive the dead units of a network's inner activations; returns how many they were.

    run: puts pictures through the network; a unit is dead if it is 0 for all of them. Activations that many layers add
    to, such as the stream of residual blocks, are left alone. Draws from torch's random state.
    """
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, Conv)}
    ends = [layer.target for layer in layers.values() if layer.relu]
    inner = {name: layer for name, layer in layers.items() if layer.relu and ends.count(layer.target) == 1}

    alive: dict[str, Tensor] = {}

    def watch(name: str, layer: nn.Module, args: Any, out: Tensor) -> None:
        seen = (out > 0).transpose(0, 1).flatten(1).any(1)
        alive[name] = alive.get(name, torch.zeros_like(seen)) | seen

    _with_hooks({layer: partial(watch, name) for name, layer in inner.items()}, run)
    dead = {layer.target: ~alive[name] for name, layer in inner.items() if name in alive and not alive[name].all()}
    for layer in layers.values():
        if layer.source in dead:
            layer.weight[:, dead[layer.source]] = 0
    for layer in layers.values():
        if layer.target in dead:
            fresh = nn.init.kaiming_normal_(torch.empty_like(layer.weight), nonlinearity="relu")
            layer.weight[dead[layer.target]] = fresh[dead[layer.target]]
            if isinstance(layer, ByteConv) and layer.beside is not None:
                layer.beside[dead[layer.target]] = 0

    def centre(layer: Conv, args: Any, kwargs: Any, out: Tensor) -> Tensor | None:
        """In the order of the layers, so that each sees what those before it have become."""
        rows = dead.get(layer.target)
        if rows is None:
            return None
        assert layer.bias is not None
        layer.bias[rows] = 0
        layer.relu = False
        mean = layer.forward(*args, **kwargs).transpose(0, 1).flatten(1).mean(1)
        layer.relu = True
        layer.bias[rows] = -(mean[rows] / layer.writes).to(layer.bias.dtype)
        del dead[layer.target]
        return layer.forward(*args, **kwargs)

    count = sum(int(rows.sum()) for rows in dead.values())
    _with_hooks(dict.fromkeys(inner.values(), centre), run, with_kwargs=True)
    return count


def _with_hooks(hooks: dict[Any, Callable[..., Any]], run: Callable[[], object], *, with_kwargs: bool = False) -> None:
    handles = [layer.register_forward_hook(hook, with_kwargs=with_kwargs) for layer, hook in hooks.items()]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
