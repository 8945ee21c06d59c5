"""What the subcommands share: options, lines on stderr, the loop over inputs, names of outputs, loading models.

Refuses to know any single command, and imports nothing slow until it is needed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bbans.errors import BadOutput, BbansError

if TYPE_CHECKING:
    from bbans.zoo import Model

Command = TypeVar("Command", bound=Callable[..., Any])


class Stop(Exception):
    """An error that would come back with every further input: ends the command."""


# -- options -----------------------------------------------------------------------------------------------------------

any_path = click.Path(readable=False, path_type=Path)  # what can't be read is an error of one input, not of usage
inputs_argument = click.argument("inputs", metavar="IN...", nargs=-1, required=True, type=any_path)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
force_option = click.option("-f", "--force", is_flag=True, help="Overwrite existing outputs.")
output_option = click.option(
    "-o",
    "--output",
    type=any_path,
    help="A file for one input; a directory for one or more.",
)
search_option = click.option(
    "-m",
    "--model",
    type=any_path,
    help="A folder to look for the model in, besides the known ones.",
)


def model_option(command: Command) -> Command:
    """-m MODEL, of commands that choose a model."""
    return click.option("-m", "--model", metavar="MODEL", help="A model's name or folder.  [default: photo]")(command)


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


# -- lines -------------------------------------------------------------------------------------------------------------


def complain(message: str) -> None:
    """One line on stderr."""
    click.echo(_printable(f"bbans: {' '.join(message.split())}"), err=True)


def say(message: str) -> None:
    """One line on stdout."""
    click.echo(_printable(message))


def say_json(record: dict[str, Any]) -> None:
    """One JSON object on one line of stdout."""
    click.echo(json.dumps(record))


def explain(error: BaseException) -> str:
    """The message of an error; for one that nobody foresaw also its kind, and how to learn more."""
    if isinstance(error, (BbansError, Stop)):
        return str(error)
    if isinstance(error, MemoryError):
        return "not enough memory"
    return f"unexpected error: {type(error).__name__}: {error} ('bbans --debug COMMAND ...' shows where)"


def _printable(text: str) -> str:
    """Names of files may be no text at all."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


# -- inputs and outputs ------------------------------------------------------------------------------------------------


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


class Outputs:
    """Where the outputs go: beside the inputs, to -o as a file, or into -o as a directory."""

    def __init__(self, inputs: tuple[Path, ...], output: Path | None, *, force: bool) -> None:
        self.output, self.force = output, force
        self.protected = {os.path.realpath(path): path for path in inputs}
        self.into_directory = output is not None and output.is_dir()
        if output is not None and not self.into_directory and len(inputs) > 1:
            raise click.UsageError(f"-o must be an existing directory for several inputs; '{output}' is none")

    def place(self, path: Path, name: str) -> Path:
        """The output for an input, `name` being what it is called unless -o says so. Raises `BadOutput`.

        It may be overwritten with -f, but never when it is an input, or the output of another input.
        """
        from bbans.image.files import check_output

        if self.output is None:
            target = path.parent / name
        else:
            target = self.output / name if self.into_directory else self.output
        real = os.path.realpath(target)
        if real in self.protected:
            raise BadOutput(f"{path}: its output {target} would overwrite {self.protected[real]}")
        check_output(target, force=self.force)
        return target

    def done(self, path: Path, target: Path) -> None:
        """`target` holds what came of `path`: no later input may overwrite it."""
        self.protected[os.path.realpath(target)] = Path(f"the output of {path}")


# -- models ------------------------------------------------------------------------------------------------------------


def model_loader(name: str | Path | None, device: str, threads: int | None) -> Callable[[], Model]:
    """Loads the model at the first call. Raises `Stop`."""
    loaded: list[Model] = []

    def get() -> Model:
        if not loaded:
            from bbans.zoo import load

            try:
                loaded.append(load(name, device=device, threads=threads))
            except BbansError as error:
                raise Stop(str(error)) from error
        return loaded[0]

    return get


def model_finder(search: Path | None, device: str, threads: int | None) -> Callable[[bytes], Model]:
    """Finds and loads a model by its id, each once. Raises `ModelMissing`."""
    loaded: dict[bytes, Model] = {}

    def find(model_id: bytes) -> Model:
        if model_id not in loaded:
            from bbans.zoo import load_by_id

            loaded[model_id] = load_by_id(model_id, search=search, device=device, threads=threads)
        return loaded[model_id]

    return find
