"""One setting of `bench.exact`, in a process of its own: encodes a picture, and decodes what another setting encoded.

`python -m bench.one_setting JOB` with a `Job` as JSON; prints a JSON object.
"""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bbans import zoo
from bbans.errors import BbansError
from bbans.exact.backends import backend_of
from bbans.image import codec, container
from bbans.image.files import read_picture
from bbans.image.picture import Picture, compress_picture, decompress_picture

TILES = 16
_GRID = 4  # tiles a side


@dataclass(frozen=True)
class Job:
    """What to do, beyond what the environment says: there, BBANS_BACKEND names a backend.

    tiles: None for the picture as one file; "single" for 16 tiles of it one by one; "batch" for the 16 at once.
    reference: a file that another setting wrote, to be decoded. output: where the own bytes go.
    """

    image: str
    model: str | None
    threads: int
    onednn: bool
    tiles: str | None
    reference: str | None
    output: str


def run(job: Job) -> dict[str, Any]:
    """The digest of the own bytes, whether the reference gave the pixels back, and what was really in use."""
    torch.backends.nnpack.set_flags(True)
    torch.backends.mkldnn.set_flags(job.onednn)
    with warnings.catch_warnings(record=True) as warned:  # of falling back, above all
        warnings.simplefilter("always", RuntimeWarning)
        model = zoo.load(job.model, device="cpu", threads=job.threads)
    picture = read_picture(job.image)
    if job.tiles:
        picture = _of_equal_tiles(picture)
    data = _encode(model, picture, job.tiles)
    Path(job.output).write_bytes(data)
    try:
        decoded = _decode(model, Path(job.reference or job.output).read_bytes(), job.tiles)
        decodes = bool(np.array_equal(decoded, picture.pixels))
    except BbansError:
        decodes = False
    return {
        "digest": hashlib.sha256(data).hexdigest()[:16],
        "decodes": decodes,
        "backend": backend_of(model.network),
        "warnings": [str(each.message) for each in warned if issubclass(each.category, RuntimeWarning)],
        "isa": torch.backends.cpu.get_cpu_capability(),
    }


def _of_equal_tiles(picture: Picture) -> Picture:
    """The largest square at the upper left that 4 x 4 tiles of one size fill."""
    side = _GRID * (min(picture.width, picture.height) // _GRID)
    return Picture(np.ascontiguousarray(picture.pixels[:side, :side]), picture.mode)


def _encode(model: zoo.Model, picture: Picture, tiles: str | None) -> bytes:
    if not tiles:
        return compress_picture(picture, model)[0]
    side = picture.width // _GRID
    grid = container.tile_grid(picture.width, picture.height, side)
    parts = np.stack([picture.pixels[y : y + h, x : x + w] for x, y, w, h in grid])
    batches = [parts] if tiles == "batch" else np.split(parts, len(parts))
    payloads = [payload for batch in batches for payload, _ in codec.encode_tiles(model, batch)]
    sums = [
        container.Piece(len(payload), container.checksum(payload), container.checksum(part))
        for payload, part in zip(payloads, parts, strict=True)
    ]
    header = container.Header(picture.mode, picture.width, picture.height, side, tuple(sums), model.id)
    return container.join(header, payloads)


def _decode(model: zoo.Model, data: bytes, tiles: str | None) -> np.ndarray[Any, Any]:
    if tiles != "batch":
        return decompress_picture(data, lambda _: model).pixels
    header = container.Header.parse(data)
    payloads = container.payloads(header, data)
    parts = codec.decode_tiles(model, payloads, header.tile, header.tile, header.dims // (header.width * header.height))
    rows = [np.concatenate(list(parts[i : i + _GRID]), 1) for i in range(0, len(parts), _GRID)]
    return np.concatenate(rows, 0)


if __name__ == "__main__":
    print(json.dumps(run(Job(**json.loads(sys.argv[1])))))
