"""The field's yardsticks: what whole test sets of small images cost as archives, and how that compares.

`python -m bench.yardsticks [mnist-binary] [mnist] [cifar10]`, for each set with the model of its name:
- `float_elbo`, `elbo` and `net` over all images, and the size of real archives of the first 1, 3, 10, ... and all;
- the size of single .bbans files of the first 100 images;
- PNG and WebP image by image, general compressors on the set as one array, and what others published;
- images per second, and shares of the time.

Every archive and file is read again, decoded and compared with the pixels: without that, no figure (exit code 1). A set
that is not here is skipped.
"""

from __future__ import annotations

import bz2
import lzma
import statistics
import sys
import tempfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import click
import numpy as np

from bbans import archive, zoo
from bbans.archive.plan import GROUP
from bbans.errors import BbansError
from bbans.image.codec import decode_chain, encode_chain
from bbans.image.files import read_bytes, write_bytes
from bbans.image.picture import Picture, compress_picture, decompress_picture
from bbans.workers import cores
from bench import common, peers, stopwatch
from bench.published import PUBLISHED
from bench.sets import SETS, Absent, TestSet

SINGLES = 100  # images that are also compressed as single files
WORDS = ("float_elbo", "elbo", "net", "initial", "container", "total")
GENERAL: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "zlib, level 9": (lambda data: zlib.compress(data, 9), zlib.decompress),
    "bz2, level 9": (lambda data: bz2.compress(data, 9), bz2.decompress),
    "xz, preset 9 extreme": (lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME), lzma.decompress),
}


# -- measurements ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Coded:
    """An archive of so many images that came back: bits of each word, and seconds of making and of reading it."""

    images: int
    dims: int
    net: float
    initial: float
    total: int
    compress: float
    decompress: float

    @property
    def container(self) -> float:
        return self.total - self.net - self.initial

    @property
    def rate(self) -> float:
        """`total` in bits per dim."""
        return self.total / self.dims


@dataclass(frozen=True)
class Size:
    """What another coder makes of a set, in bytes."""

    coder: str
    how: str
    bytes: int


@dataclass(frozen=True)
class Singles:
    """Images that are files of their own: bytes of all, of the archive of the same images, and of their `net` in it."""

    images: int
    dims: int
    files: int
    archived: int
    chained: float


@dataclass(frozen=True)
class Speed:
    """Images per second, with so many processes."""

    jobs: int
    compress: float
    decompress: float


def coded(images: TestSet, model: zoo.Model, jobs: int, group: int | None = None) -> Coded:
    """From an array in memory to an archive on disk, and back to an array on disk, loading the model included."""
    array = images.array
    with tempfile.TemporaryDirectory() as folder:
        file, back = Path(folder) / "set.bbansa", Path(folder) / "set.npy"
        begin = perf_counter()
        report = archive.create(file, array, model=model.path, group=group or GROUP, jobs=jobs)
        written = perf_counter()
        archive.extract_array(archive.read(file), back, jobs=jobs, search=model.path)
        end = perf_counter()
        decoded, size = np.load(back), file.stat().st_size
    if decoded.dtype != array.dtype or not np.array_equal(decoded, array):
        raise BbansError(f"{images.name}: the archive gives other pixels back")
    if report.models != (model.name,) or 8 * size != report.total:
        raise BbansError(f"{images.name}: the archive of {size} bytes is not the one that was reported")
    return Coded(len(array), report.dims, report.net, report.initial, 8 * size, written - begin, end - written)


def counts(images: int) -> list[int]:
    """1, 3, 10, 30, ... and all."""
    steps = [10**power * first for power in range(9) for first in (1, 3)]
    return [*(n for n in steps if n < images), images]


def elbos(images: TestSet, model: zoo.Model) -> dict[str, float | None]:
    """Bits of `float_elbo` and `elbo`, and of `net`, in chains as long as those of an archive."""
    bounds = model.float_bounds(images.pixels)
    stats = [
        encode_chain(model, images.pixels[i : i + GROUP], want_elbo=True)[1]
        for i in range(0, len(images.pixels), GROUP)
    ]
    return {
        "float_elbo": None if bounds is None else float(bounds.elbo.sum()),
        "elbo": sum(stat.elbo or 0.0 for stat in stats),
        "net": sum(stat.net for stat in stats),
    }


