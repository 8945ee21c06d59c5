"""From a trained float network to integers: calibration, power-of-two scales, and the proof that all sums are exact.

Knows `Conv` layers by their names and scales; what the network is for is the caller's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from bbans.errors import BadModel
from bbans.exact.bytes import IntByteConv
from bbans.exact.layers import ACTIVATION_MAX, EXACT_LIMIT, INPUT_MAX, PARAMETER_MAX, WIDE_LIMIT, IntConv
from bbans.vae.layers import (
    BYTE_MAX,
    BYTE_WEIGHT_MAX,
    INPUT_DIGITS,
    SIGNED_MAX,
    ByteConv,
    Conv,
    byte_weight_digits,
    is_byte,
    is_signed,
    known_digits,
)

WEIGHT_MAX = (1 << 15) - 1
SMALLEST = 1 / 16  # a scale that is never, or hardly ever, used is made for activations up to this
CLIPPED = 1e-5  # the share of calibration activations that may be clipped


def calibrate(network: nn.Module, run: Callable[[], object]) -> dict[str, int]:
    """Binary digits after the point for each named scale, such that the activations seen during `run()` fit."""
    seen: dict[str, list[Tensor]] = {}

    def hook(layer: nn.Module, _inputs: object, output: Tensor) -> None:
        assert isinstance(layer, Conv)
        magnitudes = output.detach().abs().flatten().float()
        count = max(1, round(CLIPPED * magnitudes.numel()))
        seen.setdefault(layer.target, []).append(magnitudes.topk(count).values[-1])

    handles = [m.register_forward_hook(hook) for m in network.modules() if isinstance(m, Conv)]
    try:
        with torch.inference_mode():
            run()
    finally:
        for handle in handles:
            handle.remove()
    digits = {"input": INPUT_DIGITS}
    for name, values in seen.items():
        if name != "params" and known_digits(name) is None:
            largest = float(torch.stack(values).max())
            digits[name] = math.floor(math.log2(ACTIVATION_MAX / max(largest, SMALLEST)))
    return digits


def quantise(network: nn.Module, digits: Mapping[str, int]) -> dict[str, Tensor]:
    """Integer weights, biases and shifts of every `Conv`, as tensors to be saved.

    Each output channel gets the finest weights for which no partial sum can reach `exact_limit` (see `largest_sum`), so
    a network that can't be exact can't be made. digits: of each named scale, as by `calibrate`; scales for which
    weights are too large, such as those of activations that have died out, are made coarser.
    """
    digits = dict(digits)
    for layer in network.modules():
        for name in (layer.source, layer.target) if isinstance(layer, Conv) else ():
            if (known := known_digits(name)) is not None:
                digits[name] = known
    while True:
        tensors, excess = _quantised(network, digits)
        if not excess:
            return tensors
        for name, too_many in excess.items():
            digits[name] -= too_many


def _quantised(network: nn.Module, digits: Mapping[str, int]) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The tensors; and how many digits too many there are of which scales."""
    tensors: dict[str, Tensor] = {}
    excess: dict[str, int] = {}
    most = exact_limit(network)
    for name, layer in network.named_modules():
        if not isinstance(layer, Conv):
            continue
        assert layer.bias is not None
        weight, bias = layer.kernel().detach().double(), layer.bias.detach().double()
        if isinstance(layer, ByteConv):
            tensors |= _quantised_bytes(name, layer)
            continue
        source = digits[layer.source]
        if layer.target == "params":
            target = torch.tensor(layer.digits)
        else:
            target = torch.full((len(weight),), digits[layer.target])
        weight_digits, mass = finest_weights(weight, bias, layer.source, source, most)
        while True:
            w = torch.round(weight * torch.exp2(weight_digits.double())[:, None, None, None])
            b = torch.round(bias * torch.exp2((weight_digits + source).double()))
            shift = weight_digits + source - target.to(torch.int32)
            too_large = largest_sum(w, b, shift, layer.source) >= most
            if not bool(too_large.any()):
                break
            weight_digits = weight_digits - too_large.to(torch.int32)
        if (too_many := 1 - int(shift.min())) > 0:
            if layer.target == "params" or is_byte(layer.target) or not math.isfinite(float(mass.max())):
                raise BadModel(f"{name}: weights are too large to be exact")
            excess[layer.target] = max(too_many, excess.get(layer.target, 0))
        tensors[f"{name}.weight"] = w.to(torch.int16)
        tensors[f"{name}.bias"] = b.to(torch.int32)
        tensors[f"{name}.shift"] = shift.to(torch.int32)
    return tensors, excess


def _quantised_bytes(name: str, layer: ByteConv) -> dict[str, Tensor]:
    """The tensors of a layer on bytes, whose weights are rounded as in training. Raises `BadModel`.

    Where its last digits are too fine for sums to be exact, weights lose them: those of outputs that do next to
    nothing.
    """
    assert layer.bias is not None
    kernel, real_bias = layer.kernel().detach().double(), layer.bias.detach().double()
    digits = byte_weight_digits(layer.whole.detach())
    while True:
        weight = torch.round(kernel * torch.exp2(digits.double())[:, None, None, None])
        bias = torch.round(real_bias * torch.exp2((digits + INPUT_DIGITS).double()))
        too_large = largest_byte_sum(weight, bias, digits) >= EXACT_LIMIT
        if not bool(too_large.any()):
            break
        digits = digits - too_large.to(digits.dtype)
        if bool((digits < 0).any()):
            raise BadModel(f"{name}: weights are too large to be exact")
    if bool((digits < 0).any()):
        raise BadModel(f"{name}: weights are too large for bytes")
    parts = {"weight": weight.to(torch.int8), "bias": bias.to(torch.int32), "shift": digits.to(torch.int32)}
    return {f"{name}.{part}": tensor for part, tensor in parts.items()}


