from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bbans.errors import BadImage, BbansError
from bbans.train.data import Crops, Mix, find_images, load_rgb


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of all kinds, one smaller than a crop: a.png, b.JPG, sub/c.png (grey), sub/notes.txt."""
    random = np.random.default_rng(0)
    (tmp_path / "sub").mkdir()
    Image.fromarray(random.integers(0, 256, (40, 60, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(random.integers(0, 256, (70, 50, 3), np.uint8)).save(tmp_path / "b.JPG")
    Image.fromarray(random.integers(0, 256, (20, 90), np.uint8)).save(tmp_path / "sub" / "c.png")
    (tmp_path / "sub" / "notes.txt").write_text("# two of them\n\n../a.png\nc.png\n")
    return tmp_path


def names(files: list[Path]) -> list[str]:
    return [file.name for file in files]


def test_images_are_found_in_folders_lists_and_by_name(folder: Path) -> None:
    assert names(find_images([folder])) == ["a.png", "b.JPG", "c.png"]
    assert names(find_images([folder / "sub" / "notes.txt"])) == ["a.png", "c.png"]
    assert names(find_images([folder / "b.JPG", folder / "sub"])) == ["b.JPG", "c.png"]


def test_a_list_may_be_relative_to_a_root(folder: Path) -> None:
    listed = folder / "sub" / "list.txt"
    listed.write_text("a.png\nsub/c.png\n")
    assert names(find_images([listed], root=folder)) == ["a.png", "c.png"]


def test_what_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(BbansError, match=r"nowhere\.png: no such file \(1 of 2"):
        find_images([folder / "a.png", folder / "nowhere.png"])
    (folder / "empty").mkdir()
    with pytest.raises(BbansError, match="no images found"):
        find_images([folder / "empty"])


def test_every_picture_is_read_as_rgb(folder: Path) -> None:
    assert load_rgb(folder / "sub" / "c.png").mode == "RGB"
    with pytest.raises(BadImage, match=r"notes\.txt"):
        load_rgb(folder / "sub" / "notes.txt")


@pytest.mark.parametrize(
    "mix",
    [
        Mix(crop=32),
        Mix(crop=32, chroma=1, jpeg=1, enlarge=1, grain=1, grey=1),
        Mix(crop=64, untouched=1, jpeg=0, enlarge=0),
    ],
)
def test_crops_have_their_size_whatever_befell_the_picture(folder: Path, mix: Mix) -> None:
    batch = next(Crops(find_images([folder]), mix, seed=0).batches(5))
    assert batch.shape == (5, mix.crop, mix.crop, 3) and batch.dtype == np.uint8
    if mix.grey == 1:
        assert (batch == batch[..., :1]).all()


def test_crops_follow_from_their_seed(folder: Path) -> None:
    def first(seed: int, count: int) -> list[np.ndarray]:
        batches = Crops(find_images([folder]), Mix(crop=16), seed).batches(3)
        return [next(batches) for _ in range(count)]

    np.testing.assert_array_equal(first(1, 3), first(1, 3))
    assert not np.array_equal(first(1, 1), first(2, 1))


def test_a_batch_may_be_larger_than_the_pool(folder: Path) -> None:
    assert len(next(Crops(find_images([folder]), Mix(crop=16, per_view=1), seed=0).batches(70))) == 70


def test_an_untouched_crop_is_a_piece_of_its_source(folder: Path) -> None:
    mix = Mix(crop=40, untouched=1, jpeg=0, enlarge=0, grain=0, grey=0)
    source = np.asarray(load_rgb(folder / "a.png")).reshape(-1, 3)
    (crop,) = next(Crops([folder / "a.png"], mix, seed=0).batches(1))
    assert {tuple(p) for p in crop.reshape(-1, 3)} <= {tuple(p) for p in source}


def test_halved_chroma_leaves_luma(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(90, 160, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    mix = Mix(crop=40, chroma=1, untouched=1, jpeg=0, enlarge=0, grain=0, grey=0)
    (crop,) = next(Crops([tmp_path / "a.png"], mix, seed=0).batches(1))

    def spread(pixels: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(pixels).convert("YCbCr"), float).std((0, 1))

    before, after = spread(noise), spread(crop)
    assert abs(after[0] / before[0] - 1) < 0.1 and (after[1:] < 0.7 * before[1:]).all()
