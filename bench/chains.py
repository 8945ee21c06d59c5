"""Does the stack keep its promise, at what speed, and at what cost? Knows `bbans.ans` only.

`python -m bench.chains [--operations 1000000]`: first a long chain of random operations (pushes and pops of totals that
are powers of two and that are not, on random lanes, and changes of the number of lanes), undone from its end and
checked at every step; then a table of symbols a second and of bits a symbol above the ideal. Exit code 1 on any
difference.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click
import numpy as np

from bbans.ans import Message, padding

SEED = 1
FIRST_LANES, MOST_LANES = 8, 64
RESIZES = 0.01  # of all operations
PUSHES = 0.55  # of the others, so that the message grows
LANES = (1, 16, 256, 4096)
SYMBOLS, CALLS = 1 << 20, 20_000  # coded for a line of the table, whichever is reached first
TOTALS = ((1 << 16, "2^16"), (50_000, "50,000"))

Interval = tuple[Any, Any]


def bucket(value: Any, width: int, total: int) -> Interval:
    """(starts, freqs): a distribution whose symbols are `width` wide, but for the last."""
    start = value - value % width
    return start, np.minimum(width, total - start)


def push(message: Message, interval: Interval, total: int) -> None:
    """By the operation that the total asks for."""
    if total & (total - 1):
        message.push_total(*interval, total)
    else:
        message.push(*interval, total.bit_length() - 1)


def pop(message: Message, total: int) -> tuple[Any, Callable[[Any, Any], None]]:
    return message.pop_total(total) if total & (total - 1) else message.pop(total.bit_length() - 1)


def random_chain(operations: int) -> int:
    """Does and undoes a chain; returns the words of padding that it took. Raises `AssertionError`."""
    random = np.random.default_rng(SEED)
    message = Message.empty(FIRST_LANES, seed=SEED)
    done: list[tuple[bool, int, int, slice, np.ndarray] | int] = []
    for _ in range(operations):
        lanes = len(message.heads)
        if random.random() < RESIZES:
            done.append(lanes)
            message.resize(int(random.integers(1, MOST_LANES + 1)))
            continue
        first = int(random.integers(lanes))
        view = slice(first, int(random.integers(first + 1, lanes + 1)))
        bits = int(random.integers(0, 32))
        total = 1 << bits if random.random() < 0.5 else int(random.integers(1, (1 << bits) + 1))
        width = int(random.integers(1, total + 1))
        part, pushes = message.lanes(view), random.random() < PUSHES
        if pushes:
            interval = bucket(random.integers(0, total, view.stop - first), width, total)
            push(part, interval, total)
        else:
            cf, commit = pop(part, total)
            interval = bucket(cf.astype(np.int64), width, total)
            commit(*interval)
        done.append((pushes, total, width, view, interval[0].astype(np.uint32)))
    for operation in reversed(done):
        if isinstance(operation, int):
            message.resize(operation)
            continue
        pushes, total, width, view, starts = operation
        part, interval = message.lanes(view), bucket(starts.astype(np.int64), width, total)
        if pushes:
            cf, commit = pop(part, total)
            assert ((interval[0] <= cf) & (cf < interval[0] + interval[1])).all(), "another symbol was popped"
            commit(*interval)
        else:
            push(part, interval, total)
    taken = message.words.padding
    assert message.is_initial(SEED), "the chain did not end where it began"
    assert np.array_equal(message.words.array(), padding(SEED, 0, taken)), "words were lost"
    return taken


def measure(lanes: int, total: int) -> tuple[float, float, float]:
    """(symbols a second pushed, popped, bits a symbol above the ideal), with intervals known beforehand."""
    random = np.random.default_rng(SEED)
    calls = min(CALLS, SYMBOLS // lanes)
    value = random.integers(0, total, (calls, lanes))
    starts, freqs = bucket(value, total // 50, total)
    message = Message.empty(lanes)
    before = message.bits()

    begun = time.perf_counter()
    for interval in zip(starts, freqs, strict=True):
        push(message, interval, total)
    pushing = time.perf_counter() - begun
    overhead = (message.bits() - before - np.log2(total / freqs).sum()) / value.size

    begun = time.perf_counter()
    for interval in zip(starts[::-1], freqs[::-1], strict=True):
        _, commit = pop(message, total)
        commit(*interval)
    popping = time.perf_counter() - begun
    assert message.is_initial(), "the symbols did not come back"
    return value.size / pushing, value.size / popping, overhead


@click.command()
@click.option("--operations", default=1_000_000, show_default=True, help="The length of the chain.")
def main(operations: int) -> None:
    """A long chain of random operations there and back; then speed and overhead."""
    begun = time.perf_counter()
    try:
        taken = random_chain(operations)
        click.echo(
            f"{operations:,} random operations there and back: the same symbols, the same message "
            f"({taken} words of padding, {time.perf_counter() - begun:.0f} s)\n"
        )
        click.echo("| total | lanes | push, Msym/s | pop, Msym/s | overhead, bits a symbol |\n|---|---|---|---|---|")
        for total, name in TOTALS:
            for lanes in LANES:
                pushed, popped, overhead = measure(lanes, total)
                click.echo(f"| {name} | {lanes} | {pushed / 1e6:.3g} | {popped / 1e6:.3g} | {overhead:.1e} |")
    except AssertionError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
