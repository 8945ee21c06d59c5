"""The training loop: optimiser, schedule, EMA, checkpoints, validation. One device, or several through torchrun.

A run is a folder: `checkpoint.pt` (weights, EMA, optimiser, step), `log.jsonl`, and what export makes of
it. Cut off anywhere, the same command resumes from the checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bbans.errors import BadModel, BbansError
from bbans.image.files import naming
from bbans.train.data import Mix
from bbans.train.muon import Muon
from bbans.train.revive import revive
from bbans.train.rounding import begin_rounding, may_round
from bbans.train.stacks import Deck
from bbans.train.tasks import Task, validation_bits
from bbans.vae.dense import DenseConfig
from bbans.vae.distributions import Doubly, Latents, from_posterior, keep_nothing
from bbans.vae.families import Config, Network, begin_from, family_of
from bbans.vae.layers import channels_last
from bbans.vae.photo import PhotoConfig

CHECKPOINT = "checkpoint.pt"
PROBE_BATCHES = 8  # a unit that is 0 for all of them is dead
OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "muon": Muon,
    "adam": partial(torch.optim.AdamW, betas=(0.9, 0.99), fused=True),  # small networks are most of all overhead
}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run, as in a model's recipe.toml.

    kl_warmup: steps over which the weight of the KL grows from 0 to 1, so that latents learn to tell something before
    they have to pay for it; after it the objective is the true −ELBO, or with beta another weight of the KL (Higgins et
    al. 2017). free_bits: what the KL of each latent counts at least, on average over a batch and all positions, so that
    none is given up early (Kingma et al. 2016, arXiv:1606.04934, eq. 15). particles: samples of the latents; with more
    than one the objective is the importance-weighted bound (Burda et al. 2016, arXiv:1509.00519); doubly: with
    gradients of q as `distributions.Doubly` has them, of `dense` with one layer of normals. restarts: steps at which
    training begins anew from the averaged weights: both warm-ups, cosine and optimiser (Loshchilov & Hutter 2017,
    arXiv:1608.03983), and dead units live again (`bbans.train.revive`). rounding: the step from which a network of 8
    bits learns with them, beginning with averaged weights and a new optimiser (`bbans.train.rounding`); -1: it is only
    rounded at the end. optimiser: a name in `OPTIMISERS`;
    weight_decay: decoupled, relative to the learning rate. Of `photo`: levels, mix; directions: how many its tuning
    knows (`bbans.train.directions`); fits: how many each last layer is fitted along (`bbans.train.fits`). Of the
    others: deck. Raises `BbansError`.
    """

    steps: int = 10_000
    batch: int = 8
    optimiser: str = "muon"
    learning_rate: float = 5e-3
    weight_decay: float = 0.0
    warmup: int = 300
    ema: float = 0.999
    clip: float = 1.0
    seed: int = 0
    kl_warmup: int = 0
    beta: float = 1.0
    free_bits: float = 0.0
    particles: int = 1
    doubly: bool = False
    restarts: tuple[int, ...] = ()
    rounding: int = 5000
    levels: int = 4  # of each crop; coarser ones are too few pixels to matter
    directions: int = 0
    fits: int = 0
    model: Config = field(default_factory=PhotoConfig)
    mix: Mix = field(default_factory=Mix)
    deck: Deck = field(default_factory=Deck)

    def __post_init__(self) -> None:
        if self.optimiser not in OPTIMISERS:
            raise BbansError(f"no optimiser {self.optimiser!r}; there are: {', '.join(OPTIMISERS)}")
        for names, least in ((("batch", "levels"), 1), (("steps", "warmup", "kl_warmup", "directions", "fits"), 0)):
            for name in names:
                if getattr(self, name) < least:
                    raise BbansError(f"{name} is at least {least}, not {getattr(self, name)}")
        if self.particles < 1 or not 0 <= self.beta < math.inf or not 0 <= self.free_bits < math.inf:
            raise BbansError("particles are at least 1, beta and free_bits at least 0")
        if self.particles > 1 and (self.beta != 1 or self.free_bits or self.kl_warmup):
            raise BbansError("of the importance-weighted bound the KL is no part: no beta, no free_bits, no kl_warmup")
        if self.doubly and self.particles == 1:
            raise BbansError("doubly: of several particles")
        if self.doubly and not (
            isinstance(self.model, DenseConfig) and self.model.posterior != "flow" and len(self.model.latents) == 1
        ):
            raise BbansError("doubly: of `dense` with one layer of latents, and a posterior that is no flow")
        if self.rounding < -1:
            raise BbansError(f"rounding is a step, or -1; not {self.rounding}")
        ascending = all(isinstance(step, int) for step in self.restarts) and [*self.restarts] == sorted(
            {*self.restarts}
        )
        if not ascending or min(self.restarts, default=1) < 1:
            raise BbansError(f"restarts: steps after the first, one after another; not {list(self.restarts)}")