def singles(images: TestSet, model: zoo.Model, chain: Coded) -> Singles:
    """Each image as a file of its own. chain: the archive of the same images."""
    size = 0
    for i, picture in enumerate(images.pictures()):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "picture.bbans"
            write_bytes(file, compress_picture(picture, model, by_model=True)[0])
            size += file.stat().st_size
            decoded = decompress_picture(read_bytes(file), lambda _: model)
        if decoded.mode != picture.mode or not np.array_equal(decoded.pixels, picture.pixels):
            raise BbansError(f"{images.name}: the file of image {i} gives other pixels back")
    return Singles(len(images.pixels), images.pixels.size, size, chain.total // 8, chain.net / 8)


def image_coders(images: TestSet, jobs: int) -> list[Size]:
    """PNG and WebP, the sum of an image each. WebP has no bilevel mode and gets them as grey, 0 and 255."""
    sizes = []
    for peer, bilevel in ((peers.png(), True), (peers.webp(), False)):
        grey = images.mode == "1" and not bilevel
        pictures = [Picture(p.pixels * np.uint8(255), "L") for p in images.pictures()] if grey else images.pictures()
        with ThreadPoolExecutor(jobs) as pool:
            files = list(pool.map(lambda picture, peer=peer: peer.encode(picture)[0], pictures))
        for data, picture in zip(files, pictures, strict=True):
            if not peers.same_pixels(peer.decode(data)[0], picture):
                raise BbansError(f"{images.name}: {peer.name} gives other pixels back")
        sizes.append(Size(peer.name, f"image by image; {peer.how}", sum(map(len, files))))
    return sizes


def general_coders(images: TestSet) -> list[Size]:
    """Compressors of bytes, on all images as one array; of bilevel ones, a byte for each pixel and a bit for each."""
    forms = {"a byte a sample": images.pixels.tobytes()}
    if images.mode == "1":
        forms["a bit a pixel"] = np.packbits(images.pixels).tobytes()
    sizes = []
    for coder, (compress, decompress) in GENERAL.items():
        for form, raw in forms.items():
            data = compress(raw)
            if decompress(data) != raw:
                raise BbansError(f"{images.name}: {coder} gives other bytes back")
            sizes.append(Size(coder, f"the whole set; {form}", len(data)))
    return sizes


def speed(images: TestSet, model: zoo.Model, jobs: int, runs: int) -> Speed:
    """Medians of runs that are all checked."""
    done = [coded(images, model, jobs) for _ in range(runs)]
    compress = statistics.median(each.compress for each in done)
    decompress = statistics.median(each.decompress for each in done)
    return Speed(jobs, len(images.pixels) / compress, len(images.pixels) / decompress)


def shares(images: TestSet, model: zoo.Model) -> dict[str, dict[str, float]]:
    """Seconds of each share of coding one chain after another, in this process, the model being loaded."""
    chains = [images.pixels[i : i + GROUP] for i in range(0, len(images.pixels), GROUP)]
    with stopwatch.running() as compressing:
        payloads = [encode_chain(model, chain)[0] for chain in chains]
    with stopwatch.running() as decompressing:
        decoded = [decode_chain(model, payload, *x.shape) for payload, x in zip(payloads, chains, strict=True)]
    if not all(np.array_equal(back, chain) for back, chain in zip(decoded, chains, strict=True)):
        raise BbansError(f"{images.name}: a chain gives other pixels back")
    return {"compress": compressing.seconds, "decompress": decompressing.seconds}


@dataclass(frozen=True)
class Results:
    """All that was measured of one set. bits: of each of `WORDS`, over all images."""

    name: str
    model_id: str
    images: int
    dims: int
    bits: dict[str, float | None]
    archives: list[Coded]
    singles: Singles
    others: list[Size]
    speeds: list[Speed]
    speed_images: int
    shares: dict[str, dict[str, float]]

    def per_dim(self, word: str) -> float | None:
        bits = self.bits[word]
        return None if bits is None else bits / self.dims

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            **asdict(self),
            "per_dim": {word: self.per_dim(word) for word in WORDS},
            "published": [asdict(each) for each in PUBLISHED[self.name]],
        }


def measure(images: TestSet, model: zoo.Model, jobs: int, runs: int, speed_images: int) -> Results:
    """Everything. Raises `BbansError` when anything does not come back as it was."""

    def say(what: str) -> None:
        print(f"{images.name}: {what}", file=sys.stderr)

    bits = elbos(images, model)
    say("elbo counted")
    archives = [coded(images.first(n), model, jobs if n > GROUP else 1) for n in counts(len(images.pixels))]
    whole = archives[-1]
    if bits["net"] != whole.net:
        raise BbansError(f"{images.name}: elbo was counted for other chains than those of the archive")
    say("archives made")
    few = images.first(SINGLES)
    alone = singles(few, model, coded(few, model, 1))
    say("single files made")
    others = [*image_coders(images, jobs), *general_coders(images)]
    say("others measured")
    some = images.first(speed_images)
    speeds = [speed(some, model, n, runs) for n in dict.fromkeys((1, jobs))]
    return Results(
        name=images.name,
        model_id=model.id.hex(),
        images=whole.images,
        dims=whole.dims,
        bits={**bits, "initial": whole.initial, "container": whole.container, "total": float(whole.total)},
        archives=archives,
        singles=alone,
        others=others,
        speeds=speeds,
        speed_images=len(some.pixels),
        shares=shares(some, model),
    )


# -- report ------------------------------------------------------------------------------------------------------------


