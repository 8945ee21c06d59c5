"""Choose between NumPy and the compiled loops of `bbans.image.compiled`, and run work in one thread or two."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import torch

from bbans.errors import BadBackend
from bbans.workers import warn_once

CODER = "BBANS_CODER"  # environment variable: numpy or numba
NUMPY, NUMBA = "numpy", "numba"
WORTH_IT = 1 << 22  # symbols after which Numba saves more time than importing it takes
BLOCK = 1 << 12  # symbols per block, so that the data of a block stay in the cache
SHARED = 1 << 13  # fewer symbols are not worth a second thread

_seen = 0  # symbols coded so far


def compiled_loops(symbols: int) -> ModuleType | None:
    """Return `bbans.image.compiled`, or None to use NumPy. Counts `symbols` more. Raises `BadBackend`."""
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
    """Return the compiled loops, or None if Numba is missing, broken, or fails the proof."""
    try:
        from bbans.image import compiled
    except ImportError:
        return None
    except Exception as error:
        warn_once(f"Numba is installed but does not work here ({error}); using NumPy, which is slower")
        return None
    from bbans.image.mixtures import proved

    if not proved(compiled):
        warn_once("the loops that Numba compiled give wrong results here; using NumPy, which is slower")
        return None
    return compiled


@functools.cache
def _helper() -> ThreadPoolExecutor:
    """Return the second thread's executor."""
    return ThreadPoolExecutor(1, "bbans-coder")


def in_blocks(work: Callable[[slice], None], count: int) -> None:
    """Call work(part) for each block of `count` symbols, in two threads if that pays; `work` should release the GIL.

    Each thread takes the next block when it is done with its last: the second one shares its core with PyTorch's
    threads, which wait for more work without sleeping.
    """
    blocks, lock = iter(range(0, count, BLOCK)), threading.Lock()

    def share() -> None:
        while True:
            with lock:
                start = next(blocks, None)
            if start is None:
                return
            work(slice(start, min(start + BLOCK, count)))

    if count < SHARED or torch.get_num_threads() == 1:
        share()
        return
    other = _helper().submit(share)
    try:
        share()
    finally:
        other.result()