def learning_rate(recipe: Recipe, step: int) -> float:
    """Between restarts: linear warm-up, then a cosine to 1 % of the peak."""
    begin = _begin(recipe, step)
    end = min((restart for restart in recipe.restarts if restart > step), default=recipe.steps)
    if step < begin + recipe.warmup:
        return recipe.learning_rate * (step - begin + 1) / recipe.warmup
    done = (step - begin - recipe.warmup) / max(1, end - begin - recipe.warmup)
    return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def kl_weight(recipe: Recipe, step: int) -> float:
    """From 0 to beta over the warm-up of the KL, and beta until the next restart."""
    return recipe.beta * (min(1.0, (step - _begin(recipe, step)) / recipe.kl_warmup) if recipe.kl_warmup else 1.0)


def _begin(recipe: Recipe, step: int) -> int:
    """The last restart, or 0."""
    return max((restart for restart in recipe.restarts if restart <= step), default=0)


class _Loss(nn.Module):
    """The objective of a batch in bits per dim, as a module, so that DistributedDataParallel can wrap it."""

    def __init__(self, recipe: Recipe, task: Task, network: Network) -> None:
        super().__init__()
        self.recipe, self.task, self.network = recipe, task, network

    def forward(self, pixels: Tensor, kl_weight: float) -> tuple[Tensor, Tensor]:
        """The objective, and of −ELBO the likelihood and the KL, detached."""
        free, particles = self.recipe.free_bits, self.recipe.particles
        elements: list[Tensor] = []
        keep = (lambda name, kl: elements.append(kl)) if free else keep_nothing
        doubly = Doubly() if self.recipe.doubly else None
        latents = Latents(doubly or from_posterior, keep, particles)
        bits = self.task.bits(self.network, pixels.repeat(particles, 1, 1, 1), latents)
        likelihood = kl = pixels.new_zeros((), dtype=torch.float32)
        for name, part in bits.items():
            if name.startswith("kl"):
                kl = kl + part
            else:
                likelihood = likelihood + part
        dims = particles * pixels.numel()
        parts = torch.stack([likelihood.sum(), kl.sum()]).detach() / dims
        if particles > 1:
            log_weights = -(likelihood + kl).reshape(particles, -1) * math.log(2.0)
            if doubly:
                doubly.weights = torch.softmax(log_weights.detach(), 0).flatten()
            bound = math.log2(particles) - torch.logsumexp(log_weights, 0) / math.log(2.0)
            return bound.sum() / pixels.numel(), parts
        counted = sum((_free(each, free) for each in elements), kl.new_zeros(())) if free else kl.sum()
        return (likelihood.sum() + kl_weight * counted) / dims, parts


def _free(kl: Tensor, free: float) -> Tensor:
    """The sum of the KL [N, latents, ...] of a layer, of which each latent counts so many bits at least, on average."""
    each = kl.transpose(0, 1).flatten(1)
    return each.mean(1).clamp_min(free).sum() * each.shape[1]


def check_same_run(recipe: Recipe, out: Path) -> None:
    """Raises `BbansError` when the folder holds a run by another recipe.

    Only its steps, and what is done after them, may differ.
    """
    if (out / CHECKPOINT).exists():
        saved = torch.load(out / CHECKPOINT, map_location="cpu", weights_only=True)
        before, now = json.loads(saved["recipe"]), json.loads(json.dumps(asdict(recipe)))
        # what recipes did not say when the run began
        before["model"] = json.loads(json.dumps(asdict(type(recipe.model)()))) | before["model"]
        before.setdefault("optimiser", "muon" if "momentum" in saved["optimiser"]["param_groups"][0] else "adam")
        before = json.loads(json.dumps(asdict(Recipe()))) | before
        if others := [key for key in now if key not in ("steps", "directions", "fits") and before.get(key) != now[key]]:
            raise BbansError(f"{out}: holds a run by a recipe with another {', '.join(others)}; name another folder")


@contextlib.contextmanager
def _probing(recipe: Recipe, task: Task, network: nn.Module, step: int) -> Iterator[Callable[[], object]]:
    """What puts some pictures through the network; alike in all processes, whatever random state they are in."""
    batches = task.batches(recipe.batch, recipe.seed + 1000 * step)
    device = next(network.parameters()).device
    pictures = [torch.from_numpy(next(batches)).to(device) for _ in range(PROBE_BATCHES)]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(recipe.seed + step)
        yield lambda: [task.bits(network, pixels) for pixels in pictures]


