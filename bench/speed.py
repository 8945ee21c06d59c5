"""How fast bbans is beside its peers, where its time goes, how long it takes to load, and how much memory it needs.

`python -m bench.speed [IMAGE...]`:
- MP/s from pixels in memory to a file's bytes and back, after load; medians over the runs, in which all coders take
  turns, so that whatever else the machine does meets them alike. The first run after load is shown apart.
- Shares of the time, from runs of their own, which are slower: `bench.stopwatch` says how they are counted.
- Seconds of `import bbans` and loading the model, in a fresh process; median of 3.
- Peak memory (max RSS) of `bbans compress` and `bbans decompress` in fresh processes.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter

import click
from torch import Tensor, nn

from bbans import zoo
from bbans.exact.bytes import IntByteConv
from bbans.exact.layers import IntConv
from bbans.image import effort
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
load(sys.argv[1] or None, device="cpu", threads=int(sys.argv[2]))
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


def own(model: zoo.Model, effort: int) -> peers.Peer:
    """bbans as a peer of the others."""

    def encode(picture: Picture) -> tuple[bytes, float]:
        begin = perf_counter()
        data, _ = compress_picture(picture, model, effort=effort)
        return data, perf_counter() - begin

    def decode(data: bytes) -> tuple[Pixels, float]:
        begin = perf_counter()
        picture = decompress_picture(data, lambda _: model)
        return picture.pixels, perf_counter() - begin

    return peers.Peer(f"bbans e{effort}", f"{model.name}, id {model.id.hex()}, effort {effort}", encode, decode)


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


def load_seconds(model: str | None, threads: int) -> float:
    """Of `import bbans` and loading a model in a fresh process, which has started before the clock does."""
    command = [sys.executable, "-c", _LOAD, model or "", str(threads)]
    said = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(LOADS)]
    return statistics.median(map(float, said))


def peak_bytes(picture: Picture, model: str | None, threads: int, level: int) -> dict[str, int]:
    """Max RSS of the commands `bbans compress` and `bbans decompress`, each in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        source, file, back = (str(Path(folder) / name) for name in ("a.png", "a.bbans", "b.png"))
        write_picture(picture, Path(source))

        def peak(*arguments: str) -> int:
            flags = ["--threads", str(threads), *(["-m", model] if model else [])]
            return peak_of([sys.executable, "-m", "bbans", *arguments, *flags])

        compress = peak("compress", source, "-o", file, "--effort", str(level))
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


@click.command()
@click.argument("images", metavar="[IMAGE]...", nargs=-1, type=click.Path(path_type=Path))
@common.model_option
@common.output_option
@click.option("--runs", type=click.IntRange(min=1), default=5, show_default=True, help="Runs to take medians of.")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="Threads of bbans.")
@click.option("--efforts", default=str(effort.DEFAULT), show_default=True, help="Efforts of bbans.")
@click.option("--jxl", default="7", show_default=True, help="Efforts of JPEG XL.")
def main(
    images: tuple[Path, ...],
    model: str | None,
    output: Path,
    runs: int,
    threads: int,
    efforts: str,
    jxl: str,
) -> None:
    """Measure speed and memory on IMAGEs.  [default: kodak/kodim01.png in the data folder]

    Shares, load and memory are those at the first effort.
    """
    pictures = [read_picture(path, strip=True) for path in common.images(images, "kodak/kodim01.png")]
    levels = [int(level) for level in efforts.split(",")]
    memory = peak_bytes(pictures[0], model, threads, levels[0])
    seconds = load_seconds(model or effort.default_model(levels[0]), threads)

    keep_large_buffers()  # as the command does
    models = common.models_of(model, levels, threads)
    network = models[levels[0]]
    bbans, *more = (own(models[level], level) for level in levels)
    first = once(bbans, pictures[0])
    coders = [bbans, *more, *peers.jxls(*map(int, jxl.split(","))), peers.webp(), peers.png()]
    speeds = take_turns(coders, pictures, runs)
    parts = shares(bbans, pictures, min(runs, 3))
    size = size_of(network, pictures[0])

    megapixels = pictures[0].width * pictures[0].height / 1e6
    record = {
        "command": common.command_line("bench.speed"),
        "machine": common.machine(),
        "threads": threads,
        "coders": {coder.name: coder.how for coder in coders},
        "speeds": [asdict(speed) for speed in speeds],
        "first_run": {"compress": megapixels / first[0], "decompress": megapixels / first[1]},
        "shares_seconds": parts,
        "load_seconds": seconds,
        "peak_bytes": memory,
        **size,
    }
    lines = [
        "# Speed",
        "",
        f"- `{record['command']}`",
        f"- {common.machine_line()}; {threads} threads for the networks of bbans",
        *(f"- {coder.name}: {coder.how}" for coder in coders),
        "",
        *speed_table(speeds),
        "",
        f"First run after load: compress {megapixels / first[0]:.2f}, decompress {megapixels / first[1]:.2f} MP/s",
        "",
        *stopwatch.share_table(parts),
        "",
        f"Import and load: {seconds:.2f} s",
        "",
        f"Networks: {size['mac_per_pixel'] / 1e3:.1f} kMAC a pixel, {size['parameters']:,} parameters",
        "",
        f"Peak memory, first picture: {', '.join(f'{what} {value / 1e9:.2f} GB' for what, value in memory.items())}",
    ]
    common.write_results(output, "speed", record, lines)


def speed_table(speeds: Sequence[Speed]) -> list[str]:
    """MP/s, and how often that is what the first cjxl encodes."""
    cjxl = next((speed for speed in speeds if speed.coder.startswith("JXL")), None)
    over = f" / {cjxl.coder.replace('JXL', 'cjxl')}" if cjxl else " / cjxl"

    def ratio(speed: float) -> str:
        return common.number(None if cjxl is None else speed / cjxl.compress, 2)

    return common.table(
        ["MP/s", "compress", "decompress", f"compress{over}", f"decompress{over}"],
        [[s.coder, f"{s.compress:.2f}", f"{s.decompress:.2f}", ratio(s.compress), ratio(s.decompress)] for s in speeds],
    )


if __name__ == "__main__":
    main()
