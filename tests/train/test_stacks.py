from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bbans.errors import BadImage, BbansError
from bbans.train.stacks import Deck, binarise, load_stack

SHAPE = (6, 5, 1)
PICTURES = np.random.default_rng(0).integers(0, 256, (9, *SHAPE), np.uint8)


def test_a_batch_comes_once_before_any_comes_again() -> None:
    batches = Deck().batches(PICTURES, 3, seed=0, bilevel=False)
    for _ in range(2):
        seen = np.concatenate([next(batches) for _ in range(3)])
        assert sorted(x.tobytes() for x in seen) == sorted(x.tobytes() for x in PICTURES)


def test_batches_follow_from_their_seed() -> None:
    def first(seed: int) -> np.ndarray:
        return next(Deck(flip=True).batches(PICTURES, 5, seed, bilevel=True))

    np.testing.assert_array_equal(first(1), first(1))
    assert not np.array_equal(first(1), first(2))


def test_a_flipped_picture_is_a_mirrored_one() -> None:
    known = {x.tobytes() for x in PICTURES} | {x[:, ::-1].tobytes() for x in PICTURES}
    batch = next(Deck(flip=True).batches(PICTURES, 9, seed=0, bilevel=False))
    assert {x.tobytes() for x in batch} <= known and not {x.tobytes() for x in batch} <= {x.tobytes() for x in PICTURES}


def test_a_sample_is_one_as_often_as_its_value_says() -> None:
    values = np.repeat(np.array([0, 51, 204, 255], np.uint8), 20_000)
    shares = binarise(values, np.random.default_rng(0)).reshape(4, -1).mean(1)
    assert shares[0] == 0 and shares[3] == 1
    np.testing.assert_allclose(shares[1:3], [0.2, 0.8], atol=0.01)
    np.testing.assert_array_equal(Deck().binarised(PICTURES), Deck().binarised(PICTURES))


def test_arrays_and_files_are_read_in_order(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", PICTURES[:3, :, :, 0])
    np.savez(tmp_path / "b.npz", images=PICTURES[3:5], labels=np.zeros(2))
    for i, picture in enumerate(PICTURES[5:]):
        Image.fromarray(picture[:, :, 0]).save(tmp_path / f"{i}.png")
    np.testing.assert_array_equal(load_stack([tmp_path / "a.npy", tmp_path / "b.npz", tmp_path], SHAPE), PICTURES)


@pytest.mark.parametrize(
    ("array", "words"), [(PICTURES[..., :4, :], "6x4x1"), (PICTURES.astype(float), "uint8"), (PICTURES[0, 0], "uint8")]
)
def test_other_pictures_are_refused(array: np.ndarray, words: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(BadImage, match=words):
        load_stack([tmp_path / "a.npy"], SHAPE)


def test_what_is_no_array_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK\3\4 and no more")
    np.savez(tmp_path / "b.npz")
    for name in ("a.npz", "b.npz", "nowhere.npy"):
        with pytest.raises(BbansError, match=name):
            load_stack([tmp_path / name], SHAPE)


def test_the_picture_of_another_size_is_named(tmp_path: Path) -> None:
    for name, size in (("a.png", (5, 6)), ("b.png", (6, 6)), ("c.png", (5, 6))):
        Image.new("L", size).save(tmp_path / name)
    np.save(tmp_path / "d.npy", PICTURES)
    with pytest.raises(BadImage, match=r"b\.png: pictures of 6x6x1, but the model is for 6x5x1"):
        load_stack([tmp_path / "d.npy", tmp_path], SHAPE)


def test_bilevel_arrays_are_pictures_of_0_and_255(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", PICTURES[..., 0] > 99)
    stack = load_stack([tmp_path / "a.npy"], SHAPE)
    np.testing.assert_array_equal(binarise(stack, np.random.default_rng(0)), PICTURES > 99)
    with pytest.raises(BadImage, match="0 and 1 only"):
        binarise((PICTURES > 99).astype(np.uint8), np.random.default_rng(0))
