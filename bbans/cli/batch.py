"""Many inputs, one command: which they are, where their outputs go, in how many processes, and what is said of them.

A command gives a `Batch` two functions: what is done with the bytes of an input, perhaps in another process, and what
is done with its result, here and in the order of the inputs. Whatever fails is one line on stderr, and the next input
follows. Refuses to know what the commands do.
"""

from __future__ import annotations

import functools
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from bbans.cli.shared import (
    STREAM,
    Stop,
    any_path,
    check_stream,
    complain,
    explain,
    say,
    say_json,
    write_stream,
)
from bbans.errors import BadOutput, BbansError

Command = TypeVar("Command", bound=Callable[..., Any])

jobs_option = click.option(
    "-j",
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Work on inputs in so many processes.",
)


@dataclass(frozen=True)
class Source:
    """An input. name: as messages call it; path: None for standard input, whose bytes are `data`; below: its place
    under the folder that it was found in."""

    name: str
    path: Path | None
    below: Path
    data: bytes | None = None


@dataclass(frozen=True)
class Task:
    """An input, and the file that shall hold its output: None for standard output, or for no output."""

    source: Source
    target: Path | None = None


@dataclass(frozen=True)
class Failure:
    """What went wrong with an input, in one line. name: the input's, unless a `Task` says it; stops: it would with
    every further one, too."""

    message: str
    name: str = ""
    stops: bool = False


