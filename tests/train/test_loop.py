from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from bbans import zoo
from bbans.errors import BadModel, BbansError
from bbans.image.codec import decode_tile, encode_tile
from bbans.train.data import Mix
from bbans.train.export import export
from bbans.train.loop import Recipe, _Loss, kl_weight, learning_rate, train
from bbans.train.tasks import PhotoTask, validation_bits
from bbans.vae.dense import DenseConfig
from bbans.vae.distributions import Latents, Normal, StandardNormal
from bbans.vae.layers import ByteConv
from bbans.vae.objectives import SAMPLED, Bits
from bbans.vae.photo import PhotoConfig, PhotoVAE

CPU = torch.device("cpu")
SIZES = PhotoConfig(channels=16, hidden=4, mixtures=2, latents=2, region=4, regional=8, blocks=(1, 1, 1))
RECIPE = Recipe(steps=60, batch=4, learning_rate=1e-2, warmup=5, levels=2, model=SIZES, mix=Mix(crop=32, per_view=2))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(3):
        y, x, c = np.ogrid[:40, :48, :3]
        Image.fromarray((128 + 50 * np.sin(x / (5 + i) + c) + 50 * np.cos(y / 8)).astype(np.uint8)).save(
            folder / f"{i}.png"
        )
    return sorted(folder.iterdir())


def task(files: list[Path], sizes: PhotoConfig = SIZES) -> PhotoTask:
    return PhotoTask(sizes, files, files, RECIPE.mix, RECIPE.levels)


def test_the_learning_rate_warms_up_and_falls() -> None:
    rates = [learning_rate(RECIPE, step) for step in range(RECIPE.steps + 1)]
    assert rates[0] == pytest.approx(2e-3) and max(rates) == rates[5] == 1e-2
    assert rates[5:] == sorted(rates[5:], reverse=True) and rates[-1] == pytest.approx(1e-4)


def test_the_learning_rate_begins_anew_at_restarts() -> None:
    recipe = replace(RECIPE, restarts=(30,))
    rates = [learning_rate(recipe, step) for step in range(RECIPE.steps + 1)]
    assert rates[:30] == [learning_rate(replace(RECIPE, steps=30), step) for step in range(30)] and rates[29] < 2e-4
    assert rates[30:60] == rates[:30]


def test_a_restart_goes_on_from_the_averaged_weights(files: list[Path], tmp_path: Path) -> None:
    recipe = replace(RECIPE, steps=4, restarts=(3,), ema=0.5)
    whole = train(recipe, task(files), tmp_path / "whole", device=CPU)
    half = train(replace(recipe, steps=3), task(files), tmp_path / "half", device=CPU)
    assert len({*saved(tmp_path / "whole")["optimiser"]["state"]}) > 0
    export(half, task(files), tmp_path / "half")
    rest = {"device": CPU, "initial": tmp_path / "half" / zoo.FLOAT_WEIGHTS, "initial_step": 3}
    records: list[tuple[int, dict[str, Any]]] = []
    train(recipe, task(files), tmp_path / "rest", report=lambda *record: records.append(record), **rest)
    assert records[0] == (3, {"restart": True, "revived": records[0][1]["revived"]})
    states = [saved(tmp_path / name)["optimiser"]["state"] for name in ("whole", "rest")]
    assert {s["step"] for state in states for s in state.values() if "step" in s} == {1}  # the optimiser is fresh
    assert not torch.equal(whole.levels[0].enter_d.weight, half.levels[0].enter_d.weight)


def test_the_loss_falls_and_the_result_is_a_model_that_codes(files: list[Path], tmp_path: Path) -> None:
    records: list[tuple[int, dict[str, Any]]] = []
    start = validation_bits(task(files), PhotoVAE(SIZES), CPU)["bpd"]
    ema = train(
        replace(RECIPE, steps=100),
        task(files),
        tmp_path,
        device=CPU,
        validate_every=50,
        report=lambda step, record: records.append((step, record)),
    )
    losses = [record["bpd"] for _, record in records if "bpd" in record]
    assert losses[-1] < losses[0] and validation_bits(task(files), ema, CPU)["bpd"] < start
    assert [step for step, record in records if "validation" in record] == [50, 100]
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {record["step"] for record in log} == {50, 100}

    export(ema, task(files), tmp_path)
    model = zoo.load(tmp_path, device="cpu")
    pixels = np.asarray(Image.open(files[0]))
    payload, _ = encode_tile(model, pixels)
    np.testing.assert_array_equal(decode_tile(model, payload, *pixels.shape), pixels)


