"""The stack of bits: vectorised range asymmetric numeral systems (rANS) on NumPy.

A `Message` is an array of heads, which are pushed to and popped from in lockstep, over one stack of words they share.
Last in, first out: symbols are popped in the reverse order of the pushes. This module knows intervals of integers; it
knows no distributions. For the same calls it writes the words that craystack 0.2 writes.

    head    uint64 in [2^31, 2^63): L = 2^31, and 32-bit words leave or enter when a head would leave that range, at
            most one for each push or pop, so no operation ever loops
    words   uint32, in the order of the lanes; that order is the whole interleave

Source: Duda 2013, arXiv:1311.2540; Giesen 2014, "Interleaved entropy coders", arXiv:1402.3392.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bbans.errors import BadFile, OutOfBits

Heads = NDArray[np.uint64]
WordArray = NDArray[np.uint32]
Integers = NDArray[Any]

HEAD_MIN = 1 << 31
_L = np.uint64(HEAD_MIN)
_WORD = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


class Words:
    """A growable stack of uint32 in one piece of memory; optionally bottomless, over padding from a seed.

    The stack grows towards the front of its buffer: `array()` reads newest first, and blocks keep their order.
    """

    def __init__(self, words: ArrayLike = (), *, seed: int | None = None) -> None:
        self._buffer: WordArray = np.array(words, dtype=np.uint32)
        self._top = 0
        self._seed = seed
        self.padding = 0  # words taken from the seed so far

    def __len__(self) -> int:
        return len(self._buffer) - self._top

    def array(self) -> WordArray:
        """The words on the stack, newest first (a view)."""
        return self._buffer[self._top :]

    def extend(self, block: WordArray) -> None:
        """Put a block on the stack; the next `take` returns its beginning. Amortised O(len(block))."""
        n = len(block)
        if n > self._top:
            room = max(1024, n, len(self._buffer))
            grown = np.empty(room + len(self._buffer), np.uint32)
            grown[room:] = self._buffer
            self._top += room
            self._buffer = grown
        self._top -= n
        self._buffer[self._top : self._top + n] = block

    def take(self, n: int) -> WordArray:
        """The n newest words. Raises `OutOfBits` on an exhausted stack without a seed."""
        short = n - len(self)
        if short > 0:
            if self._seed is None:
                raise OutOfBits(f"the stack is {short} words short")
            self._buffer = np.concatenate([self.array(), padding(self._seed, self.padding, short)])
            self._top = 0
            self.padding += short
        block = self._buffer[self._top : self._top + n]
        self._top += n
        return block


def padding(seed: int, first: int, count: int) -> WordArray:
    """Words first..first+count-1 of the endless sequence that belongs to a seed (SplitMix64, high halves)."""
    with np.errstate(over="ignore"):
        x = np.arange(first + 1, first + count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((x ^ (x >> np.uint64(31))) >> _WORD).astype(np.uint32)


class Message:
    """Heads of any shape over a stack of words. All operations change it in place.

    A view of the heads with the same `Words` is a message too (`lanes`): pushing to it leaves the other heads alone.
    """

    def __init__(self, heads: Heads, words: Words) -> None:
        self.heads = heads
        self.words = words

    @classmethod
    def empty(cls, shape: int | tuple[int, ...], *, seed: int | None = None) -> Message:
        """A message that holds nothing: every head at 2^31. With a seed, popping more than was pushed pads."""
        return cls(np.full(shape, _L, np.uint64), Words(seed=seed))

    @classmethod
    def random(cls, lanes: int, *, seed: int) -> Message:
        """Random bits of a seed, without end, as much that was pushed would look: to pop from it is to draw.

        Heads have every bit length from 32 to 63 equally often, as `resize` has it. The seed is of 64 bits.
        """
        few, high, low = padding(seed, 0, 3 * lanes).astype(np.uint64).reshape(3, lanes)
        longest = (np.uint64(1) << np.uint64(63)) | (high << np.uint64(31)) | (low >> np.uint64(1))
        words = Words(seed=seed)
        words.padding = 3 * lanes  # the heads took those
        return cls(longest >> (np.uint64(1) + (few >> np.uint64(27))), words)

    def lanes(self, view: Any) -> Message:
        """The message that consists of `heads[view]`; `view` must be a basic index, so that it is no copy."""
        heads = self.heads[view]
        assert isinstance(heads, np.ndarray) and np.shares_memory(heads, self.heads), "lanes must be a view"
        return Message(heads, self.words)

    def bits(self) -> float:
        """The length: log2 of each head, and 32 for each word. Padding counts, for it must be stored."""
        return float(np.log2(self.heads).sum()) + 32.0 * len(self.words)

    # -- totals that are powers of two -------------------------------------------------------------------------------

    def push(self, starts: ArrayLike, freqs: ArrayLike, precision: ArrayLike) -> None:
        """Push symbols whose intervals are [starts, starts + freqs) out of 2^precision, one for each head.

        Arguments are integers that broadcast to the heads' shape; 0 < freqs; precision at most 31.
        """
        start, freq, bits = _u64(starts), _u64(freqs), _u64(precision)
        self._spill(self.heads >= ((_L >> bits) << _WORD) * freq)
        quotient, remainder = np.divmod(self.heads, freq)
        quotient <<= bits
        remainder += start
        np.add(quotient, remainder, out=self.heads)

    def pop(self, precision: ArrayLike) -> tuple[Heads, Callable[[ArrayLike, ArrayLike], None]]:
        """(cf, commit): cf lies in the interval of each symbol; commit(starts, freqs) then removes the symbols."""
        bits = _u64(precision)
        cf = self.heads & ((np.uint64(1) << bits) - np.uint64(1))

        def commit(starts: ArrayLike, freqs: ArrayLike) -> None:
            quotient = self.heads >> bits
            quotient *= _u64(freqs)
            quotient += cf
            np.subtract(quotient, _u64(starts), out=self.heads)
            self._refill(self.heads < _L)

        return cf, commit

    # -- any total ---------------------------------------------------------------------------------------------------
    # A head need not be a multiple of the total's power of two away from the range's end, so after a push it may have
    # fallen below 2^31 and must be refilled, and a pop must undo that first. Without it, one operation in some hundred
    # thousand fails (github.com/j-towns/craystack/issues/14).

    def push_total(self, starts: ArrayLike, freqs: ArrayLike, total: ArrayLike) -> None:
        """As `push`, with intervals out of any total up to 2^31."""
        start, freq, whole = _u64(starts), _u64(freqs), _u64(total)
        self._spill(self.heads >= ((_L // whole) << _WORD) * freq)
        quotient, remainder = np.divmod(self.heads, freq)
        self.heads[...] = quotient * whole + remainder + start
        self._refill(self.heads < _L)

    def pop_total(self, total: ArrayLike) -> tuple[Heads, Callable[[ArrayLike, ArrayLike], None]]:
        """As `pop`, for `push_total`."""
        whole = _u64(total)
        self._spill(self.heads >= whole * ((_L // whole) << _WORD))
        quotient, cf = np.divmod(self.heads, whole)

        def commit(starts: ArrayLike, freqs: ArrayLike) -> None:
            self.heads[...] = _u64(freqs) * quotient + cf - _u64(starts)
            self._refill(self.heads < _L)

        return cf, commit

    def _spill(self, which: NDArray[np.bool_]) -> None:
        full = np.flatnonzero(which)
        if full.size:
            heads = self.heads.ravel()  # a view, if they lie in one piece
            high = heads.take(full)
            self.words.extend(high.astype(np.uint32))  # their low halves
            high >>= _WORD
            self._put(heads, full, high)

    def _refill(self, which: NDArray[np.bool_]) -> None:
        short = np.flatnonzero(which)
        if short.size:
            heads = self.heads.ravel()
            high = heads.take(short)
            high <<= _WORD
            high |= self.words.take(short.size)
            self._put(heads, short, high)

    def _put(self, heads: Heads, which: NDArray[np.intp], values: Heads) -> None:
        """Replace some of the heads; `heads` are all of them in a row."""
        heads[which] = values
        if not np.may_share_memory(heads, self.heads):
            self.heads[...] = heads.reshape(self.heads.shape)

    # -- lanes that come and go --------------------------------------------------------------------------------------

    def resize(self, lanes: int) -> None:
        """Change the number of heads (one dimension) without losing what they hold.

        Growing makes new heads from the words below, folding pushes surplus heads as symbols; each undoes the other.
        A head is coded as what it is, log-uniform ("Benford") on [2^31, 2^63), and so it costs log2(ln 2^32) = 4.5 bits
        more than `bits` counts for it: growing takes them, folding brings them back. Growing needs some 52 bits a head.
        """
        if self.heads.ndim != 1 or lanes < 1:
            raise ValueError("only a row of at least one head can be resized")
        sizes = [min(len(self.heads), lanes)]
        while sizes[-1] < max(len(self.heads), lanes):
            sizes.append(min(2 * sizes[-1], max(len(self.heads), lanes)))
        if len(self.heads) < lanes:
            for few, many in itertools.pairwise(sizes):
                self.heads = np.concatenate([self.heads, self.lanes(slice(many - few))._pop_benford()])
        else:
            for many, few in itertools.pairwise(reversed(sizes)):
                surplus, self.heads = self.heads[few:], self.heads[:few].copy()
                self.lanes(slice(many - few))._push_benford(surplus)

    def _push_benford(self, x: Heads) -> None:
        exponent = np.uint64(31) + _bit_length((x >> _WORD).astype(np.uint32))
        above = exponent - np.uint64(31)  # 0..31 bits that not every head has
        mantissa = x ^ (np.uint64(1) << exponent)
        few = np.minimum(above, np.uint64(16))
        for shift, bits in ((0, 16), (16, 15), (31, few), (31 + few, above - few)):
            digits = (mantissa >> _u64(shift)) & ((np.uint64(1) << _u64(bits)) - np.uint64(1))
            self.push(digits, 1, bits)
        self.push(above, 1, 5)

    def _pop_benford(self) -> Heads:
        above = self._pop_uniform(5)
        few = np.minimum(above, np.uint64(16))
        x = np.uint64(1) << (above + np.uint64(31))
        for shift, bits in ((31 + few, above - few), (31, few), (16, 15), (0, 16)):
            x = x | (self._pop_uniform(bits) << _u64(shift))
        return x

    def _pop_uniform(self, precision: ArrayLike) -> Heads:
        digits, commit = self.pop(precision)
        commit(digits, 1)
        return digits

    # -- at rest -----------------------------------------------------------------------------------------------------

    def flatten(self) -> WordArray:
        """Everything as uint32 [n]: the heads' high halves, their low halves, the words, newest first."""
        heads = self.heads.ravel()
        return np.concatenate([(heads >> _WORD).astype(np.uint32), heads.astype(np.uint32), self.words.array()])

    @classmethod
    def unflatten(cls, flat: WordArray, shape: int | tuple[int, ...]) -> Message:
        """The inverse of `flatten`. Raises `BadFile` when there are too few words or a head is out of range."""
        flat = np.asarray(flat, np.uint32)
        count = int(np.prod(shape))
        if len(flat) < 2 * count:
            raise BadFile("the message is shorter than its heads")
        heads = (flat[:count].astype(np.uint64) << _WORD) | flat[count : 2 * count]
        if (heads < _L).any() or (heads >> np.uint64(63)).any():
            raise BadFile("the message's heads are out of range")
        return cls(heads.reshape(shape), Words(flat[2 * count :]))

    def to_bytes(self) -> bytes:
        """`flatten` in little-endian bytes."""
        return self.flatten().astype("<u4").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, shape: int | tuple[int, ...]) -> Message:
        """The inverse of `to_bytes`. Raises `BadFile`."""
        if len(data) % 4:
            raise BadFile("the message is no whole number of words")
        return cls.unflatten(np.frombuffer(data, "<u4").astype(np.uint32), shape)

    def is_initial(self, seed: int | None = None) -> bool:
        """Whether this is an empty message, but for padding from `seed`: what a decoder must end with."""
        rest = self.words.array()
        if (self.heads != _L).any() or (len(rest) and seed is None):
            return False
        return seed is None or np.array_equal(rest, padding(seed, 0, len(rest)))


def _u64(x: ArrayLike) -> Heads:
    return np.asarray(x).astype(np.uint64, copy=False)


def _bit_length(x: WordArray) -> Heads:
    """Integer bit lengths. `log2` in floats won't do: it makes 49 of 2^49 - 1."""
    return np.frexp(x.astype(np.float64))[1].astype(np.uint64)
