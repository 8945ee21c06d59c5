"""What each choice in `photo` buys: small models trained alike but for one thing, and the real bytes of their files.

`python -m bench.ablations [ROW]...` trains each row by `ablation.toml` with its changes, on the lists of
`models/photo`, codes the validation pictures, reads them again and compares. A row that was trained before, by the same
recipe, is not trained again (folders in OUTDIR/ablations): after a change of the code, name another OUTDIR.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest import mock

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bbans import zoo
from bbans.errors import BbansError
from bbans.exact.export import calibrate
from bbans.image.files import read_picture
from bbans.image.picture import compress_picture, decompress_picture
from bbans.memory import keep_large_buffers
from bbans.train.export import export
from bbans.train.loop import Recipe, check_same_run, load_weights, train
from bbans.train.run import read_recipe
from bbans.train.tasks import PhotoTask
from bbans.vae.families import begin_from, elbo
from bbans.vae.lattice import COLOURS, Colour, Sampling
from bbans.vae.layers import Enlarged
from bbans.vae.phases import Head, Phases
from bbans.vae.photo import PhotoConfig
from bench import common
from bench.rounding import rounding
from bench.speed import size_of

BASE = Path(__file__).with_name("ablation.toml")
LISTS = common.ROOT / "models" / "photo"
DIFFERENCES = "G, R-G, B-G"
EXPORT = ("bbans.exact.layers", "bbans.exact.export")  # where the largest activation is known
WEIGHTS = ("bbans.vae.layers", "bbans.exact.export")  # where the largest weight on bytes is known


def as_it_is(rgb: Tensor) -> Tensor:
    """R, G, B."""
    return rgb


def nothing(sampling: Sampling, channel: int, first: Tensor) -> Tensor:
    """`Sampling.base` that adds nothing."""
    return torch.zeros_like(first)


def of_a_byte(sampling: Sampling, channel: int) -> tuple[int, int]:
    """`Sampling.range` of R, G and B."""
    return 0, 255


def apart(head: Head, channel: int, mine: Tensor, earlier: Tensor) -> Tensor:
    """`Head.inside` that is told nothing of the earlier channels."""
    return head.earlier[channel - 1](torch.zeros_like(earlier), add=mine) if channel else torch.relu(mine)


def e_without_b(nets: Phases, c: Tensor, d: Tensor, b: Tensor, told: Enlarged | None) -> Tensor:
    """`Phases.features_e` that is told nothing of B."""
    return nets.blocks_e(nets.enter_e(torch.cat([c, d, torch.zeros_like(b)], 1), told=told))


# changes of the recipe, of its model, of its mix and of the code; after: a row whose weights it begins with, for a
# fifth of the steps, and whether it learns with weights and activations rounded
ROWS: dict[str, dict[str, dict[str, Any]]] = {
    "base": {},
    "seed 1": {"recipe": {"seed": 1}},
    # latents
    "no latents": {"model": {"latents": 0}},
    "latents without warm-up": {"recipe": {"kl_warmup": 0}},
    "16 latents": {"model": {"latents": 16}},
    "latents of 4x4": {"model": {"region": 4}},
    "no overview": {"model": {"overview": False}},
    "no overview, no latents": {"model": {"overview": False, "latents": 0}},
    "no overview, seed 1": {"model": {"overview": False}, "recipe": {"seed": 1}},
    "no overview, no latents, seed 1": {"model": {"overview": False, "latents": 0}, "recipe": {"seed": 1}},
    **{
        f"{name} of bounded colours{seed}": {
            "model": {"colour": DIFFERENCES, "overview": False, **model},
            "recipe": {"seed": int(bool(seed))},
        }
        for seed in ("", ", seed 1")
        for name, model in (("latents", {}), ("no latents", {"latents": 0}))
    },
    "latents of bounded colours, of 2x2": {"model": {"colour": DIFFERENCES, "overview": False, "region": 2}},
    **{
        f"latents of bounded colours, {free} free bits": {
            "model": {"colour": DIFFERENCES, "overview": False},
            "recipe": {"free_bits": free},
        }
        for free in (0.1, 0.3)
    },
    **{
        f"latents of bounded colours, encoder of 144{seed}": {
            "model": {"colour": DIFFERENCES, "overview": False, "encoder": 144},
            "recipe": {"seed": int(bool(seed))},
        }
        for seed in ("", ", seed 1")
    },
    # contexts
    "E does not see B": {"code": {"bbans.vae.phases.Phases.features_e": e_without_b}},
    "channels apart": {"code": {"bbans.vae.phases.Head.inside": apart}},
    # colours
    "G, R-G, B-G": {"model": {"colour": DIFFERENCES}},
    "G, R-G, B-G, which may be beyond 0..255": {
        "model": {"colour": DIFFERENCES},
        "code": {"bbans.vae.lattice.COLOURS": COLOURS | {DIFFERENCES: replace(COLOURS[DIFFERENCES], bounded=False)}},
    },
    "R, G, B": {
        "model": {"colour": DIFFERENCES},
        "code": {
            "bbans.vae.lattice.COLOURS": COLOURS | {DIFFERENCES: Colour(as_it_is, as_it_is, bounded=False)},
            "bbans.vae.lattice.Sampling.base": nothing,
            "bbans.vae.lattice.Sampling.range": of_a_byte,
        },
    },
    # sizes
    "K = 1": {"model": {"mixtures": 1}},
    "K = 3": {"model": {"mixtures": 3}},
    "K = 8": {"model": {"mixtures": 8}},
    "heads of 16": {"model": {"hidden": 16}},
    "heads of 64": {"model": {"hidden": 64}},
    "32 channels": {"model": {"channels": 32}},
    "64 channels": {"model": {"channels": 64}},
    "1, 1, 1 blocks": {"model": {"blocks": (1, 1, 1)}},
    "4, 2, 4 blocks": {"model": {"blocks": (4, 2, 4)}},
    "finest level apart": {"model": {"distinct": 2}},
    "two levels apart": {"model": {"distinct": 3}},
    # integers
    **{
        f"a fifth more steps{knowing}, activations of {bits} bits": {
            "recipe": {"learning_rate": 2e-3, "warmup": 30, "kl_warmup": 0, "seed": 1},
            "code": {f"{module}.ACTIVATION_MAX": (1 << bits) - 1 for module in EXPORT},
            "after": {"row": "latents of bounded colours", "rounded": bool(knowing)},
        }
        for bits in (12, 10, 8)
        for knowing in ("", ", rounded")
    },
    **{
        f"bytes, {name}": {
            "model": {"colour": DIFFERENCES, "overview": False, "bits": 8},
            "recipe": {"rounding": step},
            "code": code,
        }
        for name, step, code in (
            ("rounded at the end", -1, {}),
            ("rounded from step 500 on", 500, {}),
            ("weights up to 127", 500, {f"{module}.BYTE_WEIGHT_MAX": 127 for module in WEIGHTS}),
        )
    },
    # what it is trained on
    "clean crops only": {"mix": {"jpeg": 0.0, "grain": 0.0, "enlarge": 0.0, "chroma": 0.0, "grey": 0.0}},
    "no scaling": {"mix": {"untouched": 1.0}},
    "one filter": {"code": {"bbans.train.data.FILTERS": (Image.Resampling.BICUBIC,) * 2}},
    "two crops of 128x128": {"recipe": {"batch": 2}, "mix": {"crop": 128}},
    # how it is trained
    "Adam": {"recipe": {"optimiser": "adam"}},
    "Adam, twice the rate": {"recipe": {"optimiser": "adam", "learning_rate": 1.6e-2}},
    "half the rate": {"recipe": {"learning_rate": 4e-3}},
}


@contextlib.contextmanager
def changed_code(row: dict[str, dict[str, Any]]) -> Iterator[None]:
    """What a row puts in the place of functions and constants, while the context lasts."""
    with contextlib.ExitStack() as stack:
        for name, value in row.get("code", {}).items():
            stack.enter_context(mock.patch(name, value))
        yield


def changed(base: Recipe, row: dict[str, dict[str, Any]]) -> Recipe:
    """The recipe with a row's changes, which come after those of the row that it begins with."""
    if after := row.get("after"):
        base = replace(changed(base, ROWS[after["row"]]), steps=-(-base.steps // 5))
    model, mix = replace(base.model, **row.get("model", {})), replace(base.mix, **row.get("mix", {}))
    return replace(base, model=model, mix=mix, **row.get("recipe", {}))


def trained(name: str, base: Recipe, data: Path, folder: Path) -> Path:
    """Train a row, or go on with it, unless it is done; returns its folder, in `folder`.

    Raises `BbansError`, also if it was done by another recipe.
    """
    row = ROWS[name]
    recipe = changed(base, row)
    out = folder / f"{name.replace(',', '').replace(' ', '-')}-{base.steps}"
    check_same_run(recipe, out)
    if (out / zoo.WEIGHTS).exists():
        return out
    assert isinstance(recipe.model, PhotoConfig)
    lists = [LISTS / "train.txt"], [LISTS / "validation.txt"]
    task = PhotoTask.of(recipe.model, *lists, data, recipe.mix, recipe.levels)
    after = row.get("after", {})
    initial = trained(after["row"], base, data, folder) / zoo.FLOAT_WEIGHTS if after else None
    with changed_code(row):
        with rounding(scales(task, initial)) if initial and after["rounded"] else contextlib.nullcontext():
            device = torch.device("cpu")
            ema = train(recipe, task, out, device=device, initial=initial, validate_every=recipe.steps)
        export(ema, task, out)
    return out


def scales(task: PhotoTask, weights: Path) -> dict[str, int]:
    """Binary digits of the scales that a model's float weights would be exported with."""
    network = task.network()
    begin_from(network, load_weights(weights))
    return calibrate(network.eval(), lambda: [elbo(network, torch.from_numpy(x)) for x in task.calibration()])


def coded(model: zoo.Model, paths: list[Path]) -> dict[str, float]:
    """Bits per dim of the pictures' files, and seconds a megapixel to read them. Raises `BbansError`."""
    bits, dims, pixels, seconds = 0.0, 0, 0, 0.0
    for path in paths:
        picture = read_picture(path)
        data, _ = compress_picture(picture, model, by_model=True)
        begin = perf_counter()
        decoded = decompress_picture(data, lambda _: model)
        seconds += perf_counter() - begin
        if not np.array_equal(decoded.pixels, picture.pixels):
            raise BbansError(f"{path}: other pixels come back")
        bits, dims = bits + 8 * len(data), dims + picture.pixels.size
        pixels += picture.width * picture.height
    return {"total": bits / dims, "decompress": seconds / pixels * 1e6}


@click.command()
@click.argument("names", metavar="[ROW]...", nargs=-1, type=click.Choice([*ROWS]))
@click.option("--data", type=click.Path(path_type=Path), default=common.DATA, help="What the lists are relative to.")
@click.option("--steps", type=click.IntRange(1), help="Of each row, instead of the recipe's.")
@common.output_option
def main(names: tuple[str, ...], data: Path, steps: int | None, output: Path) -> None:
    """Train and measure ROWs.  [default: all]"""
    base = read_recipe(BASE, "photo")
    base = replace(base, steps=steps or base.steps)
    paths = common.images([LISTS / "validation.txt"], "photos", data)
    keep_large_buffers()  # as the command does
    record: dict[str, dict[str, float]] = {}
    for name in names or ROWS:
        try:
            out = trained(name, base, data, output / "ablations")
            with changed_code(ROWS[name]):
                model = zoo.load(out, device="cpu")
                record[name] = {**coded(model, paths), **size_of(model, read_picture(paths[0]))}
        except BbansError as error:
            sys.exit(f"{name}: {error}")
        print(f"{name}: {record[name]['total']:.4f}", file=sys.stderr)
    first = next(iter(record.values()))["total"]
    rows = [
        [
            name,
            f"{row['total']:.4f}",
            f"{100 * (row['total'] / first - 1):+.2f} %",
            f"{row['mac_per_pixel'] / 1e3:.0f}",
            f"{row['parameters']:,}",
            f"{row['decompress']:.2f}",
        ]
        for name, row in record.items()
    ]
    command = common.command_line("bench.ablations")
    lines = [
        "# Ablations",
        "",
        f"- `{command}`",
        f"- {common.machine_line()}",
        f"- each row is trained for {base.steps:,} steps by `bench/ablation.toml` but for what it says; real bytes of",
        f"  the {len(paths)} validation pictures",
        "",
        *common.table(
            ["", "bits per dim", f"against {next(iter(record))}", "kMAC a pixel", "parameters", "decompress, s/MP"],
            rows,
        ),
    ]
    results = {"command": command, "machine": common.machine(), "steps": base.steps, "rows": record}
    common.write_results(output, "ablations", results, lines)


if __name__ == "__main__":
    main()
