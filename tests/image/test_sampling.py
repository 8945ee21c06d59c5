from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bbans import zoo
from bbans.ans import padding
from bbans.codecs.core import Codec
from bbans.errors import BadFile, BadImage, TooLarge
from bbans.exact.layers import arithmetic
from bbans.image import planes, sampling
from bbans.image.contact import GREY, contact_sheet
from bbans.image.families import pictures_codec
from bbans.image.lanes import MOST_LANES
from bbans.image.planes import Strand
from bbans.image.sampling import message, sample

KINDS = ("1", "L", "RGB", "plain")
SIZE = (20, 27)  # of photos


@pytest.fixture(scope="module")
def models(tiny_thumbnails: dict[str, Path], tiny_models: dict[int, Path]) -> dict[str | int, zoo.Model]:
    folders = {**tiny_thumbnails, **tiny_models}
    return {name: zoo.load(folder, device="cpu") for name, folder in folders.items()}


@pytest.fixture(scope="module")
def mnist() -> zoo.Model:
    return zoo.load("mnist", device="cpu")


def plain_codec(model: zoo.Model, *shape: int) -> Codec:
    assert len(shape) == 4
    return pictures_codec(model.network, model.tables, shape)


@pytest.mark.parametrize(
    ("kind", "channels"), [("1", 1), ("L", 1), ("RGB", 3), ("plain", 3), *[(0, 1), (2, 3), (3, 3)]]
)
def test_pushing_what_was_popped_gives_the_random_bits_back(
    models: dict, kind: str | int, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message before, bit for bit: random bits are a file, and every picture has its bits."""
    monkeypatch.setattr(planes, "POSTERIOR_SCALES", (0, 0))  # as wide as the prior, so that q has mass everywhere
    seeds, lanes = (5, 6, 7), MOST_LANES
    size = SIZE if isinstance(kind, int) else (8, 12)
    strands = [Strand(message(seed, 0), 1, 8, None) for seed in seeds]
    with arithmetic():
        codec = plain_codec(models[kind], len(seeds), *size, channels)
        x = codec.pop(strands)
        took = [strand.message.words.padding - 3 * lanes for strand in strands]
        assert min(took) > 0
        codec.push(strands, x)
    for seed, strand, words in zip(seeds, strands, took, strict=True):
        np.testing.assert_array_equal(strand.message.heads, message(seed, 0).heads)
        high, low = padding(seed, 0, 2).tolist()
        np.testing.assert_array_equal(strand.message.words.array(), padding(high << 32 | low, 3 * lanes, words))


@pytest.mark.parametrize("kind", ["plain", 0])
def test_samples_without_latents_are_what_is_decoded(models: dict, kind: str | int) -> None:
    size = SIZE if kind == 0 else None
    strands = [Strand(message(1, i), 1, 0, None) for i in range(4)]
    with arithmetic():
        planes_of = plain_codec(models[kind], 4, *sampling.shape_of(models[kind], size)).pop(strands)
    pixels = models[kind].network.config.sampling.pixels(planes_of, 3).numpy()
    np.testing.assert_array_equal(sample(models[kind], 4, seed=1, size=size), pixels)


def test_latents_that_q_has_no_mass_for_are_drawn_all_the_same(models: dict) -> None:
    """As the random weights of this model find them in pictures of its own."""
    with arithmetic(), pytest.raises(BadFile, match="no mass"):
        plain_codec(models[2], 1, *SIZE, 3).pop([Strand(message(0, 0), 1, 8, None)])
    assert sample(models[2], 1, size=SIZE).shape == (1, *SIZE, 3)


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("kind", [*KINDS, 3])
def test_a_seed_is_its_pictures(models: dict, kind: str | int, mean: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, size = models[kind], SIZE if kind == 3 else None
    x = sample(model, 5, seed=7, size=size, mean=mean)
    assert x.shape == (5, *sampling.shape_of(model, size))
    assert x.dtype == (np.bool_ if kind == "1" and not mean else np.uint8)
    np.testing.assert_array_equal(sample(model, 5, seed=7, size=size, mean=mean), x)
    monkeypatch.setattr(sampling, "MAX_BATCH_DIMS", 1)
    np.testing.assert_array_equal(sample(model, 2, seed=7, size=size, mean=mean), x[:2])
    if not (mean and kind == "plain"):  # without latents, all means are one picture
        assert (sample(model, 5, seed=8, size=size, mean=mean) != x).any(axis=(1, 2, 3)).all()
        assert len(np.unique(x, axis=0)) == 5
    else:
        assert len(np.unique(x, axis=0)) == 1


def test_a_seed_is_any_integer(models: dict) -> None:
    for seed in (-1, (1 << 64) - 1, (1 << 200) - 1):
        np.testing.assert_array_equal(sample(models["L"], 1, seed), sample(models["L"], 1, -1))


def test_means_have_less_noise_than_samples(models: dict) -> None:
    def roughness(pictures: np.ndarray) -> float:
        return float(np.abs(np.diff(pictures.astype(int), axis=2)).mean())

    for kind in ("L", "RGB", 0):
        size = SIZE if kind == 0 else None
        drawn, means = (sample(models[kind], 4, size=size, mean=mean) for mean in (False, True))
        assert roughness(means) < 0.5 * roughness(drawn)


def test_samples_are_distributed_as_their_means_say(models: dict) -> None:
    """The first channel of the coarsest picture of a model without latents, which nothing comes before."""
    model, count = models["plain"], 400
    drawn, means = (
        plain_codec(model, n, 8, 12, 3).pop([Strand(message(0, i), 1, 8, None, draws=draws) for i in range(n)])
        for n, draws in ((count, planes.DRAW_PIXELS), (1, planes.DRAW_MEANS))
    )
    drawn, mean = drawn[:, 0, ::4, ::4].numpy(), means[0, 0, ::4, ::4].numpy()
    assert (np.abs(drawn.mean(0) - mean) < 0.5 + 4 * drawn.std(0) / count**0.5).all()


def test_bilevel_means_are_probabilities_and_networks_see_the_likelier_value(models: dict) -> None:
    model = models["1"]
    means = sample(model, 3, mean=True)
    assert means.dtype == np.uint8 and len(np.unique(means)) > 2
    decided = model.network.config.sampling.decided(torch.tensor([0.0, 1, 127, 128, 254, 255]))
    assert decided.tolist() == [0, 0, 0, 255, 255, 255]


def test_digits_look_like_digits(mnist: zoo.Model) -> None:
    """Ink in the middle, none at the border, about as much as in the pictures that the model was trained on (33)."""
    x = sample(mnist, 20)
    assert x.shape == (20, 28, 28, 1)
    assert 20 < x.mean() < 50
    assert x[:, :2].mean() < 2 < 60 < x[:, 10:18, 10:18].mean()


def test_sizes(models: dict) -> None:
    assert sample(models[0], 1).shape == (1, 128, 128, 3)
    assert sample(models[0], 2, size=(1, 1)).shape == (2, 1, 1, 3)
    with pytest.raises(BadImage, match="has a size, 12 x 8"):
        sample(models["L"], 1, size=(8, 12))
    with pytest.raises(TooLarge, match="3000 x 1000"):
        sample(models[0], 1, size=(1000, 3000))
    with pytest.raises(ValueError, match="at least one"):
        sample(models[0], 0)


# -- contact sheets ----------------------------------------------------------------------------------------------------


def test_pictures_are_in_rows() -> None:
    pictures = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 100, 100, 3), np.uint8)
    sheet = contact_sheet(pictures)
    assert sheet.shape == (3 * 102 + 2, 2 * 102 + 2, 3)
    assert [int(sheet[2 + 102 * (i // 2), 2 + 102 * (i % 2), 0]) for i in range(6)] == [*range(6)]
    assert (sheet[:2] == GREY).all() and (sheet[:, 102:104] == GREY).all() and (sheet[:, -2:] == GREY).all()


def test_small_pictures_are_enlarged() -> None:
    pictures = np.random.default_rng(0).integers(0, 2, (3, 8, 12, 1)).astype(bool)
    sheet = contact_sheet(pictures)
    assert sheet.dtype == np.uint8 and sheet.shape == (3 * 66 + 2, 98 + 2, 1)
    np.testing.assert_array_equal(sheet[2:66:8, 2:98:8], 255 * pictures[0].astype(np.uint8))
    np.testing.assert_array_equal(sheet[2:66, 2:98], sheet[2:66:8, 2:98:8].repeat(8, 0).repeat(8, 1))


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [((1, 8, 8, 1), (100, 100)), ((1, 500, 20, 3), (504, 24)), ((4, 1, 300, 3), (14, 304)), ((2000, 28, 28, 1), None)],
)
def test_sheets_of_any_number(shape: tuple[int, ...], wanted: tuple[int, int] | None) -> None:
    height, width, _ = contact_sheet(np.zeros(shape, np.uint8)).shape
    assert wanted in (None, (height, width))
    assert max(height, width) < 5000
