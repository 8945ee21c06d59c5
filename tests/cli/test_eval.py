from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WORDS = ["float_elbo", "elbo", "net", "initial", "container", "total"]


def records(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


def test_folder(run: Callable, photo: Path, tmp_path: Path) -> None:
    Image.new("L", (10, 10)).save("grey.png")
    before = sorted(tmp_path.iterdir())
    result = run("eval", ".", "--json")
    grey, colour, total = records(result.out)
    assert result.code == 0 and sorted(tmp_path.iterdir()) == before
    assert (grey["image"], colour["image"], total["images"]) == ("grey.png", "photo.png", 2)
    assert (grey["dims"], colour["dims"], total["dims"]) == (100, 105, 205)
    assert list(colour) == ["image", "dims", *WORDS]
    for word in WORDS:
        assert total[word] == pytest.approx((100 * grey[word] + 105 * colour[word]) / 205)


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 1), (3, 4, 5, 3)])
def test_npz(shape: tuple[int, ...], run: Callable, tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", images=np.zeros(shape, np.uint8), labels=np.zeros(3))
    *each, total = records(run("eval", "set.npz", "--json").out)
    assert [r["image"] for r in each] == ["set.npz[0]", "set.npz[1]", "set.npz[2]"] and total["images"] == 3


def test_float_elbo_may_be_unknown(
    run: Callable, photo: Path, fake_zoo: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = vars(fake_zoo)["load"]()
    monkeypatch.setattr(type(model), "float_bounds", lambda self, pixels, **options: None)
    one, total = records(run("eval", "photo.png", "--json").out)
    assert one["float_elbo"] is None and total["float_elbo"] is None and total["elbo"] == one["elbo"]
    table = run("eval", "photo.png").out.splitlines()
    assert len(table) == 3 and table[0].split() == [*WORDS, "dims", "image"] and table[1].split()[0] == "-"


def test_bad_inputs(run: Callable, photo: Path, tmp_path: Path) -> None:
    np.savez("wrong.npz", images=np.zeros((2, 2), float))
    Path("broken.npz").write_bytes(b"PK\x03\x04")
    (tmp_path / "empty").mkdir()
    for path, words in [
        ("wrong.npz", "needs an array 'images'"),
        ("broken.npz", "cannot be read as an .npz"),
        ("none.npz", "cannot be read as an .npz"),
        ("empty", "no images found"),
        ("none.png", "no such file"),
    ]:
        result = run("eval", path, "--json")
        assert (result.code, result.out) == (1, "")
        assert words in result.err and result.err.count("\n") == 1


def test_an_array_of_nothing(run: Callable) -> None:
    np.save("none.npy", np.zeros((0, 4, 5), np.uint8))
    result = run("eval", "none.npy")
    assert (result.code, result.out, result.err) == (1, "", "bbans: none.npy: an array of no pictures\n")


def test_one_bad_file_does_not_stop_the_others(run: Callable, photo: Path) -> None:
    Path("bad.png").write_text("bad")
    result = run("eval", ".", "--json")
    assert result.code == 1 and result.err.count("\n") == 1 and len(records(result.out)) == 2
