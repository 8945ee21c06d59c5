"""`dense`: fully connected VAEs of small grey pictures of one size, and of anything that can be written as such.

The textbook's model, with the choices that textbooks discuss:

    p(z) p(x | z)           q(z | x)                one layer of latents; p(z) normal or a VampPrior
    p(z2) p(z1 | z2) p(x | z1)   q(z1 | x) q(z2 | z1)    two layers, with structured (Markov) inference

All latents are normal given what they depend on, the posterior with a diagonal or a full covariance or after one step
of inverse autoregressive flow. Pixels are independent given z: Bernoullis, discretised normals, or mixtures of
discretised logistics. Sources: Kingma & Welling 2014 (arXiv:1312.6114), Kingma et al. 2016 (IAF, arXiv:1606.04934),
Tomczak & Welling 2018 (VampPrior, arXiv:1705.07120).

The methods below are the topology, once: they run on real numbers while training and, after `bbans.exact` has replaced
every layer, on integers. Tensors are [N, features]: x in 2^-11 of half its range around the middle, z in 2^-9.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from bbans.errors import BadModel
from bbans.vae.distributions import Distribution, Flow, FullNormal, Normal, Posterior, StandardNormal, VampPrior
from bbans.vae.lattice import Sampling
from bbans.vae.layers import Linear, MaskedLinear

X_DIGITS, Z_DIGITS = 11, 9
SEE_X, SEE_Z = f"input.{X_DIGITS}", f"input.{Z_DIGITS}"  # scales of what networks see
REACH = 8  # latents lie in -REACH..REACH
LIKELIHOODS = ("bernoulli", "normal", "logistic")
POSTERIORS = ("diagonal", "full", "flow")
PRIORS = ("normal", "vamp")
DEPTHS = (1, 8, 12)
UNITS = 256  # of a likelihood's scale, in the range of a sample
LOG2_SCALE = 4.0  # log2 of the scale, in units, of a normal likelihood whose parameter is 0
LEAST_SHARE = 2.0**-12  # of the range: no scale is less, because tables end there
MOST_UNITS, MOST_LATENTS, MOST_FULL, MOST_SAMPLES = 1 << 12, 1 << 10, 16, 1 << 16


@dataclass(frozen=True)
class DenseConfig:
    """Sizes and kinds.

    depth: bits of a sample, 1, 8 or 12; hidden: units of the encoder's layers, and in reverse order the decoder's;
    latents: of z, or of z1 and z2; likelihood, posterior, prior: names above; mixtures: logistics of a sample;
    components: pseudo-inputs of the VampPrior; scale: of a normal likelihood, as a share of the range, or 0 where the
    decoder tells it; it is coded by the table that is next to it, the largest of which has 0.648.
    """

    height: int = 28
    width: int = 28
    depth: int = 8
    hidden: tuple[int, ...] = (200, 200)
    latents: tuple[int, ...] = (40,)
    likelihood: str = "logistic"
    mixtures: int = 1
    posterior: str = "diagonal"
    prior: str = "normal"
    components: int = 0
    scale: float = 0.0

    def __post_init__(self) -> None:
        """Raises `BadModel` for what makes no network."""
        numbers = (self.height, self.width, self.depth, self.mixtures, self.components, *self.hidden, *self.latents)
        if not all(type(value) is int for value in numbers):
            raise BadModel("sizes are integers")
        if min(self.height, self.width) < 1 or self.height * self.width > MOST_SAMPLES:
            raise BadModel(f"pictures have 1 to {MOST_SAMPLES} pixels; not {self.width} x {self.height}")
        for name, value, known in (
            ("depth", self.depth, DEPTHS),
            ("likelihood", self.likelihood, LIKELIHOODS),
            ("posterior", self.posterior, POSTERIORS),
            ("prior", self.prior, PRIORS),
            ("number of layers of latents", len(self.latents), (1, 2)),
        ):
            if value not in known:
                raise BadModel(f"{name}: one of {', '.join(map(str, known))}; not {value}")
        if not 1 <= len(self.hidden) <= 8 or not all(1 <= units <= MOST_UNITS for units in self.hidden):
            raise BadModel(f"hidden: 1 to 8 layers of 1 to {MOST_UNITS} units; not {list(self.hidden)}")
        if not all(1 <= latents <= MOST_LATENTS for latents in self.latents):
            raise BadModel(f"latents: 1 to {MOST_LATENTS} of a layer; not {list(self.latents)}")
        if (self.likelihood == "bernoulli") != (self.depth == 1) or (self.likelihood, self.depth) == ("logistic", 12):
            raise BadModel(f"no likelihood {self.likelihood} of samples of {self.depth} bits")
        if not 1 <= self.mixtures <= 32 or (self.mixtures > 1 and self.likelihood != "logistic"):
            raise BadModel(f"mixtures: 1 to 32 logistics; not {self.mixtures} of {self.likelihood}")
        if len(self.latents) > 1 and (self.posterior, self.prior) != ("diagonal", "normal"):
            raise BadModel("two layers of latents are diagonal, with a normal prior")
        if self.posterior == "full" and self.latents[0] > MOST_FULL:
            raise BadModel(f"a full covariance is for up to {MOST_FULL} latents, not {self.latents[0]}")
        if (self.prior == "vamp") != bool(self.components) or not 0 <= self.components <= MOST_UNITS:
            raise BadModel(f"components: those of a VampPrior, up to {MOST_UNITS}; not {self.components}")
        if self.prior == "vamp" and self.posterior != "diagonal":
            raise BadModel("a VampPrior is of diagonal posteriors")
        if self.scale != 0 and (self.likelihood != "normal" or not LEAST_SHARE <= self.scale < 1):
            raise BadModel(f"scale: of a normal likelihood, 2^-12 of the range up to below 1; not {self.scale}")

    @property
    def samples(self) -> int:
        """Channels of a pixel."""
        return 1

    @property
    def sampling(self) -> Sampling:
        """What pictures are inside the model."""
        return Sampling(1, self.depth)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a picture's pixels: height, width, channels."""
        return self.height, self.width, 1

    @property
    def dims(self) -> int:
        """Samples of a picture."""
        return self.height * self.width

    @property
    def latent_count(self) -> int:
        """Latents of a picture."""
        return sum(self.latents)

    @property
    def digits(self) -> tuple[int, ...]:
        """Binary digits after the point of the parameters of one sample.

        Of a Bernoulli its logit, in 1/16 nat; of a normal its mean, from the middle, in 2^-11 of half the range, and
        its log2-scale in 1/8; of a mixture as in `bbans.vae.phases.parameters`.
        """
        if self.likelihood == "bernoulli":
            return (4,)
        if self.likelihood == "normal":
            return (X_DIGITS,) if self.scale else (X_DIGITS, 3)
        return (4,) * self.mixtures + (8,) * self.mixtures + (3,) * self.mixtures