def test_the_recipe_names_the_optimiser(files: list[Path], tmp_path: Path) -> None:
    kinds = {}
    for name in ("muon", "adam"):
        train(replace(RECIPE, steps=1, optimiser=name), task(files), tmp_path / name, device=CPU)
        kinds[name] = {frozenset(state) for state in saved(tmp_path / name)["optimiser"]["state"].values()}
    assert kinds["muon"] == {frozenset({"mean"}), frozenset({"step", "mean", "square"})}
    assert kinds["adam"] == {frozenset({"step", "exp_avg", "exp_avg_sq"})}


def test_integer_weights_come_from_the_float_ones_beside_them(files: list[Path], tmp_path: Path) -> None:
    torch.manual_seed(0)
    export(PhotoVAE(SIZES), task(files), tmp_path / "first")
    again = PhotoVAE(SIZES)
    again.load_state_dict(load_file(tmp_path / "first" / zoo.FLOAT_WEIGHTS))
    export(again, task(files), tmp_path / "second")
    for name in (zoo.WEIGHTS, zoo.FLOAT_WEIGHTS):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_crops_must_be_wide_enough_for_the_levels(files: list[Path]) -> None:
    with pytest.raises(BbansError, match="at least 64 pixels"):
        PhotoTask(replace(SIZES, region=8), files, [], RECIPE.mix, levels=3)


def saved(out: Path) -> dict[str, Any]:
    return torch.load(out / "checkpoint.pt", weights_only=True)


def test_a_run_that_was_cut_off_goes_on(files: list[Path], tmp_path: Path) -> None:
    train(RECIPE, task(files), tmp_path, device=CPU, stop_after=0)
    first = saved(tmp_path)
    assert first["step"] == 1 and json.loads(first["recipe"])["model"]["channels"] == 16

    seen: list[int] = []
    train(RECIPE, task(files), tmp_path, device=CPU, report=lambda step, record: seen.append(step))
    last = saved(tmp_path)
    assert last["step"] == RECIPE.steps and seen == [20, 40, 60, 60]  # the end is validated
    assert {state["step"] for state in last["optimiser"]["state"].values() if "step" in state} == {RECIPE.steps}
    assert not torch.equal(first["ema"]["levels.0.enter_d.weight"], last["ema"]["levels.0.enter_d.weight"])

    again = train(RECIPE, task(files), tmp_path, device=CPU)  # there is nothing left to do
    assert (
        torch.equal(again.levels[0].enter_d.weight, last["ema"]["levels.0.enter_d.weight"])
        and saved(tmp_path)["step"] == RECIPE.steps
    )


def test_a_half_written_checkpoint_is_no_checkpoint(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "checkpoint.tmp").write_bytes(b"half")
    train(RECIPE, task(files), tmp_path, device=CPU, stop_after=0)
    assert saved(tmp_path)["step"] == 1 and not (tmp_path / "checkpoint.tmp").exists()


def test_validation_is_repeatable_and_leaves_the_random_state_alone(files: list[Path]) -> None:
    model = PhotoVAE(SIZES)
    state = torch.get_rng_state()
    first, second = validation_bits(task(files), model, CPU), validation_bits(task(files), model, CPU)
    assert first == second and torch.equal(torch.get_rng_state(), state) and model.training


def test_a_run_begins_from_the_weights_of_another(files: list[Path], tmp_path: Path) -> None:
    first = train(replace(RECIPE, steps=3), task(files), tmp_path / "first", device=CPU)
    export(first, task(files), tmp_path / "first")
    weights = tmp_path / "first" / zoo.FLOAT_WEIGHTS
    second = train(replace(RECIPE, steps=0), task(files), tmp_path / "second", device=CPU, initial=weights)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    other = task(files, replace(SIZES, channels=24))
    with pytest.raises(BadModel, match="other sizes"):
        train(RECIPE, other, tmp_path / "third", device=CPU, initial=weights)
    with pytest.raises(BadModel, match="no float weights"):
        train(RECIPE, task(files), tmp_path / "fourth", device=CPU, initial=tmp_path / "nothing")


