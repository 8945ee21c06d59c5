"""Fixtures for tests of the layers around the codec: a stand-in for models and codec, quick and without torch."""

from __future__ import annotations

import sys
import types
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import settings

import bbans
from bbans.errors import BadFile, BadModel, ModelMissing

# The benchmarks are no part of the package. Last, so that `bbans` is the one that is installed.
sys.path.append(str(Path(__file__).parent.parent))

settings.register_profile("bbans", deadline=None)  # a busy machine is no failure
settings.load_profile("bbans")


@pytest.fixture(autouse=True)
def nothing_was_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told once in a process is told once in each test."""
    from bbans import workers

    monkeypatch.setattr(workers, "_warned", set())


@dataclass(frozen=True)
class FakeModel:
    """A model whose codec is zlib."""

    id: bytes = b"\x00\x01fakeid"
    name: str = "fake"
    path: Path = Path("/models/fake")
    bytes: int = 1000
    device: ClassVar[torch.device] = torch.device("cpu")

    def float_bounds(self, pixels: np.ndarray, *, particles: int = 1, **options: object) -> FakeBounds | None:
        bits = np.full(len(pixels), 2.0 * pixels[0].size)
        return FakeBounds({"d1": bits}, bits, bits - particles + 1)


@dataclass(frozen=True)
class FakeBounds:
    parts: dict[str, np.ndarray]
    elbo: np.ndarray
    iwae: np.ndarray


@dataclass(frozen=True)
class FakeStats:
    dims: int
    net: float
    initial: float
    elbo: float | None


def takes(model: FakeModel, height: int, width: int, mode: str) -> bool:
    return mode in ("L", "RGB")


def check_particles(model: FakeModel) -> None:
    raise BadModel(f"the model {model.name} takes no particles")


def encode_tile(
    model: FakeModel, pixels: np.ndarray, *, want_elbo: bool = False, effort: int = 5, particles: object = None
) -> tuple[bytes, FakeStats]:
    assert pixels.dtype == np.uint8 and pixels.ndim == 3
    payload = zlib.compress(pixels.tobytes(), effort)
    bits = 8.0 * len(payload)
    return payload, FakeStats(pixels.size, bits - 64, 32.0, bits - 65 if want_elbo else None)


def decode_tile(
    model: FakeModel, payload: bytes, height: int, width: int, channels: int, ledger: object = None
) -> np.ndarray:
    pixels = np.frombuffer(zlib.decompress(payload), np.uint8)
    if pixels.size != height * width * channels:
        raise BadFile("the tile's message does not end where the encoder began")
    return pixels.reshape(height, width, channels)


def decode_preview(model: FakeModel, payload: bytes, height: int, width: int, channels: int, levels: int) -> np.ndarray:
    return decode_tile(model, payload, height, width, channels)[:: 1 << levels, :: 1 << levels]


@pytest.fixture
def fake_codec(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """In place of `bbans.image.codec`; what it takes is coded by no other coder."""
    from bbans.image import libraries

    monkeypatch.setattr(libraries, "looks_synthetic", lambda sheet: False)
    monkeypatch.setattr(libraries, "quick_size", lambda sheet: float("inf"))
    monkeypatch.setattr(libraries, "raw_size", lambda sheet, mode: 1 << 60)
    codec = types.ModuleType("bbans.image.codec")
    for function in (encode_tile, decode_tile, decode_preview, takes, check_particles):
        vars(codec)[function.__name__] = function
    monkeypatch.setitem(sys.modules, "bbans.image.codec", codec)
    return codec


@pytest.fixture
def fake_zoo(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """In place of `bbans.zoo`: one model, called fake, which is also the default, and one for each other default."""
    zoo = types.ModuleType("bbans.zoo")

    def load(
        name: str | Path | None = None, *, default: str = "photo", device: str = "auto", threads: int | None = None
    ) -> FakeModel:
        if name not in (None, "fake"):
            raise ModelMissing(f"no model '{name}'")
        return FakeModel() if name or default == "photo" else FakeModel(id=b"\x00\x01faster", name=f"fake {default}")

    def load_by_id(model_id: bytes, *, search: Path | None, device: str, threads: int | None) -> FakeModel:
        if model_id not in (FakeModel.id, b"\x00\x01faster"):
            raise ModelMissing(f"needs the model {model_id.hex()}, which is not found")
        return FakeModel()

    def find(name: str | Path) -> FakeModel:
        return load(name)

    vars(zoo).update(DEFAULT="photo", find=find, load=load, load_by_id=load_by_id, available=lambda: [FakeModel()])
    monkeypatch.setitem(sys.modules, "bbans.zoo", zoo)
    monkeypatch.setattr(bbans, "_models", {})  # what was loaded from this zoo is forgotten with it
    return zoo


@pytest.fixture
def random_pixels() -> Iterator[Callable[..., np.ndarray]]:
    """random_pixels(h, w, c): uint8 noise from a fixed seed."""
    random = np.random.default_rng(0)
    yield lambda *shape: random.integers(0, 256, shape, np.uint8)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders of exported `photo` models of random weights, by their number of latents: 0, 2 and 3. That of 2 has
    networks of its own for the finest level; that of 3 has no overview, and other colours. 8 is one of 2 latents whose
    activations have 8 bits."""
    import torch
    from PIL import Image

    from bbans.train.data import Mix
    from bbans.train.export import export
    from bbans.train.tasks import PhotoTask
    from bbans.vae.layers import channels_last
    from bbans.vae.photo import PhotoConfig, PhotoVAE

    folder, random = tmp_path_factory.mktemp("tiny"), np.random.default_rng(0)
    pictures = [folder / f"{i}.png" for i in range(3)]
    for path in pictures:
        y, x, c = np.ogrid[:48, :40, :3]
        waves = 128 + 70 * np.sin(x / random.uniform(3, 20) + c) + 50 * np.cos(y / random.uniform(3, 20))
        Image.fromarray((waves + random.normal(0, 4, waves.shape)).clip(0, 255).astype(np.uint8)).save(path)
    kinds = (0, 2, 3, 8)
    for kind in kinds:
        latents = 2 if kind == 8 else kind
        with torch.random.fork_rng():
            torch.manual_seed(kind)
            sizes = PhotoConfig(
                channels=8,
                hidden=4,
                mixtures=2,
                latents=latents,
                overview=kind not in (3, 8),
                colour="G, R-G, B-G" if kind == 3 else "YCoCg-R",
                regional=8,
                blocks=(1, 1, 1),
                distinct=2 if kind == 2 else 1,
                bits=8 if kind == 8 else 12,
            )
            model = channels_last(PhotoVAE(sizes))  # as in training
            with torch.no_grad():
                for weights in model.parameters():
                    weights.add_(0.05 * torch.randn_like(weights))
                for level in model.levels:
                    for head in (level.head_d, level.head_b, level.head_e):
                        for out in head.out:
                            out.bias[-sizes.mixtures :] = 3.5  # log2 of the scales: no pixel is quite improbable
                    if latents:
                        level.posterior.bias[latents:] = -3.0  # narrow posteriors
            export(model, PhotoTask(sizes, pictures, [], Mix(), levels=2), folder / str(kind))
    return {kind: folder / str(kind) for kind in kinds}


