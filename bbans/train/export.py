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
from safetensors.numpy import save
from safetensors.torch import save as save_torch

from bbans.codecs.latent import logistic_edges
from bbans.codecs.tables import ScaleTables, logistic_tables, normal_tables
from bbans.errors import BadModel, BadOutput
from bbans.exact.export import calibrate, install, quantise
from bbans.exact.selftest import answers
from bbans.image.files import atomic_file
from bbans.train.rounding import begin_rounding
from bbans.train.tasks import Task
from bbans.vae.dense import DenseVAE
from bbans.vae.families import Network, build, describe, elbo, family_of
from bbans.zoo import FLOAT_WEIGHTS, LOGISTIC, NORMAL, POWERS, WEIGHTS, id_of


def export(model: Network, task: Task, out: Path) -> Path | None:
    """Write `weights.safetensors` and `float.safetensors` of a trained float model, whose weights are rounded in place.

    The task's calibration pictures set the scales. Files need the very model that made them: if `out` holds another
    one, that is moved to a folder in `out` called by its id, which is returned. Raises `BadModel` if it can't be exact,
    and `BadOutput`.
    """
    out.mkdir(parents=True, exist_ok=True)
    model = model.float().cpu().eval()
    precision = torch.float16 if family_of(model.config).reduced else torch.float32

    def run() -> None:
        for pixels in task.calibration():
            elbo(model, torch.from_numpy(pixels))

    torch.manual_seed(0)
    begin_rounding(model, run)
    kept = {
        name: (tensor.to(precision) if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in model.state_dict().items()
    }
    if not all(bool(tensor.isfinite().all()) for tensor in kept.values()):
        raise BadModel("the weights have grown beyond half precision")
    model.load_state_dict(kept)
    torch.manual_seed(0)
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
    weights = save(arrays | task.adapters(network.float()), {"bbans": json.dumps(described, sort_keys=True)})
    with atomic_file(out / WEIGHTS, force=True) as file, atomic_file(out / FLOAT_WEIGHTS, force=True) as floats:
        file.write(weights)
        floats.write(save_torch(kept))
        return _set_aside(out, id_of(weights))


def _set_aside(out: Path, model_id: bytes) -> Path | None:
    """Move the model in a folder, if its id is another, to a folder below, which is returned. Raises `BadOutput`."""
    if not (out / WEIGHTS).is_file():
        return None
    try:
        if (old := id_of((out / WEIGHTS).read_bytes())) == model_id:
            return None
        before = out / old.hex()
        before.mkdir(exist_ok=True)
        for name in (WEIGHTS, FLOAT_WEIGHTS):
            if (out / name).exists():
                (out / name).replace(before / name)
    except OSError as error:
        raise BadOutput(f"{out}: the model in it cannot be set aside: {error.strerror or error}") from error
    return before


def _named(named: str, tables: ScaleTables) -> dict[str, NDArray[Any]]:
    """Tables of a distribution as tensors of the file."""
    return {f"{named}upper": tables.upper(), f"{named}halves": tables.halves, f"{named}shifts": tables.shifts}
