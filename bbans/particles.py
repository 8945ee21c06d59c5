"""Bits-back coding with many particles, whose rate is the importance-weighted bound: tighter than −ELBO.

With weights w_k = p(x, z_k) / q(z_k | x) of particles z_1..z_N, one is coded: z_i, whose i is *popped* with the weights
before, and pushed as one of N after. So x costs log2 N − log2 w_i + log2 (w_i / sum of w) = −log2 of the mean of w,
whichever i it was. As p and q counts what the codecs do, which is measured, in integers (`bbans.codecs.standins`).

Sources: Ruan et al. 2021, "Improving lossless compression rates via Monte Carlo bits-back coding", arXiv:2102.11086:
BB-IS and BB-CIS; the bound: Burda, Grosse & Salakhutdinov 2016, arXiv:1509.00519, eq. 8. This module knows codecs, not
what they are made of.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbans.ans import Message
from bbans.bitsback import bits_back
from bbans.codecs.core import Codec, Stack, Symbols, over_lanes, substack
from bbans.codecs.discrete import categorical, quantise, uniform
from bbans.codecs.logarithms import UNIT, exp2
from bbans.codecs.standins import Given, Recorder, Ruler, StandIn

Int64 = NDArray[np.int64]

MOST = 1 << 12  # particles
PRECISION = 24  # of the weights
GOLDEN = 0x9E3779B1  # 2^32 by the golden ratio: its multiples modulo 2^32 lie apart


class Stacks:
    """What `importance_weighted` must know of the stacks that its codecs work on. Here they are messages.

    Others have a message inside, and may take several in its place at once, with symbols for each.
    """

    together = 1  # so many at most

    def message(self, stack: Stack) -> Message:
        """The one inside."""
        return stack

    def around(self, stack: Stack, others: Sequence[Message | StandIn]) -> Stack:
        """The same stack around others."""
        (other,) = others
        return other

    def heads(self, stack: Stack) -> tuple[int, ...]:
        """The shape of a stand-in's heads."""
        return stack.heads.shape

    def join(self, symbols: Sequence[Symbols]) -> Symbols:
        """Symbols for several, from those for each."""
        (one,) = symbols
        return one

    def split(self, symbols: Symbols, count: int) -> list[Symbols]:
        """The inverse of `join`."""
        return [symbols]

    def enter(self, stack: Stack, bits: float) -> None:
        """Is told what x took besides −log2 p(x, z_i): most of it came back."""


MESSAGES = Stacks()


def importance_weighted(
    prior: Codec,
    likelihood: Callable[[Any], Codec],
    posterior: Callable[[Any], Codec],
    particles: int,
    *,
    coupled: bool = False,
    bits: int = 16,
    stacks: Stacks = MESSAGES,
) -> Codec:
    """The codec of x in p(z) p(x | z), one x for all heads, with 1 to `MOST` particles; of one it is `bits_back`.

    Independent particles are popped one after another, and so the initial bits are those of all. Coupled ones are made
    of one row of uniforms, and so the initial bits are `bits` for each symbol of z, however many particles there are;
    q's intervals are out of 2^bits then (`standins`), at most 2^31.
    """
    if not 1 <= particles <= MOST:
        raise ValueError(f"there are 1 to {MOST} particles, not {particles}")
    if particles == 1:
        return bits_back(prior, likelihood, posterior)
    model = _Model(prior, likelihood, posterior, particles, stacks)
    return _coupled(model, bits) if coupled else _independent(model)


def _independent(model: _Model) -> Codec:
    """BB-IS: z_1..z_N are popped with q, and all but z_i are pushed back."""

    def push(stack: Stack, x: Symbols) -> None:
        q, alone = model.posterior(x), model.alone(stack)
        z = [q.pop(alone) for _ in range(model.count)]
        weights = model.weights(stack, x, z, model.conditional(stack, x, z))
        i = weights.codec.pop(model.row(stack))
        for z_k in reversed(z[:i] + z[i + 1 :]):
            q.push(alone, z_k)
        model.push(stack, x, z[i], i)
        model.stacks.enter(stack, weights.besides(i))

    def pop(stack: Stack) -> Symbols:
        x, z_i, i = model.pop(stack)
        q, alone = model.posterior(x), model.alone(stack)
        z = [z_i if k == i else q.pop(alone) for k in range(model.count)]
        weights = model.weights(stack, x, z, model.conditional(stack, x, z))
        weights.codec.push(model.row(stack), i)
        for z_k in reversed(z):
            q.push(alone, z_k)
        model.stacks.enter(stack, weights.besides(i))
        return x

    return Codec(push, pop)


