"""What large pictures need: memory and time of the commands, of a region, of a preview, and what tiles cost.

`python -m bench.large [IMAGE]` makes a picture of the size asked for from an image and its mirror images, side by side,
and runs the commands on it in fresh processes: seconds, and peak memory (max RSS, of the largest process where there
are several). What tiles cost is measured on a smaller one, which one piece still fits the memory of: bytes in tiles
against bytes in one piece.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from time import perf_counter
from unittest import mock

import click
import numpy as np

from bbans import zoo
from bbans.image import container
from bbans.image.files import read_picture, write_picture
from bbans.image.picture import Picture, compress_picture
from bench import common
from bench.speed import peak_of


def enlarged(picture: Picture, width: int, height: int) -> Picture:
    """A picture of that size, of the picture and its mirror images."""
    below, right = max(0, height - picture.height), max(0, width - picture.width)
    pixels = np.pad(picture.pixels, ((0, below), (0, right), (0, 0)), mode="symmetric")[:height, :width]
    return Picture(np.ascontiguousarray(pixels), picture.mode)


def commands(picture: Picture, flags: list[str], verify: bool) -> dict[str, tuple[float, int]]:
    """Seconds and bytes of memory of each command. Ends the process if one fails, or other pixels come back."""
    done: dict[str, tuple[float, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        source, file, back, part, small = (
            str(Path(folder) / name) for name in ("a.png", "a.bbans", "b.png", "part.png", "small.png")
        )
        write_picture(picture, Path(source))

        def run(what: str, *arguments: str) -> None:
            begin = perf_counter()
            peak = peak_of([sys.executable, "-m", "bbans", *arguments])
            done[what] = perf_counter() - begin, peak
            print(f"{what}: {done[what][0]:.1f} s, {peak / 1e9:.2f} GB", file=sys.stderr)

        x, y = picture.width // 2 - 512, picture.height // 2 - 512
        run("compress", "compress", source, "-o", file, *flags, *([] if verify else ["--no-verify"]))
        run("info", "info", file)
        run("decompress --preview 3", "decompress", file, "--preview", "3", "-o", small, *flags)
        run("decompress --region, of 1 MP", "decompress", file, f"--region={x},{y},1024,1024", "-o", part, *flags)
        run("decompress", "decompress", file, "-o", back, *flags)
        pixels = picture.pixels
        shown = pixels, pixels[y : y + 1024, x : x + 1024], pixels[::8, ::8]
        for path, expected in zip((back, part, small), shown, strict=True):
            if not np.array_equal(read_picture(path).pixels, expected):
                sys.exit(f"{path}: other pixels")
    return done


def cost_of_tiles(picture: Picture, model: zoo.Model) -> tuple[int, int]:
    """Bytes of a picture in tiles, and in one piece, by the model: WebP would find what the mirror images repeat."""
    tiles = len(compress_picture(picture, model, by_model=True)[0])
    with mock.patch("bbans.image.container.ONE_TILE", picture.width * picture.height):
        return tiles, len(compress_picture(picture, model, by_model=True)[0])


@click.command()
@click.argument("image", metavar="[IMAGE]", required=False, type=click.Path(path_type=Path))
@common.model_option
@common.output_option
@click.option("--size", default="12000x9000", show_default=True, metavar="WxH", help="Of the large picture.")
@click.option("--whole", default="3072x2048", show_default=True, metavar="WxH", help="Of that for the cost of tiles.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes for the tiles.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of bbans.  [default: all cores]")
@click.option("--verify/--no-verify", default=True, show_default=True, help="As of bbans compress.")
def main(
    image: Path | None,
    model: str | None,
    output: Path,
    size: str,
    whole: str,
    jobs: int,
    threads: int | None,
    verify: bool,
) -> None:
    """Measure what a large picture, made of IMAGE, needs.  [default: kodak/kodim01.png in the data folder]"""
    small = read_picture(common.images([image] if image else [], "kodak/kodim01.png")[0], strip=True)
    (width, height), (columns, rows) = (tuple(map(int, text.split("x"))) for text in (size, whole))
    tiles, piece = cost_of_tiles(enlarged(small, columns, rows), zoo.load(model, device="cpu", threads=threads))
    flags = ["-j", str(jobs), *(["--threads", str(threads)] if threads else []), *(["-m", model] if model else [])]
    done = commands(enlarged(small, width, height), flags, verify)
    count = container.tile_count(columns, rows, container.TILE_SIDE)
    lines = [
        "# Large pictures",
        "",
        f"- `{common.command_line('bench.large')}`",
        f"- {common.machine_line()}",
        f"- {width} x {height}: {width * height / 1e6:.0f} MP",
        "",
        *common.table(
            ["", "s", "peak memory, GB"],
            [[what, f"{seconds:.1f}", f"{peak / 1e9:.2f}"] for what, (seconds, peak) in done.items()],
        ),
        "",
        f"{columns} x {rows}: {tiles:,} bytes in {count} tiles, {piece:,} in one piece: {tiles / piece - 1:+.3%}",
    ]
    record = {
        "command": common.command_line("bench.large"),
        "machine": common.machine(),
        "size": [width, height],
        "commands": {what: {"seconds": seconds, "peak_bytes": peak} for what, (seconds, peak) in done.items()},
        "tiles": {"size": [columns, rows], "tiles": tiles, "one_piece": piece},
    }
    common.write_results(output, "large", record, lines)


if __name__ == "__main__":
    main()
