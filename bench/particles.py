"""What particles buy and cost: the rate of chains coded with more and more of them, beside the float model's bound.

`python -m bench.particles -m MODEL [DATA]... --images 500 --particles 1,5,50`: for independent particles and for
coupled ones, `net`, `elbo` (the importance-weighted bound of the exact model, by the particles that were drawn),
`total`, initial bits and speed of one chain of the images; every chain is decoded and compared. `iwae` is that bound of
the float model, with as many samples, and `needed` the initial bits if the first image may not do without.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from unittest import mock

import click
import numpy as np

from bbans import zoo
from bbans.errors import BbansError
from bbans.image.codec import CHAIN_BITS, check_particles, decode_chain, encode_chain
from bbans.image.sheets import Pixels
from bbans.image.weighted import Particles
from bbans.particles import MOST
from bbans.train.stacks import Deck, load_stack
from bench import common
from bench.sets import SETS, Absent

ALL_BITS = mock.patch("bbans.image.codec.CHAIN_BITS", CHAIN_BITS[:1])  # even where fewer, or none, are shorter


@dataclass(frozen=True)
class Row:
    """One chain that came back. iwae, elbo, net, initial, total: bits per dim; iwae None where the model has no float
    weights; needed: initial bits of the first image, if its latents have all their bits; compress, decompress: images a
    second."""

    particles: int
    coupled: bool
    iwae: float | None
    elbo: float
    net: float
    initial: float
    total: float
    needed: float
    compress: float
    decompress: float


def measured(model: zoo.Model, pixels: Pixels, particles: Particles, iwae: float | None) -> Row:
    """Raises `BbansError` when other pixels come back."""
    begin = perf_counter()
    payload, stats = encode_chain(model, pixels, want_elbo=True, particles=particles)
    written = perf_counter()
    decoded = decode_chain(model, payload, *pixels.shape)
    end = perf_counter()
    if not np.array_equal(decoded, pixels):
        raise BbansError(f"{particles}: the chain gives other pixels back")
    with ALL_BITS:
        needed = encode_chain(model, pixels[:1], particles=particles)[1].initial
    bits = (stats.elbo or 0.0, stats.net, stats.initial, 8 * len(payload))
    return Row(
        particles.count,
        particles.coupled,
        iwae,
        *(each / pixels.size for each in bits),
        needed=needed,
        compress=len(pixels) / (written - begin),
        decompress=len(pixels) / (end - written),
    )


def pictures(model: zoo.Model, data: tuple[Path, ...], count: int) -> Pixels:
    """The first images of DATA, or of the model's test set. Raises `BbansError` and `Absent`."""
    config = model.network.config
    if data:
        stack = load_stack(list(data), config.shape)
        return (Deck().binarised(stack) if config.depth == 1 else stack)[:count]
    if model.name not in SETS:
        raise Absent(f"there is no test set called {model.name}: name arrays or images")
    return SETS[model.name]().first(count).pixels


def numbers(_: click.Context, __: click.Parameter, value: str) -> list[int]:
    try:
        found = [int(part) for part in value.split(",")]
    except ValueError as error:
        raise click.BadParameter("numbers with commas between them") from error
    if not all(1 <= number <= MOST for number in found):
        raise click.BadParameter(f"1 to {MOST} particles")
    return found


@click.command()
@click.argument("data", metavar="[DATA]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("-m", "--model", metavar="MODEL", default="mnist-binary", show_default=True, help="A name or folder.")
@click.option("--images", type=click.IntRange(min=1), default=500, show_default=True, help="The first so many.")
@click.option("--particles", default="1,5,50", show_default=True, callback=numbers, help="How many.")
@common.output_option
def main(data: tuple[Path, ...], model: str, images: int, particles: list[int], output: Path) -> None:
    """Rates with particles of DATA: arrays and images of the model's size.  [default: the test set of its name]"""
    try:
        vae = zoo.load(model, device="cpu", threads=1)
        check_particles(vae)
        pixels = pictures(vae, data, images)
        rows = []
        for count in particles:
            bounds = vae.float_bounds(pixels, particles=count)
            iwae = None if bounds is None else float(bounds.iwae.sum()) / pixels.size
            for coupled in (False, True)[: 1 + (count > 1)]:
                rows.append(measured(vae, pixels, Particles(count, coupled), iwae))
                print(rows[-1], file=sys.stderr)
    except Absent as error:
        print(f"{error}: nothing measured")
        return
    except BbansError as error:
        sys.exit(f"{model}: {error}")
    command = common.command_line("bench.particles")
    lines = [
        "# Particles",
        "",
        f"- `{command}`",
        f"- model {vae.name}, id {vae.id.hex()}; {common.machine_line()}; one thread",
        f"- {len(pixels):,} images of {pixels[0].size:,} samples, in one chain, in bits per dim; images a second",
        "- initial: bits of the chain, which begins with fewer bits for latents, or none, if that is shorter",
        "- needed: initial bits for the first image with 8 bits a latent",
        "",
        *common.table(
            ["particles", "iwae", "elbo", "net", "total", "initial", "needed", "compress", "decompress"],
            [
                [
                    f"{row.particles} {'coupled' if row.coupled else 'independent'}" if row.particles > 1 else "1",
                    *(common.number(value) for value in (row.iwae, row.elbo, row.net, row.total)),
                    f"{row.initial * pixels.size:,.0f}",
                    f"{row.needed:,.0f}",
                    f"{row.compress:.1f}",
                    f"{row.decompress:.1f}",
                ]
                for row in rows
            ],
        ),
    ]
    record = {
        "command": command,
        "model": vae.name,
        "model_id": vae.id.hex(),
        "machine": common.machine(),
        "images": len(pixels),
        "dims": pixels.size,
        "rows": [asdict(row) for row in rows],
    }
    common.write_results(output, "particles", record, lines)


if __name__ == "__main__":
    main()
