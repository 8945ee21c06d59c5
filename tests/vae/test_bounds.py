from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from bbans import zoo
from bbans.vae import bounds
from bbans.vae.bounds import LatentKL, importance_weighted
from bbans.vae.dense import DenseConfig, DenseVAE
from bbans.vae.distributions import Latents
from bbans.vae.families import elbo
from bbans.vae.objectives import Bits

MODES = ("1", "L", "RGB")


@pytest.fixture(params=[*MODES, "photo"])
def model(request: pytest.FixtureRequest, tiny_thumbnails: dict[str, Path], tiny_models: dict[int, Path]) -> zoo.Model:
    folder = tiny_models[2] if request.param == "photo" else tiny_thumbnails[request.param]
    return zoo.load(folder, device="cpu")


def pictures(model: zoo.Model, count: int) -> np.ndarray:
    config = model.network.config
    samples, depth = getattr(config, "samples", 3), getattr(config, "depth", 8)
    return np.random.default_rng(0).integers(0, 1 << depth, (count, 8, 12, samples), np.uint8)


def samples(*rows: list[float]) -> list[Bits]:
    """Of each row all is likelihood but for one bit."""
    return [{"d1": torch.tensor(row, dtype=torch.float64) - 1, "kl": torch.ones(len(row))} for row in rows]


def test_the_bound_is_that_of_the_mean_weight() -> None:
    found = importance_weighted(samples([3.0, 5.0], [4.0, 5.0], [8.0, 5.0]))
    np.testing.assert_allclose(found.iwae, [-math.log2((2**-3 + 2**-4 + 2**-8) / 3), 5])
    np.testing.assert_allclose(found.elbo, [5, 5])
    np.testing.assert_allclose(found.parts["kl"], [1, 1])


def test_of_one_sample_it_is_the_elbo(model: zoo.Model) -> None:
    x = pictures(model, 5)
    found = model.float_bounds(x, seed=3)
    assert found and model.float_network
    torch.manual_seed(3)
    bits = elbo(model.float_network, torch.from_numpy(x))
    np.testing.assert_allclose(found.elbo, sum(part.double() for part in bits.values()))
    np.testing.assert_allclose(found.iwae, found.elbo)
    assert set(found.parts) == set(bits)


@pytest.mark.parametrize("size", [1e5, 1e9])
def test_weights_that_no_float_could_hold(size: float) -> None:
    """2^-100,000 is zero in floats."""
    found = importance_weighted(samples([size, -size], [size + 64, 64 - size]))
    np.testing.assert_allclose(found.iwae, [size + 1, 1 - size], rtol=1e-12)
    assert np.isfinite(found.elbo).all()


def test_more_samples_bring_it_down(model: zoo.Model) -> None:
    """In expectation: a mean over many of few samples each is above one of many."""
    x, samples = pictures(model, 20), 64
    means = []
    for k in (1, 8, 64):
        found = [model.float_bounds(x, particles=k, seed=seed) for seed in range(samples // k)]
        means.append(np.mean([bound.iwae for bound in found if bound]))
        assert all(bound and (bound.iwae <= bound.elbo + 1e-9).all() for bound in found)
    assert means[0] > means[1] > means[2]


def test_it_depends_on_the_seed_alone(model: zoo.Model) -> None:
    x = pictures(model, 3)
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    one, same, other = (model.float_bounds(x, particles=5, seed=seed) for seed in (1, 1, 2))
    assert one and same and other
    np.testing.assert_array_equal(one.iwae, same.iwae)
    assert not np.array_equal(one.iwae, other.iwae)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_batches_are_small(model: zoo.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    x, sizes = pictures(model, 7), []
    monkeypatch.setattr(bounds, "BATCH_DIMS", 4 * x[0].size)

    def spy(network: object, pixels: torch.Tensor, keep: object) -> Bits:
        sizes.append(len(pixels))
        return elbo(network, pixels, keep)  # type: ignore[arg-type]

    monkeypatch.setattr(bounds, "elbo", spy)
    found = model.float_bounds(x, particles=3)
    assert found and found.iwae.shape == (7,) and sizes == [4, 4, 4, 3, 3, 3]
    sizes.clear()
    model.float_bounds(x[:1], particles=6)
    assert sizes == [4, 2]


def test_what_latents_tell(model: zoo.Model) -> None:
    x, latents = pictures(model, 6), LatentKL()
    found = model.float_bounds(x, particles=2, keep=latents.keep)
    assert found
    positions = {"kl_local": 6, "kl1": 1}  # of a layer that has several
    for name, means in latents.means().items():
        if name in positions or name == "kl_whole":
            assert means.sum() * positions.get(name, 1) == pytest.approx(found.parts[name].mean(), rel=1e-4)
    assert set(latents.dead()) == {name for name in found.parts if name.startswith("kl")}


def test_a_dead_latent_is_counted() -> None:
    latents = LatentKL()
    for values in ([0.0, 0.5, 0.02], [0.01, 0.5, 0.02]):
        latents.keep("kl", torch.tensor(values).reshape(1, 3, 1, 1).expand(4, 3, 2, 2))
    assert latents.dead() == {"kl": 1}
    np.testing.assert_allclose(latents.means()["kl"], [0.005, 0.5, 0.02], rtol=1e-6)


def test_without_samples_there_is_no_bound() -> None:
    with pytest.raises(ValueError, match="no samples"):
        importance_weighted([])


@pytest.mark.parametrize(
    "latents, posterior", [((3,), "diagonal"), ((3,), "full"), ((3,), "flow"), ((3, 2), "diagonal")]
)
def test_copies_are_encoded_once(latents: tuple[int, ...], posterior: str) -> None:
    torch.manual_seed(0)
    network = DenseVAE(DenseConfig(1, 4, hidden=(8,), latents=latents, posterior=posterior))
    pixels, rows = torch.randint(0, 256, (5, 1, 4, 1)).repeat(3, 1, 1, 1), []
    network.encoder.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    with torch.inference_mode():
        found = []
        for copies in (1, 3):
            torch.manual_seed(1)
            found.append(elbo(network, pixels, Latents(copies=copies)))
    assert rows == [15, 5]
    for name, bits in found[0].items():
        torch.testing.assert_close(found[1][name], bits)
