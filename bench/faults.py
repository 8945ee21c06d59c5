"""Damaged and hostile files: is there ever a wrong picture, a crash, a hang, or too much memory?

`python -m bench.faults [--quick] [--mutations N]`: every truncation and every flipped bit of small files, and random
mutations (`bench.mutations`) of these and of larger ones, also such as have all their checksums put right. A file may
give its picture, or a `BbansError`. What does anything else is written to OUTDIR/faults, and makes exit code 1:

    wrong    another picture, and no error
    crash    any other exception; also `MemoryError`, for the process may take no more than `MEMORY` bytes more
    hang     `SECONDS` are not enough for one file

Who puts checksums right can give a picture another shape or other metadata; then its samples must be the original's.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from bbans import archive, zoo
from bbans.archive import coding
from bbans.errors import BadOutput, BbansError, ModelMissing
from bbans.image import container
from bbans.image.files import encoded
from bbans.image.modes import MODES
from bbans.image.picture import Picture, compress_picture, decompress_picture
from bbans.image.sheets import take_apart
from bench import common, mutations

SEED = 1
SECONDS = 20.0
MEMORY = 4 << 30
SMALL, SMALL_QUICK = 6000, 60  # bytes up to which all truncations and flipped bits of a file are tried
MUTATIONS, MUTATIONS_QUICK = 24_000, 1_000
GOLDEN = common.ROOT / "tests" / "golden"
MODELS = ("photo", "mnist-binary", *(str(path.parent) for path in sorted(GOLDEN.glob(f"*/*/{zoo.WEIGHTS}"))))
PICTURES = (("RGB", 16, 24), ("L", 30, 40), ("RGBA", 24, 32), ("P", 48, 64), ("I;16", 16, 24), ("RGB", 192, 256))


class Wrong(Exception):
    """Another picture came back, and no error."""


class Hang(BaseException):
    """The time is up."""


@dataclass(frozen=True)
class Sample:
    """A whole file. read(data, resealed): raises `BbansError`, or `Wrong`; methods: of its pieces."""

    name: str
    data: bytes
    read: Callable[[bytes, bool], None]
    methods: frozenset[int] = frozenset()

    @property
    def is_archive(self) -> bool:
        return not self.methods


@dataclass(frozen=True)
class Kind:
    """Random mutations. share: of all; takes: whether they are made of a file; resealed: with right checksums."""

    name: str
    share: float
    make: Callable[[bytes, Random], bytes]
    takes: Callable[[Sample], bool]
    resealed: bool = True


@dataclass
class Tally:
    """What became of mutations."""

    name: str
    tried: int = 0
    harmless: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0

    def row(self) -> list[str]:
        """A line of the table."""
        errors = ", ".join(f"{count:,} {name}" for name, count in self.errors.most_common())
        faults = [str(self.faults[what]) for what in ("wrong", "crash", "hang")]
        return [self.name, f"{self.tried:,}", f"{self.harmless:,}", *faults, f"{1000 * self.slowest:.0f}", errors]


# -- files and what reads them -----------------------------------------------------------------------------------------


class Readers:
    """What reads files by models that are loaded once, and compares with the originals."""

    def __init__(self, models: Iterable[zoo.Model], folder: Path) -> None:
        self.models = {model.id: model for model in models}
        self._file = folder / "mutation.bbansa"
        self._known: dict[Any, Any] = {}

    def sample(self, name: str, data: bytes) -> Sample:
        """Of a whole file."""
        if data.startswith(container.ARCHIVE_MAGIC):
            return Sample(name, data, self._archive(data))
        return Sample(name, data, self._picture(data), frozenset(p.method for p in container.Header.parse(data).pieces))

    def _find(self, model_id: bytes) -> zoo.Model:
        if model_id not in self.models:
            raise ModelMissing(model_id.hex())
        return self.models[model_id]

    def _picture(self, data: bytes) -> Callable[[bytes, bool], None]:
        original = decompress_picture(data, self._find)

        def read(damaged: bytes, resealed: bool) -> None:
            with contextlib.suppress(BbansError, UnidentifiedImageError, Image.DecompressionBombError):
                Image.open(io.BytesIO(damaged), formats=["BBANS"]).close()
            picture = decompress_picture(damaged, self._find)
            same = (picture.mode, picture.attributes) == (original.mode, original.attributes) or resealed
            if not same or _samples(picture) != _samples(original):
                raise Wrong
            with contextlib.suppress(BadOutput):
                encoded(picture, ".png")

        return read

    def _archive(self, data: bytes) -> Callable[[bytes, bool], None]:
        original = self._pictures(data, keep_going=False)
        pixels = set(original.values())

        def read(damaged: bytes, resealed: bool) -> None:
            for keep_going in (True, False):
                found = self._pictures(damaged, keep_going)
                if not (pixels.issuperset(found.values()) if resealed else original.items() >= found.items()):
                    raise Wrong

        return read

    def _pictures(self, data: bytes, keep_going: bool) -> dict[tuple[int, str], bytes]:
        """Pixels by position and name, of all pictures or of those that are left."""
        self._file.write_bytes(data)
        opened = archive.read(self._file, keep_going=keep_going)
        decoded: dict[int, Iterator[NDArray[Any]]] = {}
        for group in opened.groups:
            try:
                decoded[group.number] = iter(self._decoded(group.header, opened.payload(group)))
            except BbansError:
                if not keep_going:
                    raise
        there = (entry for entry in opened.entries if entry.group in decoded)
        return {(entry.position, entry.name): next(decoded[entry.group]).tobytes() for entry in there}

    def _decoded(self, header: archive.format.Header, payload: bytes) -> NDArray[Any]:
        """Of groups of which only places and names have changed, what is known."""
        key = replace(header, runs=(), names=()), header.count, payload
        if key not in self._known:
            pixels = coding.decode(self._find, (header, payload))  # type: ignore[arg-type]
            if isinstance(pixels, BbansError):
                raise pixels
            self._known[key] = pixels
        return self._known[key]


def _samples(picture: Picture) -> list[bytes]:
    return [sheet.tobytes() for sheet in take_apart(picture.pixels, picture.mode)]


def files(models: dict[str, zoo.Model], folder: Path) -> Iterator[tuple[str, bytes]]:
    """Names and bytes: the golden files, and some that the shipped models make."""
    for path in sorted(GOLDEN.glob("*/*.bbans*")):
        yield f"{path.parent.name}-{path.name}", path.read_bytes()
    for mode, height, width in PICTURES:
        attributes = {"palette": bytes(range(240))} if mode == "P" else {"text/Title": b"tfaults", "dpi": b"72 72"}
        picture = Picture(waves(mode, height, width), mode, attributes)
        yield f"{mode.replace(';', '')}-{width}x{height}.bbans", compress_picture(picture, models["photo"])[0]
    digits = np.stack([waves("1", 28, 28) ^ (np.arange(28) > i).astype(np.uint8)[:, None] for i in range(6)])
    yield "digit.bbans", compress_picture(Picture(digits[0], "1"), models["mnist-binary"], by_model=True)[0]
    archive.create(folder / "digits.bbansa", [digits[..., 0] > 0], model=models["mnist-binary"], group=3)
    yield "digits.bbansa", (folder / "digits.bbansa").read_bytes()


def waves(mode: str, height: int, width: int) -> NDArray[Any]:
    """Something like a photograph of that mode."""
    y, x, c = np.ogrid[:height, :width, : MODES[mode].channels]
    noise = np.random.default_rng(SEED).normal(0, 3, (height, width, MODES[mode].channels))
    values = np.clip(128 + 60 * np.sin(x / 9 + c) + 50 * np.cos(y / 7) + noise, 0, 255)
    return (values * {"1": 1 / 128, "P": 1 / 4, "I;16": 257}.get(mode, 1)).astype(MODES[mode].dtype)


# -- trials ------------------------------------------------------------------------------------------------------------


def kinds(ids: list[bytes]) -> list[Kind]:
    """All kinds of random mutations. ids: of the models."""

    def picture(sample: Sample) -> bool:
        return not sample.is_archive and len(sample.data) <= SMALL

    def cheap(sample: Sample) -> bool:
        return picture(sample) and (container.MODEL not in sample.methods or len(sample.data) < 100)

    def by_model(sample: Sample) -> bool:
        return picture(sample) and container.MODEL in sample.methods

    def by_library(sample: Sample) -> bool:
        return picture(sample) and container.MODEL not in sample.methods

    def large(sample: Sample) -> bool:
        return len(sample.data) > SMALL

    def large_picture(sample: Sample) -> bool:
        return large(sample) and not sample.is_archive

    def is_archive(sample: Sample) -> bool:
        return sample.is_archive

    return [
        Kind("random bytes, large files", 0.42, mutations.mutated, large, resealed=False),
        Kind("beginnings, versions, ends", 0.04, mutations.foreign, lambda _: True, resealed=False),
        Kind("fields, resealed", 0.12, lambda d, r: mutations.hostile_header(d, r, ids), picture),
        Kind("bytes of headers, resealed", 0.12, mutations.hostile_body, picture),
        Kind("attributes, resealed", 0.08, mutations.hostile_attributes, cheap),
        Kind("payloads by models, resealed", 0.10, mutations.hostile_payload, by_model),
        Kind("payloads by libraries, resealed", 0.05, mutations.hostile_payload, by_library),
        Kind("large payloads, resealed", 0.004, mutations.hostile_payload, large_picture),
        Kind("other shapes and methods, resealed", 0.04, lambda d, r: mutations.other_picture(d, r, ids), picture),
        Kind("headers of groups, resealed", 0.02, lambda d, r: mutations.hostile_group(d, r, ids), is_archive),
        Kind("chains, resealed", 0.02, mutations.hostile_chain, is_archive),
        Kind("indices, resealed", 0.006, mutations.hostile_index, is_archive),
    ]


def trial(tally: Tally, sample: Sample, data: bytes, resealed: bool, folder: Path) -> None:
    """Read one mutation, count what became of it, and keep it if that is a fault."""
    tally.tried += 1
    begun = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    fault = why = ""
    try:
        sample.read(data, resealed)
        tally.harmless += 1
    except BbansError as error:
        tally.errors[type(error).__name__] += 1
    except (Wrong, Hang, Exception) as error:
        fault = {Wrong: "wrong", Hang: "hang"}.get(type(error), "crash")
        why = traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    tally.slowest = max(tally.slowest, time.perf_counter() - begun)
    if fault:
        tally.faults[fault] += 1
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{fault}-{tally.name}-{tally.tried}-{sample.name}".replace(" ", "-")
        (folder / name).write_bytes(data)
        (folder / f"{name}.txt").write_text(why)


def ring(*_: object) -> None:
    """The alarm clock."""
    raise Hang


def bound_memory() -> None:
    """More than `MEMORY` bytes beyond what the process has is a `MemoryError`."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, resource.RLIM_INFINITY))


