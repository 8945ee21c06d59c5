"""The networks on MNIST that several experiments share: one net, trained with one loss after another.

Knows MNIST, `dense` and the losses that texts train with; knows nothing of pages.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbans import zoo
from bbans.ans import Message
from bbans.codecs.grid import GridNormals
from bbans.codecs.tables import PER_OCTAVE, SCALE_OF_ONE, UNIT, normal_tables
from bbans.errors import BbansError
from bbans.train.stacks import Deck
from bbans.train.tasks import StackTask
from bbans.vae.bounds import measure
from bbans.vae.dense import UNITS, DenseConfig, DenseVAE
from bbans.vae.distributions import BITS_OF_A_NAT, Latents
from bbans.vae.families import picture_planes
from bbans.vae.likelihoods import normal_log_density
from bbans.vae.objectives import SAMPLED, Bits, dense_mean, dense_normal, draw_dense
from bench import sets
from bench.lab.models import ADAM, Lab, Pixels

Floats = NDArray[np.float64]

HIDDEN, QUICK_HIDDEN = (200, 200), (64, 64)
STEPS, QUICK_STEPS, BATCH, LEARNING_RATE = 3000, 150, 100, 2e-3
LANES = 256  # of messages of pixels alone
HALF = 0.5**0.5  # the sigma whose log-density is −MSE, and a constant: sigma^2 = 1/2


@dataclass(frozen=True)
class Net:
    """density: the loss is the density of a normal, which takes pixels for real numbers, instead of the mass that a
    coder needs; scale: of a normal, or 0 where the decoder tells it, as `DenseConfig` has it; longer: so many times as
    many steps."""

    likelihood: str = "normal"
    latents: int = 20
    scale: float = 0.0
    mixtures: int = 1
    density: bool = False
    beta: float = 1.0
    longer: int = 1

    @property
    def name(self) -> str:
        """Of its run: the loss, where the configuration does not tell it."""
        return "mnist-density" if self.density else "mnist-mass"


@dataclass(frozen=True, eq=False)
class Digits(StackTask):
    """A `StackTask` with a name of its runs, and a choice of the loss."""

    name: str = ""
    density: bool = False

    def bits(self, network: Any, pixels: Tensor, latents: Latents = SAMPLED) -> Bits:
        if not self.density:
            return super().bits(network, pixels, latents)
        x = picture_planes(network, pixels).flatten(1)
        z, kl = draw_dense(network, x, latents)
        # in grey levels, of which x is the middle of one: bits of a density per grey level, + 8 and all
        nats = -normal_log_density(x + 0.5, *dense_normal(network, network.decode(z[0])))
        return {"x": nats.sum(1) * BITS_OF_A_NAT} | {name: elements.sum(1) for name, elements in kl.items()}


@functools.cache
def digits() -> sets.TestSet:
    """What they learn from. Raises `Absent`."""
    return sets.training("mnist")


@functools.cache
def held_out() -> sets.TestSet:
    """What is chosen on. Raises `Absent`."""
    return sets.held_out("mnist")


def task(lab: Lab, net: Net) -> Digits:
    """Raises `Absent`."""
    hidden = QUICK_HIDDEN if lab.quick else HIDDEN
    likelihood, mixtures, scale = net.likelihood, net.mixtures, net.scale
    config = DenseConfig(hidden=hidden, latents=(net.latents,), likelihood=likelihood, mixtures=mixtures, scale=scale)
    validation = held_out().pixels[: lab.steps(sets.HELD_OUT, 200)]
    return Digits(config, digits().pixels, validation, Deck(), net.name, net.density)


def trained(lab: Lab, net: Net) -> zoo.Model:
    """The net, which is trained once for all experiments. Raises `Absent`."""
    recipe = replace(
        ADAM, learning_rate=LEARNING_RATE, batch=BATCH, steps=net.longer * lab.steps(STEPS, QUICK_STEPS), beta=net.beta
    )
    return lab.trained(task(lab, net), recipe)


def rescaled(lab: Lab, model: zoo.Model, net: Net, scale: float) -> zoo.Model:
    """The same weights, with another scale of the normal that pixels are coded with."""
    return lab.again(model, task(lab, replace(net, scale=scale)))


@dataclass(frozen=True)
class Reconstructions:
    """Of pixels, by latents drawn from q, in grey levels [N, h, w, 1].

    location: of a normal, clipped to the range, None of mixtures; mean: E[x] of the likelihood as it is coded.
    """

    pixels: Pixels
    location: Floats | None
    mean: Floats

    @property
    def location_mse(self) -> float | None:
        """On [0, 1]."""
        return None if self.location is None else mse(self.pixels, self.location)

    @property
    def mean_mse(self) -> float:
        """On [0, 1]."""
        return mse(self.pixels, self.mean)


def reconstructed(model: zoo.Model, pixels: Pixels, *, clip: bool = True) -> Reconstructions:
    """clip: locations to the range of pixels, as who shows them does."""
    network = float_network(model)
    locations, means = [], []
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        for some in torch.from_numpy(np.array(pixels)).split(500):
            z, _ = draw_dense(network, picture_planes(network, some).flatten(1))
            location, mean = seen(network, z[0], clip=clip)
            locations.append(location)
            means.append(mean)
    told = None if network.config.likelihood != "normal" else np.concatenate(locations).reshape(pixels.shape)
    return Reconstructions(pixels, told, np.concatenate(means).reshape(pixels.shape))


def seen(network: DenseVAE, z: Tensor, *, clip: bool = True) -> tuple[Floats, Floats]:
    """Locations of a normal likelihood, and E[x], in grey levels [N, dims], given latents z [N, latents]."""
    params = network.decode(z)
    mean = dense_mean(network, params).double().numpy()
    if network.config.likelihood != "normal":
        return mean, mean
    location = dense_normal(network, params)[0].double().numpy() - 0.5
    return location.clip(0, 255) if clip else location, mean


def float_network(model: zoo.Model) -> DenseVAE:
    """Its float weights."""
    network = model.float_network
    assert isinstance(network, DenseVAE)
    return network


def mse(pixels: Pixels, others: Floats) -> float:
    """On [0, 1]."""
    return float(np.mean(((pixels - others) / 255) ** 2))


def fitted_scale(model: zoo.Model, pixels: Pixels) -> float:
    """sigma, as a share of the range, with sigma^2 the MSE of these pictures: where a density costs least."""
    location = reconstructed(model, pixels, clip=False).location
    assert location is not None
    return float(np.sqrt(np.mean((pixels - location) ** 2))) / UNITS


def costs_of_scales(model: zoo.Model, pixels: Pixels, scales: Floats) -> Floats:
    """−ELBO, bits per dim of pictures, when their pixels are coded with one scale or another."""
    network, found = float_network(model), []
    for scale in scales:
        other = DenseVAE(replace(network.config, scale=float(scale)))
        other.load_state_dict(network.state_dict())
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(0)
            found.append(float(measure(other, torch.from_numpy(np.array(pixels))).elbo.sum()) / pixels.size)
    return np.array(found)


def coded_normals(pixels: Pixels, means: Floats, sigma: float) -> float:
    """Real bits of grey pixels under discretised normals of one sigma, in grey levels, whose means are known.

    Raises `BbansError` when other pixels come back.
    """
    x = pixels.ravel().astype(np.int32)
    locations = np.rint(UNIT * (means.ravel() + 0.5)).astype(np.int32)
    scales = np.full_like(x, scale_index(sigma))
    codec = GridNormals(normal_tables(), locations, scales, 0, UNIT, 256, floor=1).row_codec()
    message = Message.empty(LANES, seed=0)
    empty = message.bits()
    codec.push(message, x)
    bits = message.bits() - empty
    if not np.array_equal(codec.pop(message), x):
        raise BbansError("other pixels come back")
    return bits


def scale_index(sigma: float) -> int:
    """Of the table whose scale is nearest to sigma, in grey levels."""
    return SCALE_OF_ONE + round(PER_OCTAVE * np.log2(sigma))
