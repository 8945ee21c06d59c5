"""`bbans compress`: image files to .bbans files."""

from __future__ import annotations

import time
from pathlib import Path

import click

from bbans.cli import shared
from bbans.image import effort as effort_levels
from bbans.image.container import SUFFIX


@click.command()
@shared.inputs_argument
@shared.output_option
@shared.model_option
@shared.device_options
@click.option(
    "--effort",
    type=click.IntRange(effort_levels.LEAST, effort_levels.MOST),
    default=effort_levels.DEFAULT,
    show_default=True,
    help="More takes time to find fewer bytes: above 5, networks are tuned to each picture.",
)
@shared.force_option
@shared.json_option
def compress(
    inputs: tuple[Path, ...],
    output: Path | None,
    model: str | None,
    device: str,
    threads: int | None,
    effort: int,
    force: bool,
    as_json: bool,
) -> None:
    """Compress images, losslessly: photo.png becomes photo.png.bbans.

    Takes PNG, JPEG, WebP, BMP, TIFF, PPM and GIF with grey or RGB pixels of 8 bits per channel. Keeps the pixels;
    metadata such as EXIF and colour profiles are not kept. With --json, rates are in bits per dim.
    """
    outputs = shared.Outputs(inputs, output, force=force)
    get_model = shared.model_loader(model, device, threads)

    def one(path: Path) -> None:
        from bbans.image.files import naming, read_picture, write_bytes
        from bbans.image.picture import compress_picture

        target = outputs.place(path, path.name + SUFFIX)
        picture = read_picture(path)
        vae = get_model()
        begin = time.perf_counter()
        with naming(path):
            data, report = compress_picture(picture, vae, want_elbo=as_json, effort=effort)
        seconds = time.perf_counter() - begin
        write_bytes(target, data, force=force)
        outputs.done(path, target)
        rates = report.per_dim()
        if as_json:
            shared.say_json(
                {
                    "input": str(path),
                    "output": str(target),
                    "width": picture.width,
                    "height": picture.height,
                    "mode": picture.mode,
                    "dims": report.dims,
                    "model": vae.name,
                    "model_id": vae.id.hex(),
                    "bytes": len(data),
                    **rates,
                    "seconds": round(seconds, 4),
                }
            )
        else:
            shared.say(f"{path} -> {target}: {len(data)} bytes, {rates['total']:.3f} bits per dim")

    shared.for_each(inputs, one)
