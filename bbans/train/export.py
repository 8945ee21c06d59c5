"""From a trained float model to a model's folder: integer weights, tables, known answers, and the float weights.

The float weights are rounded to half precision, which costs nothing that can be measured, before all else is made of
them; those of `dense`, which are few, are not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from bbans.codecs.latent import logistic_edges
from bbans.codecs.tables import ScaleTables, logistic_tables, normal_tables
from bbans.errors import BadModel
from bbans.exact.export import calibrate, install, quantise
from bbans.exact.selftest import answers
from bbans.train.tasks import Task
from bbans.vae.dense import DenseVAE
from bbans.vae.families import Network, build, describe, elbo, family_of
from bbans.zoo import FLOAT_WEIGHTS, LOGISTIC, NORMAL, POWERS, WEIGHTS


def export(model: Network, task: Task, out: Path) -> None:
    """Write `weights.safetensors` and `float.safetensors` of a trained float model, whose weights are rounded in place.

    The task's calibration pictures set the scales. Raises `BadModel` if it can't be exact.
    """
    out.mkdir(parents=True, exist_ok=True)
    model = model.float().cpu().eval()
    precision = torch.float16 if family_of(model.config).reduced else torch.float32
    kept = {name: tensor.to(precision).contiguous() for name, tensor in model.state_dict().items()}
    if not all(bool(tensor.isfinite().all()) for tensor in kept.values()):
        raise BadModel("the weights have grown beyond half precision")
    model.load_state_dict(kept)
    torch.manual_seed(0)

    def run() -> None:
        for pixels in task.calibration():
            elbo(model, torch.from_numpy(pixels))

    tensors = quantise(model, calibrate(model, run))
    described = describe(model)
    network = build(described["family"], described["config"])
    install(network, tensors)
    known = answers(network.double())
    exp2 = np.array([round(2 ** (16 - i / 16)) for i in range(POWERS - 1)] + [0], np.uint32)
    arrays = {name: tensor.contiguous().numpy() for name, tensor in tensors.items()} | {  # safetensors ignores strides
        "tables.edges": logistic_edges(),
        "tables.exp2": exp2,
        "selftest": np.array(known, np.uint64),
    }
    arrays |= _named(LOGISTIC, logistic_tables())
    if isinstance(model, DenseVAE):
        arrays |= _named(NORMAL, normal_tables())
    save_file(arrays | task.adapters(network.float()), out / WEIGHTS, {"bbans": json.dumps(described, sort_keys=True)})
    save_torch(kept, out / FLOAT_WEIGHTS)


def _named(named: str, tables: ScaleTables) -> dict[str, NDArray[Any]]:
    """Tables of a distribution as tensors of the file."""
    return {f"{named}upper": tables.upper(), f"{named}halves": tables.halves, f"{named}shifts": tables.shifts}
