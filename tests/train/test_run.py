from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bbans import zoo
from bbans.errors import BbansError
from bbans.image.codec import decode_chain, encode_chain
from bbans.train.loop import Recipe, kl_weight
from bbans.train.run import main_train, read_recipe

MODELS = Path(zoo.__file__).parent.parent / "models"
SIZES = {
    "height": 8,
    "width": 8,
    "samples": 1,
    "depth": 1,
    "levels": 2,
    "channels": 8,
    "hidden": 4,
    "blocks": [1, 1, 1],
    "top": 8,
    "latents": [2, 1],
}


def recipe(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def toml(table: dict[str, object]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())


@pytest.mark.skipif(not MODELS.is_dir(), reason="the recipes are in the repository, not beside the installed package")
@pytest.mark.parametrize(
    ("name", "family"),
    [("photo", "photo"), ("cifar10", "thumbnail"), ("mnist", "thumbnail"), ("mnist-binary", "thumbnail")],
)
def test_the_models_recipes_can_be_read(name: str, family: str) -> None:
    read = read_recipe(MODELS / name / "recipe.toml", family)
    assert read.steps > 0 and read.kl_warmup < read.steps
    other = "photo" if family == "thumbnail" else "thumbnail"
    with pytest.raises(BbansError, match=f"for the family '{family}', not '{other}'"):
        read_recipe(MODELS / name / "recipe.toml", other)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps = ", "not a recipe"),
        ("speed = 3", "unknown key 'speed'"),
        ("steps = 1.5", "steps must be like"),
        ('optimiser = "sgd"', "no optimiser 'sgd'; there are: muon, adam"),
        ("restarts = [5, 3]", r"restarts: steps after the first, one after another; not \[5, 3\]"),
        ("restarts = [0, 3]", "restarts: steps after the first"),
        ('restarts = ["3"]', "restarts: steps after the first"),
        ("restarts = 3", "restarts must be like"),
        ("[model]\nregional = 3", "unknown key 'regional'"),
        ("[deck]\nflip = 1", "flip must be like"),
        ("deck = 3", "must be a table"),
        ("batch = 0", r"recipe\.toml: batch is at least 1, not 0$"),
        ("levels = 0", r"recipe\.toml: levels is at least 1, not 0$"),
        ("steps = -3", r"recipe\.toml: steps is at least 0, not -3$"),
        ("fits = -1", "fits is at least 0"),
        ("kl_warmup = -1", "kl_warmup is at least 0"),
        ("[mix]\nper_view = 0", r"recipe\.toml: per_view is at least 1, not 0$"),
        ("[mix]\ncrop = 0", "crop is at least 1"),
    ],
)
def test_what_is_no_recipe(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BbansError, match=words):
        read_recipe(recipe(tmp_path, text), "thumbnail")


def test_without_a_recipe_the_families_have_their_own(tmp_path: Path) -> None:
    assert {f.name for f in fields(Recipe)} >= {"steps", "kl_warmup", "model", "mix", "deck"}
    with pytest.raises(BbansError, match="there are: photo, thumbnail"):
        main_train("text", [tmp_path], tmp_path / "run", config=None, validation=[], root=None, device="cpu")


def test_the_weight_of_the_kl_is_one_in_the_end() -> None:
    weights = [kl_weight(Recipe(kl_warmup=10), step) for step in range(20)]
    assert weights[0] == 0 and weights[5] == 0.5 and weights[10:] == [1.0] * 10
    assert kl_weight(Recipe(), 0) == 1
    again = [kl_weight(Recipe(kl_warmup=10, restarts=(30,)), step) for step in (29, 30, 35, 40, 99)]
    assert again == [1, 0, 0.5, 1, 1]


