"""`python -m bench.lab [NAME]...`: run experiments, and write their pages and figures into `docs/lab`."""

from __future__ import annotations

import importlib
import shlex
import sys
from pathlib import Path
from time import perf_counter

import click
import torch

from bbans.errors import BbansError
from bbans.memory import keep_large_buffers
from bench import common
from bench.lab.models import Lab
from bench.sets import Absent

EXPERIMENTS = (
    "bits_back",
    "ladder",
    "one_bit",
    "channel",
    "toy_2d",
    "mse_is_no_likelihood",
    "simple_vae",
    "collapse",
    "gaps",
)
PAGES = common.ROOT / "docs" / "lab"


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, type=click.Choice(EXPERIMENTS))
@click.option("--quick", is_flag=True, help="Few steps and loose tolerances; pages go to OUTDIR, not to docs/lab.")
@common.output_option
def main(names: tuple[str, ...], quick: bool, output: Path) -> None:
    """Run the experiments NAME.  [default: all]

    Trained models stay in OUTDIR/lab and are not trained again. Ends with exit code 1 when a claim does not hold. One
    whose data are absent is skipped.
    """
    torch.set_num_threads(1)
    keep_large_buffers()
    runs = output / ("lab-quick" if quick else "lab")
    lab = Lab(runs, runs if quick else PAGES, quick)
    for folder in (lab.runs, lab.pages):
        folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in names or EXPERIMENTS:
        begin = perf_counter()
        try:
            page = importlib.import_module(f"bench.lab.{name}").run(lab)
        except Absent as error:
            print(f"{name}: skipped: {error}", file=sys.stderr)
            continue
        except BbansError as error:
            sys.exit(f"{name}: {error}")
        command = shlex.join(["python", "-m", "bench.lab", name, *(["--quick"] if quick else [])])
        page.write(lab.pages, name, command, quick=quick)
        print(f"{name}: {perf_counter() - begin:.0f} s; {'holds' if page.holds else 'DOES NOT HOLD'}", file=sys.stderr)
        print("\n".join(page.lines(command, quick=quick)), flush=True)
        failed += [] if page.holds else [name]
    if failed:
        sys.exit(f"claims that do not hold: {', '.join(failed)}")


if __name__ == "__main__":
    main()
