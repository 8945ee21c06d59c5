"""When symbols are coded by loops that Numba compiles (`bbans.image.compiled`), and in how many threads."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import torch

from bbans.errors import BadBackend
from bbans.workers import warn_once

CODER = "BBANS_CODER"  # of the environment: what codes
NUMPY, NUMBA = "numpy", "numba"
WORTH_IT = 1 << 22  # symbols: Numba takes as long to import as it saves with so many
BLOCK = 1 << 13  # symbols worked on at a time, so that what they need stays in the cache
SHARED = 1 << 13  # symbols that are worth a second thread

_seen = 0  # symbols so far


def loops(symbols: int) -> ModuleType | None:
    """`bbans.image.compiled`, to code so many more symbols with; None: let NumPy do it. Raises `BadBackend`."""
    global _seen
    _seen += symbols
    asked = os.environ.get(CODER)
    if asked not in (None, "", NUMPY, NUMBA):
        raise BadBackend(f"{CODER} is {NUMPY} or {NUMBA}, not {asked}")
    if asked == NUMPY or (asked != NUMBA and _seen < WORTH_IT):
        return None
    if (compiled := _compiled()) is None and asked == NUMBA:
        raise BadBackend(f"{CODER}: Numba is not installed, or does not work here")
    return compiled


@functools.cache
def _compiled() -> ModuleType | None:
    """The loops; None where Numba isn't installed, or doesn't work."""
    try:
        from bbans.image import compiled
    except ImportError:
        return None
    except Exception as error:
        warn_once(f"Numba is installed, but does not work here ({error}); NumPy codes instead, which takes longer")
        return None
    from bbans.image.mixtures import proved

    if not proved(compiled):
        warn_once("what Numba compiles here computes wrongly; NumPy codes instead, which takes longer")
        return None
    return compiled


@functools.cache
def _helper() -> ThreadPoolExecutor:
    """A second thread."""
    return ThreadPoolExecutor(1, "bbans-coder")


def in_blocks(work: Callable[[slice], None], count: int) -> None:
    """work(part) for all parts of so many symbols, in two threads if there are many. `work` must be free of the GIL
    for that to pay."""

    def share(begin: int, end: int) -> None:
        for start in range(begin, end, BLOCK):
            work(slice(start, min(start + BLOCK, end)))

    if count < SHARED or torch.get_num_threads() == 1:
        share(0, count)
        return
    other = _helper().submit(share, count // 2, count)
    try:
        share(0, count // 2)
    finally:
        other.result()
