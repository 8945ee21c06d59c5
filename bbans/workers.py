"""The same work on many things, in several processes or threads: in order, a few in flight, nobody left behind.

Knows processes, pipes and threads; refuses to know what the work is. A worker that fails fails the whole: its exception
is raised here. When the caller stops, for whatever reason, the workers are ended; when the caller dies, their pipes do
too, and they end themselves. Ctrl-C is the caller's alone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar, cast

from bbans.errors import BbansError
from bbans.memory import keep_large_buffers

Task = TypeVar("Task")
Result = TypeVar("Result")

IN_FLIGHT = 2
"""Tasks for each worker, or thread, that are begun, or done and not yet taken: memory is bounded by them."""


_warned: set[str] = set()


def warn_once(message: str) -> None:
    """A `RuntimeWarning`, unless this process or one of its workers gave the same before."""
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=3)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered(work: Callable[[Task], Result], tasks: Iterable[Task], jobs: int) -> Generator[Result]:
    """work(task) of each task, in their order, in so many processes; in this one if `jobs` is 1, or if it is a worker.

    `work`, tasks and results are pickled. Tasks are taken as they are needed. To be closed (`contextlib.closing`) by
    who may not read to the end. Raises what `work` raises, and `BbansError` when a worker dies.
    """
    if jobs < 1:
        raise ValueError("at least one process is needed")
    if jobs == 1 or multiprocessing.current_process().daemon:
        yield from map(work, tasks)
        return
    waiting = iter(tasks)
    taken = given = 0
    done: dict[int, _Reply] = {}
    with _started(work, jobs) as idle:
        busy: dict[Connection, int] = {}
        more = True
        while more or busy or done:
            while more and idle and taken - given < IN_FLIGHT * jobs:
                try:
                    task = next(waiting)
                except StopIteration:
                    more = False
                    break
                connection = idle.pop()
                with _alive():
                    connection.send(task)
                busy[connection] = taken
                taken += 1
            while given in done:
                given += 1
                yield done.pop(given - 1).unpack()
            for ready in wait(list(busy)) if busy and given not in done else ():
                connection = cast(Connection, ready)
                with _alive():
                    reply = connection.recv()
                done[busy.pop(connection)] = reply
                idle.append(connection)


def in_threads(
    work: Callable[[Task], Result], tasks: Iterable[Task], threads: int, begin: Callable[[], object]
) -> Generator[Result]:
    """Yield work(task) for each task, in order, from several threads of this process; each calls `begin` first.

    Tasks are taken as they are needed. Close it (`contextlib.closing`) unless you read to the end.
    """
    pool = ThreadPoolExecutor(threads, "bbans-worker", initializer=begin)
    under_way: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            under_way.append(pool.submit(work, task))
            if len(under_way) == IN_FLIGHT * threads:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Reply:
    """What a worker sends back: a result, or an exception and where it came from; and what was warned of."""

    result: Any = None
    error: BaseException | None = None
    where: str = ""
    warned: tuple[str, ...] = ()

    def unpack(self) -> Any:
        for message in self.warned:
            warn_once(message)
        if self.error is not None:
            raise self.error from RuntimeError(f"in a worker process:\n{self.where}")
        return self.result


@contextlib.contextmanager
def _started(work: Callable[[Any], Any], jobs: int) -> Iterator[list[Connection]]:
    """The pipes of new workers, who are gone afterwards."""
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    processes: list[BaseProcess] = []
    try:
        with _interrupts_held():
            for _ in range(jobs):
                ours, theirs = context.Pipe()
                pipes.append(ours)
                process = context.Process(target=_serve, args=(theirs, work), daemon=True)
                process.start()
                processes.append(process)
                theirs.close()
        yield list(pipes)
    finally:
        for worker in processes:
            worker.terminate()
        for worker in processes:
            worker.join()
            worker.close()
        for pipe in pipes:
            pipe.close()


def _serve(pipe: Connection, work: Callable[[Any], Any]) -> None:
    """The life of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_large_buffers()
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        with contextlib.suppress(OSError):  # nobody reads any more: then there are no more tasks either
            pipe.send(_reply(work, task))


def _reply(work: Callable[[Any], Any], task: Any) -> _Reply:
    with warnings.catch_warnings(record=True) as caught:
        try:
            reply = _Reply(work(task))
        except Exception as error:
            reply = _Reply(error=_picklable(error), where=traceback.format_exc())
    return _Reply(reply.result, reply.error, reply.where, tuple(str(warning.message) for warning in caught))


def _picklable(error: Exception) -> Exception:
    try:
        return error if type(pickle.loads(pickle.dumps(error))) is type(error) else RuntimeError(repr(error))
    except Exception:
        return RuntimeError(repr(error))


@contextlib.contextmanager
def _alive() -> Iterator[None]:
    """A pipe that breaks is a worker that died."""
    try:
        yield
    except (EOFError, OSError) as error:
        raise BbansError(
            "a worker process ended unexpectedly, perhaps for want of memory; fewer of them (-j) need less"
        ) from error


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits. Processes that are started meanwhile inherit this, and never see it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
