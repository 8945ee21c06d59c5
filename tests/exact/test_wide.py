"""Networks of vectors, whose integers float64 carries: sums up to 2^31."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bbans import zoo
from bbans.errors import BadModel
from bbans.exact.export import calibrate, exact_limit, install, largest_sum, quantise
from bbans.exact.layers import ACTIVATION_MAX, EXACT_LIMIT, WIDE_LIMIT, IntConv, arithmetic
from bbans.exact.selftest import answers
from bbans.vae.layers import Linear, MaskedLinear

from ..conftest import DENSE_KINDS, dense_config, random_dense

TinyDense = Callable[[str], Path]


class Wide(nn.Sequential):
    """Two layers, the second of which puts out two parameters."""

    carrier = torch.float64

    def __init__(self, inputs: int = 900, features: int = 30) -> None:
        super().__init__(
            Linear(inputs, features, source="input.11", target="middle"),
            Linear(features, 2, source="middle", target="params", relu=False, digits=(9, 3)),
        )


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def inputs(count: int, width: int = 900) -> Tensor:
    """Integers, to be divided by 2^11."""
    return torch.randint(-2047, 2048, (count, width)).double()


def exported(made: nn.Module, x: Tensor) -> dict[str, Tensor]:
    return quantise(made, calibrate(made, lambda: made((x / 2**11).float())))


def on_integers(tensors: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """A layer's outputs, before they are clamped, in 64-bit integers."""
    weight, bias, shift = (tensors[f"{name}.{part}"].long() for part in ("weight", "bias", "shift"))
    return (x.long() @ weight.flatten(1).T + bias + (1 << (shift - 1))) >> shift


def test_the_carrier_says_how_large_sums_may_be() -> None:
    assert exact_limit(Wide()) == WIDE_LIMIT == 1 << 31 and exact_limit(nn.Sequential(*Wide())) == EXACT_LIMIT


def test_equals_integers_for_any_batch_threads_and_order() -> None:
    made, x = Wide(), inputs(64)
    with torch.no_grad():
        made[0].weight.mul_(40)  # sums that float32 could not hold
    expected = made((x / 2**11).float()).detach()
    tensors = exported(made, x)
    install(made, tensors)
    assert all(isinstance(layer, IntConv) and layer.weight.dtype == torch.float64 for layer in made)
    middle = on_integers(tensors, "0", x).clamp(0, ACTIVATION_MAX)
    whole = on_integers(tensors, "1", middle)
    assert (x.long() @ tensors["0.weight"].long().flatten(1).T).abs().max() > EXACT_LIMIT
    order = torch.randperm(900)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            for batch in (1, 7, 64):
                with arithmetic():
                    assert torch.equal(torch.cat([made(part) for part in x.split(batch)]).long(), whole)
            shuffled = torch.nn.functional.linear(x[:, order], made[0].weight.flatten(1)[:, order], made[0].bias)
            assert torch.equal(shuffled.floor().clamp(0, ACTIVATION_MAX).long(), middle)
    finally:
        torch.set_num_threads(threads)
    with arithmetic():
        out = made(x) / torch.tensor([2.0**9, 2.0**3])
    assert (out - expected).abs().max() < 0.02 * expected.abs().max() + 0.07


def test_the_largest_sum_is_exact() -> None:
    """One unit below 2^31, and every unit counts."""
    weight = torch.full((1, 16, 1, 1), 32767)
    bias = WIDE_LIMIT - 1 - 1 - 16 * 32767 * ACTIVATION_MAX
    shift = torch.tensor([1], dtype=torch.int32)
    assert float(largest_sum(weight, torch.tensor([bias]), shift, "input.9")) == WIDE_LIMIT - 1
    for less in range(4):
        layer = IntConv(
            weight.to(torch.int16),
            torch.tensor([bias - less], dtype=torch.int32),
            shift,
            stride=1,
            lowest=-WIDE_LIMIT,
            highest=WIDE_LIMIT,
            carrier=torch.float64,
        )
        with arithmetic():
            found = int(layer(torch.full((1, 16), float(ACTIVATION_MAX), dtype=torch.float64)))
        assert found == (WIDE_LIMIT - 1 - less) >> 1
        assert tuple(int(part.reshape(-1)[0]) for part in layer.integers()) == (32767, bias - less, 1)