def largest_byte_sum(weight: Tensor, bias: Tensor, shift: Tensor) -> Tensor:
    """As `largest_sum`, of a layer on bytes, to whose outputs bytes are added, with and without an offset."""
    added = (BYTE_MAX + SIGNED_MAX + 2) * torch.exp2(shift.double())
    return BYTE_MAX * _mass(weight.double(), "byte") + bias.double().abs() + added


def finest_weights(weight: Tensor, bias: Tensor, source: str, digits: int, most: int) -> tuple[Tensor, Tensor]:
    """Binary digits int32 [out] of each output's weights: the most for which no sum reaches `most`, before rounding;
    and what a sum can be.

    weight, bias: real numbers; digits: of the scale `source`.
    """
    limit = most / 2.0**digits - 1  # leave room for rounding weights, bias and the half
    mass = _largest_read(source) / 2.0**digits * _mass(weight, source) + bias.abs()
    fits_sum = torch.floor(torch.log2(limit / mass.clamp_min(1e-9)))
    fits_weight = torch.floor(torch.log2(WEIGHT_MAX / weight.abs().flatten(1).amax(1).clamp_min(1e-9)))
    return torch.minimum(fits_sum, fits_weight).clamp(max=14).to(torch.int32), mass


def exact_limit(network: nn.Module) -> int:
    """What no partial sum of the network may reach: 2^24, or 2^31 where it says that float64 carries its integers."""
    return WIDE_LIMIT if _carrier(network) == torch.float64 else EXACT_LIMIT


def _carrier(network: nn.Module) -> torch.dtype:
    carrier = getattr(network, "carrier", torch.float32)
    assert isinstance(carrier, torch.dtype)
    return carrier


def largest_sum(weight: Tensor, bias: Tensor, shift: Tensor, source: str) -> Tensor:
    """The largest magnitude that any partial sum of each output channel can take, in units of its last place."""
    return _largest_read(source) * _mass(weight.double(), source) + bias.double().abs() + torch.exp2(shift.double() - 1)


def _largest_read(source: str) -> int:
    """The largest magnitude that a layer reads."""
    return BYTE_MAX if is_byte(source) else INPUT_MAX if is_signed(source) else ACTIVATION_MAX


def _mass(weight: Tensor, source: str) -> Tensor:
    """What multiplies the largest activation in the largest partial sum, added up in any order, of each output.

    What a layer reads is never negative (`Conv`), unless it is `input`: then weights of one sign only add up.
    """
    rows = weight.flatten(1)  # in double: an int16 of -2^15 has no magnitude
    if is_signed(source):
        return rows.abs().sum(1)
    return torch.maximum(rows.clamp_min(0).sum(1), -rows.clamp_max(0).sum(1))


def install(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Replace every `Conv` of the network by its `IntConv`. Raises `BadModel` when a bound is broken."""
    most = exact_limit(network)
    for name, layer in [(n, m) for n, m in network.named_modules() if isinstance(m, Conv)]:
        try:
            weight, bias, shift = (tensors[f"{name}.{part}"] for part in ("weight", "bias", "shift"))
        except KeyError as error:
            raise BadModel(f"the model lacks the tensor {error}") from error
        if weight.shape != layer.kernel_shape() or not bias.shape == shift.shape == weight.shape[:1]:
            raise BadModel(f"{name}: the model's weights are of the wrong shape")
        kinds = (torch.int8 if isinstance(layer, ByteConv) else torch.int16, torch.int32, torch.int32)
        if (weight.dtype, bias.dtype, shift.dtype) != kinds:
            raise BadModel(f"{name}: the model's weights are of the wrong type")
        parent_name, _, child = name.rpartition(".")
        parent = network.get_submodule(parent_name)
        if isinstance(layer, ByteConv):
            # as int16, for an int8 of -128 has no magnitude
            within = bool((weight.short().abs() <= BYTE_WEIGHT_MAX).all() and (shift >= 0).all())
            if not within or bool((largest_byte_sum(weight, bias, shift) >= EXACT_LIMIT).any()):
                raise BadModel(f"{name}: the model's weights are not exact")
            setattr_child(parent, child, IntByteConv(weight, bias, shift, source=layer.source, spends=layer.spends))
            continue
        if bool((shift < 1).any()) or bool((largest_sum(weight, bias, shift, layer.source) >= most).any()):
            raise BadModel(f"{name}: the model's weights are not exact")
        highest = PARAMETER_MAX if layer.target == "params" else ACTIVATION_MAX
        exact = IntConv(
            weight,
            bias,
            shift,
            stride=layer.stride[0],
            lowest=0 if layer.relu else -highest,
            highest=highest,
            source=layer.source,
            digits=layer.digits,
            carrier=_carrier(network),
        )
        setattr_child(parent, child, exact)


def setattr_child(parent: nn.Module, child: str, module: nn.Module) -> None:
    """Put a module into its parent, which may be a list."""
    if isinstance(parent, nn.Sequential | nn.ModuleList):
        parent[int(child)] = module
    else:
        setattr(parent, child, module)
