"""Models of the family `dense` as codecs, of every likelihood with every kind of latents."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from bbans import zoo
from bbans.codecs.tables import SCALES
from bbans.errors import BadFile, BadImage, BadModel
from bbans.exact.layers import arithmetic
from bbans.image import codec
from bbans.image.codec import decode_chain, decode_tile, encode_chain, encode_tile, takes
from bbans.image.dense import SCALE_OF_Z, DenseCodec, _chain, _locations
from bbans.image.heatmap import bits_of
from bbans.image.picture import Picture, compress_picture, decompress_picture
from bbans.image.planes import Latents, Strand
from bbans.vae.dense import DenseVAE
from bbans.vae.distributions import FULL_SCALES, NORMAL_SCALES, Flow, Normal, VampPrior

from ..codecs.helpers import random_message
from ..conftest import DENSE_KINDS, dense_config, dense_pictures, random_dense

TinyDense = Callable[[str], Path]
ALL = pytest.mark.parametrize("kind", DENSE_KINDS)
CORNERS = [*DENSE_KINDS[:5], "normal-diagonal", "fixed-full", "deep-flow", "logistic-vamp", "mixture-two"]
SOME = pytest.mark.parametrize("kind", CORNERS)  # every likelihood, and all latents
FILES = [kind for kind in CORNERS if not kind.startswith("deep")]  # those that files hold pictures of


@pytest.fixture
def model(kind: str, tiny_dense: TinyDense) -> zoo.Model:
    return zoo.load(tiny_dense(kind), device="cpu")


def its_own(model: zoo.Model, count: int, seed: int = 0) -> np.ndarray:
    """Pictures from p(z) p(x | z), popped from random bits: those that the model is the best one for."""
    network, strand = model.network, Strand(random_message(64, words=count * 64, seed=seed), count, 8, None)
    assert isinstance(network, DenseVAE)
    made = DenseCodec(network, model.tables, count, None)
    with arithmetic():
        z = made.prior().pop([strand])
        if len(network.config.latents) > 1:
            z = made.prior_of_lower(z).pop([strand])
        return network.config.sampling.pixels(made.likelihood(z).pop([strand]), 1).numpy()


@ALL
@pytest.mark.parametrize("count", [1, 40])
def test_the_same_pictures_come_back(model: zoo.Model, count: int) -> None:
    x = dense_pictures(model.network.config, count)
    payload, stats = encode_chain(model, x)
    assert stats.dims == x.size and stats.elbo is None
    out = decode_chain(model, payload, *x.shape)
    assert out.dtype == x.dtype
    np.testing.assert_array_equal(out, x)


@SOME
def test_extremes_come_back(model: zoo.Model) -> None:
    config = model.network.config
    x = np.zeros((4, *config.shape), np.int32)
    x[1], x[2, ::2], x[3, :, ::2] = (1 << config.depth) - 1, (1 << config.depth) - 1, 1
    x = x.astype(dense_pictures(config, 1).dtype)
    payload, _ = encode_chain(model, x)
    np.testing.assert_array_equal(decode_chain(model, payload, *x.shape), x)


@ALL
def test_the_message_is_as_long_as_the_elbo(model: zoo.Model) -> None:
    x = dense_pictures(model.network.config, 150)
    payload, stats = encode_chain(model, x, want_elbo=True)
    assert stats.elbo is not None and stats.net == pytest.approx(stats.elbo, rel=1e-3)
    assert stats.initial <= 256 and 0 <= 8 * len(payload) - stats.net - stats.initial < 500


@ALL
def test_on_random_bits_it_is_that_of_the_float_model(model: zoo.Model) -> None:
    """A chain's own bits are random only if the model is right."""
    x = its_own(model, 600)
    strand = Strand(random_message(64, words=20_000, seed=1), len(x), 8, {})
    before = strand.message.bits()
    with arithmetic():
        codec._codec(model, x.shape).push([strand], codec._planes(model, x))
    assert strand.ledger is not None
    net, elbo = strand.message.bits() - before, sum(strand.ledger.values())
    bounds = model.float_bounds(x, particles=4)
    assert bounds is not None
    assert net == pytest.approx(elbo, rel=1e-3) and elbo == pytest.approx(bounds.elbo.sum(), rel=5e-3)
    kl = sum(part.sum() for name, part in bounds.parts.items() if name.startswith("kl"))
    assert strand.ledger["likelihood"] == pytest.approx(bounds.parts["x"].sum(), rel=2e-3)
    assert (strand.ledger["prior"] + strand.ledger["bits back"]) / len(x) == pytest.approx(kl / len(x), abs=0.4)


