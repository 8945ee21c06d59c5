"""`bbans decompress` and `bbans test`: .bbans files to image files, or to nothing but the certainty that it works."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bbans.cli import shared
from bbans.cli.batch import Batch, Source, Task, batch_options, jobs_option, read_source
from bbans.errors import BadFile, BbansError
from bbans.image.container import SUFFIX
from bbans.image.view import ALL, MOST_LEVELS, View

if TYPE_CHECKING:
    from bbans.image.picture import Picture

_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm", ".gif"}


def png_name(name: str) -> str:
    """What the picture in a .bbans file of that name is called: photo.png, for photo.png.bbans and photo.jpg.bbans."""
    path = Path(name[: -len(SUFFIX)] if name.endswith(SUFFIX) and name != SUFFIX else name)
    if path.suffix.lower() == ".png":
        return path.name
    return path.with_suffix(".png").name if path.suffix.lower() in _IMAGE_SUFFIXES else path.name + ".png"


class _Region(click.ParamType):
    """X,Y,W,H."""

    name = "region"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        numbers = str(value).split(",")
        if len(numbers) != 4 or not all(number.strip().isdecimal() for number in numbers):
            self.fail(f"{value!r} is not X,Y,W,H in pixels", param, ctx)
        return tuple(map(int, numbers))


@click.command()
@batch_options(suffixes=lambda: [SUFFIX], writes=True)
@click.option(
    "--region", type=_Region(), metavar="X,Y,W,H", help="Only a part of the picture, and only the tiles it lies in."
)
@click.option(
    "--preview",
    type=click.IntRange(0, MOST_LEVELS),
    default=0,
    metavar="K",
    help="Every 2^K-th pixel and row, in a fraction of the time. Checks less.",
)
@click.option("--keep-going", is_flag=True, help="Take what is left of a damaged file; lost tiles are 0.")
@shared.max_pixels_option
@shared.search_option
@jobs_option
@shared.device_options
def decompress(
    batch: Batch,
    region: tuple[int, int, int, int] | None,
    preview: int,
    keep_going: bool,
    max_pixels: int,
    model: Path | None,
    jobs: int,
    device: str,
    threads: int | None,
) -> None:
    """Decompress .bbans files: photo.png.bbans becomes photo.png.

    Writes PNG (photo.png for photo.jpg.bbans, too), or with -o whatever lossless format its suffix names: PNG, BMP,
    TIFF, PPM; only PNG holds all metadata. In place of a file, - is standard input or output.

    \b
    bbans decompress photo.png.bbans                      writes photo.png
    bbans decompress -r small --output-dir album          writes album/.../photo.png
    bbans decompress big.bbans --preview 3 -o thumb.png   an eighth of its width and height
    bbans decompress big.bbans --region 0,0,640,480 -o corner.png
    """
    view = View(region, preview)
    if batch.remove and view != ALL:
        raise click.UsageError("--rm removes only what was decompressed as a whole")
    reading = _Reading(shared.ModelFinder(model, device, threads, jobs), view, keep_going, max_pixels)

    def finish(task: Task, made: _Made) -> None:
        batch.write(task, made.data, keep=bool(made.lost or made.left_out))
        target = batch.target_name(task)
        if made.left_out and not batch.quiet:
            more = "" if _suffix(task).lower() == ".png" else "; PNG holds more"
            kept = f", so {task.source.name} is kept" if batch.remove else ""
            shared.complain(f"{target}: its format leaves out {', '.join(made.left_out)}{more}{kept}")
        record = {
            "input": task.source.name,
            "output": target,
            "width": made.width,
            "height": made.height,
            "mode": made.mode,
            "lost": list(made.lost),
            "seconds": round(made.seconds, 4),
        }
        batch.say(f"{task.source.name} -> {target}: {made.width} x {made.height} {made.mode}", record)
        if made.lost:
            raise BadFile(f"{task.source.name}: {'; '.join(made.lost)}; the rest is in {target}")

    def name(source: Source) -> str:
        return png_name(source.below.name)

    batch.run(functools.partial(_decompressed, reading), finish, name=name, jobs=jobs)


@click.command()
@batch_options(suffixes=lambda: [SUFFIX], writes=False)
@shared.max_pixels_option
@shared.search_option
@jobs_option
@shared.device_options
def test(batch: Batch, max_pixels: int, model: Path | None, jobs: int, device: str, threads: int | None) -> None:
    """Decode .bbans files and check every checksum; write nothing.

    \b
    bbans test photo.png.bbans    says ok, or what is wrong
    bbans test -r -j 4 small      all files in a folder, in four processes
    """
    reading = _Reading(shared.ModelFinder(model, device, threads, jobs), ALL, False, max_pixels)

    def finish(task: Task, _: None) -> None:
        batch.say(f"{task.source.name}: ok", {"input": task.source.name, "ok": True})

    batch.run(functools.partial(_tested, reading), finish, jobs=jobs)


@dataclass(frozen=True)
class _Reading:
    """How files are read."""

    find: shared.ModelFinder
    view: View
    keep_going: bool
    max_pixels: int

    def __call__(self, task: Task) -> tuple[Picture, list[BbansError]]:
        """The picture in a file, and what is wrong with its tiles."""
        from bbans.image.files import naming
        from bbans.image.picture import decompress_picture

        data = read_source(task.source)
        lost: list[BbansError] = []
        with shared.naming_max_pixels(), naming(task.source.name):
            picture = decompress_picture(
                data,
                self.find,
                view=self.view,
                lost=lost if self.keep_going else None,
                max_pixels=self.max_pixels,
            )
        return picture, lost


@dataclass(frozen=True)
class _Made:
    """An image file's bytes, and what is told of it."""

    data: bytes
    width: int
    height: int
    mode: str
    lost: tuple[str, ...]
    left_out: tuple[str, ...]
    seconds: float


def _decompressed(read: _Reading, task: Task) -> _Made:
    from bbans.image.files import check_lossless, encoded, left_out, naming

    if task.target is not None:
        check_lossless(task.target)
    begin = time.perf_counter()
    picture, lost = read(task)
    suffix = _suffix(task)
    with naming(task.target or "standard output"):
        made = encoded(picture, suffix)
    seconds = time.perf_counter() - begin
    size = picture.width, picture.height
    return _Made(made, *size, picture.mode, tuple(map(str, lost)), left_out(picture, suffix), seconds)


def _suffix(task: Task) -> str:
    """That names the format of what is written."""
    return task.target.suffix if task.target else ".png"


def _tested(read: _Reading, task: Task) -> None:
    read(task)
