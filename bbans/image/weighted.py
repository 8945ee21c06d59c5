"""Particles of models of pictures: `bbans.particles` on strands, and what a chain says of them.

Knows strands and latents; refuses to know how a model puts its networks together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bbans.ans import Message
from bbans.codecs.core import Codec, Symbols
from bbans.codecs.standins import StandIn
from bbans.errors import BadFile, TooLarge
from bbans.image.fields import read_varint, write_varint
from bbans.image.planes import BACK, Latents, Strand, Strands
from bbans.particles import MOST, Stacks, importance_weighted

TOGETHER_DIMS = 1 << 18  # samples of all particles that go through the networks together
WIDE = 1 << 30  # heads of stand-ins: a row is one piece

MOST_SAMPLES = 1 << 30
"""Of all particles in a chain: more are refused, which would take hours."""


@dataclass(frozen=True)
class Particles:
    """How many particles each picture is coded with, and whether they share their uniforms (`importance_weighted`)."""

    count: int
    coupled: bool = True

    def check(self, samples: int) -> None:
        """Raises `TooLarge` when a chain of so many samples has too many particles."""
        if self.count * samples > MOST_SAMPLES:
            raise TooLarge(
                f"{self.count} particles of {samples} samples are more than {MOST_SAMPLES} together; "
                "fewer particles or smaller groups (--group) are needed"
            )

    def pack(self) -> bytes:
        """What a chain begins with: the number of its batches, which follows, is never 0."""
        return write_varint(0) + write_varint(2 * self.count + self.coupled)

    @classmethod
    def parse(cls, chain: bytes) -> tuple[Particles | None, int]:
        """What a chain begins with, and where the rest does. Raises `BadFile`."""
        zero, at = read_varint(chain, 0)
        if zero:
            return None, 0
        number, at = read_varint(chain, at)
        count, coupled = divmod(number, 2)
        if not 1 <= count <= MOST:
            raise BadFile("the chain has an impossible number of particles")
        return cls(count, bool(coupled)), at


def weighted(particles: Particles, more_bits: int, dims: int | None = None) -> Callable[..., Codec]:
    """What takes the place of `bits_back` for one picture on one strand. Without latent bits it is `bits_back`.

    more_bits: of uniforms than of latents. dims: samples of a picture, if the codecs take several strands: then
    particles go through the networks together.
    """
    stacks = _OneStrand(max(1, TOGETHER_DIMS // dims) if dims else 1)

    def by(prior: Codec, likelihood: Callable[[Any], Codec], posterior: Callable[[Any], Codec]) -> Codec:
        def codec(strands: Sequence[Strand]) -> Codec:
            (strand,) = strands
            count, bits = particles.count if strand.latent_bits else 1, (strand.latent_bits or 0) + more_bits
            how: dict[str, Any] = {"coupled": particles.coupled, "bits": bits, "stacks": stacks}
            return importance_weighted(prior, likelihood, posterior, count, **how)

        return Codec(lambda strands, x: codec(strands).push(strands, x), lambda strands: codec(strands).pop(strands))

    return by


class _OneStrand(Stacks):
    """Stacks are a strand, and around others one strand for each. Symbols are tensors [pictures, ...] and `Latents`, or
    lists of these with one for each strand, in lists and tuples."""

    def __init__(self, together: int) -> None:
        self.together = together

    def message(self, stack: Strands) -> Message:
        return stack[0].message

    def around(self, stack: Strands, others: Sequence[Message | StandIn]) -> Strands:
        return [dataclasses.replace(stack[0], message=other, ledger=None) for other in others]

    def heads(self, stack: Strands) -> tuple[int, ...]:
        return (WIDE,)

    def join(self, symbols: Sequence[Symbols]) -> Symbols:
        first = symbols[0]
        if len(symbols) == 1:
            return first
        if isinstance(first, Tensor):
            return torch.cat(list(symbols))
        if _of_strands(first):
            return [latents for each in symbols for latents in each]
        return type(first)(self.join(parts) for parts in zip(*symbols, strict=True))

    def split(self, symbols: Symbols, count: int) -> list[Symbols]:
        if count == 1:
            return [symbols]
        if _of_strands(symbols):
            return [[latents] for latents in symbols]
        return [list(each) for each in zip(*(self.split(part, count) for part in symbols), strict=True)]

    def enter(self, stack: Strands, bits: float) -> None:
        stack[0].pays(BACK, bits)


def _of_strands(symbols: Symbols) -> bool:
    """Whether there is one for each strand."""
    return isinstance(symbols, list) and all(isinstance(each, Latents) for each in symbols)