@pytest.mark.parametrize("kind", ["logistic-flow", "normal-vamp"])
def test_what_is_trained_codes_as_well_as_it_should(kind: str, model: zoo.Model, tmp_path: Path) -> None:
    from bbans.train.export import export
    from bbans.train.loop import Recipe, train
    from bbans.train.stacks import Deck
    from bbans.train.tasks import StackTask

    config = dense_config(kind)
    x = dense_pictures(config, 600)
    task = StackTask(config, x[:500], x[500:], Deck())
    recipe = Recipe(steps=60, batch=50, learning_rate=1e-2, warmup=10, model=config, ema=0.9)
    initial = model.path / zoo.FLOAT_WEIGHTS
    export(train(recipe, task, tmp_path, device=torch.device("cpu"), initial=initial), task, tmp_path)
    trained = zoo.load(tmp_path, device="cpu")
    payload, stats = encode_chain(trained, x)
    np.testing.assert_array_equal(decode_chain(trained, payload, *x.shape), x)
    first, bounds = (each.float_bounds(x, particles=4) for each in (model, trained))
    assert first is not None and bounds is not None
    assert bounds.elbo.sum() < 0.97 * first.elbo.sum() and stats.net == pytest.approx(bounds.elbo.sum(), rel=5e-3)


@pytest.mark.parametrize("kind", FILES)
def test_a_picture_is_also_a_file(model: zoo.Model) -> None:
    (x,) = dense_pictures(model.network.config, 1)
    mode = "1" if model.network.config.depth == 1 else "L"
    payload, _ = encode_tile(model, x)
    np.testing.assert_array_equal(decode_tile(model, payload, *x.shape), x)
    data, report = compress_picture(Picture(x, mode), model, by_model=True, want_elbo=True)
    back = decompress_picture(data, lambda _: model)
    assert back.mode == mode and report.elbo is not None
    np.testing.assert_array_equal(back.pixels, x)
    assert [other for other in ("1", "L", "RGB") if takes(model, 5, 6, other)] == [mode] and not takes(
        model, 6, 5, mode
    )


@pytest.mark.parametrize("kind", ["deep-diagonal"])
def test_of_12_bits_there_are_no_files(model: zoo.Model) -> None:
    assert not any(takes(model, 5, 6, mode) for mode in ("1", "L", "RGB"))


@pytest.mark.parametrize("kind", ["logistic-flow", "bernoulli-vamp"])
def test_where_the_bits_of_a_picture_go(model: zoo.Model) -> None:
    (x,) = dense_pictures(model.network.config, 1)
    found = bits_of(Picture(x, "1" if model.network.config.depth == 1 else "L"), model)
    payload, _ = encode_tile(model, x)
    ledger: dict[str, float] = {}
    decode_tile(model, payload, *x.shape, ledger)
    assert found.shape == (5, 6) and (found > 0).all() and found.sum() == pytest.approx(ledger["likelihood"])


@pytest.mark.parametrize("kind", ["logistic-diagonal"])
def test_other_pictures_are_refused(model: zoo.Model) -> None:
    with pytest.raises(BadImage, match="takes pictures of 6 x 5 with 1 channels"):
        encode_chain(model, np.zeros((2, 6, 5, 1), np.uint8))


# -- damage: BadFile or other pixels, and never anything else ----------------------------------------------------------


def is_noticed(model: zoo.Model, payload: bytes, x: np.ndarray) -> bool:
    try:
        out = decode_chain(model, payload, *x.shape)
    except BadFile:
        return True
    assert out.shape == x.shape
    return not np.array_equal(out, x)


