"""The family `dense` from the command line: trained, and used as every model is, on grey and bilevel pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bbans.cli.main import main

from ..conftest import dense_config, dense_pictures

RECIPE = """
family = "dense"
steps = 6
batch = 20
optimiser = "adam"
learning_rate = 1e-3
warmup = 2
{more}

[model]
height = 5
width = 6
hidden = [12, 8]
latents = {latents}
{model}

[deck]
hold_out = 20
"""
KINDS = {  # of the pictures, and what the recipe says
    "L": {"model": 'likelihood = "logistic"\nposterior = "flow"', "more": "free_bits = 0.1\nkl_warmup = 3"},
    "1": {"model": 'likelihood = "bernoulli"\ndepth = 1\nprior = "vamp"\ncomponents = 4', "more": "beta = 0.5"},
    "two": {"model": 'likelihood = "normal"', "more": "particles = 2", "latents": "[3, 2]"},
}
Command = Callable[..., tuple[int, str, str]]


def pictures(kind: str, count: int) -> np.ndarray:
    """Grey or bilevel [count, h, w]."""
    values = dense_pictures(dense_config("logistic-diagonal"), count)[..., 0]
    return values > 127 if kind == "1" else values


def recipe(kind: str = "L", **changes: str) -> Path:
    Path("recipe.toml").write_text(RECIPE.format(**{"latents": "[3]", "more": "", **KINDS[kind], **changes}))
    return Path("recipe.toml")


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """command("info", "x.bbans") -> (code, stdout, stderr), in `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        return code, *capsys.readouterr()

    return run


def train(command: Command, data: str = "train.npz") -> tuple[int, str, str]:
    return command("train", "dense", data, "--config", "recipe.toml", "-o", "run", "--device", "cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_from_an_array_to_files(command: Command, kind: str) -> None:
    x = pictures(kind, 60)
    np.savez("train.npz", images=x)
    recipe(kind)
    code, _, err = train(command)
    assert code == 0 and "validation" in err and "dead" in err
    assert sorted(path.name for path in Path("run").iterdir()) == [
        "checkpoint.pt", "float.safetensors", "log.jsonl", "recipe.toml", "weights.safetensors"
    ]  # fmt: skip

    Image.fromarray(x[0]).save("one.png")
    assert command("compress", "-m", "run", "one.png")[0] == 0
    assert command("decompress", "-m", "run", "one.png.bbans", "-o", "back.png")[0] == 0
    with Image.open("back.png") as back:
        assert back.mode == ("1" if kind == "1" else "L")
        np.testing.assert_array_equal(np.asarray(back), x[0])

    np.save("many.npy", x)
    assert command("archive", "create", "many.bbansa", "many.npy", "-m", "run")[0] == 0
    code, out, _ = command("archive", "list", "many.bbansa")
    assert code == 0 and "60" in out
    assert command("archive", "test", "many.bbansa", "-m", "run")[0] == 0
    assert command("archive", "extract", "many.bbansa", "-m", "run", "-o", "again.npy")[0] == 0
    np.testing.assert_array_equal(np.load("again.npy"), x)


def test_from_a_folder_of_images(command: Command) -> None:
    Path("album").mkdir()
    for i, pixels in enumerate(pictures("L", 30)):
        Image.fromarray(pixels).save(f"album/{i:02}.png")
    recipe()
    assert train(command, "album")[0] == 0
    code, out, err = command("eval", "-m", "run", "album", "--json", "--device", "cpu", "--particles", "3")
    records = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and not err and len(records) == 31
    total = records[-1]
    assert {"float_elbo", "iwae", "elbo", "net", "total", "likelihood", "kl", "dead_kl"} <= set(total)
    assert total["iwae"] < total["float_elbo"]
    code, out, _ = command("eval", "-m", "run", "album", "--json", "--device", "cpu", "--chain", "30")
    total = json.loads(out.splitlines()[-1])
    assert code == 0 and total["net"] == pytest.approx(total["elbo"], rel=0.01)


def test_a_run_goes_on(command: Command) -> None:
    np.savez("train.npz", images=pictures("L", 60))
    recipe()
    assert train(command)[0] == 0
    before = Path("run/weights.safetensors").read_bytes()
    assert train(command)[0] == 0 and Path("run/weights.safetensors").read_bytes() == before
    recipe(more="beta = 2.0")
    code, _, err = train(command)
    assert code == 1 and "another kl_warmup, beta, free_bits; name another folder" in err


def test_restarts_and_orthogonal_steps(command: Command) -> None:
    np.savez("train.npz", images=pictures("L", 60))
    path = recipe(more="restarts = [3]")
    path.write_text(path.read_text().replace('optimiser = "adam"', ""))
    code, _, err = train(command)
    assert code == 0 and "begins anew" in err


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ('likelihood = "normal"\ndepth = 12', "no file holds pictures of 12 bits"),
        ('likelihood = "logistic"\ndepth = 12', "recipe.toml: no likelihood logistic of samples of 12 bits"),
        ("depth = 4", "recipe.toml: depth: one of 1, 8, 12; not 4"),
        ("mixtures = 1000000", "recipe.toml: mixtures: 1 to 32"),
        ("samples = 3", "unknown key 'samples' for DenseConfig"),
        ('likelihood = "normal"\nscale = 2.0', "recipe.toml: scale: of a normal likelihood"),
        ("components = 5.0", "components must be like 0"),
        ('posterior = "full"\nprior = "vamp"\ncomponents = 3', "a VampPrior is of diagonal posteriors"),
    ],
)
def test_recipes_that_are_none(command: Command, model: str, words: str) -> None:
    np.savez("train.npz", images=pictures("L", 60))
    recipe(model=model, more="")
    code, out, err = train(command)
    assert code == 1 and not out and words in err and err.count("\n") == 1
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("particles = 0", "particles are at least 1"),
        ("beta = -1", "beta and free_bits at least 0"),
        ("particles = 4\nfree_bits = 0.1", "no beta, no free_bits, no kl_warmup"),
        ("particles = 1.5", "particles must be like 1"),
    ],
)
def test_objectives_that_are_none(command: Command, more: str, words: str) -> None:
    np.savez("train.npz", images=pictures("L", 60))
    recipe(more=more)
    code, _, err = train(command)
    assert code == 1 and words in err and "recipe.toml" in err


def test_pictures_of_another_size(command: Command) -> None:
    np.savez("train.npz", images=np.zeros((60, 6, 6), np.uint8))
    recipe()
    code, _, err = train(command)
    assert code == 1 and "6x6x1, but the model is for 5x6x1" in err


def test_a_model_of_12_bits_codes_no_files(command: Command, tiny_dense: Callable[[str], Path]) -> None:
    folder = str(tiny_dense("deep-diagonal"))
    np.save("set.npy", pictures("L", 3))
    Image.fromarray(pictures("L", 1)[0]).save("one.png")
    for words in (["eval", "set.npy"], ["compress", "one.png"]):
        code, _, err = command(*words, "-m", folder)
        assert code == 1 and "takes no pictures of 6 x 5 of mode L" in err
