"""Pictures that are no photographs: is bbans ever worse than WebP, or than no compression, and what does asking cost?

`python -m bench.graphics [PHOTO]...`: every picture of `bench.drawings` is compressed, decoded and compared. Its bytes
stand beside those of WebP and PNG, which get the whole picture, and of bbans made to use the model wherever it can.
Exit code 1 if one is larger by more than `SLACK` bytes than its WebP or its samples, or comes back as another. Of the
photographs, only the time is measured: how much of it goes into finding out that WebP isn't what they need.

WebP has modes RGB and RGBA, and gets bilevel and grey pictures as RGB. A palette is not in its files: what it gets is
the colours or the indices as greys, whichever is smaller, and the palette is added, as bbans packs it.
"""

from __future__ import annotations

import io
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest import mock

import click
from PIL import Image

from bbans import zoo
from bbans.errors import BbansError
from bbans.image import libraries
from bbans.image.container import METHOD_NAMES, Header, pack_attributes
from bbans.image.files import read_picture, to_pillow
from bbans.image.modes import PALETTE
from bbans.image.picture import Picture, compress_picture, verify_picture
from bench import common, drawings

SLACK = 64  # bytes by which a file may be larger: header and checksums


@dataclass(frozen=True)
class Row:
    """A drawing: bytes of each coder, what codes its pieces, and of bbans the seconds, those of choosing among them."""

    name: str
    mode: str
    size: str
    bbans: int
    by_model: int
    webp: int
    png: int
    raw: int
    chosen: str
    seconds: float
    choosing: float

    @property
    def larger(self) -> int:
        """Bytes above WebP or the samples, whichever is smaller."""
        return self.bbans - min(self.webp, self.raw)


def compressed(picture: Picture, model: zoo.Model) -> tuple[bytes, float, float]:
    """A file, the seconds it took, and how many of these went into WebP and whether to try it."""
    trials: list[float] = []

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            begin = perf_counter()
            result = function(*args)
            trials.append(perf_counter() - begin)
            return result

        return run

    both = {name: timed(getattr(libraries, name)) for name in ("looks_synthetic", "to_webp")}
    begin = perf_counter()
    with mock.patch.multiple(libraries, **both):
        data, _ = compress_picture(picture, model)
    return data, perf_counter() - begin, sum(trials)


def measure(name: str, image: Image.Image, model: zoo.Model) -> Row:
    """Raises `BbansError` when the picture doesn't come back as it was."""
    picture = read_picture(image, strip=True)
    data, seconds, choosing = compressed(picture, model)
    verify_picture(data, picture, lambda _: model)
    chosen = Counter(METHOD_NAMES[piece.method] for piece in Header.parse(data).pieces)
    by_model, _ = compress_picture(picture, model, by_model=True)
    samples = -(-picture.pixels.size // 8) if picture.mode == "1" else picture.pixels.nbytes
    return Row(
        name,
        picture.mode,
        f"{picture.width} x {picture.height}",
        len(data),
        len(by_model),
        webp_size(image, picture),
        _size(to_pillow(picture), "PNG", optimize=True),
        samples + len(picture.attributes.get(PALETTE, b"")),
        ", ".join(f"{count} {method}" if count > 1 else method for method, count in chosen.items()),
        seconds,
        choosing,
    )


def webp_size(image: Image.Image, picture: Picture) -> int:
    """Bytes of WebP at the settings that bbans has, of the picture in one piece."""
    alpha = image.mode in ("LA", "RGBA") or "transparency" in image.info
    given = [image.convert("RGBA" if alpha else "RGB")]
    if image.mode == "P":
        given.append(Image.fromarray(picture.pixels[:, :, 0]).convert("RGB"))
    sizes = [_size(one, "WEBP", lossless=True, method=4, quality=80, exact=True) for one in given]
    return min(sizes) + len(pack_attributes(picture.attributes))


def _size(image: Image.Image, kind: str, **options: Any) -> int:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.tell()


def drawing_table(rows: Sequence[Row]) -> list[str]:
    def line(row: Row) -> list[str]:
        verdict = "ok" if row.larger <= SLACK else "LARGER"
        sizes = map(str, (row.bbans, row.webp, row.png, row.raw, row.by_model, row.larger))
        seconds = (f"{row.seconds:.2f}", f"{row.choosing:.2f}")
        return [row.name, row.mode, row.size, *sizes, row.chosen, *seconds, verdict]

    head = [
        "drawing",
        "mode",
        "size",
        "bbans",
        "WebP",
        "PNG",
        "raw",
        "by model",
        "larger by",
        "chosen",
        "s",
        "s to choose",
    ]
    return common.table([*head, ""], map(line, rows))


def photo_table(times: dict[str, tuple[float, float]]) -> list[str]:
    """{name: (seconds, those of choosing)}, and their sum."""
    whole, choosing = map(sum, zip(*times.values(), strict=True))
    lines = [(*item, f"{100 * item[2] / item[1]:.1f} %") for item in ((n, *t) for n, t in times.items())]
    lines.append((f"sum of {len(times)}", whole, choosing, f"{100 * choosing / whole:.1f} %"))
    return common.table(
        ["photograph", "s", "s to choose", "share"], [[n, f"{a:.2f}", f"{b:.2f}", c] for n, a, b, c in lines]
    )


@click.command()
@click.argument("photos", metavar="[PHOTO]...", nargs=-1, type=click.Path(path_type=Path))
@common.model_option
@common.output_option
@click.option("--root", type=click.Path(path_type=Path), help="What the lines of .txt lists are relative to.")
def main(photos: tuple[Path, ...], model: str | None, output: Path, root: Path | None) -> None:
    """Compare bytes of drawings, and measure what choosing costs on PHOTO: image files, folders of them, .txt lists."""
    vae = zoo.load(model, device="cpu")
    rows = []
    for name, image in drawings.drawings():
        try:
            rows.append(measure(name, image, vae))
        except BbansError as error:
            sys.exit(f"{name}: {error}")
        print(f"{name}: {rows[-1].bbans} bytes, {rows[-1].larger:+d}", file=sys.stderr)
    times = {}
    for path in common.images(photos, "") if photos else []:
        _, *times[path.name] = compressed(read_picture(path, strip=True), vae)
    larger = [row.name for row in rows if row.larger > SLACK]
    best = sum(min(row.bbans, row.by_model) for row in rows)
    total = sum(row.bbans for row in rows)
    lines = [
        "# Graphics",
        "",
        f"- `{common.command_line('bench.graphics')}`",
        f"- model {vae.name}, id {vae.id.hex()}; {common.machine_line()}",
        "",
        *drawing_table(rows),
        "",
        f"- {len(rows)} drawings, {total} bytes; with the model, where that is smaller, {best}",
        f"- larger than WebP or their samples by more than {SLACK} bytes: {', '.join(larger) or 'none'}",
        *(["", *photo_table(times)] if times else []),
    ]
    record = {"drawings": [asdict(row) for row in rows], "photographs": times, "larger": larger}
    common.write_results(output, "graphics", record, lines)
    sys.exit(1 if larger else 0)


if __name__ == "__main__":
    main()