def section(found: Results) -> list[str]:
    """The lines of one set."""
    alone, whole = found.singles, found.archives[-1]
    bits = {word: found.bits[word] or 0.0 for word in WORDS}

    def rate(size: float, dims: int) -> str:
        return common.number(8 * size / dims)

    ours = [
        [
            f"{c.images:,}",
            f"{c.total // 8:,}",
            *(common.number(b / c.dims) for b in (c.net, c.initial, c.container, c.total)),
        ]
        for c in found.archives
    ]
    beside = [
        ["**bbans**, one archive", f"{whole.total // 8:,}", common.number(whole.rate), "counted", "this run"],
        *([o.coder, f"{o.bytes:,}", rate(o.bytes, found.dims), "-", o.how] for o in found.others),
        *([p.coder, "-", f"{p.rate:.2f}", p.initial, p.cited] for p in PUBLISHED[found.name]),
    ]
    files, archived, chained = (size / alone.images for size in (alone.files, alone.archived, alone.chained))
    return [
        f"## {found.name}",
        "",
        f"- {found.images:,} test images of {found.dims // found.images:,} samples; model id {found.model_id}",
        "",
        *common.table(["bits per dim", *WORDS], [["all images", *(common.number(found.per_dim(w)) for w in WORDS)]]),
        "",
        f"- total / elbo − 1: {100 * (bits['total'] / bits['elbo'] - 1):+.3f} %",
        f"- net − elbo: {(bits['net'] - bits['elbo']) / found.dims:+.6f} bits per dim",
        f"- the first {alone.images} images as single files: {files:.2f} bytes each "
        f"({rate(alone.files, alone.dims)} bits per dim), {files - archived:.2f} more than in one archive of them, "
        f"{files - chained:.2f} more than their net in it",
        "",
        *common.table(["archive of the first", "bytes", "net", "initial", "container", "total"], ours),
        "",
        *common.table(["coder", "bytes", "bits per dim", "initial bits", "how, or source"], beside),
        "",
        *common.table(
            [f"images per second, {found.speed_images:,} images", "compress", "decompress"],
            [[f"-j {s.jobs}", f"{s.compress:.1f}", f"{s.decompress:.1f}"] for s in found.speeds],
        ),
        "",
        *stopwatch.share_table(found.shares),
        "",
    ]


def plot(found: Results, path: Path) -> bool:
    """Bits per dim against the number of images; whether matplotlib is here to draw it."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    images = [each.images for each in found.archives]
    axes.semilogx(images, [each.rate for each in found.archives], "o-", color="C3", label="bbans, whole archive")
    nets = [each.net / each.dims for each in found.archives]
    axes.semilogx(images, nets, ":", color="C3", label="bbans, net of the same images")
    for i, each in enumerate(PUBLISHED[found.name]):
        label = f"{each.coder}, initial bits {each.initial}"
        axes.axhline(each.rate, color=f"C{i + 4}", linestyle="--", linewidth=1, label=label)
    axes.set(xlabel="images", ylabel="bits per dim", title=found.name)
    axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return True


def load(name: str, folders: Path | None) -> zoo.Model:
    """The model of a set, on one thread. Raises `ModelMissing`."""
    place = folders / name if folders else None
    return zoo.load(place if place and place.is_dir() else name, device="cpu", threads=1)


@click.command()
@click.argument("names", metavar="[SET]...", nargs=-1, type=click.Choice([*SETS]))
@click.option("--models", type=click.Path(file_okay=False, path_type=Path), help="A folder of folders of models.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N images of each set.")
@click.option("--jobs", "-j", type=click.IntRange(min=1), help="Processes.  [default: all cores]")
@click.option("--runs", type=click.IntRange(min=1), default=3, show_default=True, help="Runs to take medians of.")
@click.option("--speed-images", type=click.IntRange(min=1), default=2000, show_default=True, help="Images of a run.")
@common.output_option
def main(
    names: tuple[str, ...],
    models: Path | None,
    limit: int | None,
    jobs: int | None,
    runs: int,
    speed_images: int,
    output: Path,
) -> None:
    """Measure the SETs mnist-binary, mnist and cifar10.  [default: all]"""
    jobs = jobs or cores()
    results = []
    for name in names or SETS:
        try:
            images = SETS[name]()
        except Absent as error:
            print(f"{name} is skipped: {error}")
            continue
        try:
            results.append(
                measure(images.first(limit or len(images.pixels)), load(name, models), jobs, runs, speed_images)
            )
        except BbansError as error:
            sys.exit(f"{name}: {error}")
    if not results:
        print("nothing measured")
        return
    command = common.command_line("bench.yardsticks")
    lines = [
        "# Yardsticks",
        "",
        f"- `{command}`",
        f"- {common.machine_line()}",
        f"- archives in groups of {GROUP:,} images; rates made with {jobs} processes",
        "- a process has one thread; seconds include loading the model, and with several processes starting them",
        "",
        *(line for found in results for line in section(found)),
    ]
    record = {
        "command": command,
        "machine": common.machine(),
        "group": GROUP,
        "sets": {found.name: found.record() for found in results},
    }
    common.write_results(output, "yardsticks", record, lines)
    for found in results:
        drawn = plot(found, path := output / f"yardsticks-{found.name}.png")
        print(f"written: {path}" if drawn else "no plot without matplotlib: pip install 'bbans[plots]'")


if __name__ == "__main__":
    main()
