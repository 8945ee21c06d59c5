from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bbans.errors import BadModel
from bbans.exact.export import install, largest_sum
from bbans.exact.layers import ACTIVATION_MAX, EXACT_LIMIT, IntConv, arithmetic
from bbans.exact.tuning import MOST_STEPS, Steps, Unrounded, tuned

from .test_export import exported, inputs, network


@pytest.fixture
def exact() -> nn.Sequential:
    made = network()
    install(made, exported(made))
    return made


def steps(of: Tensor | int, seed: int = 0) -> Steps:
    """Random steps of so many outputs."""
    generator = torch.Generator().manual_seed(seed)
    count = of if isinstance(of, int) else len(of)
    return Steps(*(torch.randint(-MOST_STEPS, MOST_STEPS + 1, (count,), generator=generator) for _ in range(2)))


def test_no_steps_change_nothing(exact: nn.Sequential) -> None:
    none = Steps(*torch.zeros(2, 5, dtype=torch.int64))
    with arithmetic():
        assert torch.equal(tuned(exact, {"0": none})(inputs()), exact(inputs()))


def test_a_tuned_layer_in_integers(exact: nn.Sequential) -> None:
    changes = steps(5)
    layer = exact[0]
    weight, bias, shift = layer.integers()
    weight = torch.floor(weight * (1024 + changes.gains)[:, None, None, None] / 1024 + 0.5).long()
    bias = bias + torch.floor(changes.biases * 2.0 ** (shift + 1) / 16 + 0.5).long()
    assert (largest_sum(weight, bias, shift, "input") < EXACT_LIMIT).sum() >= 2  # of the others weights are shortened
    sums = F.conv2d(inputs().double(), weight.double(), bias.double(), padding=1).long()
    expected = ((sums + 2 ** (shift - 1)[:, None, None]) >> shift[:, None, None]).clamp(0, ACTIVATION_MAX)
    made = tuned(exact, {"0": changes})
    kept = made[0].shift == shift
    with arithmetic():
        out = made[0](inputs()).long()
    assert torch.equal(out[:, kept], expected[:, kept]) and kept.any()
    assert (out - expected).abs().max() < 27 * 255 // 2**6  # half a unit of each weight, of shortened ones
    assert exact[0] is layer and made[1] is not exact[1]


@pytest.mark.parametrize("up", [-MOST_STEPS, MOST_STEPS])
def test_every_sum_stays_exact(exact: nn.Sequential, up: int) -> None:
    changes = Steps(torch.full((5,), up), torch.full((5,), up))
    weight, bias, shift = tuned(exact, {"0": changes})[0].integers()
    assert (largest_sum(weight, bias, shift, "input") < EXACT_LIMIT).all()
    if up > 0:
        assert (shift < exact[0].shift).any()


def test_weights_that_cannot_be_exact_are_refused() -> None:
    weight = torch.full((1, 1, 1, 1), EXACT_LIMIT // ACTIVATION_MAX - 2, dtype=torch.int16)
    layer = IntConv(weight, torch.zeros(1), torch.ones(1, dtype=torch.int32), stride=1, lowest=0, highest=9)
    with pytest.raises(BadModel, match="can't be exact"):
        tuned(nn.Sequential(layer), {"0": Steps(torch.tensor([MOST_STEPS]), torch.tensor([0]))})


def test_the_unrounded_layers_are_what_the_exact_ones_round(exact: nn.Sequential) -> None:
    changes = {"0": steps(5, 1), "1": steps(2, 2)}
    changes = {name: Steps(change.gains // 8, change.biases // 8) for name, change in changes.items()}
    soft = nn.Sequential(*(Unrounded(layer) for layer in exact))
    for name, change in changes.items():
        soft.get_submodule(name).steps = change
    with torch.no_grad():
        middle = soft[0](inputs() / 64)
        out = soft[1](middle) * torch.tensor([2.0**8, 2.0**3])[:, None, None]
    made = tuned(exact, changes)
    with arithmetic():
        exact_middle = made[0](inputs())
        exact_out = made[1](exact_middle)
    unclipped = exact_middle < ACTIVATION_MAX
    assert unclipped.float().mean() > 0.5
    assert (middle - exact_middle)[unclipped].abs().max() < 8  # weights are rounded too
    whole = unclipped.all(1, keepdim=True).expand_as(out)
    assert (out - exact_out)[whole].abs().max() < 0.02 * exact_out.abs().max()
