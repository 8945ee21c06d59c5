"""`bbans info` and `bbans models`: what files say of themselves, and which models there are. Decodes nothing."""

from __future__ import annotations

import io
from collections import Counter
from contextlib import ExitStack
from typing import BinaryIO

import click

from bbans.cli import shared
from bbans.cli.batch import Batch, Task, batch_options
from bbans.errors import BadFile
from bbans.image.container import METHOD_NAMES, NO_MODEL, SUFFIX, Header


@click.command()
@batch_options(suffixes=lambda: [SUFFIX], writes=False)
def info(batch: Batch) -> None:
    """Tell what .bbans files hold, from their headers alone."""
    from bbans.zoo import available

    names = {model.id: model.name for model in available()}

    def finish(task: Task, read: tuple[Header, int]) -> None:
        header, size = read
        tiles = len(header.pieces) // len(header.sheets)
        methods = Counter(METHOD_NAMES[piece.method] for piece in header.pieces)
        record = {
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
        by = [f"model {record['model'] or str(record['model_id']) + ' (not found here)'}"] if methods["model"] else []
        by += [f"{name} ({count} of {len(header.pieces)})" for name, count in methods.items() if name != "model"]
        batch.say(
            f"{task.source.name}: {header.width} x {header.height} {header.mode}, {tiles} tile{'s' * (tiles > 1)}, "
            f"{', '.join(by)}, {size} bytes, {record['total']:.3f} bits per dim",
            record,
        )

    batch.run(_header, finish)


def _header(task: Task) -> tuple[Header, int]:
    """The header of a file, and the file's size."""
    from bbans.image.files import naming, open_regular

    with naming(task.source.name), ExitStack() as stack:
        if task.source.path is None:
            file: BinaryIO = io.BytesIO(task.source.data or b"")
        else:
            file = stack.enter_context(open_regular(task.source.path, BadFile))
        return Header.read(file), file.seek(0, io.SEEK_END)


@click.command()
def models() -> None:
    """List the models that are found: the shipped ones, and those in the folders of BBANS_MODELS."""
    from bbans.zoo import available

    for model in available():
        shared.say(f"{model.name:<16} {model.id.hex()}  {model.bytes / 1e6:6.2f} MB  {model.path}")
