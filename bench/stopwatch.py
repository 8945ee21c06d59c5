"""Where the time of bbans goes, seen from outside: the functions of each layer are wrapped while a measurement runs.

Times are exclusive. One clock runs at any moment, that of the innermost wrapped function: when `Mixture.interval` is
entered the clock of what called it stops, and goes on when it returns. What no wrapped function is in is the rest:
colour transform and local prediction, slices and copies, checksums, and Python itself. A wrapper costs under a
microsecond, counted as part of what it wraps or its caller; there are some thousand calls for a Kodak picture.
"""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from bbans.ans import Message
from bbans.codecs.latent import BinnedPosterior
from bbans.codecs.mixture import Mixture
from bbans.exact.layers import IntConv
from bbans.image import codec
from bbans.vae.photo import Head, PhotoVAE

NETWORK, CDF, ANS, REST = SHARES = ("network", "CDF", "ANS", "rest")


def _methods(owner: type) -> tuple[str, ...]:
    return tuple(name for name, value in vars(owner).items() if inspect.isfunction(value) and not name.startswith("_"))


_WRAPPED: tuple[tuple[str, type, tuple[str, ...]], ...] = (
    *((NETWORK, owner, _methods(owner)) for owner in (PhotoVAE, Head, IntConv)),
    (CDF, codec._TileCodec, ("_mixture",)),
    (CDF, Mixture, ("interval", "locate")),
    (CDF, BinnedPosterior, ("interval", "locate")),
    (ANS, Message, ("push", "push_total", "resize", "to_bytes", "from_bytes")),
)
_POPS = ("pop", "pop_total")  # of Message: they return what takes the symbols away, which is ANS too


class Stopwatch:
    """Seconds by share. Starts at once, with the rest."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(SHARES, 0.0)
        self._running = [REST]
        self._since = time.perf_counter()

    def read(self) -> dict[str, float]:
        """The seconds until now."""
        self._book()
        return dict(self.seconds)

    def timing(self, share: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, with its own time booked to `share`."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._book()
            self._running.append(share)
            try:
                return function(*args, **kwargs)
            finally:
                self._book()
                self._running.pop()

        return timed

    def _book(self) -> None:
        now = time.perf_counter()
        self.seconds[self._running[-1]] += now - self._since
        self._since = now


@contextlib.contextmanager
def running() -> Iterator[Stopwatch]:
    """A stopwatch that bbans is wrapped with for as long as the context lasts."""
    with contextlib.ExitStack() as wrapped:
        watch = Stopwatch()

        def wrap(owner: type, name: str, replacement: Callable[..., Any]) -> None:
            bound = isinstance(vars(owner)[name], classmethod)
            wrapped.enter_context(mock.patch.object(owner, name, staticmethod(replacement) if bound else replacement))

        for share, owner, names in _WRAPPED:
            for name in names:
                wrap(owner, name, watch.timing(share, getattr(owner, name)))
        for name in _POPS:
            wrap(Message, name, watch.timing(ANS, _timing_commit(watch, getattr(Message, name))))
        yield watch


def _timing_commit(watch: Stopwatch, pop: Callable[..., Any]) -> Callable[..., Any]:
    def popping(*args: Any) -> Any:
        cf, commit = pop(*args)
        return cf, watch.timing(ANS, commit)

    return popping
