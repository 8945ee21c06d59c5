"""What latents are worth to the weights that a model has: the bytes of every picture with them, and with none coded.

`python -m bench.latents [DATA]...`: without latents the networks see the prior's medians in their place, as they do in
pictures that are too small for latents; nothing is trained anew for that, so a model that never had any would do better
(`python -m bench.ablations "no overview, no latents" ...`). Every file is decoded and compared with the pixels.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import click

from bbans import zoo
from bbans.errors import BbansError
from bbans.memory import keep_large_buffers
from bench import common
from bench.effort import tried

NO_BITS = mock.patch("bbans.image.planes.LATENT_BITS", ())  # so many for each latent can be afforded


def with_and_without(path: Path, model: zoo.Model, level: int) -> tuple[int, int]:
    """Bytes. Raises `BbansError` when the picture can't be read, or doesn't come back as it was."""
    coded = tried(path, model, level).bytes
    with NO_BITS:
        return coded, tried(path, model, level).bytes


@click.command()
@click.argument("data", metavar="[DATA]...", nargs=-1, type=click.Path(path_type=Path))
@common.model_option
@common.effort_option
@common.output_option
@click.option("--root", type=click.Path(path_type=Path), help="What the lines of .txt lists are relative to.")
def main(data: tuple[Path, ...], model: str | None, effort: int, output: Path, root: Path | None) -> None:
    """Bytes of DATA: image files, folders of them, .txt lists.  [default: kodak in the data folder]"""
    paths = common.images(data, "kodak", root)
    keep_large_buffers()  # as the command does
    vae = zoo.load(model, device="cpu")
    sizes: dict[str, tuple[int, int]] = {}
    for path in paths:
        try:
            sizes[path.name] = with_and_without(path, vae, effort)
        except BbansError as error:
            sys.exit(f"{path}: {error}")
        print(f"{path.name}: {', '.join(map(str, sizes[path.name]))}", file=sys.stderr)
    total = sum(a for a, _ in sizes.values()), sum(b for _, b in sizes.values())
    command = common.command_line("bench.latents")
    lines = [
        "# Latents",
        "",
        f"- `{command}`",
        f"- model {vae.name}, id {vae.id.hex()}, effort {effort}; {common.machine_line()}",
        "",
        *common.table(
            ["bytes", "without latents", "with latents", ""],
            [
                [name, str(without), str(coded), f"{100 * (coded / without - 1):+.2f} %"]
                for name, (coded, without) in {**sizes, f"sum of {len(sizes)}": total}.items()
            ],
        ),
    ]
    record = {
        "command": command,
        "model": vae.name,
        "model_id": vae.id.hex(),
        "effort": effort,
        "machine": common.machine(),
        "images": {name: {"with": coded, "without": without} for name, (coded, without) in sizes.items()},
        "sum": {"with": total[0], "without": total[1]},
    }
    common.write_results(output, "latents", record, lines)


if __name__ == "__main__":
    main()
