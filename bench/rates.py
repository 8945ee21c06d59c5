"""What files cost: the real bytes of bbans, taken apart, beside PNG, WebP and JPEG XL.

`python -m bench.rates DATA...`: every picture is written as a file, which is read, decoded and compared with the
pixels; so are the peers' files. All hold pixels only: metadata are stripped. Anything that doesn't come back exactly
is a failure (exit code 1).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
from PIL import Image

from bbans import zoo
from bbans.cli.eval import WORDS
from bbans.errors import BadImage, BbansError, TooLarge
from bbans.image.files import read_bytes, read_picture, write_bytes
from bbans.image.picture import Picture, compress_picture, decompress_picture
from bench import common, peers

Bits = dict[str, float | None]
TOTAL = "total"


@dataclass(frozen=True)
class Row:
    """One picture, or the sum of several. bits: of each word of `WORDS` and of each peer; None where unknown."""

    image: str
    dims: int
    bits: Bits

    def per_dim(self, word: str) -> float | None:
        bits = self.bits[word]
        return None if bits is None else bits / self.dims

    def excess(self, word: str, over: str) -> float | None:
        """How much `word` is above `over`, in per cent of `over`."""
        more, less = self.bits[word], self.bits[over]
        return None if more is None or less is None else 100 * (more - less) / less


def measure(path: Path, model: zoo.Model, effort: int, others: Sequence[peers.Peer], *, grey: bool = False) -> Row:
    """One picture by all coders. Raises `BbansError` when it can't be read, or doesn't come back as it was."""
    picture = read_picture(path, strip=True)
    if grey and picture.mode == "RGB":
        picture = Picture(np.asarray(Image.fromarray(picture.pixels).convert("L"))[..., None], "L")
    bits = _own(picture, model, effort)
    for peer in others:
        data, _ = peer.encode(picture)
        if not peers.same_pixels(peer.decode(data)[0], picture):
            raise BbansError(f"{path}: {peer.name} gives other pixels back")
        bits[peer.name] = 8.0 * len(data)
    return Row(path.name, picture.pixels.size, bits)


def _own(picture: Picture, model: zoo.Model, effort: int) -> Bits:
    data, report = compress_picture(picture, model, want_elbo=True, effort=effort)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "picture.bbans"
        write_bytes(file, data)
        size = file.stat().st_size
        decoded = decompress_picture(read_bytes(file), lambda _: model)
    if decoded.mode != picture.mode or not np.array_equal(decoded.pixels, picture.pixels):
        raise BbansError("bbans gives other pixels back")
    if 8 * size != report.total:
        raise BbansError(f"the file has {size} bytes, not the {report.total / 8} that are reported")
    bits: Bits = {"float_elbo": model.float_elbo_bits(picture.pixels)}
    for word, rate in report.per_dim().items():
        bits[word] = None if rate is None else rate * report.dims
    return bits


def add_up(rows: Sequence[Row]) -> Row:
    """The sum of all pictures; a word that is unknown for one is unknown for the sum."""
    sums: Bits = {}
    for word in rows[0].bits:
        known = [bits for row in rows if (bits := row.bits[word]) is not None]
        sums[word] = sum(known) if len(known) == len(rows) else None
    return Row(f"sum of {len(rows)}", sum(row.dims for row in rows), sums)


def markdown(rows: Sequence[Row], total: Row, others: Sequence[peers.Peer], notes: Sequence[str]) -> list[str]:
    """The lines of the report."""
    names = [peer.name for peer in others]
    everyone = [*rows, total]
    rates = common.table(
        ["bits per dim", *WORDS, *names],
        [[row.image, *(common.number(row.per_dim(word)) for word in (*WORDS, *names))] for row in everyone],
    )
    coders = [TOTAL, *names]
    sizes = common.table(
        ["bytes", "bbans", *names],
        [[row.image, *(f"{(row.bits[word] or 0) / 8:.0f}" for word in coders)] for row in everyone],
    )
    against = [f"{name} {total.excess(TOTAL, name):+.2f} %" for name in names]
    ends = [
        f"- {word} − {over}: {common.number(total.excess(word, over), 3)} % of {over}"
        for word, over in ((TOTAL, "elbo"), ("elbo", "float_elbo"), ("net", "elbo"))
    ]
    return [
        "# Rates",
        "",
        *(f"- {note}" for note in notes),
        *(f"- {peer.name}: {peer.how}" for peer in others),
        "",
        *rates,
        "",
        *sizes,
        "",
        *ends,
        f"- bytes of bbans against {', '.join(against)}",
    ]


@click.command()
@click.argument("data", metavar="[DATA]...", nargs=-1, type=click.Path(path_type=Path))
@common.model_option
@common.effort_option
@common.output_option
@click.option("--root", type=click.Path(path_type=Path), help="What the lines of .txt lists are relative to.")
@click.option("--grey", is_flag=True, help="The pictures in grey.")
@click.option("--no-jxl", is_flag=True, help="Leave JPEG XL out.")
@common.jxl_option("7,9")
def main(
    data: tuple[Path, ...],
    model: str | None,
    effort: int,
    output: Path,
    root: Path | None,
    grey: bool,
    no_jxl: bool,
    jxl: list[int],
) -> None:
    """Compare rates on DATA: image files, folders of them, .txt lists.  [default: kodak in the data folder]"""
    paths = common.images(data, "kodak", root)
    vae = common.models_of(model, [effort])[effort]
    others = [peers.png(), peers.webp(), *([] if no_jxl else peers.jxls(*jxl))]
    rows: list[Row] = []
    left_out: list[str] = []
    for path in paths:
        try:
            rows.append(measure(path, vae, effort, others, grey=grey))
        except (BadImage, TooLarge) as error:
            left_out.append(str(error))
            print(f"left out: {error}", file=sys.stderr)
            continue
        except BbansError as error:
            sys.exit(f"{path}: {error}")
        print(f"{path.name}: {rows[-1].per_dim(TOTAL):.4f}", file=sys.stderr)
    if not rows:
        sys.exit("no picture could be measured")
    total = add_up(rows)
    command = common.command_line("bench.rates")
    notes = [
        f"`{command}`",
        f"model {vae.name}, id {vae.id.hex()}, effort {effort}; {common.machine_line()}",
        *(f"left out: {reason}" for reason in left_out),
    ]
    record = {
        "command": command,
        "model": vae.name,
        "model_id": vae.id.hex(),
        "effort": effort,
        "machine": common.machine(),
        "peers": {peer.name: peer.how for peer in others},
        "left_out": left_out,
        "images": [asdict(row) for row in rows],
        "sum": asdict(total),
        "per_dim": {word: total.per_dim(word) for word in total.bits},
        "excess_percent": {
            "total over elbo": total.excess(TOTAL, "elbo"),
            "elbo over float_elbo": total.excess("elbo", "float_elbo"),
            "net over elbo": total.excess("net", "elbo"),
        },
    }
    common.write_results(output, "rates", record, markdown(rows, total, others, notes))


if __name__ == "__main__":
    main()
