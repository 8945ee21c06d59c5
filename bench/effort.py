"""What more effort buys: the bytes of every picture at several efforts, and the time it takes both ways.

`python -m bench.effort [DATA]...`: every file is decoded and compared with the pixels. A file that more effort makes
larger is a failure (exit code 1), and so are other pixels. Efforts up to 3 are compared
with one another, and so are those from 4 on, where the default model is another and the search begins anew.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import click
import numpy as np

from bbans import zoo
from bbans.errors import BbansError
from bbans.image import effort
from bbans.image.files import read_picture
from bbans.image.picture import compress_picture, decompress_picture
from bbans.memory import keep_large_buffers
from bench import common

EFFORTS = f"{effort.DEFAULT - 1},{effort.DEFAULT},{effort.DEFAULT + 1},{effort.MOST}"


@dataclass(frozen=True)
class Trial:
    """One picture, or the sum of several, at one effort. Times in seconds."""

    bytes: int
    compress: float
    decompress: float


def tried(path: Path, model: zoo.Model, level: int) -> Trial:
    """Raises `BbansError` when the picture can't be read, or doesn't come back as it was."""
    picture = read_picture(path, strip=True)
    begin = perf_counter()
    data, _ = compress_picture(picture, model, effort=level)
    middle = perf_counter()
    decoded = decompress_picture(data, lambda _: model)
    end = perf_counter()
    if not np.array_equal(decoded.pixels, picture.pixels):
        raise BbansError("other pixels come back")
    return Trial(len(data), middle - begin, end - middle)


def added_up(trials: Sequence[Trial]) -> Trial:
    """The sum of all pictures."""
    return Trial(*(sum(values) for values in zip(*(asdict(trial).values() for trial in trials), strict=True)))


@click.command()
@click.argument("data", metavar="[DATA]...", nargs=-1, type=click.Path(path_type=Path))
@common.model_option
@common.output_option
@click.option("--root", type=click.Path(path_type=Path), help="What the lines of .txt lists are relative to.")
@click.option(
    "--efforts", default=EFFORTS, show_default=True, callback=lambda _, __, text: sorted(common.efforts_of(text))
)
def main(data: tuple[Path, ...], model: str | None, output: Path, root: Path | None, efforts: list[int]) -> None:
    """Bytes and seconds of DATA: image files, folders of them, .txt lists.  [default: kodak in the data folder]"""
    paths = common.images(data, "kodak", root)
    keep_large_buffers()  # as the command does
    vaes = common.models_of(model, efforts)
    trials: dict[str, dict[int, Trial]] = {}
    grown: list[str] = []
    for path in paths:
        try:
            mine = trials[path.name] = {level: tried(path, vaes[level], level) for level in efforts}
        except BbansError as error:
            sys.exit(f"{path}: {error}")
        sizes = [trial.bytes for trial in mine.values()]
        grown += [path.name] if _grow(mine) else []
        print(f"{path.name}: {', '.join(map(str, sizes))}", file=sys.stderr)
    total = {level: added_up([mine[level] for mine in trials.values()]) for level in efforts}
    command = common.command_line("bench.effort")
    lines = [
        "# Efforts",
        "",
        f"- `{command}`",
        *(f"- effort {level}: model {vae.name}, id {vae.id.hex()}" for level, vae in vaes.items()),
        f"- {common.machine_line()}",
        f"- more effort makes {len(grown)} of {len(trials)} files larger{': ' if grown else ''}{', '.join(grown)}",
        "",
        *common.table(
            ["bytes", *(f"effort {level}" for level in efforts)],
            [_row(name, mine) for name, mine in {**trials, f"sum of {len(trials)}": total}.items()],
        ),
        "",
        *common.table(
            ["effort", "compress, s", "decompress, s"],
            [[str(level), f"{trial.compress:.1f}", f"{trial.decompress:.1f}"] for level, trial in total.items()],
        ),
    ]
    record = {
        "command": command,
        "models": {level: {"model": vae.name, "model_id": vae.id.hex()} for level, vae in vaes.items()},
        "machine": common.machine(),
        "images": {name: {level: asdict(trial) for level, trial in mine.items()} for name, mine in trials.items()},
        "sum": {level: asdict(trial) for level, trial in total.items()},
        "grown": grown,
    }
    common.write_results(output, "effort", record, lines)
    if grown:
        sys.exit(f"more effort makes files larger: {', '.join(grown)}")


def _grow(trials: dict[int, Trial]) -> bool:
    """Whether more effort takes more bytes, up to `effort.FAST_FITTED` or above it."""
    fast, slow = (
        [trial.bytes for level, trial in trials.items() if (level > effort.FAST_FITTED) == above]
        for above in (False, True)
    )
    return any(sizes != sorted(sizes, reverse=True) for sizes in (fast, slow))


def _row(name: str, trials: dict[int, Trial]) -> list[str]:
    """Bytes, and how much fewer they are than with the least effort."""
    first, *others = (trial.bytes for trial in trials.values())
    return [name, str(first), *(f"{count} ({100 * (count / first - 1):+.2f} %)" for count in others)]


if __name__ == "__main__":
    main()