@click.command()
@click.option("--quick", is_flag=True, help=f"{MUTATIONS_QUICK:,} random mutations; all bits of the smallest files.")
@click.option("--mutations", "count", type=click.IntRange(min=0), help=f"Random ones.  [default: {MUTATIONS:,}]")
@common.output_option
def main(quick: bool, count: int | None, output: Path) -> None:
    """Damage files in many ways, read them, and count what becomes of it."""
    faulthandler.enable()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, ring)
    count = (MUTATIONS_QUICK if quick else MUTATIONS) if count is None else count
    small = SMALL_QUICK if quick else SMALL
    begun = time.perf_counter()
    tallies = []
    with tempfile.TemporaryDirectory() as name:
        models = {model: zoo.load(model, device="cpu") for model in MODELS}
        readers = Readers(models.values(), Path(name))
        samples = [readers.sample(*file) for file in files(models, Path(name))]
        bound_memory()
        for what, all_of in (("truncations", mutations.cuts), ("flipped bits", mutations.flips)):
            tallies.append(Tally(f"all {what}"))
            for sample in samples:
                for data in all_of(sample.data) if len(sample.data) <= small else ():
                    trial(tallies[-1], sample, data, False, output / "faults")
        tallies.append(Tally("bombs, resealed"))
        for make, is_archive in ((mutations.bombs, False), (mutations.archive_bombs, True)):
            sample = next(sample for sample in samples if sample.is_archive == is_archive)
            for data in make(models["photo"].id):
                trial(tallies[-1], sample, data, True, output / "faults")
        for kind in kinds([*readers.models, container.NO_MODEL, bytes(range(8))]):
            random, chosen = Random(f"{SEED} {kind.name}"), [sample for sample in samples if kind.takes(sample)]
            tallies.append(Tally(kind.name))
            for _ in range(round(kind.share * count)):
                sample = random.choice(chosen)
                trial(tallies[-1], sample, kind.make(sample.data, random), kind.resealed, output / "faults")
    tried, faults = sum(tally.tried for tally in tallies), sum(tally.faults.total() for tally in tallies)
    record = {
        "command": common.command_line("bench.faults"),
        "machine": common.machine(),
        "seconds": time.perf_counter() - begun,
        "kinds": {tally.name: vars(tally) for tally in tallies},
    }
    head = ["damage", "tried", "harmless", "wrong", "crashes", "hangs", "slowest, ms", "errors"]
    lines = [
        "# Faults",
        "",
        f"- `{record['command']}`",
        f"- {common.machine_line()}",
        f"- {len(samples)} files; {MEMORY >> 30} GiB more than models take, and {SECONDS:.0f} s for each mutation",
        "",
        *common.table(head, [tally.row() for tally in tallies]),
        "",
        f"{tried:,} mutations in {record['seconds']:.0f} s: {faults or 'no'} faults",
    ]
    common.write_results(output, "faults", record, lines)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