def load_weights(path: Path) -> dict[str, Tensor]:
    """Float weights of a model. Raises `BadModel`."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BadModel(f"{path}: no float weights ({error})") from error


@contextlib.contextmanager
def without_denormals() -> Iterator[None]:
    """What is left of the momentum of dead units takes processors ten times as long as other numbers: it becomes 0."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@without_denormals()
def train(
    recipe: Recipe,
    task: Task,
    out: Path,
    *,
    device: torch.device,
    initial: Path | None = None,
    initial_step: int = 0,
    checkpoint_minutes: float = 3.0,
    validate_every: int = 1000,
    stop_after: float = math.inf,
    report: Callable[[int, dict[str, Any]], None] = lambda step, record: None,
) -> Any:
    """Train or resume the run in `out`; returns the EMA model. Random state follows from the seed and the first step.

    initial: float weights (.safetensors) to begin with, of a model of the recipe's sizes; initial_step: the step of the
    recipe that these were made by; stop_after: seconds after which it checkpoints and returns early; report(step,
    record) is called every 20 steps, at restarts, and with what was validated. Raises `BbansError`.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(device)
    out.mkdir(parents=True, exist_ok=True)
    check_same_run(recipe, out)
    torch.manual_seed(recipe.seed)
    model, ema = (channels_last(task.network().to(device)) for _ in range(2))
    ema.load_state_dict(model.state_dict())
    fresh = partial(OPTIMISERS[recipe.optimiser], weight_decay=recipe.weight_decay)
    parameters, averages = list(model.parameters()), list(ema.parameters())
    optimiser = fresh(parameters)
    start = initial_step
    checkpoint = out / CHECKPOINT
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        ema.load_state_dict(saved["ema"])
        optimiser.load_state_dict(saved["optimiser"])
        start = saved["step"]
    elif initial is not None:
        weights = load_weights(initial)
        for network in (model, ema):
            with naming(initial):
                begin_from(network, weights)
    torch.manual_seed(recipe.seed + 1000 * start + rank)
    loss_of: nn.Module = _Loss(recipe, task, model)
    if world > 1:
        loss_of = nn.parallel.DistributedDataParallel(loss_of)
    batches = task.batches(recipe.batch // world, recipe.seed + 1000 * start + rank)

    def save(step: int) -> None:
        if rank:
            return
        state = {
            "model": model.state_dict(),
            "ema": ema.state_dict(),
            "optimiser": optimiser.state_dict(),
            "step": step,
            "recipe": json.dumps(asdict(recipe)),
        }
        torch.save(state, checkpoint.with_suffix(".tmp"))
        checkpoint.with_suffix(".tmp").replace(checkpoint)

    def log(step: int, record: dict[str, Any]) -> None:
        if rank:
            return
        with (out / "log.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **record}) + "\n")
        report(step, record)

    begun = saved_at = time.monotonic()
    mean: Tensor | None = None
    skipped = 0  # steps whose gradients were not finite
    # for gradients only; validation and export are float32
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=family_of(recipe.model).reduced)
    done = start
    for step in range(start, recipe.steps):
        begins_to_round = step == recipe.rounding and may_round(model)
        if step in recipe.restarts or begins_to_round:
            model.load_state_dict(ema.state_dict())
            with _probing(recipe, task, model, step) as run:
                if step in recipe.restarts:
                    log(step, {"restart": True, "revived": revive(model, run)})
                if begins_to_round:
                    begin_rounding(model, run)
            ema.load_state_dict(model.state_dict())
            optimiser = fresh(parameters)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(recipe, step)
        pixels = torch.from_numpy(next(batches)).to(device)
        with autocast:
            loss, parts = loss_of(pixels, kl_weight(recipe, step))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, recipe.clip)
        if bool(torch.isfinite(norm)):
            optimiser.step()
        else:
            skipped += 1
        decay = min(recipe.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(averages, parameters, 1 - decay)
        mean = parts if mean is None else mean.lerp(parts, 0.02)
        done = step + 1
        if done % 20 == 0:
            now = {"bpd": float(mean.sum()), "kl": float(mean[1]), "lr": learning_rate(recipe, step)}
            if done % 100 == 0:
                log(done, {**now, "skipped": skipped, "seconds": round(time.monotonic() - begun, 1)})
            elif not rank:
                report(done, now)
        if (done % validate_every == 0 or done == recipe.steps) and not rank:
            log(done, {"validation": validation_bits(task, ema, device)})
        if time.monotonic() - saved_at > 60 * checkpoint_minutes:
            save(done)
            saved_at = time.monotonic()
        if time.monotonic() - begun > stop_after:
            break
    save(done)
    return ema
