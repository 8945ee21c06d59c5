"""What a codec is, and how codecs are combined.

A codec is a pair of functions on a `Message`: `push(message, symbols)` and `pop(message) -> symbols`, inverse to each
other. This module knows no distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bbans.ans import Message

Integers = NDArray[Any]
Symbols = Any  # an array of integers, or a list or tuple of symbols for the combinators
Stack = Any  # a `Message`; combinators only hand it on, so it may be whatever their innermost codecs take for one


class Codec(NamedTuple):
    """`push(message, symbols)` adds symbols to the message; `pop(message)` removes and returns them."""

    push: Callable[[Stack, Symbols], None]
    pop: Callable[[Stack], Symbols]


def from_intervals(
    interval: Callable[[Integers], tuple[Integers, Integers]],
    locate: Callable[[Integers], Integers],
    precision: int,
) -> Codec:
    """The codec of a distribution over integers, one symbol for each head.

    Each symbol x owns an interval of the 2^precision integers below:

        0            start         start + freq           2^precision
        |--------------|----- x -----|--------------------------|

    interval(x) -> (starts, freqs), freqs > 0; locate(cf) -> the x whose interval holds cf.
    """

    def push(message: Message, x: Integers) -> None:
        starts, freqs = interval(x)
        message.push(starts, freqs, precision)

    def pop(message: Message) -> Integers:
        cf, commit = message.pop(precision)
        x = locate(cf.astype(np.int64))
        commit(*interval(x))
        return x

    return Codec(push, pop)


def serial(codecs: Sequence[Codec]) -> Codec:
    """Several codecs one after another; symbols are a list, one entry for each. Pops return them in order."""

    def push(message: Stack, symbols: Sequence[Symbols]) -> None:
        for codec, x in zip(reversed(codecs), reversed(symbols), strict=True):
            codec.push(message, x)

    def pop(message: Stack) -> list[Symbols]:
        return [codec.pop(message) for codec in codecs]

    return Codec(push, pop)


def repeat(codec: Codec, count: int) -> Codec:
    """The same codec `count` times; symbols are a list."""
    return serial([codec] * count)


def substack(codec: Codec, view: Any) -> Codec:
    """A codec on some of the lanes: `view` is a basic index of the heads, such as `np.s_[:10]`."""
    return Codec(
        lambda message, x: codec.push(message.lanes(view), x),
        lambda message: codec.pop(message.lanes(view)),
    )


def dependent(first: Codec, then: Callable[[Symbols], Codec]) -> Codec:
    """p(a) p(b | a): symbols are (a, b), and `then(a)` is the codec of b."""

    def push(message: Stack, symbols: tuple[Symbols, Symbols]) -> None:
        a, b = symbols
        then(a).push(message, b)
        first.push(message, a)

    def pop(message: Stack) -> tuple[Symbols, Symbols]:
        a = first.pop(message)
        return a, then(a).pop(message)

    return Codec(push, pop)


def autoregressive(given: Callable[[list[Symbols]], Codec], count: int) -> Codec:
    """p(x_1) p(x_2 | x_1) ...: `given(earlier)` is the codec of the next symbol; symbols are a list of `count`."""

    def push(message: Stack, symbols: Sequence[Symbols]) -> None:
        for i in reversed(range(count)):
            given(list(symbols[:i])).push(message, symbols[i])

    def pop(message: Stack) -> list[Symbols]:
        earlier: list[Symbols] = []
        for _ in range(count):
            earlier.append(given(list(earlier)).pop(message))
        return earlier

    return Codec(push, pop)


def over_lanes(codec_of: Callable[[slice], Codec], count: int) -> Codec:
    """A row of `count` symbols, any number of them, over the lanes of the message, as many at a time as there are.

    `codec_of(part)` is the codec of symbols[part]. The last part may be shorter: it uses the first lanes only.
    """

    def parts(message: Message) -> list[slice]:
        lanes = len(message.heads)
        return [slice(i, min(i + lanes, count)) for i in range(0, count, lanes)]

    def push(message: Message, x: Integers) -> None:
        for part in reversed(parts(message)):
            codec_of(part).push(message.lanes(np.s_[: part.stop - part.start]), x[part])

    def pop(message: Message) -> Integers:
        popped = [codec_of(p).pop(message.lanes(np.s_[: p.stop - p.start])) for p in parts(message)]
        return np.concatenate(popped) if popped else np.zeros(0, np.int64)

    return Codec(push, pop)
