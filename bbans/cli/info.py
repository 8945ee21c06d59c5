"""`bbans info` and `bbans models`: what files say of themselves, and which models there are. Decodes nothing."""

from __future__ import annotations

import click

from bbans.cli import shared
from bbans.cli.batch import Batch, Task, batch_options, read_source
from bbans.image.container import SUFFIX


@click.command()
@batch_options(suffixes=lambda: [SUFFIX], writes=False)
def info(batch: Batch) -> None:
    """Tell what .bbans files hold, from their headers alone."""
    from bbans.zoo import available

    names = {model.id: model.name for model in available()}

    def finish(task: Task, data: bytes) -> None:
        from bbans.image.container import VERSION, Header
        from bbans.image.files import naming

        with naming(task.source.name):
            header = Header.parse(data)
        record = {
            "input": task.source.name,
            "bytes": len(data),
            "version": VERSION,
            "width": header.width,
            "height": header.height,
            "mode": header.mode,
            "dims": header.dims,
            "tiles": len(header.tiles),
            "model": names.get(header.model_id),
            "model_id": header.model_id.hex(),
            "total": 8 * len(data) / header.dims,
        }
        name = record["model"] or f"{record['model_id']} (not found here)"
        tiles = "1 tile" if len(header.tiles) == 1 else f"{len(header.tiles)} tiles"
        batch.say(
            f"{task.source.name}: {header.width} x {header.height} {header.mode}, {tiles}, model {name}, "
            f"{len(data)} bytes, {record['total']:.3f} bits per dim",
            record,
        )

    batch.run(lambda task: read_source(task.source), finish)


@click.command()
def models() -> None:
    """List the models that are found: the shipped ones, and those in the folders of BBANS_MODELS."""
    from bbans.zoo import available

    for model in available():
        shared.say(f"{model.name:<16} {model.id.hex()}  {model.bytes / 1e6:6.2f} MB  {model.path}")
