"""`bbans diagnose` with real models."""

from __future__ import annotations

import builtins
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bbans.cli.diagnose import Plan
from bbans.cli.main import main

Diagnose = Callable[..., tuple[int, str, str]]
needs_matplotlib = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib")


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `dense` model of two latents, of random weights, for grey pictures of 4 x 6."""
    import torch

    from bbans.train.export import export
    from bbans.train.stacks import Deck
    from bbans.train.tasks import StackTask
    from bbans.vae.dense import DenseConfig, DenseVAE

    sizes = DenseConfig(height=6, width=4, hidden=(8,), latents=(2,))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 6, 4, 1), np.uint8)
    folder = tmp_path_factory.mktemp("dense") / "plane"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        export(DenseVAE(sizes), StackTask(sizes, pixels, pixels, Deck()), folder)
    return folder


@pytest.fixture
def diagnose(
    tiny_thumbnails: dict[str, Path],
    tiny_models: dict[int, Path],
    plane: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Diagnose:
    """diagnose("L", "set.npz") -> (code, stdout, stderr), in `tmp_path`, of few steps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bbans.cli.diagnose.STEPS", 4)
    models = {**tiny_thumbnails, "photo": tiny_models[2], "dense": plane, "bare": tiny_models[0]}

    def run(model: str, *arguments: str) -> tuple[int, str, str]:
        code = main(["diagnose", *arguments, "-m", str(models.get(model, model)), "--device", "cpu"])
        return code, *capsys.readouterr()

    return run