def test_small_pictures_become_a_model_that_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)
    np.savez(tmp_path / "train.npz", images=grey)
    text = toml({"family": "thumbnail", "steps": 6, "batch": 8, "warmup": 2, "kl_warmup": 3})
    config = recipe(tmp_path, text + "[model]\n" + toml(SIZES) + "[deck]\nhold_out = 20\n")

    def go() -> None:
        out = tmp_path / "run"
        main_train("thumbnail", [tmp_path / "train.npz"], out, config=config, validation=[], root=None, device="cpu")

    go()
    model = zoo.load(tmp_path / "run", device="cpu")
    x = (grey[:9, :, :, None] > 127).astype(np.uint8)
    payload, _ = encode_chain(model, x)
    np.testing.assert_array_equal(decode_chain(model, payload, *x.shape), x)
    go()  # there is nothing left to do, and the same comes of it
    assert zoo.load(tmp_path / "run", device="cpu").id == model.id


def test_a_folder_is_one_run(tmp_path: Path) -> None:
    np.save(tmp_path / "train.npy", np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8))

    def go(text: str) -> None:
        config = recipe(tmp_path, f"batch = 4\n{text}\n[model]\n" + toml(SIZES))
        data, out = [tmp_path / "train.npy"], tmp_path / "run"
        main_train("thumbnail", data, out, config=config, validation=[], root=None, device="cpu")

    go("steps = 2")
    with pytest.raises(BbansError, match="another seed; name another folder"):
        go("steps = 2\nseed = 1")
    assert "seed" not in (tmp_path / "run" / "recipe.toml").read_text()
    go("steps = 3")
    assert "steps = 3" in (tmp_path / "run" / "recipe.toml").read_text()


def test_a_model_is_not_lost_to_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files need the very model that made them."""
    config, out = recipe(tmp_path, "steps = 2\nbatch = 4\n[model]\n" + toml(SIZES)), tmp_path / "run"

    def go(seed: int) -> bytes:
        np.save(tmp_path / "train.npy", np.random.default_rng(seed).integers(0, 256, (40, 8, 8), np.uint8))
        main_train("thumbnail", [tmp_path / "train.npy"], out, config=config, validation=[], root=None, device="cpu")
        return zoo.load(out, device="cpu").id

    first = go(0)
    assert go(0) == first and not (out / first.hex()).exists()
    made = (out / zoo.FLOAT_WEIGHTS).read_bytes()
    capsys.readouterr()
    second = go(1)  # other pictures calibrate, and so other integers come of the same floats
    assert second != first and str(out / first.hex()) in capsys.readouterr().err
    assert zoo.load(out / first.hex(), device="cpu").id == first
    assert (out / first.hex() / zoo.FLOAT_WEIGHTS).read_bytes() == made

    (out / "checkpoint.pt").unlink()
    with pytest.raises(BbansError, match="holds a model, and no run to go on with; name another folder"):
        go(0)
    assert zoo.load(out, device="cpu").id == second and not [*out.glob(".bbans-*")]


def test_pictures_of_another_size_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "train.npy", np.zeros((4, 8, 9), np.uint8))
    config = recipe(tmp_path, "[model]\n" + toml(SIZES))
    with pytest.raises(BbansError, match="8x9x1, but the model is for 8x8x1"):
        main_train(
            "thumbnail",
            [tmp_path / "train.npy"],
            tmp_path / "run",
            config=config,
            validation=[],
            root=None,
            device="cpu",
        )


def test_the_step_of_weights_to_begin_from_is_one_of_the_recipe(tmp_path: Path) -> None:
    np.save(tmp_path / "train.npy", np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8))
    config = recipe(tmp_path, "steps = 2\nbatch = 4\n[model]\n" + toml(SIZES))

    def go(out: Path, **options: Any) -> None:
        where = {"config": config, "validation": [], "root": None, "device": "cpu"}
        main_train("thumbnail", [tmp_path / "train.npy"], out, **where, **options)

    first = tmp_path / "first"
    go(first)
    for options in ({"initial": first, "initial_step": 3}, {"initial_step": 1}):
        with pytest.raises(BbansError, match="--at: a step of the recipe"):
            go(tmp_path / "second", **options)
    go(tmp_path / "second", initial=first, initial_step=2)
    assert zoo.load(tmp_path / "second", device="cpu").id == zoo.load(first, device="cpu").id
