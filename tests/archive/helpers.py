"""Stand-ins for models and codec in tests of archives, and pictures to put into them."""

from __future__ import annotations

import types
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bbans.archive.format import CHAIN, MAGIC, Header, Index, Run
from bbans.archive.names import Listed
from bbans.errors import BadFile, BadModel, ModelMissing
from bbans.image.container import checksum

SMALL = (4, 6, "L")  # what the model `small` takes


@dataclass(frozen=True)
class Fake:
    """A model whose codec is zlib."""

    name: str

    @property
    def id(self) -> bytes:
        return self.name.encode().ljust(8, b"\0")

    @property
    def path(self) -> Path:
        return Path("/models") / self.name

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")


@dataclass(frozen=True)
class Stats:
    dims: int
    net: float
    initial: float
    elbo: float | None


PHOTO, SMALL_MODEL = Fake("photo"), Fake("small")
MODELS = (PHOTO, SMALL_MODEL)


def takes(model: Fake, height: int, width: int, mode: str) -> bool:
    return (height, width, mode) == SMALL if model.name == "small" else height != 13


def check_particles(model: Fake) -> None:
    if model.name != "small":
        raise BadModel(f"the model {model.name} takes no particles")


def encode_chain(
    model: Fake, pixels: np.ndarray, *, want_elbo: bool = False, particles: object = None
) -> tuple[bytes, Stats]:
    assert pixels.dtype == np.uint8 and pixels.ndim == 4 and takes(model, *pixels.shape[1:3], SMALL[2])
    payload = zlib.compress(pixels.tobytes())
    return payload, Stats(pixels.size, 8 * len(payload) - 32, 32, None)


def decode_chain(model: Fake, payload: bytes, count: int, height: int, width: int, channels: int) -> np.ndarray:
    try:
        pixels = np.frombuffer(zlib.decompress(payload), np.uint8)
    except zlib.error as error:
        raise BadFile("no zlib") from error
    if pixels.size != count * height * width * channels:
        raise BadFile("the message does not end where the encoder began")
    return pixels.reshape(count, height, width, channels)


def install(codec: types.ModuleType, zoo: types.ModuleType, patch: pytest.MonkeyPatch) -> None:
    """Chains for the fake codec, and two models for the fake zoo: `photo`, which is the default, and `small`."""

    def load(name: str | Path | None = None, **options: object) -> Fake:
        for model in MODELS:
            if str(name or "photo") in (model.name, str(model.path)):
                return model
        raise ModelMissing(f"no model {str(name)!r}")

    def load_by_id(model_id: bytes, **options: object) -> Fake:
        for model in MODELS:
            if model.id == model_id:
                return model
        raise ModelMissing(f"the file needs model {model_id.hex()}, which is not here")

    for function in (takes, check_particles, encode_chain, decode_chain):
        patch.setattr(codec, function.__name__, function, raising=False)
    for name, value in (("load", load), ("load_by_id", load_by_id), ("available", lambda extra=None: MODELS)):
        patch.setattr(zoo, name, value)


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(path: str | Path, array: np.ndarray) -> Path:
    """An image file; its folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def load(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def archive_of(path: str | Path, groups: list[tuple[Header, np.ndarray]], *, pictures: int | None = None) -> Path:
    """An archive of any headers, whose sizes and checksums are put right, as only malice writes it."""
    data, sizes = bytearray(MAGIC + b"\0"), []
    for header, array in groups:
        payload = zlib.compress(array.tobytes())
        sums = {"size": len(payload), "payload_sum": checksum(payload), "pixels_sum": checksum(array)}
        packed = replace(header, **sums).pack()  # type: ignore[arg-type]
        data += packed + payload
        sizes.append((len(packed), len(payload)))
    total = sum(header.count for header, _ in groups) if pictures is None else pictures
    path = Path(path)
    path.write_bytes(data + Index(total, tuple(sizes)).pack())
    return path


def grey(*names: str, position: int = 0) -> tuple[Header, np.ndarray]:
    """A group of pictures of 3 x 2 pixels."""
    runs = (Run(position, len(names)),)
    header = Header(CHAIN, "L", 3, 2, PHOTO.id, runs, (Listed(names),), 0, 0, 0)
    return header, pixels(len(names), 2, 3, 1, seed=position)
