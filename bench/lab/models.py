"""Small models for experiments: trained by the library's loop on endless or fixed data, exported, and coded with.

Knows `bbans.train`, `bbans.zoo` and chains; knows nothing of any experiment.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from bbans import zoo
from bbans.errors import BbansError
from bbans.image.codec import decode_chain, encode_chain
from bbans.image.planes import Ledger
from bbans.train.export import export
from bbans.train.loop import Recipe, train
from bbans.vae.bounds import measure
from bbans.vae.distributions import Latents
from bbans.vae.families import Network, elbo, family_of
from bbans.vae.objectives import SAMPLED, Bits

Pixels = NDArray[Any]
Sample = Callable[[int, np.random.Generator], Pixels]
"""(count, random) -> so many pictures [count, h, w, channels]."""
HELD_OUT, CALIBRATION = 1000, 2000
CHAIN_DIMS = 8_000_000  # samples on one message

ADAM = Recipe(optimiser="adam", learning_rate=1e-3, batch=200, warmup=100, ema=0.999, clip=10.0)


@dataclass(frozen=True)
class Drawn:
    """A task whose data never end: `sample` draws every batch anew."""

    config: Any
    sample: Sample
    name: str

    def network(self) -> Any:
        return family_of(self.config).network(self.config)

    def batches(self, size: int, seed: int) -> Iterator[Pixels]:
        random = np.random.default_rng(seed)
        while True:
            yield self.sample(size, random)

    def bits(self, network: Network, pixels: Tensor, latents: Latents = SAMPLED) -> Bits:
        return elbo(network, pixels, latents)

    def held_out(self) -> Iterator[Pixels]:
        yield self.sample(HELD_OUT, np.random.default_rng(2**31))

    def calibration(self) -> Iterator[Pixels]:
        yield self.sample(CALIBRATION, np.random.default_rng(2**31 + 1))

    def adapters(self, network: Any) -> dict[str, NDArray[Any]]:
        return {}


@dataclass(frozen=True)
class Lab:
    """Where runs are kept and pages go; quick: few steps of everything. A run that was made before is not made again,
    unless its recipe or its data are others."""

    runs: Path
    pages: Path
    quick: bool

    def steps(self, full: int, quick: int) -> int:
        """How many steps a training takes."""
        return quick if self.quick else full

    def trained(self, task: Any, recipe: Recipe) -> zoo.Model:
        """The exact model (with its float weights) of a recipe, whose model is the task's."""
        recipe = replace(recipe, model=task.config)
        name = getattr(task, "name", "run")
        digest = hashlib.sha256(json.dumps([name, asdict(recipe)], sort_keys=True).encode()).hexdigest()[:12]
        out = self.runs / f"{name}-{digest}"
        if not (out / zoo.WEIGHTS).exists():
            ema = train(recipe, task, out, device=torch.device("cpu"), validate_every=recipe.steps)
            export(ema, task, out)
        return zoo.load(out, device="cpu")

    def again(self, model: zoo.Model, task: Any) -> zoo.Model:
        """The same weights under the task's configuration, such as another scale of the likelihood."""
        digest = hashlib.sha256(repr(task.config).encode()).hexdigest()[:8]
        out = model.path.with_name(f"{model.path.name}-{digest}")
        if not (out / zoo.WEIGHTS).exists():
            network = task.network()
            network.load_state_dict(load_file(model.path / zoo.FLOAT_WEIGHTS))
            export(network, task, out)
        return zoo.load(out, device="cpu")


def validations(model: zoo.Model) -> list[tuple[int, float]]:
    """(step, −ELBO in bits per dim over the last batches) as the run's log has it: its learning curve."""
    records = [json.loads(line) for line in (model.path / "log.jsonl").read_text().splitlines()]
    return [(r["step"], r["bpd"]) for r in records if "bpd" in r]


@dataclass(frozen=True)
class Coded:
    """Bits of pictures: words as in every table; float_elbo's parts by their names, elbo's in the ledger."""

    pictures: int
    dims: int
    parts: dict[str, float]
    iwae: float
    elbo: float
    net: float
    initial: float
    total: float
    ledger: Ledger

    @property
    def float_elbo(self) -> float:
        return sum(self.parts.values())

    @property
    def kl(self) -> float:
        return sum(bits for name, bits in self.parts.items() if name.startswith("kl"))

    @property
    def likelihood(self) -> float:
        return self.float_elbo - self.kl

    def per_picture(self, word: str) -> float:
        """Of a word above, in bits."""
        return float(getattr(self, word)) / self.pictures

    def per_dim(self, word: str) -> float:
        return float(getattr(self, word)) / self.dims


def coded(model: zoo.Model, pixels: Pixels, particles: int = 1) -> Coded:
    """Code pictures on chains, read them again and compare. particles: of the importance-weighted bound `iwae`.

    Raises `BbansError` when other pixels come back.
    """
    elbo_bits = net = initial = total = 0.0
    ledger: Ledger = {}
    at_once = max(1, CHAIN_DIMS // pixels[0].size)
    for begin in range(0, len(pixels), at_once):
        some = pixels[begin : begin + at_once]
        payload, stats = encode_chain(model, some, want_elbo=True)
        if not np.array_equal(decode_chain(model, payload, *some.shape, ledger), some):
            raise BbansError(f"{model.name}: other pixels come back")
        assert stats.elbo is not None
        elbo_bits, net = elbo_bits + stats.elbo, net + stats.net
        initial, total = initial + stats.initial, total + 8.0 * len(payload)
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        network = model.float_network
        assert network is not None
        bounds = measure(network, torch.from_numpy(np.array(pixels)), particles)
    parts = {name: float(bits.sum()) for name, bits in bounds.parts.items()}
    iwae = float(bounds.iwae.sum())
    return Coded(len(pixels), pixels.size, parts, iwae, elbo_bits, net, initial, total, ledger)
