from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bbans.ans import Message
from bbans.bitsback import bits_back, chain, top_down
from bbans.codecs.core import Codec, autoregressive, over_lanes
from bbans.codecs.discrete import categorical, quantise, uniform
from bbans.particles import MOST, Stacks, importance_weighted, shifts

from .codecs.helpers import check_codec, random_message

PRECISION = 20
WAYS = pytest.mark.parametrize("coupled", [False, True], ids=["independent", "coupled"])


def coded(p: np.ndarray) -> Codec:
    """A categorical with probabilities [..., A]."""
    return categorical(quantise(np.rint(p * (1 << 36)).astype(np.int64), PRECISION), PRECISION)


class Toy:
    """p(z), p(x | z) and q(z | x) of independent x of 6 values and z of 5, one for each head."""

    def __init__(self, shape: int | tuple[int, ...], seed: int = 0) -> None:
        self.shape, random = shape, np.random.default_rng(seed)
        self.prior = random.dirichlet(np.ones(5))
        self.likelihood = random.dirichlet(np.ones(6), 5)
        self.posterior = random.dirichlet(np.full(5, 3.0), 6)
        self.x = random.integers(0, 6, shape)

    def codec(self, particles: int, coupled: bool, bits: int = 16) -> Codec:
        prior = np.broadcast_to(self.prior, (*np.atleast_1d(self.x).shape, 5))
        return importance_weighted(
            coded(prior),
            lambda z: coded(self.likelihood[z]),
            lambda x: coded(self.posterior[x]),
            particles,
            coupled=coupled,
            bits=bits,
        )


@WAYS
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 4)], ids=str)
@pytest.mark.parametrize("particles", [1, 2, 3, 16])
def test_round_trip(shape: tuple[int, ...], particles: int, coupled: bool) -> None:
    for seed in range(3):
        toy = Toy(shape, seed)
        check_codec(toy.codec(particles, coupled), toy.x, shape, seed=seed)


@WAYS
@settings(max_examples=40)
@given(st.integers(1, 9), st.integers(1, 40), st.integers(4, 31), st.integers(0, 1 << 20))
def test_round_trip_of_anything(coupled: bool, heads: int, particles: int, bits: int, seed: int) -> None:
    """Also where uniforms are coarser than q, or finer."""
    toy = Toy((heads,), seed)
    check_codec(toy.codec(particles, coupled, bits), toy.x, heads, seed=seed)


@WAYS
def test_round_trip_of_layers(coupled: bool) -> None:
    """z2 and z1, in rows over few heads, as models have them."""
    random, sizes = np.random.default_rng(0), (9, 20)
    tables = [random.dirichlet(np.ones(4), (4, size)) for size in sizes]

    def layer(i: int, given: int) -> Codec:
        return over_lanes(lambda part: coded(tables[i][given % 4][part]), sizes[i])

    codec = top_down(
        2,
        lambda above: layer(len(above), int(sum(map(np.sum, above)))),
        lambda z: layer(1, int(z[0].sum() + z[1].sum())),
        lambda x: lambda above: layer(len(above), int(x.sum()) + len(above)),
        lambda *model: importance_weighted(*model, 5, coupled=coupled),
    )
    check_codec(codec, random.integers(0, 4, 20), 4)


def test_one_particle_is_bits_back() -> None:
    toy = Toy((7,))
    plain = bits_back(
        coded(np.broadcast_to(toy.prior, (7, 5))),
        lambda z: coded(toy.likelihood[z]),
        lambda x: coded(toy.posterior[x]),
    )
    messages = [Message.empty(7, seed=0) for _ in range(2)]
    plain.push(messages[0], toy.x)
    toy.codec(1, coupled=True).push(messages[1], toy.x)
    assert messages[0].to_bytes() == messages[1].to_bytes()


@pytest.mark.parametrize("particles", [0, MOST + 1])
def test_there_are_some_particles_and_not_too_many(particles: int) -> None:
    with pytest.raises(ValueError, match="particles"):
        importance_weighted(uniform(2), lambda z: uniform(2), lambda x: uniform(2), particles)


# -- what x costs ------------------------------------------------------------------------------------------------------

HEAVY, LIGHT, TIMES = 0.9, 0.1, 400  # p(z | x) of one bit z, where q says 1/2


def mean_bits(particles: int, coupled: bool) -> float:
    """Of x = 0, which is all there is: -log2 p(x) = 0."""
    codec = importance_weighted(
        coded(np.array([[HEAVY, LIGHT]])), lambda z: uniform(1), lambda x: uniform(2), particles, coupled=coupled
    )
    message = Message.empty(1, seed=0)
    uniform(1 << 31).push(message, np.array([12345]))
    before = message.bits()
    chain(codec, TIMES).push(message, [np.zeros(1, np.int64)] * TIMES)
    return (message.bits() - before - 32 * message.words.padding) / TIMES


@pytest.mark.parametrize("particles", [1, 2, 5])
def test_independent_particles_cost_the_importance_weighted_bound(particles: int) -> None:
    """Of N draws of q, k are heavy with probability (N over k) / 2^N, and then w is 2 HEAVY or 2 LIGHT."""
    bound = sum(
        -math.comb(particles, k) / 2**particles * math.log2(2 * (k * HEAVY + (particles - k) * LIGHT) / particles)
        for k in range(particles + 1)
    )
    assert mean_bits(particles, coupled=False) == pytest.approx(bound, abs=3 / math.sqrt(TIMES * particles))