@pytest.mark.parametrize("optimiser", ["muon", "adam"])
def test_runs_from_before_recipes_named_all_go_on(optimiser: str, files: list[Path], tmp_path: Path) -> None:
    sizes = replace(SIZES, region=8)
    recipe = replace(RECIPE, steps=1, model=sizes, optimiser=optimiser)
    train(recipe, task(files, sizes), tmp_path, device=CPU)
    state = saved(tmp_path)
    old = json.loads(state["recipe"])
    del old["optimiser"], old["model"]["region"], old["weight_decay"], old["restarts"]
    torch.save({**state, "recipe": json.dumps(old)}, tmp_path / "checkpoint.pt")
    train(replace(recipe, steps=2), task(files, sizes), tmp_path, device=CPU)
    assert saved(tmp_path)["step"] == 2
    other = {"muon": "adam", "adam": "muon"}[optimiser]
    with pytest.raises(BbansError, match="another optimiser"):
        torch.save({**state, "recipe": json.dumps(old)}, tmp_path / "checkpoint.pt")
        train(replace(recipe, optimiser=other), task(files, sizes), tmp_path, device=CPU)


def test_weights_that_have_exploded_are_not_exported(files: list[Path], tmp_path: Path) -> None:
    model = PhotoVAE(SIZES)
    with torch.no_grad():
        model.levels[0].enter_d.weight.fill_(1e9)
    with pytest.raises(BadModel, match="beyond half precision"):
        export(model, task(files), tmp_path)


# -- objectives --------------------------------------------------------------------------------------------------------


class Told:
    """A task whose bits are known: so many of the likelihood for each picture, and of the KL of each latent.

    likelihood: [N]; kls: [N, latents, ...] of each layer. With several particles there are as many times N.
    """

    def __init__(self, likelihood: torch.Tensor, **kls: torch.Tensor) -> None:
        self.likelihood, self.kls = likelihood, kls

    def bits(self, network: object, pixels: torch.Tensor, latents: Latents = SAMPLED) -> Bits:
        assert len(pixels) == len(self.likelihood)
        parts = {name: latents.told(name, kl).flatten(1).sum(1) for name, kl in self.kls.items()}
        return {"d1": 0.25 * self.likelihood, "e1": 0.75 * self.likelihood, **parts}


def objective(task: Told, pictures: int, kl_weight: float = 1.0, **options: Any) -> tuple[float, list[float]]:
    """Of `pictures` of four samples; and the likelihood and the KL beside it."""
    loss, parts = _Loss(Recipe(**options), task, torch.nn.Identity())(torch.zeros(pictures, 2, 2, 1), kl_weight)
    return float(loss), parts.tolist()


def told(count: int) -> Told:
    torch.manual_seed(0)
    return Told(
        10 + torch.rand(count), kl_whole=torch.randn(count, 3) + 1, kl_local=0.3 * torch.randn(count, 2, 4, 5) + 0.1
    )


def test_the_objective_is_the_negative_elbo() -> None:
    task = told(6)
    likelihood = float(task.likelihood.sum())
    kl = float(sum(part.sum() for part in task.kls.values()))
    loss, parts = objective(task, 6)
    assert loss == pytest.approx((likelihood + kl) / 24) and parts == pytest.approx([likelihood / 24, kl / 24])


def test_beta_is_the_weight_of_the_kl() -> None:
    recipe = Recipe(beta=4.0, kl_warmup=10)
    assert [kl_weight(recipe, step) for step in (0, 5, 10, 99)] == [0, 2, 4, 4] and kl_weight(Recipe(beta=0), 7) == 0
    task = told(6)
    (without, parts), (loss, same) = objective(task, 6, 0.0), objective(task, 6, 4.0)
    assert parts == same and without == pytest.approx(parts[0]) and loss == pytest.approx(parts[0] + 4 * parts[1])


def test_a_latent_counts_its_free_bits_at_least() -> None:
    """On average over the batch and all positions, latent by latent: Kingma et al. 2016, eq. 15."""
    task, free = told(6), 0.15
    whole, local = task.kls["kl_whole"], task.kls["kl_local"]
    counted = 6 * sum(max(free, float(whole[:, i].mean())) for i in range(3))
    counted += 6 * 20 * sum(max(free, float(local[:, i].mean())) for i in range(2))
    loss, parts = objective(task, 6, free_bits=free)
    assert loss == pytest.approx((float(task.likelihood.sum()) + counted) / 24)
    assert counted > float(whole.sum() + local.sum()) + 1  # some were below
    assert parts == objective(task, 6)[1]  # what is reported is the true KL
    half, _ = objective(task, 6, 0.5, free_bits=free)
    assert half == pytest.approx((float(task.likelihood.sum()) + 0.5 * counted) / 24)