def batch_options(*, suffixes: Callable[[], Iterable[str]], writes: bool) -> Callable[[Command], Command]:
    """The inputs of a command and the options of a batch, handed to it as `batch`.

    suffixes: of the files that are looked for in folders; writes: whether each input has an output.
    """
    options = [
        click.argument("inputs", metavar="IN...", nargs=-1, required=True, type=any_path),
        click.option("-r", "--recursive", is_flag=True, help="Take what is in folders, and in theirs."),
        click.option("-q", "--quiet", is_flag=True, help="Say nothing but what goes wrong."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line."),
    ]
    if writes:
        options += [
            click.option(
                "-o", "--output", type=any_path, help="A file, or - for standard output; a directory for several."
            ),
            click.option("--output-dir", type=any_path, help="A directory, which is made if there is none."),
            click.option("-f", "--force", is_flag=True, help="Overwrite existing outputs."),
            click.option("-k", "--keep", is_flag=True, help="Keep the inputs.  [default]"),
            click.option(
                "--rm", "remove", is_flag=True, help="Remove each input whose output is written and verified."
            ),
        ]
    names = ["inputs", "recursive", "quiet", "as_json"]
    names += ["output", "output_dir", "force", "keep", "remove"] if writes else []

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapped(**given: Any) -> Any:
            batch = Batch(suffixes=suffixes, writes=writes, **{name: given.pop(name) for name in names})
            return command(batch=batch, **given)

        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped  # type: ignore[return-value]

    return decorate


class Batch:
    """The inputs of a command, and how they are gone through. Raises `click.UsageError`."""

    def __init__(
        self,
        inputs: tuple[Path, ...],
        *,
        suffixes: Callable[[], Iterable[str]],
        writes: bool,
        recursive: bool = False,
        quiet: bool = False,
        as_json: bool = False,
        output: Path | None = None,
        output_dir: Path | None = None,
        force: bool = False,
        keep: bool = False,
        remove: bool = False,
    ) -> None:
        if output is not None and output_dir is not None:
            raise click.UsageError("-o and --output-dir are two ways to say the same; give one")
        if keep and remove:
            raise click.UsageError("-k keeps the inputs, and --rm removes them; give one")
        if [str(path) for path in inputs].count(STREAM) > 1:
            raise click.UsageError("standard input can be read once")
        self.inputs, self.recursive = inputs, recursive
        self.suffixes = suffixes
        self.quiet, self.as_json, self.force, self.remove = quiet, as_json, force, remove
        from_stream_only = inputs == (Path(STREAM),) and output is None and output_dir is None
        self.to_stream = writes and (str(output) == STREAM or from_stream_only)
        self.output = output_dir if output_dir is not None else None if self.to_stream else output
        self.into_directory = output_dir is not None or (self.output is not None and self.output.is_dir())
        self.makes_directories = output_dir is not None
        several = len(inputs) > 1 or (recursive and any(path.is_dir() for path in inputs))
        if self.to_stream and remove:
            raise click.UsageError("--rm removes nothing whose output went to standard output")
        if several and self.to_stream:
            raise click.UsageError("standard output takes the output of one input only")
        if several and self.output is not None and not self.into_directory:
            raise click.UsageError(
                f"-o must be an existing directory for several inputs; '{self.output}' is none (--output-dir makes one)"
            )
        self.taken = {os.path.realpath(path): str(path) for path in inputs}

    # -- inputs ----------------------------------------------------------------------------------------------------

    def sources(self) -> Iterator[Source | Failure]:
        """All inputs, in order."""
        for path in self.inputs:
            if str(path) == STREAM:
                yield Source("standard input", None, Path("stdin"), sys.stdin.buffer.read())
            elif path.is_dir():
                yield from self._inside(path)
            else:
                yield Source(str(path), path, Path(path.name))

    def _inside(self, folder: Path) -> Iterator[Source | Failure]:
        if not self.recursive:
            yield Failure(f"{folder}: is a directory; -r takes what is in it", name=str(folder))
            return
        suffixes = frozenset(self.suffixes())
        found = False
        unread: list[OSError] = []
        for root, folders, files in os.walk(folder, onerror=unread.append):
            folders.sort()
            for name in sorted(files):
                path = Path(root, name)
                if path.suffix.lower() in suffixes and path.is_file():
                    found = True
                    yield Source(str(path), path, path.relative_to(folder))
        for error in unread:
            yield Failure(f"{error.filename}: cannot be read: {error.strerror}", name=str(error.filename))
        if not found and not unread:
            yield Failure(f"{folder}: holds no {', '.join(sorted(suffixes))}", name=str(folder))

    # -- outputs ---------------------------------------------------------------------------------------------------

    def place(self, source: Source, name: str) -> Path | None:
        """The output of an input, `name` being what it is called unless -o says so; None for standard output.

        It may be overwritten with -f, but never when it is an input, or the output of another input. Raises
        `BadOutput`.
        """
        from bbans.image.files import check_output

        if self.to_stream:
            check_stream()
            return None
        if self.output is None:
            target = (source.path.parent if source.path else Path()) / name
        else:
            target = self.output / source.below.parent / name if self.into_directory else self.output
        real = os.path.realpath(target)
        if real in self.taken:
            raise BadOutput(f"{source.name}: its output {target} would overwrite {self.taken[real]}")
        if self.into_directory and self.makes_directories:
            _make_directory(target.parent)
        check_output(target, force=self.force)
        self.taken[real] = f"the output of {source.name}"
        return target

    def write(self, task: Task, data: bytes, *, keep: bool = False) -> None:
        """Write an output, which gets the times and permissions of its input. keep: the input, even if it was to be
        removed. Raises `BadOutput`."""
        from bbans.image.files import write_bytes

        if task.target is None:
            write_stream(data)
        else:
            write_bytes(task.target, data, force=self.force, like=task.source.path)
        if self.remove and not keep and task.source.path is not None:
            try:
                task.source.path.unlink()
            except OSError as error:
                raise BadOutput(f"{task.source.name}: cannot be removed: {error.strerror or error}") from error

    def target_name(self, task: Task) -> str:
        """What messages call the output."""
        return "standard output" if task.target is None else str(task.target)

    # -- the work --------------------------------------------------------------------------------------------------

    def run(
        self,
        work: Callable[[Task], Any],
        finish: Callable[[Task, Any], None],
        *,
        name: Callable[[Source], str] | None = None,
        jobs: int = 1,
    ) -> None:
        """finish(task, work(task)) for every input; work is done in so many processes, and pickled if there is more
        than one. name: of the outputs, if there are any. Ends the command with exit code 1 if an input failed."""
        from bbans.workers import ordered

        debug = bool(click.get_current_context().find_root().params.get("debug"))
        sources = list(self.sources())
        waiting: deque[Task | Failure] = deque()
        failed: list[str] = []

        def tasks() -> Iterator[Task | Failure]:
            for source in sources:
                waiting.append(self._task(source, name))
                yield waiting[-1]

        attempt = functools.partial(_attempted, work, debug)
        with ExitStack() as stack:
            advance = stack.enter_context(self._progress(len(sources)))
            for result in stack.enter_context(closing(ordered(attempt, tasks(), min(jobs, len(sources))))):
                task = waiting.popleft()
                done = result if isinstance(result, Failure) else _attempted(_finishing(finish, result), debug, task)
                if isinstance(done, Failure):
                    if done.stops:
                        raise Stop(done.message)
                    complain(done.message)
                    failed.append(task.source.name if isinstance(task, Task) else task.name)
                advance()
        if failed:
            if len(sources) > 1:
                complain(f"{len(failed)} of {len(sources)} failed: {', '.join(failed)}")
            click.get_current_context().exit(1)

    def _task(self, source: Source | Failure, name: Callable[[Source], str] | None) -> Task | Failure:
        if isinstance(source, Failure):
            return source
        try:
            return Task(source, self.place(source, name(source)) if name else None)
        except BbansError as error:
            return Failure(str(error), name=source.name)

    def say(self, line: str, record: dict[str, Any]) -> None:
        """What is said of an input that is done: a line, or with --json a record; on stderr, if data go to stdout."""
        if self.as_json:
            say_json(record, err=self.to_stream)
        elif not self.quiet:
            say(line, err=self.to_stream)

    @contextmanager
    def _progress(self, total: int) -> Iterator[Callable[[], None]]:
        """A bar on stderr, of several inputs, at a terminal; what it yields makes it advance."""
        if total < 2 or self.quiet or not sys.stderr.isatty():
            yield lambda: None
            return
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task("", total=total)
            yield lambda: progress.advance(bar)


def read_source(source: Source) -> bytes:
    """The bytes of a .bbans file. Raises `BadFile`, whose message begins with the input's name."""
    from bbans.image.files import read_bytes

    if source.path is not None:
        return read_bytes(source.path)
    assert source.data is not None
    return source.data


def _finishing(finish: Callable[[Task, Any], None], result: Any) -> Callable[[Task], None]:
    return lambda task: finish(task, result)


def _attempted(work: Callable[[Task], Any], debug: bool, task: Task | Failure) -> Any:
    """What comes of the work, or a `Failure`. Errors of bbans name the input themselves: only some are about it."""
    if isinstance(task, Failure):
        return task
    try:
        return work(task)
    except Stop as error:
        return Failure(str(error), stops=True)
    except BbansError as error:
        return Failure(str(error))
    except BrokenPipeError:
        raise
    except Exception as error:
        if debug:
            raise
        return Failure(f"{task.source.name}: {explain(error)}")


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadOutput(f"{path}: cannot be made: {error.strerror or error}") from error
