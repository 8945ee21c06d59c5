"""From a trained float model to a model's folder: integer weights, tables, known answers, and the float weights."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from safetensors.torch import load_file
from safetensors.torch import save_file as save_torch

from bbans.codecs.latent import logistic_edges
from bbans.codecs.tables import logistic_tables
from bbans.exact.export import calibrate, install, quantise
from bbans.exact.selftest import answers
from bbans.train.data import load_rgb
from bbans.vae import lattice
from bbans.vae.objectives import photo_elbo
from bbans.vae.photo import PhotoConfig, PhotoVAE
from bbans.zoo import FLOAT_WEIGHTS, WEIGHTS

CALIBRATION_IMAGES = 24


def export(model: PhotoVAE, calibration: list[Path], out: Path) -> None:
    """Write `weights.safetensors` and `float.safetensors` of a trained float model. Raises `BadModel` if it can't be
    exact. `calibration`: pictures whose activations set the scales (training pictures)."""
    out.mkdir(parents=True, exist_ok=True)
    model = model.float().cpu().eval()
    torch.manual_seed(0)
    step = max(1, len(calibration) // CALIBRATION_IMAGES)

    def run() -> None:
        for path in calibration[::step][:CALIBRATION_IMAGES]:
            photo_elbo(model, _ycocg(np.asarray(load_rgb(path))), levels=5)

    tensors = quantise(model, calibrate(model, run), model.params_digits())
    network = PhotoVAE(model.config)
    install(network, tensors)
    known = answers(network.double())
    tables = logistic_tables()
    exp2 = np.array([round(2 ** (16 - i / 16)) for i in range(257)] + [0], np.uint32)
    arrays = {name: tensor.contiguous().numpy() for name, tensor in tensors.items()} | {  # safetensors ignores strides
        "tables.upper": tables.upper(),
        "tables.halves": tables.halves,
        "tables.shifts": tables.shifts,
        "tables.edges": logistic_edges(),
        "tables.exp2": exp2,
        "selftest": np.array(known, np.uint64),
    }
    described = {"family": "photo", "config": asdict(model.config)}
    save_file(arrays, out / WEIGHTS, {"bbans": json.dumps(described, sort_keys=True)})
    save_torch({k: v.contiguous() for k, v in model.state_dict().items()}, out / FLOAT_WEIGHTS)


def float_elbo_bits(path: Path, config: PhotoConfig, pixels: NDArray[np.uint8]) -> float:
    """−ELBO in bits of pixels [h, w, 1 or 3] under float weights in `path`, by one sample of the latents."""
    model = _float_model(path, config)
    grey = pixels.shape[2] == 1
    levels = max(0, math.ceil(math.log2(max(pixels.shape[:2]) / 2)))
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        parts, rest = photo_elbo(model, _ycocg(np.repeat(pixels, 3, 2) if grey else pixels), levels=levels, grey=grey)
    return float(sum(float(v.total()) for v in parts)) + 8.0 * rest.numel() / (3 if grey else 1)


@lru_cache(maxsize=1)
def _float_model(path: Path, config: PhotoConfig) -> PhotoVAE:
    model = PhotoVAE(config)
    model.load_state_dict(load_file(path))
    return model.eval().requires_grad_(False)


def _ycocg(pixels: NDArray[np.uint8]) -> torch.Tensor:
    rgb = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].int()
    return lattice.ycocg_from_rgb(rgb).float().contiguous(memory_format=torch.channels_last)
