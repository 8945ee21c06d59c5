"""`bbans sample`: pictures drawn from a model, to look at or as an array."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bbans.cli import shared

if TYPE_CHECKING:
    import numpy as np

KINDS = (".png", ".npy", ".npz")


class _Size(click.ParamType):
    """WxH as (height, width)."""

    name = "WxH"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> tuple[int, int]:
        found = re.fullmatch(r"([1-9]\d{0,5})[xX]([1-9]\d{0,5})", value)
        if not found:
            self.fail(f"a width and a height, such as 128x96; not '{value}'", parameter, context)
        return int(found[2]), int(found[1])


@click.command()
@shared.model_option
@click.option(
    "-n", "--count", type=click.IntRange(min=1), default=16, show_default=True, metavar="N", help="How many pictures."
)
@click.option("--mean", is_flag=True, help="Draw only latents, and show the mean of each pixel given these.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="S",
    help="The same pictures on every machine; another seed is other pictures.",
)
@click.option(
    "--size", type=_Size(), metavar="WxH", help="Of models that take pictures of any size.  [default: 128x128]"
)
@click.option(
    "-o",
    "--output",
    type=shared.any_path,
    required=True,
    help="A .png, or - for standard output; or the pictures as an array, in an .npy or .npz.",
)
@shared.force_option
@shared.device_options
def sample(
    model: str | None,
    count: int,
    mean: bool,
    seed: int,
    size: tuple[int, int] | None,
    output: Path,
    force: bool,
    device: str,
    threads: int | None,
) -> None:
    """Draw pictures from a model: what it believes pictures to be.

    To draw is to decode random bits. Latents come from their prior, and pixels from what the model says of each, given
    these and the pixels before. With --mean each pixel is the mean of that instead: what the latents tell, without
    noise. The coarsest pixels of photo, 2 x 2, are random.

    They are shown side by side, small ones enlarged. An .npy or .npz has their pixels, as `bbans archive create` and
    `bbans eval` take them.

    \b
    bbans sample -m mnist -n 100 -o digits.png
    bbans sample -m cifar10 --mean --seed 7 -o means.png
    bbans sample --size 256x192 -n 4 -o textures.png
    bbans sample -m mnist -n 1000 -o digits.npz           as an array
    """
    from bbans.errors import BadOutput
    from bbans.image.files import check_output, encoded, write_bytes
    from bbans.image.picture import Picture

    to_stream = str(output) == shared.STREAM
    kind = ".png" if to_stream else output.suffix.lower()
    if kind not in KINDS:
        raise BadOutput(f"{output}: samples are written as {', '.join(KINDS)}")
    if to_stream:
        shared.check_stream()
    else:
        check_output(output, force=force)
    loaded = shared.ModelLoader(model, device, threads)()
    from bbans.image.contact import contact_sheet
    from bbans.image.sampling import sample as draw

    pictures = draw(loaded, count, seed, size=size, mean=mean)
    if kind == ".png":
        sheet = contact_sheet(pictures)
        data = encoded(Picture(sheet, "RGB" if sheet.shape[-1] == 3 else "L"), kind)
    else:
        data = _as_array(pictures, kind)
    if to_stream:
        shared.write_stream(data)
    else:
        write_bytes(output, data, force=force)
    _, height, width, _ = pictures.shape
    where = "standard output" if to_stream else output
    what = f"{count} {'mean' if mean else 'sample'}{'s' * (count != 1)}"
    shared.say(f"{where}: {what} of {loaded.name}, {width} x {height}, seed {seed}", err=to_stream)


def _as_array(pictures: np.ndarray[Any, Any], kind: str) -> bytes:
    """The bytes of an .npy or .npz: [n, h, w] or [n, h, w, 3]."""
    import numpy as np

    array = pictures[..., 0] if pictures.shape[-1] == 1 else pictures
    file = io.BytesIO()
    if kind == ".npy":
        np.save(file, array)
    else:
        np.savez_compressed(file, images=array)
    return file.getvalue()
