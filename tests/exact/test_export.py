from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bbans.errors import BadModel
from bbans.exact.export import INPUT_DIGITS, calibrate, install, quantise
from bbans.exact.layers import ACTIVATION_MAX, EXACT_LIMIT, IntConv, arithmetic
from bbans.vae.layers import Conv


def network(scale: float = 1.0) -> nn.Sequential:
    """Two layers, the second of which puts out two parameters, of 8 and 3 binary digits."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(
            Conv(3, 5, 3, source="input", target="middle"),
            Conv(5, 2, 1, source="middle", target="params", relu=False, digits=(8, 3)),
        )
    with torch.no_grad():
        for weights in made.parameters():
            weights.mul_(scale)
    return made


def inputs() -> Tensor:
    """Integers, to be divided by 2^6."""
    return torch.randint(-255, 256, (4, 3, 9, 8), generator=torch.Generator().manual_seed(1)).float()


def exported(made: nn.Sequential) -> dict[str, Tensor]:
    return quantise(made, calibrate(made, lambda: made(inputs() / 2**INPUT_DIGITS)))


def test_scales_make_the_activations_fit() -> None:
    made = network()
    largest = float(made[0](inputs() / 2**INPUT_DIGITS).detach().max())
    digits = calibrate(made, lambda: made(inputs() / 2**INPUT_DIGITS))
    assert digits.keys() == {"input", "middle"} and digits["input"] == INPUT_DIGITS
    assert ACTIVATION_MAX / 2 < largest * 2 ** digits["middle"] <= ACTIVATION_MAX


def test_the_integer_network_follows_the_float_one() -> None:
    made = network()
    expected = made(inputs() / 2**INPUT_DIGITS).detach()
    install(made, exported(made))
    assert all(isinstance(layer, IntConv) for layer in made)
    with arithmetic():
        out = made(inputs()) / torch.tensor([2.0**8, 2.0**3])[:, None, None]
    assert torch.equal(out * 256, (out * 256).round())
    for parameter, digits in enumerate((8, 3)):
        error = (out - expected)[:, parameter].abs().max()
        assert error < 0.6 / 2**digits + 0.01 * expected[:, parameter].abs().max()


def test_a_scale_of_nothing_but_zeros_is_as_coarse_as_its_weights_want() -> None:
    """Activations that have died out say nothing of their scale, and their weights may be as large as any."""
    made = network()
    with torch.no_grad():
        made[0].weight.mul_(300.0)
        made[0].bias.fill_(-1e5)
    digits = calibrate(made, lambda: made(inputs() / 2**INPUT_DIGITS))
    expected = made(inputs() / 2**INPUT_DIGITS).detach()
    install(made, quantise(made, digits))
    with arithmetic():
        out = made(inputs()) / torch.tensor([2.0**8, 2.0**3])[:, None, None]
    assert ((out - expected).abs() <= torch.tensor([2.0**-8, 2.0**-3])[:, None, None]).all()


@given(st.floats(-30, 8))
def test_every_sum_is_exact_or_there_is_no_model(octaves: float) -> None:
    made = network(2.0**octaves)
    try:
        tensors = exported(made)
    except BadModel:
        assert octaves > 4
        return
    for name in ("0", "1"):
        weight, bias, shift = (tensors[f"{name}.{part}"].double() for part in ("weight", "bias", "shift"))
        rows = weight.flatten(1)
        positive, negative = rows.clamp_min(0).sum(1), -rows.clamp_max(0).sum(1)
        # what the second layer reads is never negative
        mass = positive + negative if name == "0" else torch.maximum(positive, negative)
        largest = ACTIVATION_MAX * mass + bias.abs() + torch.exp2(shift - 1)
        assert (largest < EXACT_LIMIT).all() and (shift >= 1).all()


def test_a_layer_that_never_fires_can_be_exported() -> None:
    made = network()
    with torch.no_grad():
        made[0].weight.zero_()
        made[0].bias.fill_(-1.0)
    expected = made(inputs()).detach()
    install(made, exported(made))
    with arithmetic():
        assert torch.allclose(made(inputs())[:, 0] / 2.0**8, expected[:, 0], atol=0.6 / 2**8)


def test_weights_that_cannot_be_exact_are_refused() -> None:
    made = network()
    with torch.no_grad():
        made[1].weight.mul_(1e6)
    with pytest.raises(BadModel, match="1: weights are too large"):
        exported(made)


def broken(name: str, value: Tensor | None) -> dict[str, Tensor]:
    tensors = exported(network())
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value.to(tensors[name].dtype)
    return tensors


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("0.weight", torch.full((5, 3, 3, 3), 1000)),
        ("0.weight", torch.full((5, 3, 3, 3), -(1 << 15))),
        ("0.weight", torch.zeros(5, 3, 1, 1)),
        ("0.bias", torch.full((5,), EXACT_LIMIT)),
        ("0.bias", torch.full((5,), -(1 << 31))),
        ("0.bias", torch.zeros(4)),
        ("0.shift", torch.full((5,), 25)),
        ("0.shift", torch.full((5,), 0)),
        ("0.shift", torch.full((5,), -40)),
        ("0.shift", torch.ones(1)),
        ("1.bias", None),
    ],
)
def test_tampered_weights_are_refused(name: str, value: Tensor | None) -> None:
    with pytest.raises(BadModel, match=rf"{name[0]}"):
        install(network(), broken(name, value))