@pytest.fixture(scope="session")
def tiny_thumbnails(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of exported `thumbnail` models of random weights, by the mode of their pictures, which are 12 x 8.

    "1" has latents of both layers, "L" only of the whole picture, "RGB" of both, and "plain" (RGB) none.
    """
    import torch

    from bbans.train.export import export
    from bbans.train.stacks import Deck
    from bbans.train.tasks import StackTask
    from bbans.vae.thumbnail import ThumbnailConfig, ThumbnailVAE

    folder, random = tmp_path_factory.mktemp("thumbnails"), np.random.default_rng(0)
    kinds = {"1": (1, 1, (2, 1)), "L": (1, 8, (3, 0)), "RGB": (3, 8, (3, 2)), "plain": (3, 8, (0, 0))}
    for name, (samples, depth, latents) in kinds.items():
        sizes = ThumbnailConfig(
            height=8,
            width=12,
            samples=samples,
            depth=depth,
            levels=2,
            channels=8,
            hidden=4,
            mixtures=2,
            blocks=(1, 1, 1),
            top=8,
            latents=latents,
            colour="G, R-G, B-G" if name == "RGB" else "YCoCg-R",
        )
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = ThumbnailVAE(sizes)
            with torch.no_grad():
                for weights in model.parameters():
                    weights.add_(0.05 * torch.randn_like(weights))
        pictures = random.integers(0, 256, (40, 8, 12, samples), np.uint8)
        export(model, StackTask(sizes, pictures, pictures, Deck()), folder / name)
    return {name: folder / name for name in kinds}


DENSE_LIKELIHOODS = {
    "bernoulli": {"likelihood": "bernoulli", "depth": 1},
    "normal": {"likelihood": "normal"},
    "fixed": {"likelihood": "normal", "scale": 0.3},
    "deep": {"likelihood": "normal", "depth": 12},
    "logistic": {"likelihood": "logistic"},
    "mixture": {"likelihood": "logistic", "mixtures": 2},
}
DENSE_LATENTS = {
    "diagonal": {},
    "full": {"posterior": "full"},
    "flow": {"posterior": "flow"},
    "vamp": {"prior": "vamp", "components": 5},
    "two": {"latents": (3, 2)},
}
DENSE_KINDS = [f"{likelihood}-{latents}" for likelihood in DENSE_LIKELIHOODS for latents in DENSE_LATENTS]


def dense_config(kind: str) -> Any:
    """A small configuration of `dense`, for one of `DENSE_KINDS`; pictures are 6 x 5."""
    from bbans.vae.dense import DenseConfig

    likelihood, latents = kind.split("-")
    sizes = {"height": 5, "width": 6, "hidden": (12, 8), "latents": (3,)}
    return DenseConfig(**{**sizes, **DENSE_LIKELIHOODS[likelihood], **DENSE_LATENTS[latents]})


def dense_pictures(config: Any, count: int, seed: int = 0) -> np.ndarray:
    """Waves of the configuration's size and depth: [count, h, w, 1], of uint8, or of int32 if they have 12 bits."""
    random = np.random.default_rng(seed)
    y, x = np.ogrid[: config.height, : config.width]
    phase, pitch = random.uniform(0, 6, (2, count, 1, 1))
    values = 0.5 + 0.4 * np.sin(phase + x / (1 + pitch) + y / 3) + random.normal(0, 0.05, (count, *config.shape[:2]))
    whole = np.clip(np.floor(values * (1 << config.depth)), 0, (1 << config.depth) - 1)
    return whole[..., None].astype(np.uint8 if config.depth <= 8 else np.int32)


@dataclass(frozen=True)
class Shown:
    """In place of a task, where nothing but an export is wanted: pictures to calibrate with."""

    pictures: np.ndarray

    def calibration(self) -> Iterator[np.ndarray]:
        yield self.pictures

    def adapters(self, network: object) -> dict[str, np.ndarray]:
        return {}


def random_dense(config: Any) -> Any:
    """A float network of random weights, whose posteriors are narrower than priors, and whose likelihoods are wide."""
    import torch

    from bbans.vae.dense import DenseVAE

    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = DenseVAE(config)
        with torch.no_grad():
            for name, weights in network.named_parameters():
                weights.add_(0.1 * torch.randn_like(weights))
                if name in ("posterior.bias", "flow.bias", "posterior_upper.bias"):
                    d = config.latents["upper" in name]
                    weights[d : 2 * d] -= 2.5  # log2 of the scales
                if name == "likelihood.bias" and config.likelihood != "bernoulli" and not config.scale:
                    weights[-config.mixtures * config.dims :] += 5 if config.likelihood == "logistic" else 1.5
    return network


@pytest.fixture(scope="session")
def tiny_dense(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """tiny_dense(kind): the folder of an exported `dense` model of random weights, for one of `DENSE_KINDS`."""
    from bbans.train.export import export

    folder = tmp_path_factory.mktemp("dense")

    def of(kind: str) -> Path:
        if not (folder / kind).exists():
            config = dense_config(kind)
            export(random_dense(config), Shown(dense_pictures(config, 200, seed=9)), folder / kind)
        return folder / kind

    return of