class DenseVAE(nn.Module):
    """All networks of the model."""

    carrier = torch.float64  # of integers: layers have too many inputs for the sums that float32 has room for

    def __init__(self, config: DenseConfig) -> None:
        super().__init__()
        self.config = config
        d, last = config.latents[0], config.hidden[-1]
        digits = config.digits
        self.encoder = _tower((config.dims, *config.hidden), SEE_X, "x")
        told = f"x.{len(config.hidden) - 1}"
        if config.posterior == "flow":
            self.context = Linear(last, last, source=told, target="flow", relu=False)
            noise, units = torch.arange(d), torch.arange(last) % d  # a unit sees the noise before its own
            seen = (noise[None] < units[:, None]).float()
            self.see_noise = MaskedLinear(d, last, seen, source=SEE_Z, target="flow")
            told_by = (units[None] <= noise[:, None]).float().repeat(2, 1)
            self.flow = MaskedLinear(
                last, 2 * d, told_by, source="flow", target="params", relu=False, digits=_latent(d)
            )
        else:
            chain = d * (d - 1) // 2 if config.posterior == "full" else 0
            q = (*_latent(d), *(8,) * chain)
            self.posterior = Linear(last, len(q), source=told, target="params", relu=False, digits=q)
        self.decoder = _tower((d, *reversed(config.hidden)), SEE_Z, "z")
        self.likelihood = Linear(
            config.hidden[0],
            len(digits) * config.dims,
            source=f"z.{len(config.hidden) - 1}",
            target="params",
            relu=False,
            digits=tuple(itertools.chain.from_iterable([each] * config.dims for each in digits)),
        )
        if config.prior == "vamp":
            self.pseudo = Linear(1, config.components * config.dims, source=SEE_X, target=SEE_X, relu=False)
            nn.init.uniform_(cast(Tensor, self.pseudo.bias), -1, 1)
        if len(config.latents) > 1:
            upper = config.latents[1]
            self.upwards = _tower((d, *config.hidden), SEE_Z, "up")
            self.posterior_upper = _head(last, upper, f"up.{len(config.hidden) - 1}")
            self.downwards = _tower((upper, *reversed(config.hidden)), SEE_Z, "down")
            self.prior_lower = _head(config.hidden[0], d, f"down.{len(config.hidden) - 1}")

    # -- inference -----------------------------------------------------------------------------------------------

    def infer(self, x: Tensor) -> Tensor:
        """x [N, dims] -> the parameters of q(z | x), or of q(z1 | x)."""
        h = self.encoder(x)
        return self.context(h) if self.config.posterior == "flow" else self.posterior(h)

    def flow_step(self, noise: Tensor, context: Tensor) -> Tensor:
        """Parameters [N, 2 latents] of each latent, given the noise [N, latents] of those before it."""
        return self.flow(self.see_noise(noise, add=context))

    def infer_upper(self, z1: Tensor) -> Tensor:
        """Parameters [N, 2 latents] of q(z2 | z1)."""
        return self.posterior_upper(self.upwards(z1))

    # -- generation ----------------------------------------------------------------------------------------------

    def prior_of_lower(self, z2: Tensor) -> Tensor:
        """Parameters [N, 2 latents] of p(z1 | z2)."""
        return self.prior_lower(self.downwards(z2))

    def components(self) -> Tensor:
        """Parameters [components, 2 latents] of the VampPrior's normals: the posteriors of its pseudo-inputs."""
        like = next(itertools.chain(self.parameters(), self.buffers()))
        return self.infer(self.pseudo(like.new_zeros(1, 1)).reshape(self.config.components, self.config.dims))

    def decode(self, z: Tensor) -> Tensor:
        """Parameters [N, those of a sample, dims] of p(x | z), or of p(x | z1)."""
        return self.likelihood(self.decoder(z)).reshape(len(z), -1, self.config.dims)

    # -- what a self-test compares between machines --------------------------------------------------------------

    def probe_shapes(self, height: int, width: int) -> list[tuple[int, ...]]:
        """Shapes, without the batch, of the inputs of `probe`: x, and z of each layer."""
        return [(self.config.dims,), *((latents,) for latents in self.config.latents)]

    def probe(self, x: Tensor, z: Tensor, *upper: Tensor) -> list[Tensor]:
        """Everything the networks put out for given inputs."""
        q = self.infer(x)
        out = [self.flow_step(z, q) if self.config.posterior == "flow" else q, self.decode(z)]
        if self.config.prior == "vamp":
            out.append(self.components())
        if upper:
            out += [self.infer_upper(z), self.prior_of_lower(*upper)]
        return out

    # -- distributions, while training ---------------------------------------------------------------------------

    def posterior_of(self, params: Tensor) -> Posterior:
        """q(z | x), or q(z1 | x), of real-valued parameters."""
        if self.config.posterior == "flow":
            return Flow(params, self.config.latents[0], self.flow_step)
        if self.config.posterior == "full":
            return FullNormal(params, self.config.latents[0])
        return Normal(params)

    def prior(self) -> Distribution:
        """p(z), or p(z2)."""
        return VampPrior(self.components()) if self.config.prior == "vamp" else StandardNormal()


def see_x(x: Tensor, depth: int) -> Tensor:
    """What the encoder sees of samples x (of 1 bit: 0 and 255): integers in -2047..2047, around the middle."""
    if depth == 1:
        return 2047 * torch.where(x > 0, 1, -1).to(x)
    return 8 * (2 * x - 255) if depth == 8 else 2 * torch.floor(x / 2) - 2047


def _latent(count: int) -> tuple[int, ...]:
    """Binary digits of the parameters of so many normals: means as z, log2-scales in 1/8."""
    return (Z_DIGITS,) * count + (3,) * count


def _head(features: int, latents: int, source: str) -> Linear:
    return Linear(features, 2 * latents, source=source, target="params", relu=False, digits=_latent(latents))


def _tower(widths: tuple[int, ...], source: str, name: str) -> nn.Sequential:
    """Layers from one width to the next; what the last puts out has the scale `name.{the last}`."""
    names = [source, *(f"{name}.{i}" for i in range(len(widths) - 1))]
    return nn.Sequential(
        *(
            Linear(*sizes, source=a, target=b)
            for sizes, (a, b) in zip(itertools.pairwise(widths), itertools.pairwise(names), strict=True)
        )
    )