@pytest.mark.parametrize("octaves", [-20, -3, 0, 3, 6, 9])
def test_every_sum_is_exact_or_there_is_no_model(octaves: int) -> None:
    made, x = Wide(), inputs(20)
    with torch.no_grad():
        for weights in made.parameters():
            weights.mul_(2.0**octaves)
    try:
        tensors = exported(made, x)
    except BadModel:
        assert octaves > 6
        return
    for name, source in (("0", "input.11"), ("1", "middle")):
        parts = [tensors[f"{name}.{part}"] for part in ("weight", "bias", "shift")]
        assert (largest_sum(*parts, source) < WIDE_LIMIT).all() and (parts[2] >= 1).all()


def test_sums_beyond_the_limit_are_refused() -> None:
    tensors = exported(Wide(), inputs(20))
    tensors["0.weight"] = torch.full_like(tensors["0.weight"], 600)  # 600 x 900 x 4095 is more than 2^31
    with pytest.raises(BadModel, match="0: the model's weights are not exact"):
        install(Wide(), tensors)
    tensors["0.weight"] = torch.full_like(tensors["0.weight"], 500)
    install(Wide(), tensors)
    with pytest.raises(BadModel, match="0: the model's weights are not exact"):
        install(nn.Sequential(*Wide()), tensors)  # float32 holds no such sums


def test_masked_weights_are_zeros_in_integers() -> None:
    mask = torch.tril(torch.ones(30, 40), -1)
    made = Wide(40)
    made[0] = MaskedLinear(40, 30, mask, source="input.11", target="middle")
    with torch.no_grad():
        made[0].weight.fill_(3.0)  # as a step that knows no mask may leave them
    tensors = exported(made, inputs(20, 40))
    assert torch.equal(tensors["0.weight"][:, :, 0, 0] != 0, mask > 0)
    expected = made((inputs(20, 40) / 2**11).float()).shape
    install(made, tensors)
    with arithmetic():
        assert made(inputs(20, 40)).shape == expected


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # which PyTorch says of any change to oneDNN
@pytest.mark.parametrize("kind", [*DENSE_KINDS[:5], "mixture-two"])
def test_answers_depend_on_no_setting(tiny_dense: TinyDense, kind: str) -> None:
    network = zoo.load(tiny_dense(kind), device="cpu").network
    assert {buffer.dtype for buffer in network.buffers()} == {torch.float64}
    known = answers(network)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert answers(network) == known
    finally:
        torch.set_num_threads(threads)
    with torch.backends.mkldnn.flags(enabled=False):
        assert answers(network) == known
    for name, weights in network.named_buffers():
        if name.endswith("bias"):
            weights += 1000
            assert answers(network) != known, name
            weights -= 1000


@pytest.mark.parametrize("kind", DENSE_KINDS[:5])
def test_outputs_are_the_same_in_any_batch(tiny_dense: TinyDense, kind: str) -> None:
    network, digests = zoo.load(tiny_dense(kind), device="cpu").network, set()
    x = [torch.randint(-2047, 2048, (24, *shape)).double() for shape in network.probe_shapes(0, 0)]
    for batch in (1, 5, 24):
        with arithmetic():
            parts = [network.probe(*some)[:2] for some in zip(*(each.split(batch) for each in x), strict=True)]
        outs = [torch.cat(some).numpy().tobytes() for some in zip(*parts, strict=True)]
        digests.add(hashlib.sha256(b"".join(outs)).hexdigest())
    assert len(digests) == 1


def test_the_float_network_is_followed() -> None:
    """Parameters of the random models above, in units of their last places."""
    from bbans.vae.families import build, describe

    made = random_dense(dense_config("bernoulli-diagonal")).requires_grad_(False)
    x, z = inputs(50, 30), torch.randint(-1500, 1500, (50, 3)).double()
    real = made.probe((x / 2**11).float(), (z / 2**9).float())
    tensors = quantise(made, calibrate(made, lambda: made.probe((x / 2**11).float(), (z / 2**9).float())))
    exact = build(**describe(made))
    install(exact, tensors)
    with arithmetic():
        q, logits = exact.probe(x, z)
    assert (q[:, :3] - 512 * real[0][:, :3]).abs().max() < 3 and (q[:, 3:] - 8 * real[0][:, 3:]).abs().max() < 0.7
    assert (logits - 16 * real[1]).abs().max() < 0.8
