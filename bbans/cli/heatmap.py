"""`bbans heatmap`: a picture of where the bits of a picture go."""

from __future__ import annotations

import io
from pathlib import Path

import click

from bbans.cli import shared


@click.command()
@click.argument("path", metavar="IN", type=shared.any_path)
@click.option("-o", "--output", type=shared.any_path, required=True, help="The picture to write: a .png, .svg or .pdf.")
@shared.model_option
@shared.force_option
@shared.device_options
def heatmap(path: Path, output: Path, model: str | None, force: bool, device: str, threads: int | None) -> None:
    """Draw how many bits the model takes for each pixel of an image.

    Pixels of coarse levels, which tell of their surroundings, have their bits spread over these. Needs matplotlib: pip
    install 'bbans[plots]'.

    \b
    bbans heatmap photo.png -o map.png
    """
    from bbans.errors import BadOutput
    from bbans.image.files import check_output, naming, read_picture, write_bytes

    kind = output.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg", "pdf"):
        raise BadOutput(f"{output}: a heatmap is a .png, .svg or .pdf")
    check_output(output, force=force)
    picture = read_picture(path)
    from bbans.image.heatmap import bits_of, draw

    with naming(path):
        bits = bits_of(picture, shared.ModelLoader(model, device, threads)())
    file = io.BytesIO()
    draw(bits, file, kind, f"{path.name}: {bits.mean():.2f} bits per pixel")
    write_bytes(output, file.getbuffer(), force=force)
    shared.say(f"{path} -> {output}: {bits.mean():.3f} bits per pixel in the mean, at most {bits.max():.1f}")