def test_what_is_free_has_no_gradient() -> None:
    kl = torch.tensor([[0.05, 2.0], [0.03, 3.0]]).requires_grad_()
    loss, _ = _Loss(Recipe(free_bits=0.5), Told(torch.ones(2), kl=kl), torch.nn.Identity())(
        torch.zeros(2, 1, 1, 1), 1.0
    )
    loss.backward()
    assert kl.grad is not None and kl.grad.tolist() == [[0, 0.5], [0, 0.5]]


def test_particles_bound_the_evidence() -> None:
    """−log2 of the mean weight of each picture's samples: Burda et al. 2016, eq. 8."""
    task = told(3 * 4)  # three samples of each of four pictures, one sample after another
    total = (task.likelihood + sum(part.flatten(1).sum(1) for part in task.kls.values())).reshape(3, 4).double()
    expected = float(-torch.log2(torch.exp2(-total).mean(0)).sum())
    loss, parts = objective(task, 4, particles=3)
    assert loss == pytest.approx(expected / 16, rel=1e-5) and loss < sum(parts)
    assert sum(parts) == pytest.approx(float(total.sum()) / 48)


class Line:
    """x = slope z + noise of scale 1/2, z ~ N(0, 1), and q of the parameters of a network that sees nothing."""

    def __init__(self, slope: float, q: tuple[float, float]) -> None:
        self.slope, self.q = torch.tensor([slope], requires_grad=True), torch.tensor([q], requires_grad=True)

    def bits(self, network: object, pixels: torch.Tensor, latents: Latents = SAMPLED) -> Bits:
        z, kl = latents("kl", Normal(self.q.expand(len(pixels), 2)), StandardNormal())
        x = pixels.flatten(1)
        noise = Normal(torch.cat([self.slope * z, torch.full_like(z, -1.0)], 1))
        return {"x": -noise.log2_density(x).sum(1), "kl": kl.sum(1)}


def test_doubly_reparametrised_gradients_are_those_of_the_bound() -> None:
    """In expectation, for q, and with less noise where q is good; for all else sample by sample."""
    config = DenseConfig()
    means, noises = [], []
    for doubly in (False, True):
        line = Line(1.5, (0.4, -1.0))
        objective = _Loss(Recipe(particles=4, doubly=doubly, model=config), line, torch.nn.Identity())
        of_q, of_slope = [], []
        torch.manual_seed(0)
        for _ in range(100):
            line.q.grad = line.slope.grad = None
            objective(torch.full((400, 1, 1, 1), 0.8), 1.0)[0].backward()
            of_q.append(line.q.grad[0].clone())
            of_slope.append(line.slope.grad.clone())
        means.append((torch.stack(of_q).mean(0), torch.stack(of_slope)))
        noises.append(torch.stack(of_q).std(0))
    assert torch.equal(means[0][1], means[1][1])
    assert torch.allclose(means[0][0], means[1][0], atol=0.005) and float(means[0][0].abs().min()) > 0.015
    assert bool((noises[1] < noises[0]).all())


def test_many_improbable_bits_are_no_zeros() -> None:
    task = Told(torch.tensor([50_000.0, 50_003.0]), kl=torch.zeros(2, 1))
    loss, _ = objective(task, 1, particles=2)
    assert loss == pytest.approx((50_001 - np.log2(1 + 2**-3.0)) / 4, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"particles": 0}, "particles are at least 1"),
        ({"beta": -1.0}, "beta and free_bits at least 0"),
        ({"beta": float("inf")}, "beta and free_bits at least 0"),
        ({"beta": float("nan")}, "beta and free_bits at least 0"),
        ({"free_bits": -0.5}, "beta and free_bits at least 0"),
        ({"particles": 2, "beta": 2.0}, "no beta, no free_bits, no kl_warmup"),
        ({"particles": 2, "free_bits": 0.5}, "no beta, no free_bits, no kl_warmup"),
        ({"particles": 2, "kl_warmup": 5}, "no beta, no free_bits, no kl_warmup"),
        ({"doubly": True, "model": DenseConfig()}, "of several particles"),
        ({"particles": 2, "doubly": True}, "of `dense` with one layer"),
        ({"particles": 2, "doubly": True, "model": DenseConfig(latents=(4, 2))}, "of `dense` with one layer"),
        ({"particles": 2, "doubly": True, "model": DenseConfig(posterior="flow")}, "of `dense` with one layer"),
    ],
)
def test_objectives_that_are_none(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BbansError, match=words):
        Recipe(**options)


