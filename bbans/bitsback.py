"""Bits-back coding: codecs of models with latent variables.

A model says p(z) and p(x | z); q(z | x) approximates its posterior. To push x, z is *popped* from the message with
q(z | x), as if the message were random bits, and then x and z are pushed. The bits that z took come back when the
message is popped: x costs −log2 p(x | z) − log2 p(z) + log2 q(z | x), on average the negative ELBO.

Sources: Townsend, Bird & Barber 2019, "Practical lossless compression with latent variables using bits back coding",
arXiv:1901.04866, table 1; Kingma, Abbeel & Ho 2019, "Bit-Swap", arXiv:1905.06845, algorithm 1; Townsend et al. 2020,
"HiLLoC", arXiv:1912.09953, section 3. This module knows codecs, not what they are made of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bbans.codecs.core import Codec, Stack, Symbols, autoregressive, repeat


def bits_back(prior: Codec, likelihood: Callable[[Any], Codec], posterior: Callable[[Any], Codec]) -> Codec:
    """The codec of x in p(z) p(x | z): `likelihood(z)` codes x, `posterior(x)` and `prior` code z."""

    def push(message: Stack, x: Symbols) -> None:
        z = posterior(x).pop(message)
        likelihood(z).push(message, x)
        prior.push(message, z)

    def pop(message: Stack) -> Symbols:
        z = prior.pop(message)
        x = likelihood(z).pop(message)
        posterior(x).push(message, z)
        return x

    return Codec(push, pop)


def bit_swap(prior: Codec, layers: Sequence[tuple[Callable[[Any], Codec], Callable[[Any], Codec]]]) -> Codec:
    """The codec of x in p(z_L) p(z_L-1 | z_L) ... p(x | z_1) with Markov inference q(z_1 | x) q(z_2 | z_1) ...

    layers: (likelihood, posterior) of each layer, from x upwards: `likelihood(z_l)` codes z_l-1 and `posterior(z_l-1)`
    codes z_l (z_0 = x). A layer's bits are popped only when those below it have been pushed, so the initial bits are
    those of one layer. It needs no code of its own: the prior of a layer is the bits-back codec of those above it.
    """
    codec = prior
    for likelihood, posterior in reversed(layers):
        codec = bits_back(codec, likelihood, posterior)
    return codec


def top_down(
    depth: int,
    prior: Callable[[list[Any]], Codec],
    likelihood: Callable[[list[Any]], Codec],
    posterior: Callable[[Any], Callable[[list[Any]], Codec]],
    by: Callable[[Codec, Callable[[Any], Codec], Callable[[Any], Codec]], Codec] = bits_back,
) -> Codec:
    """The codec of x with latents z_L ... z_1, each given all above it, in the prior as in the posterior.

    `prior(above)` and `posterior(x)(above)` code the next latent given the list of those above (topmost first), and
    `likelihood(all)` codes x. All latents are popped before x is pushed, so the initial bits are those of all layers.
    by: what makes a codec of the joint prior, the likelihood and the joint posterior; see `bbans.particles`, too.
    """
    return by(
        autoregressive(prior, depth),
        likelihood,
        lambda x: autoregressive(posterior(x), depth),
    )


def chain(codec: Codec, count: int) -> Codec:
    """Many images on one message: each pops its latents from those pushed before it, so initial bits are paid once."""
    return repeat(codec, count)
