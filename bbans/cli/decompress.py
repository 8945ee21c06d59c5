"""`bbans decompress` and `bbans test`: .bbans files to image files, or to nothing but the certainty that it works."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from pathlib import Path

import click

from bbans.cli import shared
from bbans.cli.batch import Batch, Source, Task, batch_options, jobs_option, read_source, threads_each
from bbans.image.container import SUFFIX

_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm", ".gif"}


def png_name(name: str) -> str:
    """What the picture in a .bbans file of that name is called: photo.png, for photo.png.bbans and photo.jpg.bbans."""
    path = Path(name[: -len(SUFFIX)] if name.endswith(SUFFIX) and name != SUFFIX else name)
    if path.suffix.lower() == ".png":
        return path.name
    return path.with_suffix(".png").name if path.suffix.lower() in _IMAGE_SUFFIXES else path.name + ".png"


@click.command()
@batch_options(suffixes=lambda: [SUFFIX], writes=True)
@shared.search_option
@jobs_option
@shared.device_options
def decompress(batch: Batch, model: Path | None, jobs: int, device: str, threads: int | None) -> None:
    """Decompress .bbans files: photo.png.bbans becomes photo.png.

    Writes PNG, or with -o whatever lossless format its suffix names: PNG, BMP, TIFF, PPM. In place of a file, - is
    standard input or output.
    """
    find = shared.ModelFinder(model, device, threads_each(threads, jobs))

    def finish(task: Task, made: _Made) -> None:
        batch.write(task, made.data)
        target = batch.target_name(task)
        record = {
            "input": task.source.name,
            "output": target,
            "width": made.width,
            "height": made.height,
            "mode": made.mode,
            "seconds": round(made.seconds, 4),
        }
        batch.say(f"{task.source.name} -> {target}: {made.width} x {made.height} {made.mode}", record)

    def name(source: Source) -> str:
        return png_name(source.below.name)

    batch.run(functools.partial(_decompressed, find), finish, name=name, jobs=jobs)


@click.command()
@batch_options(suffixes=lambda: [SUFFIX], writes=False)
@shared.search_option
@jobs_option
@shared.device_options
def test(batch: Batch, model: Path | None, jobs: int, device: str, threads: int | None) -> None:
    """Decode .bbans files and check every checksum; write nothing."""
    find = shared.ModelFinder(model, device, threads_each(threads, jobs))

    def finish(task: Task, _: None) -> None:
        batch.say(f"{task.source.name}: ok", {"input": task.source.name, "ok": True})

    batch.run(functools.partial(_tested, find), finish, jobs=jobs)


@dataclass(frozen=True)
class _Made:
    """An image file's bytes, and what is told of it."""

    data: bytes
    width: int
    height: int
    mode: str
    seconds: float


def _decompressed(find: shared.ModelFinder, task: Task) -> _Made:
    from bbans.image.files import check_lossless, encoded, naming
    from bbans.image.picture import decompress_picture

    data = read_source(task.source)
    if task.target is not None:
        check_lossless(task.target)
    begin = time.perf_counter()
    with naming(task.source.name):
        picture = decompress_picture(data, find)
    made = bytes(encoded(picture, task.target.suffix if task.target else ".png"))
    return _Made(made, picture.width, picture.height, picture.mode, time.perf_counter() - begin)


def _tested(find: shared.ModelFinder, task: Task) -> None:
    from bbans.image.files import naming
    from bbans.image.picture import decompress_picture

    data = read_source(task.source)
    with naming(task.source.name):
        decompress_picture(data, find)
