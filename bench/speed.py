"""How fast bbans is beside its peers, where its time goes, how long it takes to load, and how much memory it needs.

`python -m bench.speed [IMAGE...]`:
- MP/s from pixels in memory to a file's bytes and back, after load; medians over the runs, in which all coders take
  turns, so that whatever else the machine does meets them alike. The first run after load is shown apart.
- Shares of the time, from runs of their own, which are slower: `bench.stopwatch` says how they are counted.
- Seconds of `import bbans` and loading the model, in a fresh process; median of 3.
- Peak memory (max RSS) of `bbans compress` and `bbans decompress` in fresh processes.

A row of bbans is a model, an effort and a backend. Of each model all but the MP/s is measured at its first row.
"""

from __future__ import annotations

import functools
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter

import click
from torch import Tensor, nn

from bbans import zoo
from bbans.exact import backends
from bbans.exact.backends import backend_of, use
from bbans.exact.bytes import IntByteConv
from bbans.exact.layers import IntConv
from bbans.image import effort as effort_levels
from bbans.image.files import read_picture, write_picture
from bbans.image.picture import Picture, Pixels, compress_picture, decompress_picture
from bbans.memory import keep_large_buffers
from bench import common, peers, stopwatch

LOADS = 3
_LOAD = """
import sys, time
begin = time.perf_counter()
import bbans
from bbans.zoo import load
load(sys.argv[1], device="cpu", threads=int(sys.argv[2]))
print(time.perf_counter() - begin)
"""
# A child's max RSS includes what its parent had when it split off, so a small process must stand between.
_PEAK = """
import os, resource, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, _ = os.wait4(child.pid, 0)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)  # of those that it waited for, too
print(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True)
class Setting:
    """A row of bbans. model: a name or folder; backend: None for the fastest that computes the model exactly here."""

    model: str
    effort: int
    backend: str | None = None

    def __str__(self) -> str:
        return f"{self.model} e{self.effort}{f' {self.backend}' if self.backend else ''}"


@dataclass
class Times:
    """Seconds of one coder on one picture, run after run."""

    compress: list[float] = field(default_factory=list)
    decompress: list[float] = field(default_factory=list)

    def add(self, seconds: tuple[float, float]) -> None:
        self.compress.append(seconds[0])
        self.decompress.append(seconds[1])


@dataclass(frozen=True)
class Speed:
    """Of one coder over all pictures, in MP/s."""

    coder: str
    compress: float
    decompress: float


@dataclass(frozen=True)
class Own:
    """What is measured of one model at its first row. first_run: seconds of compressing and decompressing."""

    first_run: tuple[float, float]
    shares_seconds: dict[str, dict[str, float]]
    load_seconds: float
    peak_bytes: dict[str, int]
    mac_per_pixel: float
    parameters: int


def settings_of(models: Sequence[str], efforts: Sequence[list[int]]) -> list[Setting]:
    """The rows of bbans: efforts for all models, or a list of them for each. Without models, each effort's default.

    Raises `click.BadParameter`.
    """
    if len(efforts) not in {1, len(models)}:
        raise click.BadParameter(f"--efforts is given {len(efforts)} times for {len(models)} models: once, or for each")
    if not models:
        return [Setting(effort_levels.default_model(level), level) for level in efforts[0]]
    each = efforts if len(efforts) > 1 else [*efforts] * len(models)
    rows = [Setting(model, level) for model, levels in zip(models, each, strict=True) for level in levels]
    return list(dict.fromkeys(rows))


def firsts_of(settings: Sequence[Setting]) -> list[Setting]:
    """The first row of each model."""
    firsts: dict[str, Setting] = {}
    for setting in settings:
        firsts.setdefault(setting.model, setting)
    return list(firsts.values())


def with_backends(settings: Sequence[Setting], threads: int) -> list[Setting]:
    """Return the rows, followed by the first row of each model under every other backend that is exact here."""
    others = [
        replace(setting, backend=tried.backend)
        for setting in firsts_of(settings)
        for tried in backends.describe(zoo.load(setting.model, device="cpu", threads=threads).network)
        if tried.seconds is not None and not tried.used
    ]
    return [*settings, *others]


def load(settings: Sequence[Setting], threads: int) -> list[zoo.Model]:
    """The model of each setting; those that share model and backend share one."""

    @functools.cache
    def loaded(model: str, backend: str | None) -> zoo.Model:
        found = zoo.load(model, device="cpu", threads=threads)
        return replace(found, network=use(found.network, backend)) if backend else found

    return [loaded(setting.model, setting.backend) for setting in settings]


def own(setting: Setting, model: zoo.Model) -> peers.Peer:
    """bbans as a peer of the others."""

    def encode(picture: Picture) -> tuple[bytes, float]:
        begin = perf_counter()
        data, _ = compress_picture(picture, model, effort=setting.effort)
        return data, perf_counter() - begin

    def decode(data: bytes) -> tuple[Pixels, float]:
        begin = perf_counter()
        picture = decompress_picture(data, lambda _: model)
        return picture.pixels, perf_counter() - begin

    how = f"bbans, model {model.name}, id {model.id.hex()}, effort {setting.effort}, {backend_of(model.network)}"
    return peers.Peer(str(setting), how, encode, decode)


def once(coder: peers.Peer, picture: Picture) -> tuple[float, float]:
    """Seconds of compressing and decompressing. Exits when other pixels come back."""
    data, compress = coder.encode(picture)
    pixels, decompress = coder.decode(data)
    if not peers.same_pixels(pixels, picture):
        sys.exit(f"{coder.name} gives other pixels back")
    return compress, decompress


def take_turns(coders: Sequence[peers.Peer], pictures: Sequence[Picture], runs: int) -> list[Speed]:
    """MP/s of each coder: all pixels by the sum of the medians."""
    times = {coder.name: [Times() for _ in pictures] for coder in coders}
    for _ in range(runs):
        for i, picture in enumerate(pictures):
            for coder in coders:
                times[coder.name][i].add(once(coder, picture))
    megapixels = sum(picture.width * picture.height for picture in pictures) / 1e6

    def speed(lists: list[list[float]]) -> float:
        return megapixels / sum(map(statistics.median, lists))

    return [
        Speed(name, speed([t.compress for t in mine]), speed([t.decompress for t in mine]))
        for name, mine in times.items()
    ]


def shares(coder: peers.Peer, pictures: Sequence[Picture], runs: int) -> dict[str, dict[str, float]]:
    """Seconds of each share for all pictures, of compressing and of decompressing; the mean of the runs."""

    def watched(work: Callable[[], object]) -> dict[str, float]:
        with stopwatch.running() as watch:
            for _ in range(runs):
                work()
        return {share: seconds / runs for share, seconds in watch.seconds.items()}

    files = [coder.encode(picture)[0] for picture in pictures]
    return {
        "compress": watched(lambda: [coder.encode(picture) for picture in pictures]),
        "decompress": watched(lambda: [coder.decode(data) for data in files]),
    }


def load_seconds(model: str, threads: int) -> float:
    """Of `import bbans` and loading a model in a fresh process, which has started before the clock does."""
    command = [sys.executable, "-c", _LOAD, model, str(threads)]
    said = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(LOADS)]
    return statistics.median(map(float, said))


def peak_bytes(picture: Picture, setting: Setting, threads: int) -> dict[str, int]:
    """Max RSS of the commands `bbans compress` and `bbans decompress`, each in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        source, file, back = (str(Path(folder) / name) for name in ("a.png", "a.bbans", "b.png"))
        write_picture(picture, Path(source))

        def peak(*arguments: str) -> int:
            # its folder, because bbans decompress takes no names
            flags = ["--threads", str(threads), "-m", str(zoo.find(setting.model).path)]
            return peak_of([sys.executable, "-m", "bbans", *arguments, *flags])

        compress = peak("compress", source, "-o", file, "--effort", str(setting.effort))
        peaks = {"compress": compress, "decompress": peak("decompress", file, "-o", back)}
        if not peers.same_pixels(read_picture(back).pixels, picture):
            sys.exit("bbans gives other pixels back")
        return peaks


