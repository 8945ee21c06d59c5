"""The same bytes under differing settings, each in a process of its own: `python -m bench.exact`, made small."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PHOTO = Path(__file__).parent.parent / "models" / "photo"

# Encodes a picture, and 16 tiles of it; decodes the file that another process wrote, or else its own.
CHILD = """
import hashlib, json, sys, warnings
from pathlib import Path
import numpy as np
import torch
import bbans
from bbans import zoo
from bbans.image.codec import decode_tiles, encode_tiles
from bbans.image.picture import decompress_picture

warnings.simplefilter("error")  # of falling back to float64
setting, file = json.loads(sys.argv[1]), Path(sys.argv[2])
torch.backends.nnpack.set_flags(True)
torch.backends.mkldnn.set_flags(setting["onednn"])
model = zoo.load(setting["model"], device="cpu", threads=setting["threads"])

y, x, c = np.ogrid[:64, :80, :3]
noise = np.random.default_rng(0).integers(0, 12, (64, 80, 3))
pixels = (90 + 40 * np.sin(x / 9 + c) + 40 * np.cos(y / 7 - x / 31) + noise).astype(np.uint8)
data = bbans.compress(pixels, model=model)
if not file.exists():
    file.write_bytes(data)
assert np.array_equal(decompress_picture(file.read_bytes(), lambda _: model).pixels, pixels)

tiles = np.stack([pixels[i : i + 32, i : i + 40] for i in range(0, 32, 2)])
batches = [tiles] if setting["batch"] else np.split(tiles, 16)
payloads = [payload for batch in batches for payload, _ in encode_tiles(model, batch)]
assert np.array_equal(decode_tiles(model, payloads, 32, 40, 3), tiles)
print(hashlib.sha256(data + b"".join(payloads)).hexdigest())
"""


def digest(
    model: Path, file: Path, *, threads: int = 1, onednn: bool = True, batch: bool = False, **environment: str
) -> str:
    """Of what a process writes under these settings."""
    setting = json.dumps({"model": str(model), "threads": threads, "onednn": onednn, "batch": batch})
    waiting = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}  # or other work on the cores slows it
    done = subprocess.run(
        [sys.executable, "-c", CHILD, setting, str(file)],
        capture_output=True,
        text=True,
        env={**os.environ, **waiting, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


Reference = tuple[Path, Path, str]


@pytest.fixture(scope="module", params=["photo", "bytes"])
def reference(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[int, Path]
) -> Reference:
    """A model, a file, and the digest of the process that wrote it: one thread, all instructions, tile by tile."""
    model = tiny_models[8] if request.param == "bytes" else PHOTO
    if not (model / "weights.safetensors").exists():
        pytest.skip("models/photo has no weights")
    file = tmp_path_factory.mktemp("exactness") / "reference.bbans"
    return model, file, digest(model, file)


def test_threads_batches_and_no_onednn(reference: Reference) -> None:
    """Without oneDNN, PyTorch hands batches of 16 to NNPACK's Winograd, which is not exact, unless it is kept away."""
    model, file, expected = reference
    assert digest(model, file, threads=2, onednn=False, batch=True) == expected


@pytest.mark.parametrize("backend", ["float32", "float64"])
def test_backends_of_bytes(backend: str, reference: Reference) -> None:
    model, file, expected = reference
    if model == PHOTO:
        pytest.skip("a model without bytes")
    assert digest(model, file, BBANS_BACKEND=backend) == expected


def test_least_instructions(reference: Reference) -> None:
    numpy_core = importlib.import_module("numpy._core._multiarray_umath")
    features = [name for name in numpy_core.__cpu_dispatch__ if numpy_core.__cpu_features__.get(name)]
    model, file, expected = reference
    actual = digest(
        model,
        file,
        ATEN_CPU_CAPABILITY="default",
        ONEDNN_MAX_CPU_ISA="SSE41",
        MKL_ENABLE_INSTRUCTIONS="SSE4_2",
        NPY_DISABLE_CPU_FEATURES=" ".join(features),
    )
    assert actual == expected
