from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from bbans.ans import Message
from bbans.bitsback import bit_swap, bits_back, chain, top_down
from bbans.codecs.core import Codec
from bbans.codecs.discrete import categorical, quantise, uniform
from bbans.codecs.latent import BinnedPosterior, logistic_edges, prior_codec
from bbans.codecs.mixture import Mixture
from bbans.codecs.tables import logistic_tables

from .codecs.helpers import check_codec

LANES = 40
PRECISION = 24


def coded(p: np.ndarray) -> Codec:
    """A categorical with probabilities [..., A]."""
    return categorical(quantise(np.rint(p * (1 << 36)).astype(np.int64), PRECISION), PRECISION)


class Tower:
    """z_L -> ... -> z_1 -> z_0 = x, all of a few values, where every posterior can be computed.

    As posteriors are exact, the ELBO is log p(x), whichever latents are drawn.
    """

    def __init__(self, depth: int, sizes: tuple[int, ...] = (5, 4, 3, 2)) -> None:
        self.depth, self.random = depth, np.random.default_rng(depth)
        self.marginals = [np.zeros(0)] * (depth + 1)
        self.marginals[depth] = self.random.dirichlet(np.ones(sizes[depth]))
        self.down = [
            self.random.dirichlet(np.ones(sizes[i]), sizes[i + 1]) for i in range(depth)
        ]  # [i]: p(z_i | z_i+1)
        for i in reversed(range(depth)):
            self.marginals[i] = self.marginals[i + 1] @ self.down[i]

    def up(self, low: int, high: int) -> np.ndarray:
        """p(z_low | z_high) as a table [z_high, z_low]."""
        table = np.eye(len(self.marginals[high]))
        for i in reversed(range(low, high)):
            table = table @ self.down[i]
        return table

    def prior(self) -> Codec:
        return coded(np.broadcast_to(self.marginals[self.depth], (LANES, len(self.marginals[self.depth]))))

    def given_above(self, i: int, above: np.ndarray) -> Codec:
        return coded(self.down[i][above])

    def given_below(self, i: int, below: np.ndarray) -> Codec:
        """p(z_i | z_i-1), by Bayes' rule."""
        joint = self.down[i - 1].T[below] * self.marginals[i]
        return coded(joint / joint.sum(-1, keepdims=True))

    def bit_swap(self) -> Codec:
        return bit_swap(
            self.prior(),
            [
                (lambda z, i=i: self.given_above(i - 1, z), lambda z, i=i: self.given_below(i, z))
                for i in range(1, self.depth + 1)
            ],
        )

    def top_down(self) -> Codec:
        def prior(above: list[np.ndarray]) -> Codec:
            return self.given_above(self.depth - len(above), above[-1]) if above else self.prior()

        def posterior(x: np.ndarray, above: list[np.ndarray]) -> Codec:
            """p(z_i | z_i+1, x)"""
            i = self.depth - len(above)
            before = self.down[i][above[-1]] if above else self.marginals[i]
            joint = self.up(0, i).T[x] * before
            return coded(joint / joint.sum(-1, keepdims=True))

        return top_down(self.depth, prior, lambda z: self.given_above(0, z[-1]), lambda x: partial(posterior, x))

    def sample(self) -> np.ndarray:
        return self.random.choice(len(self.marginals[0]), LANES, p=self.marginals[0])

    def bits(self, x: np.ndarray) -> float:
        """−log2 p(x)"""
        return -float(np.log2(self.marginals[0][x]).sum())


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("order", ["bit_swap", "top_down"])
def test_an_exact_posterior_costs_the_log_of_the_evidence(depth: int, order: str) -> None:
    model = Tower(depth)
    x = model.sample()
    check_codec(getattr(model, order)(), x, LANES, bits=model.bits(x))


def test_a_worse_posterior_costs_its_divergence_more() -> None:
    model = Tower(1)
    x = np.repeat(np.arange(5), 4000)
    lanes = len(x)
    q = model.marginals[1][None] * 0.5 + 0.5 / len(model.marginals[1])  # which ignores x
    joint = model.down[0].T * model.marginals[1]
    exact = joint / joint.sum(-1, keepdims=True)
    divergence = float((q * np.log2(q / exact)).sum(-1)[x].sum())  # KL(q, p(z | x))
    codec = bits_back(
        coded(np.broadcast_to(model.marginals[1], (lanes, 4))),
        lambda z: coded(model.down[0][z]),
        lambda x: coded(np.broadcast_to(q, (lanes, 4))),
    )
    assert divergence > 0.01 * lanes
    check_codec(codec, x, lanes, bits=model.bits(x) + divergence, rel=0.02)


def test_a_posterior_that_is_the_prior_costs_what_the_likelihood_costs() -> None:
    tables, edges, n, lanes = logistic_tables(), logistic_edges(), 3000, 64
    q = BinnedPosterior(tables, edges, 6, np.zeros(n, np.int32), np.full(n, 68, np.int32))
    ones = np.ones((1, n), np.int32)
    likelihood = Mixture(tables, 4096 * ones.astype(np.uint32), 16 * 100 * ones, 40 * ones, 0, 255)
    x = np.random.default_rng(0).integers(95, 106, n)
    codec = bits_back(prior_codec(6, n), lambda z: likelihood.row_codec(), lambda x: q.row_codec())
    _, freqs = likelihood.interval(x)
    check_codec(codec, x, lanes, bits=PRECISION * n - np.log2(freqs).sum())


@pytest.mark.parametrize("order", ["bit_swap", "top_down"])
def test_the_decoder_ends_where_the_encoder_began(order: str) -> None:
    model, images = Tower(3), 6
    x = [model.sample() for _ in range(images)]
    codec = chain(getattr(model, order)(), images)
    message = Message.empty(LANES, seed=3)
    codec.push(message, x)
    assert message.words.padding > 0
    received = Message.from_bytes(message.to_bytes(), LANES)  # which has no seed
    for image, sent in zip(codec.pop(received), x, strict=True):
        np.testing.assert_array_equal(image, sent)
    assert received.is_initial(seed=3)


def test_a_chain_costs_the_sum() -> None:
    model = Tower(2)
    x = [model.sample() for _ in range(5)]
    check_codec(chain(model.bit_swap(), 5), x, LANES, bits=sum(model.bits(image) for image in x))


# -- initial bits: independent layers of 31 bits a lane, so that each takes a word from every lane --------------------

WIDE = uniform(1 << 31)


def swapped(depth: int) -> Codec:
    return bit_swap(WIDE, [(lambda z: WIDE, lambda z: WIDE)] * depth)


def flat(depth: int) -> Codec:
    return top_down(depth, lambda above: WIDE, lambda z: WIDE, lambda x: lambda above: WIDE)


def padding_of(codec: Codec, symbols: object) -> int:
    message = Message.empty(LANES, seed=0)
    codec.push(message, symbols)
    return message.words.padding


def test_bit_swap_needs_the_initial_bits_of_one_layer() -> None:
    x = np.arange(LANES)
    for depth in (1, 2, 3):
        assert padding_of(swapped(depth), x) == LANES
        assert padding_of(flat(depth), x) == depth * LANES


def test_a_chain_pays_the_initial_bits_once() -> None:
    images = list(np.arange(10 * LANES).reshape(10, LANES))
    assert padding_of(chain(swapped(1), 10), images) == padding_of(swapped(1), images[0])
