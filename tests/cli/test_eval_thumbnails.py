"""`bbans eval` with real models, and what only `thumbnail` has use for: particles, chains, bilevel pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bbans.cli.main import main
from bbans.train.stacks import binarise

WORDS = ["float_elbo", "elbo", "net", "initial", "container", "total"]
SIZE = (8, 12)

Evaluate = Callable[..., tuple[int, list, str]]


@pytest.fixture
def evaluate(
    tiny_thumbnails: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Evaluate:
    """evaluate("L", "set.npz") -> (code, records, stderr), in `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def run(mode: str, *arguments: str) -> tuple[int, list, str]:
        code = main(["eval", *arguments, "-m", str(tiny_thumbnails[mode]), "--device", "cpu", "--json"])
        out, err = capsys.readouterr()
        return code, [json.loads(line) for line in out.splitlines()], err

    return run


def grey(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, *SIZE), np.uint8)


def test_the_bound_is_shown_beside_the_elbo(evaluate: Evaluate) -> None:
    np.save("set.npy", grey(3))
    code, (*each, total), _ = evaluate("L", "set.npy", "--particles", "20")
    assert code == 0 and len(each) == 3
    assert list(each[0]) == ["image", "dims", "float_elbo", "iwae", *WORDS[1:]]
    for word in ("float_elbo", "iwae", "elbo"):
        assert total[word] == pytest.approx(sum(record[word] for record in each) / 3)
    assert all(record["iwae"] < record["float_elbo"] for record in each)
    assert "iwae" not in evaluate("L", "set.npy")[1][-1]


def test_the_sum_has_the_parts_of_the_elbo(evaluate: Evaluate) -> None:
    np.savez("set.npz", images=np.random.default_rng(0).integers(0, 256, (5, *SIZE, 3), np.uint8))
    _, (*_, total), _ = evaluate("RGB", "set.npz")
    assert list(total)[-5:] == ["likelihood", "kl_whole", "kl_local", "dead_kl_whole", "dead_kl_local"]
    assert total["likelihood"] + total["kl_whole"] + total["kl_local"] == pytest.approx(total["float_elbo"])
    assert 0 <= total["dead_kl_whole"] <= 3 and 0 <= total["dead_kl_local"] <= 2


def test_batches_do_not_show(evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save("set.npy", grey(5))
    names = [record.get("image") for record in evaluate("L", "set.npy")[1]]
    monkeypatch.setattr("bbans.cli.eval.BATCH_DIMS", 2 * 8 * 12)
    assert (
        [record.get("image") for record in evaluate("L", "set.npy")[1]]
        == names
        == [
            *(f"set.npy[{i}]" for i in range(5)),
            None,
        ]
    )


def test_pictures_on_one_message(evaluate: Evaluate) -> None:
    np.save("set.npy", grey(5))
    alone = evaluate("L", "set.npy")[1][-1]
    _, (first, second, total), _ = evaluate("L", "set.npy", "--chain", "3")
    assert (first["chain"], first["count"]) == (["set.npy[0]", "set.npy[2]"], 3)
    assert (second["chain"], second["count"]) == (["set.npy[3]", "set.npy[4]"], 2)
    assert total["images"] == 5 and total["dims"] == alone["dims"]
    assert total["total"] < alone["total"] and total["float_elbo"] == pytest.approx(alone["float_elbo"], rel=0.02)
    for record in (first, second, total):
        assert record["total"] == pytest.approx(sum(record[word] for word in ("net", "initial", "container")))


def test_bilevel_pictures(evaluate: Evaluate, tmp_path: Path) -> None:
    bits = grey(4) > 128
    np.save("set.npy", bits)
    (tmp_path / "folder").mkdir()
    for i, pixels in enumerate(bits):
        Image.fromarray(pixels).save(tmp_path / "folder" / f"{i}.png")
    array, files = (evaluate("1", name)[1] for name in ("set.npy", "folder"))
    assert len(array) == len(files) == 5
    assert [r["elbo"] for r in array] == [r["elbo"] for r in files]


def test_grey_pictures_for_a_bilevel_model(evaluate: Evaluate) -> None:
    x = grey(4)
    np.savez("grey.npz", images=x)
    code, records, err = evaluate("1", "grey.npz")
    assert code == 1 and not records and err.count("\n") == 1
    assert err.startswith("bbans: grey.npz: ") and "--binarise" in err
    np.save("bits.npy", binarise(x, np.random.default_rng(5)).astype(bool))
    drawn, once = evaluate("1", "grey.npz", "--binarise", "5")[1], evaluate("1", "bits.npy")[1]
    assert [r["elbo"] for r in drawn] == [r["elbo"] for r in once]


def test_pictures_that_the_model_does_not_take(evaluate: Evaluate, tmp_path: Path) -> None:
    np.save("set.npy", np.zeros((9, 5, 7), np.uint8))
    code, records, err = evaluate("L", "set.npy")
    assert code == 1 and not records and err.count("\n") == 1  # one line for all of an array
    assert "takes no pictures of 7 x 5 of mode L; -m names another" in err
    (tmp_path / "folder").mkdir()
    Image.fromarray(grey(1)[0]).save(tmp_path / "folder" / "good.png")
    Image.new("RGB", (12, 8)).save(tmp_path / "folder" / "colour.png")
    code, records, err = evaluate("L", "folder")
    assert code == 1 and len(records) == 2 and err.count("\n") == 1 and "colour.png" in err


def test_as_a_table(
    tiny_thumbnails: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("set.npy", grey(2))
    assert main(["eval", "set.npy", "-m", str(tiny_thumbnails["L"]), "--device", "cpu", "--particles", "2"]) == 0
    head, *_, total, parts = capsys.readouterr().out.splitlines()
    assert head.split() == ["float_elbo", "iwae", *WORDS[1:], "dims", "image"] and total.endswith("2 images")
    assert parts.startswith("float_elbo: likelihood ") and ", kl_whole " in parts and ", dead_kl_whole " in parts
