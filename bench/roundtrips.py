"""Does everything come back? Pictures of every mode in many sizes, with many contents and metadata, there and back.

`python -m bench.roundtrips`: each is written as a PNG, if that has its mode, and read again; compressed and
decompressed; written as a PNG once more and read. Pixels, mode and attributes must be the same each time. Exit code 1
at the first difference, with the combination that made it. `--quick` takes a few, chosen by a seed.
"""

from __future__ import annotations

import io
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import click
import numpy as np
from numpy.typing import NDArray
from PIL import ImageCms

from bbans import zoo
from bbans.errors import BbansError
from bbans.image import container
from bbans.image.files import HOLDS, encoded, read_picture
from bbans.image.modes import MODES, PALETTE, PALETTE_ALPHA
from bbans.image.picture import Picture, compress_picture, decompress_picture
from bench import common

SEED = 1
QUICK = 60  # combinations
KINDS = 5  # of metadata, for each mode, size and content: by turns
SIZES = [(1, 1), (1, 7), (9, 1), (2, 2), (5, 4), (13, 8), (16, 17), (31, 32)]  # rows and columns
SEVERAL_TILES = (container.TILE_SIDE + 1, container.ONE_TILE // container.TILE_SIDE)
COLOURS = (256, 2, 5, 16)  # of palettes, by turns

Random = np.random.Generator
Shares = NDArray[np.float64]

CONTENTS: dict[str, Callable[[Random, Shares, Shares], Shares]] = {
    "constant": lambda random, y, x: 0 * (y + x) + random.random(),
    "noise": lambda random, y, x: random.random((y + x).shape),
    "gradient": lambda random, y, x: (y + x) / max(1, (y + x).max()),
    "waves": lambda random, y, x: 0.5 + 0.25 * np.sin(x / 3) + 0.25 * np.cos(y / 4),
    "sparse": lambda random, y, x: 1.0 * (random.random((y + x).shape) < 0.05),
    "photograph": lambda random, y, x: 0.5 + 0.4 * np.sin((x + y * y / 9) / 7) + random.normal(0, 0.01, (y + x).shape),
}
"""Values from 0 to 1, [h, w, c], of the rows and the columns, [h, w, c] each."""

METADATA: dict[str, dict[str, bytes]] = {
    "nothing": {},
    "icc": {"icc": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()},
    "exif": {"exif": b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"},  # an orientation
    "xmp": {"xmp": "<x:xmpmeta xmlns:x='adobe:ns:meta/'>\u00e9</x:xmpmeta>".encode()},
    "dpi": {"dpi": b"300.0 72.0"},
    "texts": {"text/Title": "tcaf\u00e9".encode(), "text/Author": "ipl\0Autor\0\u0141ukasz".encode(), "text/E": b"t"},
    "gamma": {"gamma": b"0.45455", "chromaticity": b"0.3127 0.329 0.64 0.33 0.3 0.6 0.15 0.06"},
    "srgb": {"srgb": b"2"},
    "transparent": {},  # which depends on the mode
}


@dataclass(frozen=True)
class Combination:
    mode: str
    height: int
    width: int
    content: str
    metadata: str
    number: int

    def __str__(self) -> str:
        return f"{self.number}: {self.mode}, {self.width} x {self.height}, {self.content}, with {self.metadata}"

    def picture(self) -> Picture:
        """The same one each time."""
        random, mode = np.random.default_rng([SEED, self.number]), MODES[self.mode]
        y, x, _ = np.indices((self.height, self.width, mode.channels), np.float64)
        colours = COLOURS[self.number % len(COLOURS)]
        largest = {"1": 1, "P": colours - 1}.get(self.mode, 65535 if mode.deep else 255)
        values = CONTENTS[self.content](random, y, x).clip(0, 1) * largest
        attributes: dict[str, bytes] = {}
        for name in METADATA if self.metadata == "everything" else [self.metadata]:
            attributes |= METADATA[name] | (self._transparent() if name == "transparent" else {})
        if self.metadata == "everything":
            del attributes["srgb"]  # a PNG says that, or has a colour profile
        if self.mode == "P":
            attributes[PALETTE] = random.integers(0, 256, 3 * colours, np.uint8).tobytes()
        return Picture(values.round().astype(mode.dtype), self.mode, attributes)

    def _transparent(self) -> dict[str, bytes]:
        known = {"1": b"1", "L": b"7", "I;16": b"777", "RGB": b"1 2 3"}
        if self.mode == "P":
            return {PALETTE_ALPHA: b"\0\x80"}
        return {"transparent": known[self.mode]} if self.mode in known else {}


def combinations() -> list[Combination]:
    """All of them, in one order."""
    return [Combination(*one, number) for number, one in enumerate(_combinations())]


def _combinations() -> Iterator[tuple[str, int, int, str, str]]:
    kinds = [*METADATA, "everything"]
    turn = 0
    for mode in MODES:
        for height, width in SIZES:
            for content in CONTENTS:
                for _ in range(KINDS):
                    yield mode, height, width, content, kinds[turn % len(kinds)]
                    turn += 1
                turn += 1  # so that contents and sizes meet other kinds in the next round
        # those that a model needn't look at, for it would take minutes
        for content in ("constant", "sparse", *(["noise", "waves"] if mode in ("1", "P") else [])):
            yield mode, *SEVERAL_TILES, content, "everything"


def check(made: Combination, model: zoo.Model) -> None:
    """Raises `BbansError` where anything is lost."""
    picture = made.picture()
    if made.mode in HOLDS["PNG"]:
        written = _through_png(picture)
        same(written, Picture(picture.pixels, picture.mode, written.attributes), "the first PNG")
        if written.attributes.keys() != picture.attributes.keys():  # numbers are rounded there
            raise BbansError(f"the first PNG has {sorted(written.attributes)}")
        picture = written
    data, _ = compress_picture(picture, model)
    decoded = decompress_picture(data, lambda _: model)
    same(decoded, picture, "what is decoded")
    if made.mode in HOLDS["PNG"]:
        same(_through_png(decoded), picture, "the last PNG")


def same(one: Picture, other: Picture, what: str) -> None:
    """Raises `BbansError` when the pictures differ."""
    if one.mode != other.mode or not np.array_equal(one.pixels, other.pixels):
        raise BbansError(f"{what} has other pixels, or mode {one.mode}")
    if one.attributes != other.attributes:
        raise BbansError(f"{what} has the attributes {dict(one.attributes)}, not {dict(other.attributes)}")


def _through_png(picture: Picture) -> Picture:
    return read_picture(io.BytesIO(encoded(picture, ".png")))


@click.command()
@common.model_option
@click.option("--quick", is_flag=True, help=f"Only {QUICK} small pictures.")
def main(model: str | None, quick: bool) -> None:
    """Compress and decompress pictures of every mode, size, content and metadata."""
    vae = zoo.load(model, device="cpu")
    todo = combinations()
    if quick:
        small = [one for one in todo if (one.height, one.width) in SIZES]
        todo = [small[i] for i in np.random.default_rng(SEED).choice(len(small), QUICK, replace=False)]
    counts: Counter[str] = Counter()
    failed = None
    for one in todo:
        counts[one.mode] += 1
        try:
            check(one, vae)
        except Exception as error:  # whatever it is, which combination made it is what helps
            failed = one
            print(f"{one}: {error!r}")
            break
    rows = [(mode, str(counts[mode]), str(int(failed is not None and failed.mode == mode))) for mode in MODES]
    print(
        "\n".join(
            common.table(
                ["mode", "pictures", "failed"], [*rows, ("sum", str(counts.total()), str(int(failed is not None)))]
            )
        )
    )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
