"""`bbans eval`: the rates of a model on a set of pictures, in the words of every table here. Writes no files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bbans.cli import sets, shared
from bbans.errors import BadImage

if TYPE_CHECKING:
    from bbans.image.picture import Picture
    from bbans.vae.bounds import LatentKL
    from bbans.zoo import Model

WORDS = ("float_elbo", "elbo", "net", "initial", "container", "total")
BATCH_DIMS = 1 << 18  # samples of the pictures that wait to go through the float networks together

Bits = dict[str, float | None]


@dataclass
class Sum:
    """Bits of each word over so many pictures; a word that is unknown for one picture is unknown for all."""

    images: int = 0
    dims: int = 0
    bits: Bits = field(default_factory=dict)

    def add(self, other: Sum) -> None:
        self.bits = {w: _sum([self.bits[w], other.bits[w]]) for w in self.bits} if self.images else other.bits
        self.images, self.dims = self.images + other.images, self.dims + other.dims


@click.command("eval")
@click.argument("path", type=shared.any_path)
@shared.model_option
@click.option(
    "--particles",
    type=click.IntRange(min=1),
    metavar="K",
    help="Take K samples of the float model's latents for each picture, and give the bound iwae too.",
)
@click.option(
    "--chain",
    type=click.IntRange(min=1),
    metavar="N",
    help="Code up to N neighbouring pictures of one size on one message, not each as a file.",
)
@click.option(
    "--binarise",
    type=click.IntRange(min=0),
    metavar="SEED",
    help="Make grey pictures bilevel: a pixel is 1 with probability value / 255.",
)
@shared.device_options
@shared.json_option
def evaluate(
    path: Path,
    model: str | None,
    particles: int | None,
    chain: int | None,
    binarise: int | None,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure a model: bits per dim of every picture in a folder, an image file, or an .npz or .npy of arrays.

    float_elbo is that of the trained float model, elbo of the exact integer model, net the growth of the message,
    initial the padding brought in, container what the file has besides, total the whole file. The last line takes
    float_elbo apart: the likelihood, the KL of each layer of latents, and how many latents are dead, telling less than
    0.01 bits on average.

    With --particles, iwae is the importance-weighted bound of the float model, and float_elbo the mean over the same
    samples. With --chain, a line is a chain, and container what is in its payload besides; in an archive, a header
    comes to it.

    \b
    bbans eval album                           the default model on a folder
    bbans eval -m run --particles 16 album     another model, and its tighter bound
    bbans eval -m mnist --chain 100 digits.npz
    """
    pictures = sets.pictures_of(path)
    if binarise is not None:
        pictures = sets.binarised(pictures, binarise)
    evaluation = _Evaluation(shared.ModelLoader(model, device, threads), particles, chain, as_json)
    if not as_json:
        shared.say(" ".join([*(f"{word:>10}" for word in evaluation.words), "      dims  image"]))

    def one(name: Path) -> None:
        picture = pictures[name]()
        if reason := sets.refusal(picture, evaluation.get_model()):
            if sets.is_array(path):
                raise shared.Stop(f"{path}: {reason}")
            raise BadImage(f"{name}: {reason}")
        evaluation.add(name, picture)

    try:
        shared.for_each(pictures, one)
    finally:
        evaluation.finish()


@dataclass(frozen=True)
class _Waiting:
    """A picture whose line is not shown yet, and the bits of its file; {} in a chain, which is coded when complete."""

    name: Path
    picture: Picture
    bits: Bits


