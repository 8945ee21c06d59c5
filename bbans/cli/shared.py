"""What the subcommands share: options, lines on stderr, the loop over inputs, loading models.

Refuses to know any single command, and imports nothing slow until it is needed.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bbans.errors import BadBackend, BadOutput, BbansError
from bbans.image.container import MAX_PIXELS, TooManyPixels
from bbans.image.effort import DEFAULT as DEFAULT_EFFORT
from bbans.image.effort import default_model

if TYPE_CHECKING:
    from bbans.image.weighted import Particles
    from bbans.zoo import Model

Command = TypeVar("Command", bound=Callable[..., Any])
STREAM = "-"  # standard input or output, among paths


_CONTROL = re.compile("[\0-\x09\x0b-\x1f\x7f-\x9f]")  # Unicode's category Cc, without the end of a line


class Stop(Exception):
    """An error that would come back with every further input: ends the command."""


# -- options -----------------------------------------------------------------------------------------------------------


class _AnyPath(click.Path):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; of ./- the whole one, since `Path` would take it for the stream."""
        path: Any = super().convert(value, param, ctx)
        return path.absolute() if str(path) == STREAM and str(value) != STREAM else path


any_path = _AnyPath(readable=False, path_type=Path)  # what can't be read is an error of one input, not of usage
inputs_argument = click.argument("inputs", metavar="IN...", nargs=-1, required=True, type=any_path)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
force_option = click.option("-f", "--force", is_flag=True, help="Overwrite existing outputs.")
max_pixels_option = click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    default=MAX_PIXELS,
    show_default=True,
    metavar="N",
    help="Refuse larger pictures.",
)
search_option = click.option(
    "-m",
    "--model",
    type=any_path,
    help="A folder to look for the model in, besides the known ones.",
)


def model_option(command: Command, default: str = "photo") -> Command:
    """-m MODEL, of commands that choose a model. default: how the help calls it."""
    return click.option(
        "-m",
        "--model",
        metavar="MODEL",
        help=f"A model's name or folder; ./NAME is a folder, whatever models there are.  [default: {default}]",
    )(command)


def device_options(command: Command) -> Command:
    """--device and --threads."""
    command = click.option(
        "--threads", type=click.IntRange(min=1), metavar="N", help="Threads for the networks.  [default: all cores]"
    )(command)
    return click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where the networks run. The bytes are the same everywhere.",
    )(command)


def particles_options(command: Command) -> Command:
    """--particles and --coupled, of commands that code."""
    command = click.option(
        "--coupled/--independent",
        default=None,
        help="Whether particles share their randomness, and so need initial bits for one only.  [default: coupled]",
    )(command)
    return click.option(
        "--particles",
        type=click.IntRange(1, 4096),  # `bbans.particles.MOST`
        metavar="N",
        help="Draw N latents for each picture: fewer bytes, N times the work. Models for pictures of one size only.",
    )(command)


@contextmanager
def naming_max_pixels() -> Iterator[None]:
    """Of a command with --max-pixels: an error that the option helps against says so."""
    try:
        yield
    except TooManyPixels as error:
        raise TooManyPixels(f"{error}; --max-pixels allows more") from error


def particles_of(count: int | None, coupled: bool | None) -> Particles | None:
    """What the options ask for. Raises `click.UsageError`."""
    if count is None:
        if coupled is not None:
            raise click.UsageError("--coupled and --independent say how --particles are drawn, which is missing")
        return None
    from bbans.image.weighted import Particles

    return Particles(count, coupled is not False)


# -- lines -------------------------------------------------------------------------------------------------------------


def complain(message: str) -> None:
    """One line on stderr."""
    click.echo(_printable(f"bbans: {' '.join(message.split())}"), err=True)


def say(message: str, *, err: bool = False) -> None:
    """One line on stdout, or on stderr."""
    click.echo(_printable(message), err=err)


def say_json(record: dict[str, Any], *, err: bool = False) -> None:
    """One JSON object on one line of stdout, or of stderr."""
    click.echo(json.dumps(record), err=err)


def explain(error: BaseException) -> str:
    """The message of an error; for one that nobody foresaw also its kind, and how to learn more."""
    if isinstance(error, (BbansError, Stop)):
        return str(error)
    if isinstance(error, MemoryError):
        return "not enough memory"
    return f"unexpected error: {type(error).__name__}: {error} ('bbans --debug COMMAND ...' shows where)"


def _printable(text: str) -> str:
    """Names of files, and what files say, may be no text at all, or tell a terminal what to do."""
    return _CONTROL.sub("\ufffd", text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


# -- standard output ---------------------------------------------------------------------------------------------------


def check_stream() -> None:
    """Raises `BadOutput` when standard output takes no data."""
    if sys.stdout.isatty():
        raise BadOutput("standard output is a terminal, which shows no such bytes; -o names a file")


def write_stream(data: bytes) -> None:
    """Data to standard output. Raises `BadOutput`, or `BrokenPipeError` when nobody reads on."""
    stream = sys.stdout.buffer
    try:
        stream.write(data)
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise BadOutput(f"standard output: cannot be written: {error.strerror or error}") from error


# -- inputs ------------------------------------------------------------------------------------------------------------


def for_each(inputs: Iterable[Path], action: Callable[[Path], None]) -> None:
    """Do it with every input; one that fails is one line on stderr, and exit code 1 in the end.

    Actions name their input in a `BbansError` themselves, because only some of these are about the input.
    """
    failed = False
    for path in inputs:
        try:
            action(path)
        except BbansError as error:
            complain(str(error))
            failed = True
        except (Stop, BrokenPipeError):
            raise
        except Exception as error:
            if click.get_current_context().find_root().params.get("debug"):
                raise
            complain(f"{path}: {explain(error)}")
            failed = True
    if failed:
        click.get_current_context().exit(1)


# -- models ------------------------------------------------------------------------------------------------------------


@dataclass
class ModelLoader:
    """Loads a model at the first call, in each process anew, of which there are `jobs`. Raises `Stop`.

    name: None for the default model of an effort.
    """

    name: str | Path | None
    device: str
    threads: int | None
    jobs: int = 1
    effort: int = DEFAULT_EFFORT
    loaded: list[Model] = field(default_factory=list)

    def __call__(self) -> Model:
        if not self.loaded:
            from bbans.zoo import load

            default = default_model(self.effort)
            try:
                self.loaded.append(load(self.name, default=default, device=self.device, threads=self.threads))
            except BbansError as error:
                raise Stop(str(error)) from error
        return self.loaded[0]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "loaded": [], "threads": _threads_each(self.threads, self.jobs)}


@dataclass
class ModelFinder:
    """Finds and loads a model by its id, each once, in each process anew, of which there are `jobs`. Raises
    `ModelMissing`, and `Stop` if no model can be loaded."""

    search: Path | None
    device: str
    threads: int | None
    jobs: int = 1
    loaded: dict[bytes, Model] = field(default_factory=dict)

    def __call__(self, model_id: bytes) -> Model:
        if model_id not in self.loaded:
            from bbans.zoo import load_by_id

            try:
                found = load_by_id(model_id, search=self.search, device=self.device, threads=self.threads)
            except BadBackend as error:
                raise Stop(str(error)) from error
            self.loaded[model_id] = found
        return self.loaded[model_id]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "loaded": {}, "threads": _threads_each(self.threads, self.jobs)}


def _threads_each(threads: int | None, jobs: int) -> int | None:
    """Of each process, if there are several: its share of the cores, unless a number is given."""
    from bbans.workers import cores

    return max(1, cores() // jobs) if threads is None and jobs > 1 else threads