@SOME
def test_damage_is_noticed(model: zoo.Model) -> None:
    x = dense_pictures(model.network.config, 3)
    payload, _ = encode_chain(model, x)
    random = np.random.default_rng(0)
    for at in [*range(7), *random.integers(0, len(payload), 5)]:
        altered = bytearray(payload)
        altered[at] ^= 1 << random.integers(8)
        assert is_noticed(model, bytes(altered), x), at
    for length in (0, 2, 5, len(payload) // 2, len(payload) - 4):
        with pytest.raises(BadFile):
            decode_chain(model, payload[:length], *x.shape)
    for garbage in (b"\1\3\x08" + random.bytes(400), payload + bytes(4)):
        assert is_noticed(model, garbage, x)


@pytest.mark.parametrize("kind", ["bernoulli-vamp", "normal-two", "logistic-flow"])
@pytest.mark.parametrize("bits", [9, 10, 11, 15])
def test_latents_of_too_many_bits_are_refused(model: zoo.Model, bits: int) -> None:
    """The middles of their bins are no locations."""
    x = dense_pictures(model.network.config, 1)
    payload, _ = encode_chain(model, x)
    with pytest.raises(BadFile, match="the chain's head is impossible"):
        decode_chain(model, payload[:2] + bytes([payload[2] - payload[2] % 16 + bits]) + payload[3:], *x.shape)


@pytest.mark.parametrize("kind", ["mixture-full", "logistic-flow", "bernoulli-vamp", "bernoulli-two"])
def test_nothing_but_bad_file_is_ever_raised(model: zoo.Model) -> None:
    x = dense_pictures(model.network.config, 4)
    payload, _ = encode_chain(model, x)
    random = np.random.default_rng(1)
    for _ in range(80):
        altered = bytearray(payload)
        for at in random.integers(0, len(payload), random.integers(1, 6)):
            altered[at] = random.integers(256)
        cut = random.integers(1, len(payload) + 1) if random.random() < 0.3 else len(payload)
        if bytes(altered[:cut]) != payload:
            assert is_noticed(model, bytes(altered[:cut]), x)


# -- hostile models ----------------------------------------------------------------------------------------------------


def test_a_model_without_its_tables_is_refused(tiny_dense: TinyDense, tmp_path: Path) -> None:
    folder = tiny_dense("normal-diagonal")
    described, tensors = zoo.read_weights(folder)
    whole = {"bbans": json.dumps(described)}
    without = {name: tensor for name, tensor in tensors.items() if not name.startswith("tables.normal.")}
    for broken, words in (
        (without, "lacks tables.normal.upper"),
        ({**tensors, "tables.normal.upper": tensors["tables.normal.upper"][::-1].copy()}, "none of CDFs"),
        ({**tensors, "tables.normal.shifts": tensors["tables.normal.shifts"][:3]}, "none of CDFs"),
        ({**tensors, "tables.exp2": tensors["tables.exp2"][:40]}, "powers of two"),
    ):
        save_file(broken, tmp_path / zoo.WEIGHTS, whole)
        with pytest.raises(BadModel, match=words):
            zoo.load(tmp_path, device="cpu")


@pytest.mark.parametrize(
    "size", [{"hidden": [10**9]}, {"latents": [10**7]}, {"height": 10**6}, {"components": 10**9}, {"mixtures": 10**6}]
)
def test_sizes_that_are_none(tiny_dense: TinyDense, tmp_path: Path, size: dict[str, object]) -> None:
    """Nothing is allocated for them."""
    described, tensors = zoo.read_weights(tiny_dense("logistic-diagonal"))
    metadata = {"bbans": json.dumps({"family": "dense", "config": {**described["config"], **size}})}
    save_file(tensors, tmp_path / zoo.WEIGHTS, metadata)
    with pytest.raises(BadModel):
        zoo.load(tmp_path, device="cpu")


def test_the_largest_network_lacks_weights(tiny_dense: TinyDense, tmp_path: Path) -> None:
    described, tensors = zoo.read_weights(tiny_dense("logistic-vamp"))
    large = {"height": 256, "width": 256, "hidden": [4096] * 8, "latents": [1024], "components": 4096}
    metadata = {"bbans": json.dumps({"family": "dense", "config": {**described["config"], **large}})}
    save_file(tensors, tmp_path / zoo.WEIGHTS, metadata)
    with pytest.raises(BadModel, match="wrong shape"):
        zoo.load(tmp_path, device="cpu")


def test_another_weight_is_another_model(tiny_dense: TinyDense, tmp_path: Path) -> None:
    folder = tiny_dense("bernoulli-two")
    shutil.copytree(folder, tmp_path / "copy")
    assert zoo.load(tmp_path / "copy", device="cpu").id == zoo.load(folder, device="cpu").id
    assert {"tables.normal.upper", "tables.normal.halves"} <= set(load_file(folder / zoo.WEIGHTS))


# -- what is real while training, in integers --------------------------------------------------------------------------


def the_codec(kind: str, tiny_dense: TinyDense, count: int) -> tuple[DenseVAE, DenseCodec]:
    model = zoo.load(tiny_dense(kind), device="cpu")
    assert isinstance(model.network, DenseVAE)
    return model.network, DenseCodec(model.network, model.tables, count, None)


def test_responsibilities_are_those_of_the_mixture(tiny_dense: TinyDense) -> None:
    count, latents, components = 50, 6, 9
    _, made = the_codec("bernoulli-vamp", tiny_dense, count)
    random = np.random.default_rng(0)
    means = random.integers(-1000, 1000, (latents, components))
    scales = random.integers(-24, 9, (latents, components))
    k = random.integers(0, components, count)
    z = np.rint(means[:, k] + 512 * 2 ** (scales[:, k] / 8) * random.standard_normal((latents, count))).astype(np.int64)
    z = np.clip(z, -4095, 4095)
    freqs = made._responsibilities(z, np.concatenate([means, scales]))
    assert freqs.shape == (count, components) and (freqs >= 1).all() and (freqs.sum(1) == 1 << 24).all()
    params = torch.from_numpy(np.concatenate([means / 512, scales / 8]).T)
    each = Normal(params[None].movedim(2, 1)).log2_density(torch.from_numpy(z.T / 512)[:, :, None]).sum(1).double()
    expected = torch.softmax(each * np.log(2), 1).numpy()
    np.testing.assert_allclose(freqs / 2**24, expected, atol=0.04)
    divergence = (expected * np.log2(np.maximum(expected, 1e-9) / (freqs / 2**24))).sum(1)
    assert divergence.max() < 0.01 and divergence.mean() < 0.003


@pytest.mark.parametrize("z", [-4096, 4095])
@pytest.mark.parametrize("mean", [-(1 << 15) + 1, (1 << 15) - 1])
@pytest.mark.parametrize("scale", [-(1 << 15) + 1, 0, (1 << 15) - 1])
def test_responsibilities_are_frequencies_whatever_the_parameters(
    tiny_dense: TinyDense, z: int, mean: int, scale: int
) -> None:
    _, made = the_codec("bernoulli-vamp", tiny_dense, 2)
    components = np.array([[mean, 0]] * 1024 + [[scale, -3]] * 1024, np.int64)
    freqs = made._responsibilities(np.full((1024, 2), z), components)
    assert (freqs >= 1).all() and (freqs.sum(1) == 1 << 24).all()


def test_the_prior_over_components_is_that_of_the_mixture(tiny_dense: TinyDense) -> None:
    """Bits back of the exact posterior: z costs what the mixture says, whatever component it came by."""
    network, made = the_codec("bernoulli-vamp", tiny_dense, 400)
    strand = Strand(random_message(16, words=4000), 400, 8, {})
    with arithmetic():
        scaled = network.components().double() * torch.tensor([2.0**-9] * 3 + [2.0**-3] * 3)
    random = np.random.default_rng(0)
    mean, log2_scale = scaled[random.integers(0, 5, 400)].numpy().T.reshape(2, 3, 400)
    bins = np.floor(256 * (mean + 2**log2_scale * random.standard_normal((3, 400)))).astype(np.int64).ravel() + 2048
    before = strand.message.bits()
    with arithmetic():
        made.prior().push([strand], Latents(400, 8, bins))
    locations = torch.from_numpy(_locations(bins, 8).reshape(3, -1).T / 512.0)
    expected = 400 * 3 * 8 - float(VampPrior(scaled).log2_density(locations).sum())
    assert strand.ledger is not None
    assert sum(strand.ledger.values()) == pytest.approx(expected, rel=3e-3)
    assert strand.message.bits() - before == pytest.approx(expected, rel=3e-3)


def test_the_noise_of_a_flow_is_found_again(tiny_dense: TinyDense) -> None:
    network, made = the_codec("normal-flow", tiny_dense, 40)
    float_network = random_dense(dense_config("normal-flow")).requires_grad_(False)
    random = np.random.default_rng(0)
    noise = np.rint(512 * random.standard_normal((40, 3))).astype(np.int64)
    x = torch.from_numpy(random.integers(-2040, 2041, (40, 30))).double()
    with arithmetic():
        context = network.infer(x)
        given, z = made._flow(context), []
        for i in range(3):  # as a codec asks, with the samples of the noise
            mean, scale = given(z)
            z.append(mean + np.rint(noise[:, i] * 2 ** (scale / 8)).astype(np.int64))
        params = network.flow_step(torch.from_numpy(noise).double(), context).long().T.numpy()
    last_mean, last_scale = given(z[:2])
    # by the true noise; that which was found is a unit or so off, and so may the last parameters be
    assert np.abs(last_mean - params[2]).max() <= 6 and np.abs(last_scale - params[5]).max() <= 1
    real = Normal(float_network.flow_step(torch.from_numpy(noise / 512).float(), float_network.infer(x.float() / 2048)))
    mean, log2_scale = real.read()
    np.testing.assert_allclose(last_mean / 512, mean[:, 2], atol=0.02)
    np.testing.assert_allclose(last_scale / 8, log2_scale[:, 2], atol=0.15)


@pytest.mark.parametrize("far", [-(1 << 15) + 1, (1 << 15) - 1])
def test_noise_far_out_is_clipped(tiny_dense: TinyDense, far: int) -> None:
    network, made = the_codec("normal-flow", tiny_dense, 1)
    seen: list[torch.Tensor] = []
    step = network.flow_step

    def spy(noise: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        seen.append(noise.clone())
        return step(noise, context)

    network.flow_step = spy  # type: ignore[method-assign]
    with arithmetic():
        given = made._flow(network.infer(torch.zeros(1, 30).double()))
        given([np.array([far]), np.array([-far])])
    assert seen[-1].abs().max() <= 4095 and seen[-1][0, 0] == (4095 if far > 0 else -4095)


def test_means_and_scales_are_clamped_as_in_training(tiny_dense: TinyDense) -> None:
    _, made = the_codec("normal-diagonal", tiny_dense, 3)
    far = torch.tensor([[1e4] * 2, [-1e4] * 2]).reshape(1, 4)
    least, most = NORMAL_SCALES
    ends = np.array([[1 << 15], [-(1 << 15)], [1 << 15], [-(1 << 15)]], np.int64)
    mean, scale = _chain(ends, 2)([])
    assert mean.tolist() == [512 * float(Normal(far).read()[0][0, 0])] and scale.tolist() == [8 * most]
    mean, scale = _chain(ends, 2)([mean])
    assert mean.tolist() == [-2560] and scale.tolist() == [8 * least]
    assert [each.tolist() for each in _chain(ends, 2, full=True)([])] == [[1 << 15], [1 << 15]]
    least, most = FULL_SCALES
    grid = made._grid(np.zeros(3, np.int64), np.array([-(1 << 15), 0, 1 << 15]), 8, floor=0)
    assert grid.scales.tolist() == [int(SCALE_OF_Z + 8 * least), SCALE_OF_Z, int(SCALE_OF_Z + 8 * most)]
    assert grid.scales.min() >= 0 and grid.scales.max() < SCALES


def test_a_flow_is_a_distribution_of_its_own() -> None:
    assert isinstance(random_dense(dense_config("normal-flow")).posterior_of(torch.zeros(1, 8)), Flow)