class _Evaluation:
    """Takes pictures, and shows their lines when a chain, or a batch for the float networks, is complete."""

    def __init__(self, get_model: Callable[[], Model], particles: int | None, chain: int | None, as_json: bool) -> None:
        self.get_model, self.particles, self.chain, self.as_json = get_model, particles, chain, as_json
        self.words = ("float_elbo", *(("iwae",) if particles else ()), *WORDS[1:])
        self.total = Sum()
        self.parts: dict[str, float] = {}  # of float_elbo, in bits; none when that is unknown
        self.latents: LatentKL | None = None
        self.waiting: list[_Waiting] = []

    def add(self, name: Path, picture: Picture) -> None:
        """Code a picture, unless it is of a chain, and show what is complete. Raises `BbansError`."""
        from bbans.image.files import naming
        from bbans.image.picture import compress_picture

        bits: Bits = {}
        if not self.chain:
            with naming(name):
                report = compress_picture(picture, self.get_model(), want_elbo=True, by_model=True)[1]
            bits = _bits(report.elbo, report.net, report.initial, report.total)
        if self.waiting and not _alike(picture, self.waiting[0].picture):
            self._show()
        self.waiting.append(_Waiting(name, picture, bits))
        if len(self.waiting) >= (self.chain or BATCH_DIMS // picture.pixels.size):
            self._show()

    def finish(self) -> None:
        """Show what waits, and the sum of all."""
        self._show()
        if self.total.images:
            self._line({"images": self.total.images}, f"{self.total.images} images", self.total, self._summary())

    def _show(self) -> None:
        import numpy as np

        waiting, self.waiting = self.waiting, []
        if not waiting:
            return
        pixels = np.stack([each.picture.pixels for each in waiting])
        floats = self._float_bits(pixels)
        if self.chain:
            self._show_chain(waiting, pixels, floats)
            return
        for each, bits in zip(waiting, floats, strict=True):
            row = Sum(1, each.picture.pixels.size, bits | each.bits)
            self.total.add(row)
            self._line({"image": str(each.name)}, str(each.name), row)

    def _show_chain(self, waiting: Sequence[_Waiting], pixels: Any, floats: list[Bits]) -> None:
        from bbans.image.codec import encode_chain

        payload, stats = encode_chain(self.get_model(), pixels, want_elbo=True)
        bits = {word: _sum([each[word] for each in floats]) for word in floats[0]}
        bits |= _bits(stats.elbo, stats.net, stats.initial, 8 * len(payload))
        row = Sum(len(waiting), stats.dims, bits)
        self.total.add(row)
        ends = [str(waiting[0].name), str(waiting[-1].name)]
        self._line({"chain": ends, "count": row.images}, " to ".join(dict.fromkeys(ends)), row)

    def _float_bits(self, pixels: Any) -> list[Bits]:
        """Bits under the float model of each picture [n, h, w, c]."""
        from bbans.vae.bounds import LatentKL

        latents = self.latents = self.latents or LatentKL()
        bounds = self.get_model().float_bounds(
            pixels, particles=self.particles or 1, seed=self.total.images, keep=latents.keep
        )
        words = [word for word in self.words if word not in WORDS[1:]]
        if bounds is None:
            return [dict.fromkeys(words) for _ in pixels]
        for name, part in bounds.parts.items():
            self.parts[name] = self.parts.get(name, 0.0) + float(part.sum())
        values = {"float_elbo": bounds.elbo, "iwae": bounds.iwae}
        return [{word: float(values[word][i]) for word in words} for i in range(len(pixels))]

    def _summary(self) -> dict[str, float]:
        """float_elbo's likelihood and KLs in bits per dim, and the numbers of dead latents."""
        if not self.parts or self.latents is None:
            return {}
        kls = {name: bits / self.total.dims for name, bits in self.parts.items() if name.startswith("kl")}
        likelihood = sum(self.parts.values()) / self.total.dims - sum(kls.values())
        dead = {f"dead_{name}": count for name, count in self.latents.dead().items()}
        return {"likelihood": likelihood, **kls, **dead}

    def _line(self, what: dict[str, Any], label: str, row: Sum, summary: dict[str, float] | None = None) -> None:
        rates = {word: None if (bits := row.bits[word]) is None else bits / row.dims for word in self.words}
        if self.as_json:
            shared.say_json({**what, "dims": row.dims, **rates, **(summary or {})})
            return
        columns = [f"{'-' if rate is None else format(rate, '.4f'):>10}" for rate in rates.values()]
        shared.say(" ".join([*columns, f"{row.dims:>10}", f" {label}"]))
        if summary:
            said = (f"{name} {v}" if isinstance(v, int) else f"{name} {v:.4f}" for name, v in summary.items())
            shared.say(f"float_elbo: {', '.join(said)}")


def _alike(one: Picture, other: Picture) -> bool:
    return (one.pixels.shape, one.mode) == (other.pixels.shape, other.mode)


def _bits(elbo: float | None, net: float, initial: float, total: int) -> Bits:
    return {"elbo": elbo, "net": net, "initial": initial, "container": total - net - initial, "total": float(total)}


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