@pytest.mark.parametrize("particles", [2, 5])
def test_coupled_particles_cost_less_where_they_are_spread(particles: int) -> None:
    """One bit z: half of them have it, or nearly so."""
    near = (particles + 1) // 2 / particles
    worst = -math.log2(2 * ((1 - near) * HEAVY + near * LIGHT))
    best = -math.log2(2 * (near * HEAVY + (1 - near) * LIGHT))
    assert best - 0.02 <= mean_bits(particles, coupled=True) <= worst + 0.02


@WAYS
def test_what_the_stack_is_told_is_what_x_took(coupled: bool) -> None:
    """Besides -log2 p(x, z_i); to the bit, whatever the particles."""
    toy, told, joint = Toy((5,)), [], []

    class Told(Stacks):
        def enter(self, stack: Message, bits: float) -> None:
            told.append(bits)

    def noted(codec: Codec, p: np.ndarray) -> Codec:
        def push(message: Message, x: np.ndarray) -> None:
            joint.append(-np.log2(np.take_along_axis(p, x[:, None], -1)).sum())
            codec.push(message, x)

        return Codec(push, codec.pop)

    prior = np.broadcast_to(toy.prior, (5, 5))
    codec = importance_weighted(
        noted(coded(prior), prior),
        lambda z: noted(coded(toy.likelihood[z]), toy.likelihood[z]),
        lambda x: coded(toy.posterior[x]),
        6,
        coupled=coupled,
        stacks=Told(),
    )
    message = random_message(5, words=200)
    before = message.bits()
    codec.push(message, toy.x)
    took = message.bits() - before
    assert took == pytest.approx(sum(joint[-2:]) + told[0], abs=0.01)
    codec.pop(message)
    assert told[0] == told[1]


# -- initial bits ------------------------------------------------------------------------------------------------------

LANES, BITS = 40, 31
WIDE = uniform(1 << BITS)


def padding_of(particles: int, coupled: bool) -> int:
    """Words, with a posterior that takes one from every lane."""
    codec = importance_weighted(WIDE, lambda z: WIDE, lambda x: WIDE, particles, coupled=coupled, bits=BITS)
    message = Message.empty(LANES, seed=0)
    codec.push(message, np.arange(LANES))
    return message.words.padding


def test_independent_particles_need_initial_bits_each() -> None:
    assert [padding_of(n, coupled=False) for n in (1, 2, 5)] == pytest.approx([LANES, 2 * LANES, 5 * LANES], abs=2)


def test_coupled_particles_need_those_of_one() -> None:
    assert [padding_of(n, coupled=True) for n in (2, 5, 20)] == pytest.approx([LANES] * 3, abs=2)


@WAYS
def test_the_decoder_ends_where_the_encoder_began(coupled: bool) -> None:
    toy, images = Toy((7,)), 6
    x = list(np.random.default_rng(1).integers(0, 6, (images, 7)))
    codec = chain(toy.codec(9, coupled), images)
    message = Message.empty(7, seed=3)
    codec.push(message, x)
    assert message.words.padding > 0
    received = Message.from_bytes(message.to_bytes(), 7)  # which has no seed
    np.testing.assert_array_equal(codec.pop(received), x)
    assert received.is_initial(seed=3)


# -- priors and shifts -------------------------------------------------------------------------------------------------


@WAYS
def test_a_prior_may_take_bits_back_itself(coupled: bool) -> None:
    """A mixture, whose component is a latent: its length is that of any component, as the posterior of it is exact."""
    random = np.random.default_rng(0)
    mixture, parts = random.dirichlet(np.ones(3)), random.dirichlet(np.ones(5), 3)
    evidence = mixture @ parts
    prior = bits_back(
        coded(np.broadcast_to(mixture, (7, 3))),
        lambda k: coded(parts[k]),
        lambda z: coded((mixture[:, None] * parts / evidence).T[z]),
    )
    toy = Toy((7,))
    codec = importance_weighted(
        prior, lambda z: coded(toy.likelihood[z]), lambda x: coded(toy.posterior[x]), 5, coupled=coupled
    )
    check_codec(codec, toy.x, 7)


@pytest.mark.parametrize("particles", [2, 5, 16, 50])
def test_shifts_are_spread_in_every_symbol(particles: int) -> None:
    found, whole = shifts(particles, 30, 12), np.arange(particles) * (1 << 12) // particles
    for symbol in found.T:
        np.testing.assert_array_equal(np.sort(symbol), whole)
    assert not found[0].any()


def test_shifts_of_symbols_differ() -> None:
    assert np.mean([len(set(particle)) for particle in shifts(50, 30, 12)[1:]]) > 15


def test_shifts_are_part_of_the_format() -> None:
    assert shifts(5, 4, 8).tolist() == [
        [0, 0, 0, 0],
        [153, 51, 204, 102],
        [51, 102, 153, 204],
        [204, 153, 102, 51],
        [102, 204, 51, 153],
    ]


def test_autoregressive_posteriors_are_coupled_symbol_by_symbol() -> None:
    codec = importance_weighted(
        autoregressive(lambda earlier: uniform(5), 3),
        lambda z: uniform(7 + z[2]),
        lambda x: autoregressive(lambda earlier: uniform(5), 3),
        4,
        coupled=True,
    )
    check_codec(codec, np.arange(6), 6)
