"""How many pictures should share a chain? Bytes, speed, and the time to get one picture, by the size of a group.

`python -m bench.groups [SET]...` writes archives of held-out training pictures, reads them again and compares.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import click

from bbans import archive, zoo
from bbans.archive.plan import GROUP
from bbans.errors import BbansError
from bench import common
from bench.sets import SETS, Absent, TestSet, held_out
from bench.yardsticks import coded, load

SIZES = (10, 30, 100, 300, 1000, 3000)
COUNT = 3000  # pictures of a set: full groups of every size
RUNS = 3


def one_picture(images: TestSet, model: zoo.Model, group: int) -> float:
    """Seconds to get the last picture of a group, loading the model included."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "set.bbansa"
        archive.create(file, images.first(group).array, model=model)
        opened = archive.read(file)
        *_, last = opened.entries
        seconds = []
        for run in range(RUNS):
            begin = perf_counter()
            archive.extract_array(opened, Path(folder) / f"{run}.npy", [last.name], search=model.path)
            seconds.append(perf_counter() - begin)
    return statistics.median(seconds)


@click.command()
@click.argument("names", metavar="[SET]...", nargs=-1, type=click.Choice([*SETS]))
@common.output_option
def main(names: tuple[str, ...], output: Path) -> None:
    """Measure groups of the SETs mnist-binary, mnist and cifar10.  [default: all]"""
    lines = [
        "# Groups",
        "",
        f"- `{common.command_line('bench.groups')}`",
        f"- {common.machine_line()}",
        f"- archives of {COUNT:,} training pictures that no model was trained on; one process with one thread; the",
        f"  default is groups of {GROUP:,}",
        "",
    ]
    record = {}
    for name in names or SETS:
        try:
            images, model = held_out(name).first(COUNT), load(name, None)
            rows = []
            for group in SIZES:
                done, alone = coded(images, model, jobs=1, group=group), one_picture(images, model, group)
                rows.append(
                    {
                        "group": group,
                        "total": done.total / done.dims,
                        "compress": done.images / done.compress,
                        "decompress": done.images / done.decompress,
                        "one_picture": alone,
                    }
                )
                print(f"{name}: groups of {group} are measured", file=sys.stderr)
        except Absent as error:
            print(f"{name} is skipped: {error}")
            continue
        except BbansError as error:
            sys.exit(f"{name}: {error}")
        record[name] = rows
        best = rows[-1]["total"]
        lines += [f"## {name}", ""]
        lines += common.table(
            ("pictures in a group", "bits per dim", "more", "compress, images/s", "decompress", "one picture, s"),
            [
                (
                    f"{row['group']:,}",
                    f"{row['total']:.4f}",
                    f"{100 * (row['total'] / best - 1):.2f} %",
                    f"{row['compress']:.0f}",
                    f"{row['decompress']:.0f}",
                    f"{row['one_picture']:.2f}",
                )
                for row in rows
            ],
        )
        lines.append("")
    if record:
        common.write_results(output, "groups", record, lines)


if __name__ == "__main__":
    main()
