"""`bbans info` and `bbans models`: what files say of themselves, and which models there are.

Decodes nothing unless it is asked what bits are for.
"""

from __future__ import annotations

import functools
import io
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from bbans.cli import shared
from bbans.cli.batch import Batch, Task, batch_options
from bbans.errors import BadBackend, BadFile
from bbans.image.container import METHOD_NAMES, NO_MODEL, SUFFIX, Header

if TYPE_CHECKING:
    from bbans.zoo import ModelInfo

BAR = 50  # characters


@click.command()
@batch_options(suffixes=lambda: [SUFFIX], writes=False)
@click.option("--plot", is_flag=True, help="Decode them, too, and draw what their bits are for.")
@shared.search_option
def info(batch: Batch, plot: bool, model: Path | None) -> None:
    """Tell what .bbans files hold, from their headers alone.

    \b
    bbans info photo.bbans          size, mode, what coded it
    bbans info --plot photo.bbans   likelihood, prior, bits back and the rest, as bars
    """
    from bbans.zoo import available

    known = [*available(), *(available(model) if model else ())]  # one in `model` may have the name of another
    names = {each.id: each.name for each in known}
    find = shared.ModelFinder(model, "auto", None) if plot else None

    def finish(task: Task, read: tuple[Header, int, dict[str, float]]) -> None:
        header, size, parts = read
        tiles = len(header.pieces) // len(header.sheets)
        methods = Counter(METHOD_NAMES[piece.method] for piece in header.pieces)
        record: dict[str, Any] = {
            "input": task.source.name,
            "bytes": size,
            "version": header.version,
            "width": header.width,
            "height": header.height,
            "mode": header.mode,
            "dims": header.dims,
            "tiles": tiles,
            "pieces": dict(methods),
            "model": names.get(header.model_id),
            "model_id": header.model_id.hex() if header.model_id != NO_MODEL else None,
            "attributes": {name: len(value) for name, value in header.attributes.items()},
            "total": 8 * size / header.dims,
        }
        if plot:
            record["parts"] = {name: bits / header.dims for name, bits in parts.items()}
        by = [f"model {record['model'] or str(record['model_id']) + ' (not found here)'}"] if methods["model"] else []
        by += [f"{name} ({count} of {len(header.pieces)})" for name, count in methods.items() if name != "model"]
        batch.say(
            f"{task.source.name}: {header.width} x {header.height} {header.mode}, {tiles} tile{'s' * (tiles > 1)}, "
            f"{', '.join(by)}, {size} bytes, {record['total']:.3f} bits per dim"
            + (f", with {', '.join(header.attributes)}" if header.attributes else "")
            + "".join(f"\n{line}" for line in _bars(parts, header.dims)),
            record,
        )

    batch.run(functools.partial(_read, find), finish)


def _bars(parts: dict[str, float], dims: int) -> list[str]:
    """A line for each part of a file's bits: its name, bits per dim, and a bar; of what comes back, a hollow one."""
    width, most = max(map(len, parts), default=0), max((abs(bits) for bits in parts.values()), default=0.0)
    return [
        f"  {name:<{width}} {bits / dims:9.4f}  {('░' if bits < 0 else '█') * round(BAR * abs(bits) / most)}".rstrip()
        for name, bits in parts.items()
    ]


def _read(find: shared.ModelFinder | None, task: Task) -> tuple[Header, int, dict[str, float]]:
    """The header of a file, the file's size, and what its bits are for, if models are to be found for it."""
    from bbans.image.accounts import account
    from bbans.image.files import naming, open_regular

    with naming(task.source.name), ExitStack() as stack:
        if task.source.path is None:
            file: BinaryIO = io.BytesIO(task.source.data or b"")
        else:
            file = stack.enter_context(open_regular(task.source.path, BadFile))
        header, size = Header.read(file, limit=None), file.seek(0, io.SEEK_END)
        file.seek(0)
        return header, size, account(file.read(), find) if find else {}


@click.command()
@functools.partial(shared.model_option, default="all")
@click.option("--backends", is_flag=True, help="Load them, and tell what their networks can be computed by here.")
@shared.device_options
@shared.json_option
def models(model: str | None, backends: bool, device: str, threads: int | None, as_json: bool) -> None:
    """List the models that are found: the shipped ones, and those in the folders of BBANS_MODELS.

    With --backends there is a line for each arithmetic that can compute a model: whether it computes exactly here, the
    milliseconds that the networks then take on a small map, and which one is used: the fastest exact one, or that which
    the environment variable BBANS_BACKEND names.

    \b
    bbans models                       name, id, size and folder of each
    bbans models --backends -m photo   int8, float32 and float64, measured on this machine
    """
    from bbans.zoo import available, find

    found = [find(model)] if model else available()
    if backends:
        by_path = {info.path: info for info in found}
        shared.for_each(by_path, lambda path: _tell_backends(by_path[path], device, threads, as_json))
        return
    for info in found:
        if as_json:
            record = {"model": info.name, "model_id": info.id.hex(), "bytes": info.bytes, "path": str(info.path)}
            shared.say_json(record)
        else:
            shared.say(f"{info.name:<16} {info.id.hex()}  {info.bytes / 1e6:6.2f} MB  {info.path}")


def _tell_backends(info: ModelInfo, device: str, threads: int | None, as_json: bool) -> None:
    """A line for each backend of a model. Raises `BbansError`."""
    from bbans.exact.backends import describe
    from bbans.image.files import naming
    from bbans.zoo import load

    with naming(info.name):
        try:
            network = load(info.path, device=device, threads=threads).network
        except BadBackend as error:
            raise shared.Stop(str(error)) from error
    for tried in describe(network):
        milliseconds = None if tried.seconds is None else round(1000 * tried.seconds, 3)
        if as_json:
            record = {"model": info.name, "model_id": info.id.hex(), "backend": tried.backend, "device": tried.device}
            shared.say_json({**record, "milliseconds": milliseconds, "used": tried.used})
            continue
        measured = "not exact here" if milliseconds is None else f"{milliseconds:9.2f} ms"
        used = "  used" if tried.used else ""
        shared.say(f"{info.name:<16} {tried.backend:<8} {tried.device:<6} {measured}{used}")