def noise(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def test_as_json(diagnose: Diagnose) -> None:
    np.savez("set.npz", images=noise(20, 8, 12, 3))
    code, out, err = diagnose("RGB", "set.npz", "--images", "6", "--particles", "20", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert list(found)[:4] == ["model", "family", "images", "available"]
    assert [found[key] for key in list(found)[:6]] == ["RGB", "thumbnail", 6, 20, [[6, 8, 12, 3]], [8, 12, 3]]
    cost, bounds, refined, split = (found[key] for key in ("cost", "bounds", "refined", "surgery"))
    kls = [layer["kl"]["bits_per_dim"] for layer in cost["layers"].values()]
    assert [*cost["layers"]] == ["kl_whole", "kl_local"]
    assert sum([cost["likelihood"]["bits_per_dim"], *kls]) == pytest.approx(cost["elbo"]["bits_per_dim"])
    assert cost["elbo"]["bytes"] == pytest.approx(cost["elbo"]["bits_per_dim"] * 288 / 8)
    assert cost["layers"]["kl_whole"]["latents"] == len(cost["layers"]["kl_whole"]["activity"]) == 3
    assert [*bounds["iwae"]] == ["10", "20"] and bounds["images"] == refined["images"] == 6
    gaps = refined["amortisation"]["bits_per_dim"] + refined["approximation"]["bits_per_dim"]
    assert gaps == pytest.approx(bounds["elbo"]["bits_per_dim"] - refined["bound"]["bits_per_dim"])
    assert split["information"]["bits_per_dim"] <= split["most"] == pytest.approx(np.log2(6) / 288)
    assert diagnose("RGB", "set.npz", "--images", "6", "--particles", "20", "--json")[1] == out
    assert diagnose("RGB", "set.npz", "--images", "6", "--particles", "20", "--json", "--seed", "1")[1] != out


def test_as_a_table(diagnose: Diagnose) -> None:
    np.savez("set.npz", images=noise(5, 8, 12))
    code, out, _ = diagnose("L", "set.npz")
    lines = out.splitlines()
    assert code == 0 and lines[0] == "L (thumbnail), 5 of 5 pictures, 12 x 8, 96 dims each"
    for word in ("−ELBO", "likelihood", "kl_whole", "gap", "amortisation gap", "approximation gap", "I(x; z)", "KL("):
        assert any(line.startswith(f"  {word}") for line in lines), word
    assert "3 latents: " in out and "importance-weighted, 1000" in out and "of log2 5 = 2.32 at most" in out


def test_bilevel_pictures(diagnose: Diagnose) -> None:
    np.savez("grey.npz", images=noise(6, 8, 12))
    code, out, err = diagnose("1", "grey.npz")
    assert (code, out) == (1, "") and err.startswith("bbans: grey.npz: ") and "--binarise" in err
    assert diagnose("1", "grey.npz", "--binarise", "0", "--particles", "10")[0] == 0


def test_pictures_of_several_sizes(diagnose: Diagnose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which the middles are alike, or else only those of the commonest size count."""
    monkeypatch.setattr("bbans.cli.diagnose.PART", 12)
    (tmp_path / "folder").mkdir()
    for i, (height, width) in enumerate([(30, 13), (13, 30), (16, 8)]):
        Image.fromarray(noise(height, width, 3)).save(f"folder/{i}.png")
    code, out, _ = diagnose("photo", "folder", "--json", "--particles", "2")
    found = json.loads(out)
    assert code == 0 and found["images"] == 3 and found["part"] == [12, 12, 3]
    assert found["bounds"]["images"] == found["surgery"]["images"] == 2
    out = diagnose("photo", "folder", "--particles", "2")[1]
    assert "of each the middle 12 x 12" in out and "1 of 13 x 30, 1 of 30 x 13, 1 of 8 x 16" in out


def test_a_single_picture(diagnose: Diagnose) -> None:
    Image.fromarray(noise(8, 12)).save("one.png")
    code, out, _ = diagnose("L", "one.png", "--particles", "5")
    assert code == 0 and "needs two pictures" in out and "±" not in out
    assert json.loads(diagnose("L", "one.png", "--particles", "5", "--json")[1])["surgery"] is None


def test_a_model_without_latents(diagnose: Diagnose) -> None:
    Image.fromarray(noise(20, 24, 3)).save("one.png")
    code, out, _ = diagnose("bare", "one.png")
    assert code == 0 and out.splitlines()[-1].startswith("It has no latents")
    assert json.loads(diagnose("bare", "one.png", "--json")[1])["bounds"] is None


def test_errors(diagnose: Diagnose, tiny_thumbnails: dict[str, Path], tmp_path: Path) -> None:
    np.savez("set.npz", images=noise(5, 8, 12))
    np.savez("none.npz", images=noise(5, 8, 12)[:0])
    shutil.copytree(tiny_thumbnails["L"], "bare")
    Path("bare/float.safetensors").unlink()
    for model, path, words in [
        ("bare", "set.npz", "no float.safetensors"),
        ("RGB", "set.npz", "takes no pictures of 12 x 8 of mode L"),
        ("L", "none.npz", "no pictures"),
        ("L", "missing.npz", "cannot be read as an .npz"),
        ("nothing", "set.npz", "no model 'nothing'"),
    ]:
        code, out, err = diagnose(str(tmp_path / model) if model == "bare" else model, path)
        assert (code, out) == (1, "") and words in err and err.count("\n") == 1, err


def test_work_is_limited() -> None:
    mnist = Plan.of(784, 784, 10_000, None, None)
    assert (mnist.pictures, mnist.samples, mnist.measured, mnist.particles, mnist.paired) == (128, 10, 24, 1000, 128)
    kodak = Plan.of(512 * 768 * 3, 128 * 128 * 3, 24, None, None)
    assert (kodak.pictures, kodak.samples, kodak.measured, kodak.refined_by) == (8, 2, 8, 1)
    assert 40 < kodak.particles < 60
    asked = Plan.of(784, 784, 10_000, 2000, 50)
    assert (asked.pictures, asked.particles, asked.measured) == (2000, 50, 24)


@needs_matplotlib
def test_plots(diagnose: Diagnose, tmp_path: Path) -> None:
    np.save("grey.npy", noise(9, 6, 4))
    code, _, err = diagnose("dense", "grey.npy", "--particles", "5", "--plot", "plots")
    names = ["kl.png", "latents.png", "reconstructions.png", "samples.png"]
    assert (code, err) == (0, f"plots: {', '.join(names)}\n")
    assert sorted(path.name for path in Path("plots").iterdir()) == names
    for name in names:
        with Image.open(Path("plots") / name) as plot:
            assert min(plot.size) > 200
    code, out, err = diagnose("dense", "grey.npy", "--plot", "plots")
    assert (code, out) == (1, "") and "exists already" in err
    assert diagnose("dense", "grey.npy", "--particles", "5", "--plot", "plots", "-f")[0] == 0
    code, out, err = diagnose("dense", "grey.npy", "--plot", "grey.npy")
    assert (code, out) == (1, "") and "cannot be made a folder" in err


@needs_matplotlib
def test_plots_of_a_model_over_a_lattice(diagnose: Diagnose) -> None:
    np.savez("set.npz", images=noise(5, 8, 12, 3))
    assert diagnose("RGB", "set.npz", "--particles", "5", "--plot", "plots")[2] == "plots: kl.png, samples.png\n"


def test_without_matplotlib(diagnose: Diagnose, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save("grey.npy", noise(9, 6, 4))
    whole = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return whole(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    code, out, err = diagnose("dense", "grey.npy", "--plot", "plots")
    assert (code, out) == (1, "") and err == "bbans: plots need matplotlib: pip install 'bbans[plots]'\n"
    assert not Path("plots").exists()
