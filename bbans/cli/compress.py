"""`bbans compress`: image files to .bbans files."""

from __future__ import annotations

import functools
import io
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from bbans.cli import shared
from bbans.cli.batch import Batch, Task, batch_options, jobs_option, threads_each
from bbans.image import effort as effort_levels
from bbans.image.container import SUFFIX

if TYPE_CHECKING:
    from bbans.image.picture import Report


def _suffixes() -> set[str]:
    from bbans.image.files import SUFFIXES

    return SUFFIXES


@click.command()
@batch_options(suffixes=_suffixes, writes=True)
@shared.model_option
@click.option(
    "--effort",
    type=click.IntRange(effort_levels.LEAST, effort_levels.MOST),
    default=effort_levels.DEFAULT,
    show_default=True,
    help="More takes time to find fewer bytes: above 5, networks are tuned to each picture.",
)
@click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Decode each file and compare the pixels before it is written.",
)
@click.option("--strip", is_flag=True, help="Leave metadata out: colour profile, EXIF, XMP, resolution, texts ...")
@click.option("-v", "--verbose", is_flag=True, help="Tell where the bits went.")
@jobs_option
@shared.device_options
def compress(
    batch: Batch,
    model: str | None,
    effort: int,
    verify: bool,
    strip: bool,
    verbose: bool,
    jobs: int,
    device: str,
    threads: int | None,
) -> None:
    """Compress images, losslessly: photo.png becomes photo.png.bbans.

    Takes PNG, JPEG, WebP, BMP, TIFF, PPM and GIF of Pillow's modes 1, L, LA, P, RGB, RGBA and I;16, and all PNG of 16
    bits (with pip install 'bbans[deep]'); - is standard input. Keeps the pixels, their mode and metadata. What the
    model is not made for, such as drawings, is coded by WebP if that is smaller. With --json, rates are in bits per
    dim.

    \b
    bbans compress photo.png                    writes photo.png.bbans
    bbans compress -r album --output-dir small  writes small/.../photo.png.bbans
    bbans compress - < photo.png > photo.bbans
    """
    if batch.remove and not verify:
        raise click.UsageError("--rm removes only what was verified; --no-verify forbids it")
    load = shared.ModelLoader(model, device, threads_each(threads, jobs))
    work = functools.partial(_compressed, load, effort, verify, strip, verbose or batch.as_json)

    def finish(task: Task, made: _Made) -> None:
        batch.write(task, made.data)
        rates = made.report.per_dim()
        record = {
            "input": task.source.name,
            "output": batch.target_name(task),
            "width": made.width,
            "height": made.height,
            "mode": made.mode,
            "dims": made.report.dims,
            "model": made.model,
            "model_id": made.model_id,
            "bytes": len(made.data),
            **rates,
            "verified": verify,
            "seconds": round(made.seconds, 4),
        }
        line = f"{record['input']} -> {record['output']}: {len(made.data)} bytes, {rates['total']:.3f} bits per dim"
        if verbose:
            parts = ", ".join(f"{word} {rate:.4f}" for word, rate in rates.items() if rate is not None)
            line += f" ({parts}; {made.model}; {made.seconds:.1f} s)"
        batch.say(line, record)

    batch.run(work, finish, name=lambda source: source.below.name + SUFFIX, jobs=jobs)


@dataclass(frozen=True)
class _Made:
    """A file's bytes, and what is told of it."""

    data: bytes
    report: Report
    width: int
    height: int
    mode: str
    model: str
    model_id: str
    seconds: float


def _compressed(load: shared.ModelLoader, effort: int, verify: bool, strip: bool, want_elbo: bool, task: Task) -> _Made:
    from bbans.image.files import naming, read_picture
    from bbans.image.picture import compress_picture, verify_picture

    source = task.source
    if source.path is not None:
        picture = read_picture(source.path, strip=strip)
    else:
        with naming(source.name):
            picture = read_picture(io.BytesIO(source.data or b""), strip=strip)
    vae = load()
    begin = time.perf_counter()
    with naming(source.name):
        data, report = compress_picture(picture, vae, want_elbo=want_elbo, effort=effort)
        seconds = time.perf_counter() - begin
        if verify:
            verify_picture(data, picture, lambda _: vae)
    return _Made(data, report, picture.width, picture.height, picture.mode, vae.name, vae.id.hex(), seconds)
