"""Mixtures of logistics whose parameters a network puts out, made of its outputs where they are needed.

All that a block of symbols takes is computed while it is in the cache: the whole of a plane's parameters is several
times as large as the outputs that it is made of, and would come from memory each time. NumPy says what is computed;
where Numba is installed, `bbans.image.compiled` does the same faster.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbans.ans import Message
from bbans.codecs.core import Codec, over_lanes
from bbans.codecs.mixture import PRECISION, WEIGHT_BITS, Mixture
from bbans.codecs.tables import SCALE_OF_ONE, SCALES, logistic_tables
from bbans.image.loops import BLOCK, compiled_loops, in_blocks
from bbans.image.outputs import Made, Outputs
from bbans.zoo import Tables

Int32 = NDArray[np.int32]

_ALL = np.float64(0xFFFFFFFF)
_PROVED = 3000  # symbols, on half as many lanes


@dataclass(frozen=True)
class Mixtures:
    """n independent mixtures of K components.

    outputs: of a network, 3K of them: logits in 1/16 octave, means in 1/16 relative to `centres` int32 [n], log2-scales
    in 1/8; first: the pixel, among those of `outputs`, that the first symbol is of; symbols are lo..hi.
    """

    tables: Tables
    outputs: Outputs
    centres: Int32
    lo: int
    hi: int
    first: int = 0

    def __len__(self) -> int:
        return len(self.centres)

    def __getitem__(self, part: slice) -> Mixtures:
        """The mixtures of some symbols, one after another."""
        start, _, step = part.indices(len(self))
        if step != 1:
            raise ValueError("the mixtures of symbols side by side only")
        return replace(self, centres=self.centres[part], first=self.first + start)

    @cached_property
    def made(self) -> Mixture:
        """With the parameters that are coded with."""
        outputs = self.outputs.columns(self._pixels)
        logits, means, scales = outputs.reshape(3, -1, len(self))
        index = scales.astype(np.int32)
        index += np.int32(SCALE_OF_ONE)
        np.maximum(index, np.int32(0), out=index)
        np.minimum(index, np.int32(SCALES - 1), out=index)
        centred = means.astype(np.int32)
        centred += self.centres
        return Mixture(self.tables.logistic, _weights(self.tables.exp2, logits), centred, index, self.lo, self.hi)

    def interval(self, x: NDArray[Any]) -> tuple[Int32, Int32]:
        """(starts, freqs) out of 2^24 of symbols x [n]. Raises `ValueError` when one isn't in lo..hi."""
        if len(x) and (x.min() < self.lo or x.max() > self.hi):
            raise ValueError(f"symbols are {self.lo}..{self.hi}, not {x.min()}..{x.max()}")
        return self.intervals(x, compiled_loops(len(x)))

    def row_codec(self) -> Codec:
        """All n symbols over the lanes of a message, whatever their number."""
        return Codec(
            lambda message, x: push_row(message, *self.interval(x), compiled_loops(0)),
            lambda message: self.popped(message, compiled_loops(len(self))),
        )

    def intervals(self, x: NDArray[Any], compiled: ModuleType | None) -> tuple[Int32, Int32]:
        """As `interval`, by compiled loops unless `compiled` is None."""
        found = np.empty((2, len(x)), np.int32)
        if not compiled:
            for part in self._blocks():
                found[:, part] = self[part].made.interval(x[part])
            return found[0], found[1]
        symbols, rows = x.astype(np.int32, copy=False), self.outputs.rows(self._pixels)

        def work(part: slice) -> None:
            mixtures = rows(part, compiled), self.centres[part], self.lo, self.hi
            compiled.interval(*self._tables, *mixtures, symbols[part], found[:, part])

        in_blocks(work, len(x))
        found[1] -= found[0]
        return found[0], found[1]

    def popped(self, message: Message, compiled: ModuleType | None) -> Int32:
        """Pop a row of symbols, by compiled loops unless `compiled` is None or the stack has too few words."""
        symbols = self._popped(message, compiled) if compiled and isinstance(message, Message) else None
        if symbols is None:
            symbols = over_lanes(lambda part: self[part].made.codec(), len(self)).pop(message)
        return symbols

    def _popped(self, message: Message, compiled: ModuleType) -> Int32 | None:
        rows, count = self.outputs.rows(self._pixels), len(self)
        prepared = np.empty((count, self.outputs.width // 3 * 2 + 3), np.int32)
        symbols = np.empty(count, np.int32)

        def work(part: slice) -> None:
            outputs = rows(part, compiled)
            compiled.prepare(*self._tables, outputs, self.centres[part], self.lo, self.hi, prepared[part])

        in_blocks(work, count)
        heads, pairs = message.heads.copy(), self.tables.logistic.pairs
        tables = pairs.values, pairs.firsts, pairs.lasts, pairs.shifts
        used = compiled.pop(*tables, prepared, self.lo, self.hi, heads, message.words.array(), symbols)
        if used < 0:
            return None
        message.words.take(used)
        message.heads[...] = heads
        return symbols

    def mean(self) -> NDArray[np.float64]:
        """The means [n], as they are coded."""
        return self.made.mean()

    def log2_prob(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """log2 P(x) [n]: what `elbo` counts."""
        parts = [self[part].made.log2_prob(x[part]) for part in self._blocks()]
        return np.concatenate(parts) if parts else np.zeros(0)

    @property
    def _tables(self) -> tuple[NDArray[Any], ...]:
        pairs = self.tables.logistic.pairs
        return self.tables.exp2, pairs.values, pairs.firsts, pairs.lasts, pairs.origins, pairs.shifts

    @property
    def _pixels(self) -> slice:
        return slice(self.first, self.first + len(self))

    def _blocks(self) -> list[slice]:
        return [slice(i, min(i + BLOCK, len(self))) for i in range(0, len(self), BLOCK)]


def push_row(message: Message, starts: Int32, freqs: Int32, compiled: ModuleType | None) -> None:
    """Push intervals out of 2^24 over all lanes of a message in turn, the last first."""
    if compiled and isinstance(message, Message):  # stand-ins have no words
        words = np.empty(len(starts), np.uint32)
        message.words.extend(words[compiled.push(message.heads, starts, freqs, words) :])
        return
    lanes = len(message.heads)
    for start in reversed(range(0, len(starts), lanes)):
        part = slice(start, min(start + lanes, len(starts)))
        message.lanes(np.s_[: part.stop - start]).push(starts[part], freqs[part], PRECISION)


def proved(compiled: ModuleType) -> bool:
    """Return True if the compiled loops and NumPy push and pop the same, for parameters of every size."""
    tables = Tables(logistic_tables(), np.zeros(1, np.int32), np.exp2(16 - np.arange(257) / 16).astype(np.uint32))
    rng = np.random.default_rng(0)
    for count in (1, 3):
        outputs = Made(rng.integers(-400, 400, (3 * count, _PROVED)).astype(np.float32))
        mixtures = Mixtures(tables, outputs, rng.integers(0, 16 * 256, _PROVED, np.int32), 0, 255)
        symbols = mixtures.popped(Message.random(_PROVED // 2, seed=count), None)
        plain, other = (Message.random(_PROVED // 2, seed=count) for _ in range(2))
        push_row(plain, *mixtures.intervals(symbols, None), None)
        push_row(other, *mixtures.intervals(symbols, compiled), compiled)
        same = np.array_equal(plain.flatten(), other.flatten())
        if not same or not np.array_equal(mixtures.popped(other, compiled), symbols):
            return False
    return True


def _weights(exp2: NDArray[np.uint32], logits: NDArray[np.float32]) -> NDArray[np.uint32]:
    """The softmax of logits [K, n] as uint32 that add up to 2^12; the first of the largest takes what rounding leaves.

    exp2: the table of powers of two, for logits 0, 1/16 ... octaves below the largest.
    """
    if len(logits) == 1:
        return np.full(logits.shape, 1 << WEIGHT_BITS, np.uint32)
    largest = logits.max(0)
    below = largest - logits
    weights = exp2.take(below.astype(np.intp), mode="clip")
    # floors of quotients in double precision are exact: these are below 2^16, and at least 2^-18 from the next integer
    weights *= (_ALL / np.add.reduce(weights, 0, dtype=np.uint32)).astype(np.uint32)
    weights >>= np.uint32(32 - WEIGHT_BITS)
    rest = np.uint32(1 << WEIGHT_BITS) - np.add.reduce(weights, 0, dtype=np.uint32)
    for row, is_largest in zip(weights, below == 0, strict=True):
        mine = rest * is_largest
        row += mine
        rest -= mine
    return weights