def test_another_objective_is_another_run(files: list[Path], tmp_path: Path) -> None:
    recipe = replace(RECIPE, steps=1)
    train(recipe, task(files), tmp_path, device=CPU)
    for change in ({"beta": 2.0}, {"free_bits": 0.1}, {"particles": 2}):
        with pytest.raises(BbansError, match=f"another {next(iter(change))}"):
            train(replace(recipe, **change), task(files), tmp_path, device=CPU)
    state = saved(tmp_path)
    old = {k: v for k, v in json.loads(state["recipe"]).items() if k not in ("beta", "free_bits", "particles")}
    torch.save({**state, "recipe": json.dumps(old)}, tmp_path / "checkpoint.pt")
    train(replace(recipe, steps=2), task(files), tmp_path, device=CPU)
    assert saved(tmp_path)["step"] == 2


@pytest.mark.parametrize("options", [{"beta": 0.5}, {"free_bits": 0.5}, {"particles": 3}], ids=lambda o: next(iter(o)))
def test_objectives_are_those_of_all_families(options: dict[str, Any], files: list[Path], tmp_path: Path) -> None:
    train(replace(RECIPE, steps=2, **options), task(files), tmp_path, device=CPU)
    assert saved(tmp_path)["step"] == 2


# -- rounding ----------------------------------------------------------------------------------------------------------

OF_BYTES = replace(RECIPE, steps=4, model=replace(SIZES, bits=8, overview=False), ema=0.5)


def rounds(network: Any) -> set[bool]:
    return {layer.rounds for layer in network.modules() if isinstance(layer, ByteConv)}


def test_rounding_begins_at_its_step_from_the_averaged_weights(files: list[Path], tmp_path: Path) -> None:
    before = train(replace(OF_BYTES, steps=2, rounding=2), task(files, OF_BYTES.model), tmp_path, device=CPU)
    assert rounds(before) == {False}
    after = train(replace(OF_BYTES, steps=3, rounding=2), task(files, OF_BYTES.model), tmp_path, device=CPU)
    assert rounds(after) == {True}
    state = saved(tmp_path)
    assert {s["step"] for s in state["optimiser"]["state"].values() if "step" in s} == {1}  # the optimiser is fresh

    seen: list[int] = []  # resuming goes on rounding, and does not begin again
    train(
        replace(OF_BYTES, rounding=2),
        task(files, OF_BYTES.model),
        tmp_path,
        device=CPU,
        validate_every=1,
        report=lambda step, record: seen.append(step),
    )
    last = saved(tmp_path)
    assert seen == [4] and {s["step"] for s in last["optimiser"]["state"].values() if "step" in s} == {2}
    for network in ("model", "ema"):
        extra = [name for name in state[network] if name.endswith("_extra_state")]
        assert extra and all(torch.equal(state[network][name], last[network][name]) for name in extra)


def test_rounding_may_be_left_to_the_export(files: list[Path], tmp_path: Path) -> None:
    learned = train(replace(OF_BYTES, steps=1, rounding=-1), task(files, OF_BYTES.model), tmp_path, device=CPU)
    assert rounds(learned) == {False}
    export(learned, task(files, OF_BYTES.model), tmp_path)
    model = zoo.load(tmp_path, device="cpu")
    assert model.float_network is not None and rounds(model.float_network) == {True}


def test_networks_of_12_bits_are_not_begun_anew(files: list[Path], tmp_path: Path) -> None:
    """The default step of rounding was one of an optimiser without a memory, for all families."""
    runs = [
        train(replace(RECIPE, steps=3, rounding=step), task(files), tmp_path / str(step), device=CPU)
        for step in (2, -1)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*(run.parameters() for run in runs), strict=True))


def test_a_step_of_rounding_that_is_none() -> None:
    with pytest.raises(BbansError, match="rounding is a step, or -1; not -2"):
        Recipe(rounding=-2)
    with pytest.raises(BadModel, match="bits: 8 or 12, not 9"):
        PhotoConfig(bits=9)
