"""`bbans train` behind its options: recipes, held-out pictures, progress, and export at the end."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from bbans.errors import BbansError
from bbans.image.files import naming
from bbans.train.data import Mix
from bbans.train.export import export
from bbans.train.loop import CHECKPOINT, Recipe, check_same_run, train
from bbans.train.stacks import Deck
from bbans.train.tasks import PhotoTask, StackTask, Task
from bbans.vae.families import FAMILIES, OF_ONE_SIZE, Config
from bbans.vae.photo import PhotoConfig
from bbans.zoo import FLOAT_WEIGHTS, WEIGHTS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_recipe(path: Path, family: str) -> Recipe:
    """A recipe.toml: keys of `Recipe`, tables [model] (sizes), [mix] and [deck]. Raises `BbansError`."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BbansError(f"{path}: not a recipe ({error})") from error
    if (named := raw.pop("family", family)) != family:
        raise BbansError(f"{path}: a recipe for the family {named!r}, not {family!r}")
    config = FAMILIES[family].config
    tables = (("model", config()), ("mix", Mix()), ("deck", Deck()))
    sizes, mix, deck = (_values(path, raw.pop(name, {}), default) for name, default in tables)
    values = _values(path, raw, Recipe())
    with naming(path):
        return Recipe(**values, model=config(**sizes), mix=Mix(**mix), deck=Deck(**deck))


def _values(path: Path, table: Any, default: Recipe | Config | Mix | Deck) -> dict[str, Any]:
    """A table of a recipe, once its keys and the kinds of its values are those of `default`."""
    kind = type(default).__name__
    if not isinstance(table, dict):
        raise BbansError(f"{path}: {kind} must be a table")
    known = {f.name: getattr(default, f.name) for f in fields(default)}
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    for key, value in values.items():
        if key not in known:
            raise BbansError(f"{path}: unknown key {key!r} for {kind}")
        wanted = (int, float) if isinstance(known[key], float) else type(known[key])
        if not isinstance(value, wanted):
            raise BbansError(f"{path}: {key} must be like {known[key]!r}, not {value!r}")
    return values


def main_train(
    family: str,
    data: list[Path],
    output: Path,
    *,
    config: Path | None,
    validation: list[Path],
    root: Path | None,
    device: str,
    initial: Path | None = None,
    initial_step: int = 0,
) -> None:
    """Train, or resume, and export to `output`. Raises `BbansError`."""
    if family not in FAMILIES:
        raise BbansError(f"no model family {family!r}; there are: {', '.join(FAMILIES)}")
    recipe = read_recipe(config, family) if config else Recipe(model=FAMILIES[family].config())
    if not 0 <= initial_step <= recipe.steps or (initial_step and not initial):
        raise BbansError("--at: a step of the recipe, of the weights that --init names")
    task = _task(recipe, data, validation, root)
    place = torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    weights = initial / FLOAT_WEIGHTS if initial else None
    output.mkdir(parents=True, exist_ok=True)
    check_same_run(recipe, output)
    if (output / WEIGHTS).exists() and not (output / CHECKPOINT).exists():
        raise BbansError(f"{output}: holds a model, and no run to go on with; name another folder")
    if config and config.resolve() != (output / "recipe.toml").resolve():
        (output / "recipe.toml").write_text(config.read_text())
    first = os.environ.get("RANK", "0") == "0"
    with ExitStack() as stack:
        report = stack.enter_context(_Progress(recipe.steps)) if first else _silent
        ema = train(recipe, task, output, device=place, initial=weights, initial_step=initial_step, report=report)
    if first and (before := export(ema, task, output)):
        print(f"The model that was in {output} is another one. It is kept in {before}.", file=sys.stderr)


def _task(recipe: Recipe, data: list[Path], validation: list[Path], root: Path | None) -> Task:
    if isinstance(recipe.model, OF_ONE_SIZE):
        return StackTask.of(recipe.model, data, validation, recipe.deck)
    assert isinstance(recipe.model, PhotoConfig)
    return PhotoTask.of(recipe.model, data, validation, root, recipe.mix, recipe.levels, recipe.directions, recipe.fits)


def _silent(step: int, record: dict[str, Any]) -> None:
    pass


def _sentence(validation: dict[str, float]) -> str:
    """What was validated, in words."""
    parts = dict(validation)
    dead = {name.removeprefix("dead_"): parts.pop(name) for name in validation if name.startswith("dead_")}
    bpd, likelihood = parts.pop("bpd"), parts.pop("likelihood")
    said = [f"validation {bpd:.4f} bits per dim: likelihood {likelihood:.4f}"]
    said += [f"{name} {v:.4f}, dead latents {dead.get(name, 0)}" for name, v in parts.items() if name.startswith("kl")]
    return "; ".join(said)


class _Progress:
    """A bar on a terminal, plain lines elsewhere, both on standard error."""

    def __init__(self, steps: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = Console(stderr=True)
        self.bar = Progress(
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("starting", total=steps)

    def __enter__(self) -> _Progress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def __call__(self, step: int, record: dict[str, Any]) -> None:
        if "revived" in record:
            self.console.print(f"step {step}: begins anew, {record['revived']} dead units live again", highlight=False)
            return
        if "validation" in record:
            self.console.print(f"step {step}: {_sentence(record['validation'])}", highlight=False)
            return
        line = f"{record['bpd']:.4f} bits per dim, KL {record['kl']:.4f}"
        self.bar.update(self.task, completed=step, description=line)
        if not self.console.is_terminal and step % 500 == 0:
            self.console.print(f"step {step}: {line}", highlight=False)