def peak_of(command: list[str]) -> int:
    """Max RSS of a command, or of the largest process that it starts. Ends this process if it fails."""
    done = subprocess.run([sys.executable, "-c", _PEAK, *command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    return int(done.stdout)


def size_of(model: zoo.Model, picture: Picture) -> dict[str, float]:
    """Multiplications a pixel of compressing a picture, which is what decompressing takes, and parameters."""
    done = 0

    def count(layer: nn.Module, _: object, out: Tensor) -> None:
        nonlocal done
        assert isinstance(layer, IntConv | IntByteConv)
        done += out.numel() * layer.weight[0].numel()

    layers = [m for m in model.network.modules() if isinstance(m, IntConv | IntByteConv)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    compress_picture(picture, model)
    for hook in hooks:
        hook.remove()
    parameters = sum(layer.weight.numel() + layer.bias.numel() for layer in layers)
    return {"mac_per_pixel": done / (picture.width * picture.height), "parameters": parameters}


def describe(own: Own, megapixels: float) -> list[str]:
    """The lines of one model. megapixels: of the first picture."""
    compress, decompress = (megapixels / seconds for seconds in own.first_run)
    return [
        f"First run after load: compress {compress:.2f}, decompress {decompress:.2f} MP/s",
        "",
        *stopwatch.share_table(own.shares_seconds),
        "",
        f"Import and load: {own.load_seconds:.2f} s",
        "",
        f"Networks: {own.mac_per_pixel / 1e3:.1f} kMAC a pixel, {own.parameters:,} parameters",
        "",
        f"Peak memory, first picture: {', '.join(f'{what} {b / 1e9:.2f} GB' for what, b in own.peak_bytes.items())}",
    ]


def speed_table(speeds: Sequence[Speed], jxls: Sequence[str] = ()) -> list[str]:
    """MP/s, and how often that is what JPEG XL does. jxls: of its rows; of each release the first is compared with.

    The last columns compare decoders; those before them take both directions by what the first release encodes.
    """
    firsts: dict[str, Speed] = {}  # by release
    for speed in speeds:
        if speed.coder in jxls:
            firsts.setdefault(speed.coder.rpartition(" ")[0], speed)
    encoder = next(iter(firsts.values()), None)
    over = f" / {encoder.coder}" if encoder else " / cjxl"

    def line(own: Speed) -> list[str]:
        compress, decompress = (
            common.number(None if encoder is None else speed / encoder.compress, 2)
            for speed in (own.compress, own.decompress)
        )
        decoders = (common.number(own.decompress / first.decompress, 2) for first in firsts.values())
        return [own.coder, f"{own.compress:.2f}", f"{own.decompress:.2f}", compress, decompress, *decoders]

    decoders = (f"decompress / {first.coder.replace('cjxl', 'djxl')}" for first in firsts.values())
    head = ["MP/s", "compress", "decompress", f"compress{over}", f"decompress{over}", *decoders]
    return common.table(head, map(line, speeds))


@click.command()
@click.argument("images", metavar="[IMAGE]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "-m",
    "--model",
    "models",
    metavar="MODEL",
    multiple=True,
    help="A model's name or folder; may be given several times.  [default: photo; for efforts up to 3, photo-fast]",
)
@common.output_option
@click.option("--runs", type=click.IntRange(min=1), default=5, show_default=True, help="Runs to take medians of.")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="Threads of bbans.")
@click.option(
    "--efforts",
    multiple=True,
    default=[str(effort_levels.DEFAULT)],
    metavar="EFFORTS",
    callback=lambda _, __, texts: [common.efforts_of(text) for text in texts],
    help=f"Efforts of bbans: once for all models, or once for each -m, in order.  [default: {effort_levels.DEFAULT}]",
)
@click.option(
    "--backends", "every_backend", is_flag=True, help="Add rows for all backends, at each model's first effort."
)
@common.jxl_option("7")
def main(
    images: tuple[Path, ...],
    models: tuple[str, ...],
    output: Path,
    runs: int,
    threads: int,
    efforts: list[list[int]],
    every_backend: bool,
    jxl: list[int],
) -> None:
    """Measure speed and memory on IMAGEs.  [default: kodak/kodim01.png in the data folder]

    Shares, load and memory are those of each model at its first effort. Peers have one thread.
    """
    settings = settings_of(models, efforts)
    if every_backend:
        settings = with_backends(settings, threads)
    pictures = [read_picture(path, strip=True) for path in common.images(images, "kodak/kodim01.png")]
    firsts = firsts_of(settings)
    peaks = [peak_bytes(pictures[0], setting, threads) for setting in firsts]
    loads = [load_seconds(setting.model, threads) for setting in firsts]

    keep_large_buffers()  # as the command does
    networks = dict(zip(settings, load(settings, threads), strict=True))
    bbans = {setting: own(setting, network) for setting, network in networks.items()}
    first_runs = [once(bbans[setting], pictures[0]) for setting in firsts]
    jxls = peers.jxls(*jxl)
    coders = [*bbans.values(), *jxls, peers.webp(), peers.png()]
    speeds = take_turns(coders, pictures, runs)
    owns = {
        setting.model: Own(
            first_run,
            shares(bbans[setting], pictures, min(runs, 3)),
            seconds,
            peak,
            **size_of(networks[setting], pictures[0]),
        )
        for setting, first_run, seconds, peak in zip(firsts, first_runs, loads, peaks, strict=True)
    }

    megapixels = pictures[0].width * pictures[0].height / 1e6
    record = {
        "command": common.command_line("bench.speed"),
        "machine": common.machine(),
        "threads": threads,
        "settings": {str(setting): asdict(setting) for setting in settings},
        "coders": {coder.name: coder.how for coder in coders},
        "speeds": [asdict(speed) for speed in speeds],
        "models": {model: asdict(mine) for model, mine in owns.items()},
    }
    lines = [
        "# Speed",
        "",
        f"- `{record['command']}`",
        f"- {common.machine_line()}; {threads} threads for the networks of bbans",
        *(f"- {coder.name}: {coder.how}" for coder in coders),
        "",
        *speed_table(speeds, [peer.name for peer in jxls]),
    ]
    for setting in firsts:
        lines += ["", *([f"## {setting}", ""] if len(firsts) > 1 else []), *describe(owns[setting.model], megapixels)]
    common.write_results(output, "speed", record, lines)


if __name__ == "__main__":
    main()
