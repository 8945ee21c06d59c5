"""Where the time of bbans goes, seen from outside: by the module that the innermost function of bbans belongs to.

    network    bbans.exact, and bbans.vae but for its lattice
    CDF        bbans.codecs, and what makes their parameters of the network's outputs
    ANS        bbans.ans; the compiled loops, which do this too, count as CDF
    rest       everything else in bbans: colour transform, local prediction, copies, tiles, checksums, container

Times are exclusive: a call from one share to another stops the first clock until it returns. Functions outside bbans
(torch, NumPy) count as those of bbans that called them. Python calls a hook at every call and return, which costs 5 to
20 % and is booked where the calls are many and small: above all to the CDF, whose share is somewhat overstated.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import bbans
from bbans.image import planes
from bench.common import table

NETWORK, CDF, ANS, REST = SHARES = ("network", "CDF", "ANS", "rest")

_PACKAGE = Path(bbans.__file__).parent
_MODULES = {
    "vae/lattice.py": REST,
    "vae": NETWORK,
    "exact": NETWORK,
    "codecs": CDF,
    "image/mixtures.py": CDF,
    "image/outputs.py": CDF,
    "image/loops.py": CDF,
    "ans.py": ANS,
    "": REST,
}
_FUNCTIONS: dict[CodeType, str] = {f.__code__: CDF for f in (planes.Planes._likelihood,)}


class Stopwatch:
    """Seconds by share; the rest at first."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(SHARES, 0.0)
        self._calls = [REST]  # the share of every Python function that hasn't returned
        self._known: dict[CodeType, str | None] = dict(_FUNCTIONS)
        self._since = time.perf_counter()

    def hook(self, frame: FrameType, event: str, _: Any) -> None:
        """For `sys.setprofile`."""
        if event == "call":
            code = frame.f_code
            if code not in self._known:
                self._known[code] = _share_of(Path(code.co_filename))
            before = self._calls[-1]
            share = self._known[code] or before
            self._calls.append(share)
            if share != before:
                self.book(before)
        elif event == "return" and len(self._calls) > 1:
            share = self._calls.pop()
            if share != self._calls[-1]:
                self.book(share)

    def book(self, share: str) -> None:
        """Give a share the time since the last call."""
        now = time.perf_counter()
        self.seconds[share] += now - self._since
        self._since = now


def _share_of(file: Path) -> str | None:
    """Of a function in that file; None: that of its caller."""
    if not file.is_relative_to(_PACKAGE):
        return None
    name = file.relative_to(_PACKAGE).as_posix()
    return next(share for start, share in _MODULES.items() if name.startswith(start))


@contextlib.contextmanager
def running() -> Iterator[Stopwatch]:
    """A stopwatch that runs for as long as the context lasts. Only the thread that enters it is seen."""
    watch = Stopwatch()
    sys.setprofile(watch.hook)
    try:
        yield watch
    finally:
        sys.setprofile(None)
        watch.book(REST)


def share_table(parts: dict[str, dict[str, float]]) -> list[str]:
    """Per cent of the time: {what was done: {share: seconds}}."""
    rows = []
    for what, seconds in parts.items():
        whole = sum(seconds.values())
        rows.append([what, *(f"{100 * s / whole:.0f} %" for s in seconds.values()), f"{whole:.2f}"])
    return table(["share", *SHARES, "seconds"], rows)
