"""Every set of workers takes a second to start, so that there are few tests of them, each of several things."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import operator
import os
import signal
import subprocess
import sys
import threading
import time
import types
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from bbans.errors import BadFile, BbansError
from bbans.workers import IN_FLIGHT, cores, ordered

WORKS = """
import os, time, warnings

def late(task):
    time.sleep(task[1])
    return task[0], os.getpid()

def warn(seconds):
    warnings.warn("slow", RuntimeWarning, stacklevel=1)
    time.sleep(seconds)
    return seconds

def read(data):
    from bbans.image.fields import read_varint
    return read_varint(data, 0)
"""


@pytest.fixture
def works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module that other processes find as well."""
    (tmp_path / "works.py").write_text(WORKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "works", raising=False)
    return importlib.import_module("works")


def test_one_job_is_done_here() -> None:
    results = ordered(lambda n: (n, os.getpid()), range(3), 1)
    assert list(results) == [(n, os.getpid()) for n in range(3)]


def test_results_come_in_order_from_few_tasks_at_a_time(works: types.ModuleType) -> None:
    taken: list[int] = []

    def tasks() -> Iterator[tuple[int, float]]:
        for n in range(12):
            taken.append(n)
            yield n, 0.05 * (n % 2)

    results = []
    for result in ordered(works.late, tasks(), 2):
        results.append(result)
        assert len(taken) <= len(results) + 2 * IN_FLIGHT
    assert [n for n, _ in results] == list(range(12))
    assert os.getpid() not in {pid for _, pid in results}
    assert not multiprocessing.active_children()


def test_errors_come_back_as_they_are(works: types.ModuleType) -> None:
    with contextlib.closing(ordered(works.read, [b"\x05", b"\x80", b"\x06"], 2)) as results:
        assert next(results) == (5, 1)
        with pytest.raises(BadFile, match="truncated") as caught:
            next(results)
    assert "in read" in str(caught.value.__cause__)
    with pytest.raises(ZeroDivisionError):
        list(ordered(partial(operator.truediv, 1), [1, 0], 2))
    assert not multiprocessing.active_children()


def test_warnings_come_back_and_the_rest_is_not_waited_for(works: types.ModuleType) -> None:
    begin = time.monotonic()
    with (
        contextlib.closing(ordered(works.warn, [0, 100, 100], 2)) as results,
        pytest.warns(RuntimeWarning, match="slow"),
    ):
        assert next(results) == 0
    assert time.monotonic() - begin < 60
    assert not multiprocessing.active_children()


def test_what_every_worker_warns_of_is_told_once(works: types.ModuleType) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert list(ordered(works.warn, [0] * 4, 2)) == [0] * 4
    assert [str(warning.message) for warning in caught] == ["slow"]


def test_a_worker_that_dies() -> None:
    with pytest.raises(BbansError, match="ended unexpectedly"):
        list(ordered(os._exit, [3, 3, 3], 2))
    assert not multiprocessing.active_children()


def test_tasks_that_fail_end_the_workers() -> None:
    def tasks() -> Iterator[int]:
        yield 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(ordered(operator.neg, tasks(), 2))
    assert not multiprocessing.active_children()


SCRIPT = """
import multiprocessing, signal, sys, time
from bbans.workers import ordered

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background begins by ignoring it
if __name__ == "__main__":
    results = ordered(time.sleep, [0, 0, 1000, 1000], 2)
    next(results), next(results)
    try:  # whoever reads the line may interrupt at once
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        next(results)
    except KeyboardInterrupt:
        results.close()
        sys.exit(130)
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nobody_is_left_behind(how: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C, which a terminal sends to all processes, and the sudden death of the parent."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.replace("1000", "3") if how == signal.SIGKILL else SCRIPT)
    script = subprocess.Popen(
        [sys.executable, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])},
    )
    with script:
        assert script.stdout and script.stderr
        stop = threading.Timer(60, script.kill)  # rather than wait for ever
        stop.start()
        children = [int(pid) for pid in script.stdout.readline().split()]
        assert len(children) == 2
        if how == signal.SIGINT:
            os.killpg(script.pid, how)
        else:
            script.kill()
        assert script.wait(50) in (130, -signal.SIGKILL)
        assert script.stderr.read() == ""  # which also waits for all who hold it
        stop.cancel()
    deadline = time.monotonic() + 30
    while any(_lives(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_lives(pid) for pid in children)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def test_cores() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