def _coupled(model: _Model, bits: int) -> Codec:
    """BB-CIS: uniforms u are popped, and q makes z_k of u and the k-th shift. All that is pushed of u is where it lies
    in the interval of z_i, for z_i says the rest."""
    mask = (1 << bits) - 1

    def uniforms(count: int) -> Codec:
        return over_lanes(lambda _: uniform(1 << bits), count)

    def places(freqs: Int64) -> Codec:
        return over_lanes(lambda part: uniform(freqs[part]), len(freqs))

    def recorded(stack: Stack, use: Callable[[Stack], Any]) -> Recorder:
        recorder = Recorder(model.stacks.heads(stack), bits)
        use(model.stacks.around(stack, [recorder]))
        return recorder

    def drawn(stack: Stack, x: Symbols, u: Int64) -> tuple[list[Given], list[Symbols], _Weights]:
        heads = model.stacks.heads(stack)
        given = [Given(heads, (u + shift) & mask, bits) for shift in shifts(model.count, len(u), bits)]
        z: list[Symbols] = []
        for some, on, xs in model.together(stack, x, given):
            z += model.stacks.split(model.posterior(xs).pop(on), len(given[some]))
        return given, z, model.weights(stack, x, z, [each.length for each in given])

    def push(stack: Stack, x: Symbols) -> None:
        row = model.row(stack)
        count = len(recorded(stack, model.posterior(x).pop).starts)
        given, z, weights = drawn(stack, x, uniforms(count).pop(row))
        i = weights.codec.pop(row)
        places(given[i].freqs).push(row, given[i].row - given[i].starts)
        model.push(stack, x, z[i], i)
        model.stacks.enter(stack, weights.besides(i))

    def pop(stack: Stack) -> Symbols:
        row = model.row(stack)
        x, z_i, i = model.pop(stack)
        seen = recorded(stack, lambda on: model.posterior(x).push(on, z_i))
        shift = shifts(model.count, len(seen.starts), bits)[i]
        u = (seen.starts + places(seen.freqs).pop(row) - shift) & mask
        _, _, weights = drawn(stack, x, u)
        weights.codec.push(row, i)
        uniforms(len(u)).push(row, u)
        model.stacks.enter(stack, weights.besides(i))
        return x

    return Codec(push, pop)


@functools.cache
def shifts(particles: int, count: int, bits: int) -> Int64:
    """[particles, count]: what is added to the uniforms, modulo 2^bits, for each particle.

    A lattice of Korobov's kind, whose points are multiples of 1/N: each symbol has a step of its own, without a common
    divisor with N, so that particles are spread evenly in every symbol, but in hardly two of them alike.
    """
    steps = np.array([step for step in range(1, particles + 1) if math.gcd(step, particles) == 1])
    mine = steps[(np.arange(1, count + 1) * GOLDEN & 0xFFFFFFFF) * len(steps) >> 32]
    return (np.arange(particles)[:, None] * mine % particles << bits) // particles


@dataclass(frozen=True)
class _Weights:
    """joint, conditional: −log2 p(x, z_k) and −log2 q(z_k | x), [N] in 1/4096 bit."""

    joint: Int64
    conditional: Int64

    @property
    def codec(self) -> Codec:
        """Of i, on a row of heads."""
        minus = self.joint - self.conditional
        return _index(categorical(quantise(exp2(minus - minus.min()), PRECISION), PRECISION))

    def besides(self, i: int) -> float:
        """What x takes besides −log2 p(x, z_i), in bits."""
        bound = math.log2(len(self.joint)) - np.logaddexp2.reduce((self.conditional - self.joint) / UNIT)
        return float(bound - self.joint[i] / UNIT)


def _index(codec: Codec) -> Codec:
    """Of one number, by the first head."""
    first = substack(codec, np.s_[:1])
    return Codec(lambda row, i: first.push(row, np.array([i])), lambda row: int(first.pop(row)[0]))


@dataclass(frozen=True)
class _Model:
    """p(z) p(x | z), q(z | x), N and the stacks, with what both ways of coding do."""

    prior: Codec
    likelihood: Callable[[Any], Codec]
    posterior: Callable[[Any], Codec]
    count: int
    stacks: Stacks

    def push(self, stack: Stack, x: Symbols, z_i: Symbols, i: int) -> None:
        self.likelihood(z_i).push(stack, x)
        self.prior.push(stack, z_i)
        _index(uniform(self.count)).push(self.row(stack), i)

    def pop(self, stack: Stack) -> tuple[Symbols, Symbols, int]:
        i = _index(uniform(self.count)).pop(self.row(stack))
        z_i = self.prior.pop(stack)
        return self.likelihood(z_i).pop(stack), z_i, i

    def weights(self, stack: Stack, x: Symbols, z: Sequence[Symbols], conditional: Sequence[int]) -> _Weights:
        """Of all. conditional: see `_Weights`."""
        rulers = self._rulers(stack)
        for some, on, xs in self.together(stack, x, rulers):
            zs = self.stacks.join(z[some])
            self.likelihood(zs).push(on, xs)
            self.prior.push(on, zs)
        return _Weights(np.array([ruler.length for ruler in rulers]), np.array(conditional))

    def conditional(self, stack: Stack, x: Symbols, z: Sequence[Symbols]) -> list[int]:
        """See `_Weights`."""
        rulers = self._rulers(stack)
        for some, on, xs in self.together(stack, x, rulers):
            self.posterior(xs).push(on, self.stacks.join(z[some]))
        return [ruler.length for ruler in rulers]

    def _rulers(self, stack: Stack) -> list[Ruler]:
        return [Ruler(self.stacks.heads(stack)) for _ in range(self.count)]

    def together(self, stack: Stack, x: Symbols, others: Sequence[StandIn]) -> Iterator[tuple[slice, Stack, Symbols]]:
        """(which, the stack around them, x for each), as many at a time as the stack takes."""
        for begin in range(0, len(others), self.stacks.together):
            some = slice(begin, begin + self.stacks.together)
            yield some, self.stacks.around(stack, others[some]), self.stacks.join([x] * len(others[some]))

    def alone(self, stack: Stack) -> Stack:
        """The stack around its own message, as it is around others."""
        return self.stacks.around(stack, [self.stacks.message(stack)])

    def row(self, stack: Stack) -> Message:
        """All heads of the message in a row."""
        message = self.stacks.message(stack)
        heads = message.heads.reshape(-1)
        assert np.shares_memory(heads, message.heads)
        return Message(heads, message.words)
