"""Training that knows of integers: weights and activations are rounded as `bbans.exact` will round them.

Gradients pass as if nothing were rounded: Jacob et al. 2018 (arXiv:1712.05877), section 3.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional

from bbans.exact import export
from bbans.exact.layers import EXACT_LIMIT, PARAMETER_MAX
from bbans.vae.distributions import within
from bbans.vae.layers import Conv, Enlarged


@contextlib.contextmanager
def rounding(digits: Mapping[str, int]) -> Iterator[None]:
    """Every `Conv` rounds, in float32, while gradients are taken. digits: of each named scale, as by `calibrate`."""
    exact = Conv.forward

    def forward(layer: Conv, x: Tensor, add: Tensor | None = None, told: Enlarged | None = None) -> Tensor:
        if not torch.is_grad_enabled():
            return exact(layer, x, add, told)
        assert layer.bias is not None
        with torch.autocast(x.device.type, enabled=False):
            with torch.no_grad():
                scale = digits[layer.source]
                of_weights, _ = export.finest_weights(layer.weight, layer.bias, layer.source, scale, EXACT_LIMIT)
                step = torch.exp2(-of_weights.float())[:, None, None, None]
            weight = straight(layer.weight, torch.round(layer.weight / step) * step)
            y = functional.conv2d(x.float(), weight, layer.bias, layer.stride, layer.padding)
            of_parameters = layer.target == "params"
            places = torch.tensor(layer.digits) if of_parameters else torch.full((1,), digits[layer.target])
            step = torch.exp2(-places.float())[:, None, None]
            y = straight(y, torch.floor(y / step + 0.5) * step)
            y = y if add is None else y + add
            y = y if told is None else y + told.at(y)
            if of_parameters:
                return y.clamp(-PARAMETER_MAX * step, PARAMETER_MAX * step)
            most = export.ACTIVATION_MAX * float(step)
            return within(torch.relu(y) if layer.relu else y, -most, most)

    with mock.patch.object(Conv, "forward", forward):
        yield


def straight(x: Tensor, rounded: Tensor) -> Tensor:
    """`rounded`, with the gradient of x."""
    return x + (rounded - x).detach()
