"""`bbans compress`: image files to .bbans files."""

from __future__ import annotations

import functools
import io
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from bbans.cli import shared
from bbans.cli.batch import Batch, Source, Task, batch_options, jobs_option
from bbans.image import effort as effort_levels
from bbans.image.container import SUFFIX

if TYPE_CHECKING:
    from bbans.image.picture import Report
    from bbans.image.weighted import Particles


def _suffixes() -> set[str]:
    from bbans.image.files import SUFFIXES

    return SUFFIXES


@click.command()
@batch_options(suffixes=_suffixes, writes=True)
@functools.partial(shared.model_option, default="photo; up to effort 3, photo-fast")
@click.option(
    "--effort",
    type=click.IntRange(effort_levels.LEAST, effort_levels.MOST),
    default=effort_levels.DEFAULT,
    show_default=True,
    help="More takes time to find fewer bytes. Unless -m names a model, 1 to 3 use photo-fast, 4 to 9 photo. 3, and 5 "
    "and more, fit last layers to each picture; above 5, all layers are tuned to it.",
)
@shared.particles_options
@click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Decode each file and compare the pixels before it is written.",
)
@click.option("--strip", is_flag=True, help="Leave metadata out: colour profile, EXIF, XMP, resolution, texts ...")
@click.option("-v", "--verbose", is_flag=True, help="Tell where the bits went.")
@shared.max_pixels_option
@jobs_option
@shared.device_options
def compress(
    batch: Batch,
    model: str | None,
    effort: int,
    particles: int | None,
    coupled: bool | None,
    verify: bool,
    strip: bool,
    verbose: bool,
    max_pixels: int,
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
    if batch.output and not batch.into_directory and batch.output.suffix.lower() in _suffixes():
        raise click.UsageError(f"-o: '{batch.output}' is the name of an image; what is written is a {SUFFIX} file")
    load = shared.ModelLoader(model, device, threads, jobs, effort)
    work = _Writing(
        load, effort, shared.particles_of(particles, coupled), verify, strip, verbose or batch.as_json, max_pixels
    )
    warned = False

    def finish(task: Task, made: _Made) -> None:
        nonlocal warned
        batch.write(task, made.data, keep=made.smaller_jpeg)
        if made.smaller_jpeg and not batch.quiet and (batch.remove or not warned):
            warned = True
            kept = ", and is kept" if batch.remove else ""
            shared.complain(f"{task.source.name}: the JPEG itself is smaller than its pixels without loss{kept}")
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
    smaller_jpeg: bool
    seconds: float


@dataclass(frozen=True)
class _Writing:
    """How inputs become files."""

    load: shared.ModelLoader
    effort: int
    particles: Particles | None
    verify: bool
    strip: bool
    want_elbo: bool
    max_pixels: int

    def __call__(self, task: Task) -> _Made:
        from bbans.image.files import naming, read_picture
        from bbans.image.picture import compress_picture, verify_picture

        source = task.source
        with shared.naming_max_pixels():
            if source.path is not None:
                picture = read_picture(source.path, strip=self.strip, max_pixels=self.max_pixels)
            else:
                with naming(source.name):
                    file = io.BytesIO(source.data or b"")
                    picture = read_picture(file, strip=self.strip, max_pixels=self.max_pixels)
        model = self.load()
        begin = time.perf_counter()
        how: dict[str, Any] = {"want_elbo": self.want_elbo, "effort": self.effort, "particles": self.particles}
        with naming(source.name):
            data, report = compress_picture(picture, model, **how, max_pixels=self.max_pixels)
            seconds = time.perf_counter() - begin
            if self.verify:
                verify_picture(data, picture, lambda _: model, max_pixels=self.max_pixels)
        size = picture.width, picture.height
        return _Made(
            data, report, *size, picture.mode, model.name, model.id.hex(), _is_smaller_jpeg(source, data), seconds
        )


def _is_smaller_jpeg(source: Source, data: bytes) -> bool:
    """Whether the input is a JPEG of fewer bytes."""
    if source.path is None:
        begin, size = (source.data or b"")[:3], len(source.data or b"")
    else:
        with source.path.open("rb") as file:
            begin, size = file.read(3), file.seek(0, io.SEEK_END)
    return begin == b"\xff\xd8\xff" and size < len(data)
