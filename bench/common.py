"""What the benchmarks share: where pictures and results are, tables in Markdown, what a result was measured on."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from bbans import zoo
from bbans.errors import BbansError
from bbans.image import effort
from bbans.train.data import find_images
from bench.peers import JXL_MOST

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
DATA = Path(os.environ.get("BBANS_DATA") or ROOT.parent / "shared" / "data")

Command = TypeVar("Command", bound=Callable[..., Any])


def model_option(command: Command) -> Command:
    """-m MODEL."""
    help = "A model's name or folder.  [default: photo; for efforts up to 3, photo-fast]"
    return click.option("-m", "--model", metavar="MODEL", help=help)(command)


def models_of(model: str | None, efforts: Iterable[int], threads: int | None = None) -> dict[int, zoo.Model]:
    """By effort, the model that is named, or else the default one; each is loaded once."""

    @functools.cache
    def loaded(default: str) -> zoo.Model:
        return zoo.load(model, default=default, device="cpu", threads=threads)

    return {level: loaded(zoo.DEFAULT if model else effort.default_model(level)) for level in efforts}


def effort_option(command: Command) -> Command:
    """--effort of bbans."""
    levels = click.IntRange(effort.LEAST, effort.MOST)
    return click.option("--effort", type=levels, default=effort.DEFAULT, show_default=True, help="Effort of bbans.")(
        command
    )


def jxl_option(default: str) -> Callable[[Command], Command]:
    """--jxl of the peers, for every release of JPEG XL."""
    return click.option(
        "--jxl",
        default=default,
        show_default=True,
        metavar="EFFORTS",
        callback=lambda _, __, text: efforts_of(text, 1, JXL_MOST),
        help="Efforts of JPEG XL, of each release that is installed.",
    )


def efforts_of(text: str, least: int = effort.LEAST, most: int = effort.MOST) -> list[int]:
    """Efforts in the order given, each once, from such as "5,4,6". Raises `click.BadParameter`."""
    try:
        levels = list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError as error:
        raise click.BadParameter("numbers, separated by commas") from error
    if not all(least <= level <= most for level in levels):
        raise click.BadParameter(f"efforts are {least} to {most}")
    return levels


def output_option(command: Command) -> Command:
    """-o OUTDIR."""
    return click.option(
        "-o", "--output", type=click.Path(file_okay=False, path_type=Path), default=RESULTS, help="Where results go."
    )(command)


def images(named: Sequence[Path], default: str, root: Path | None = None) -> list[Path]:
    """The image files that were named (files, folders, .txt lists), or else those at `default` in the data folder.

    root: what the lines of lists are relative to, instead of the list's own folder. Ends the process with exit code 0
    when they aren't there: a benchmark that lacks its data set is no failure.
    """
    try:
        return find_images(list(named) or [DATA / default], root)
    except (BbansError, OSError) as error:
        print(f"{error}: nothing measured; name images, or set BBANS_DATA to the folder that holds {default}")
        sys.exit(0)


def command_line(module: str) -> str:
    """How this process was started, to be typed again."""
    return shlex.join(["python", "-m", module, *sys.argv[1:]])


def machine() -> dict[str, str | int]:
    """What a result depends on besides the code: processor, cores, versions."""
    packages = {name: importlib.metadata.version(name) for name in ("torch", "numpy", "pillow")}
    return {"cpu": _cpu(), "cores": os.cpu_count() or 1, "python": platform.python_version(), **packages}


def machine_line() -> str:
    """`machine` for people."""
    facts = machine()
    return f"{facts.pop('cpu')}, {facts.pop('cores')} cores; " + ", ".join(f"{k} {v}" for k, v in facts.items())


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table: the first column to the left, the others to the right."""
    cells = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    rule = ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]

    def line(row: Sequence[str]) -> str:
        padded = (c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        return f"| {' | '.join(padded)} |"

    return [line(row) for row in (cells[0], rule, *cells[1:])]


def number(value: float | None, digits: int = 4) -> str:
    """A cell of a table; what isn't known is a dash."""
    return "-" if value is None else f"{value:.{digits}f}"


def write_results(folder: Path, name: str, record: dict[str, Any], lines: Sequence[str]) -> None:
    """Write NAME.json and NAME.md into the folder, and print the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines) + "\n"
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / f"{name}.md").write_text(text)
    print(text)
    print(f"written: {folder / name}.json and .md")
