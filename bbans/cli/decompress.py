"""`bbans decompress` and `bbans test`: .bbans files to image files, or to nothing but the certainty that it works."""

from __future__ import annotations

import time
from pathlib import Path

import click

from bbans.cli import shared
from bbans.image.container import SUFFIX

_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm", ".gif"}


def png_name(name: str) -> str:
    """What the picture in a .bbans file of that name is called: photo.png, for photo.png.bbans and photo.jpg.bbans."""
    path = Path(name[: -len(SUFFIX)] if name.endswith(SUFFIX) and name != SUFFIX else name)
    if path.suffix.lower() == ".png":
        return path.name
    return path.with_suffix(".png").name if path.suffix.lower() in _IMAGE_SUFFIXES else path.name + ".png"


@click.command()
@shared.inputs_argument
@shared.output_option
@shared.search_option
@shared.device_options
@shared.force_option
@shared.json_option
def decompress(
    inputs: tuple[Path, ...],
    output: Path | None,
    model: Path | None,
    device: str,
    threads: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Decompress .bbans files: photo.png.bbans becomes photo.png.

    Writes PNG, or with -o whatever lossless format its suffix names: PNG, BMP, TIFF, PPM.
    """
    outputs = shared.Outputs(inputs, output, force=force)
    find_model = shared.model_finder(model, device, threads)

    def one(path: Path) -> None:
        from bbans.image.files import check_lossless, naming, read_bytes, write_picture
        from bbans.image.picture import decompress_picture

        data = read_bytes(path)
        target = outputs.place(path, png_name(path.name))
        check_lossless(target)
        begin = time.perf_counter()
        with naming(path):
            picture = decompress_picture(data, find_model)
        write_picture(picture, target, force=force)
        seconds = time.perf_counter() - begin
        outputs.done(path, target)
        if as_json:
            shared.say_json(
                {
                    "input": str(path),
                    "output": str(target),
                    "width": picture.width,
                    "height": picture.height,
                    "mode": picture.mode,
                    "seconds": round(seconds, 4),
                }
            )
        else:
            shared.say(f"{path} -> {target}: {picture.width} x {picture.height} {picture.mode}")

    shared.for_each(inputs, one)


@click.command()
@shared.inputs_argument
@shared.search_option
@shared.device_options
@shared.json_option
def test(inputs: tuple[Path, ...], model: Path | None, device: str, threads: int | None, as_json: bool) -> None:
    """Decode .bbans files and check every checksum; write nothing."""
    find_model = shared.model_finder(model, device, threads)

    def one(path: Path) -> None:
        from bbans.image.files import naming, read_bytes
        from bbans.image.picture import decompress_picture

        data = read_bytes(path)
        with naming(path):
            decompress_picture(data, find_model)
        if as_json:
            shared.say_json({"input": str(path), "ok": True})
        else:
            shared.say(f"{path}: ok")

    shared.for_each(inputs, one)
