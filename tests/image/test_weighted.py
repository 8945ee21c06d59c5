from __future__ import annotations

import numpy as np
import pytest
import torch

from bbans import zoo
from bbans.errors import BadFile, TooLarge
from bbans.image.codec import decode_chain, encode_chain
from bbans.image.planes import Latents
from bbans.image.weighted import MOST_SAMPLES, Particles, _OneStrand


@pytest.mark.parametrize("particles", [Particles(1), Particles(50), Particles(4096, coupled=False)])
def test_what_a_chain_begins_with(particles: Particles) -> None:
    packed = particles.pack()
    assert packed[0] == 0
    assert Particles.parse(packed + b"rest") == (particles, len(packed))
    assert Particles.parse(b"\3rest") == (None, 0)
    for truncated in (b"", packed[:1]):
        with pytest.raises(BadFile):
            Particles.parse(truncated)


def test_a_chain_has_an_end() -> None:
    Particles(1024).check(MOST_SAMPLES // 1024)
    with pytest.raises(TooLarge, match="--group"):
        Particles(1025).check(MOST_SAMPLES // 1024)


def latents(value: int) -> Latents:
    return Latents(1, 8, np.array([value]))


def test_symbols_are_joined_and_split() -> None:
    stacks = _OneStrand(3)
    z = [[[latents(k)], [latents(10 + k)]] for k in range(3)]
    joined = stacks.join(z)
    assert [[one.bins[0] for one in layer] for layer in joined] == [[0, 1, 2], [10, 11, 12]]
    assert stacks.split(joined, 3) == z
    c, (d, b) = torch.zeros(1, 1, 2, 3), (torch.ones(1, 1, 2, 2), torch.ones(1, 1, 1, 3))
    several = stacks.join([(c, (d, b))] * 3)
    assert [x.shape for x in (several[0], *several[1])] == [(3, 1, 2, 3), (3, 1, 2, 2), (3, 1, 1, 3)]
    for one in (latents(1), z[0], c):
        assert stacks.join([one]) is one and stacks.split(one, 1)[0] is one


KINDS = {
    "one layer": {},
    "two layers": {"latents": (4, 3)},
    "full": {"posterior": "full"},
    "flow": {"posterior": "flow"},
    "vamp": {"prior": "vamp", "components": 5},
}


@pytest.fixture(scope="module", params=KINDS)
def dense(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> zoo.Model:
    from bbans.train.export import export
    from bbans.train.stacks import Deck
    from bbans.train.tasks import StackTask
    from bbans.vae.dense import DenseConfig, DenseVAE

    config = DenseConfig(**{"height": 6, "width": 5, "hidden": (16,), "latents": (4,), **KINDS[request.param]})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = DenseVAE(config)
        with torch.no_grad():
            for weights in network.parameters():
                weights.add_(0.05 * torch.randn_like(weights))
    x = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 1), np.uint8)
    folder = tmp_path_factory.mktemp("dense") / "model"
    export(network, StackTask(config, x, x, Deck()), folder)
    return zoo.load(folder, device="cpu")


@pytest.mark.parametrize("coupled", [False, True], ids=["independent", "coupled"])
def test_dense_models_take_particles(dense: zoo.Model, coupled: bool) -> None:
    x = np.random.default_rng(1).integers(100, 150, (4, 6, 5, 1), np.uint8)
    payload, stats = encode_chain(dense, x, want_elbo=True, particles=Particles(3, coupled))
    np.testing.assert_array_equal(decode_chain(dense, payload, *x.shape), x)
    assert stats.elbo is not None and stats.net == pytest.approx(stats.elbo, rel=0.03)  # pixels are improbable
