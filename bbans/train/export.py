"""From a trained float model to a model's folder: integer weights, tables, known answers, and the float weights.

The float weights are rounded to half precision, which costs nothing that can be measured, before all else is made of
them.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from bbans.codecs.latent import logistic_edges
from bbans.codecs.tables import logistic_tables
from bbans.errors import BadModel
from bbans.exact.export import calibrate, install, quantise
from bbans.exact.selftest import answers
from bbans.train.tasks import Task
from bbans.vae.families import Network, build, describe, elbo
from bbans.zoo import FLOAT_WEIGHTS, WEIGHTS


def export(model: Network, task: Task, out: Path) -> None:
    """Write `weights.safetensors` and `float.safetensors` of a trained float model, whose weights are rounded in place.

    The task's calibration pictures set the scales. Raises `BadModel` if it can't be exact.
    """
    out.mkdir(parents=True, exist_ok=True)
    model = model.float().cpu().eval()
    halves = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    if not all(bool(tensor.isfinite().all()) for tensor in halves.values()):
        raise BadModel("the weights have grown beyond half precision")
    model.load_state_dict(halves)
    torch.manual_seed(0)

    def run() -> None:
        for pixels in task.calibration():
            elbo(model, torch.from_numpy(pixels))

    tensors = quantise(model, calibrate(model, run))
    described = describe(model)
    network = build(described["family"], described["config"])
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
    save_file(arrays | task.adapters(network.float()), out / WEIGHTS, {"bbans": json.dumps(described, sort_keys=True)})
    save_torch(halves, out / FLOAT_WEIGHTS)
