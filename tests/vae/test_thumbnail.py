from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bbans.errors import BadModel
from bbans.vae import families
from bbans.vae.distributions import Latents
from bbans.vae.layers import Conv
from bbans.vae.objectives import thumbnail_bits
from bbans.vae.photo import PhotoConfig, PhotoVAE
from bbans.vae.thumbnail import ThumbnailConfig, ThumbnailVAE

SIZES = ThumbnailConfig(
    height=12, width=8, samples=3, levels=2, channels=8, hidden=4, mixtures=2, blocks=(1, 1, 1), top=8, latents=(3, 2)
)
GREY = replace(SIZES, samples=1, latents=(3, 0))
BILEVEL = replace(SIZES, samples=1, depth=1, levels=1, latents=(0, 2))
PLAIN = replace(SIZES, latents=(0, 0))
ALL = pytest.mark.parametrize("sizes", [SIZES, GREY, BILEVEL, PLAIN], ids=["colour", "grey", "bilevel", "plain"])


def network(sizes: ThumbnailConfig) -> ThumbnailVAE:
    """Of random weights, those that begin as zeros too."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = ThumbnailVAE(sizes).requires_grad_(False)
        for weights in made.parameters():
            weights.add_(0.05 * torch.randn_like(weights))
    return made


def inputs(made: ThumbnailVAE) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, *shape, generator=generator) for shape in made.probe_shapes(0, 0)]


def pictures(sizes: ThumbnailConfig) -> Tensor:
    shape = (5, sizes.height, sizes.width, sizes.samples)
    return torch.randint(0, 1 << sizes.depth, shape, generator=torch.Generator().manual_seed(2), dtype=torch.uint8)


@ALL
def test_every_scale_has_one_meaning(sizes: ThumbnailConfig) -> None:
    layers = [layer for layer in ThumbnailVAE(sizes).modules() if isinstance(layer, Conv)]
    targets = {layer.target for layer in layers}
    assert {layer.source for layer in layers} <= targets | {"input"} and "input" not in targets
    for layer in layers:
        assert len(layer.digits) == (layer.out_channels if layer.target == "params" else 0)


@ALL
def test_the_elbo_has_a_part_for_every_factor(sizes: ThumbnailConfig) -> None:
    planes = families.picture_planes(network(sizes), pictures(sizes))
    kept: dict[str, Tensor] = {}
    bits = thumbnail_bits(network(sizes), planes, latents=Latents(keep=lambda name, kl: kept.update({name: kl})))
    latents = {"kl_whole": (sizes.latents[0], 1, 1), "kl_local": (sizes.latents[1], *sizes.top_size)}
    expected = {name for name, shape in latents.items() if shape[0]}
    assert kept.keys() == expected
    assert bits.keys() == expected | {"top"} | {f"{p}{i}" for p in "dbe" for i in range(1, sizes.levels + 1)}
    assert all(part.shape == (5,) and torch.isfinite(part).all() for part in bits.values())
    for name in expected:
        assert kept[name].shape == (5, *latents[name])
        torch.testing.assert_close(kept[name].sum((1, 2, 3)), bits[name])


def changed(before: list[Tensor], after: list[Tensor]) -> list[bool]:
    return [not torch.equal(x, y) for x, y in zip(before, after, strict=True)]


def test_the_last_phase_of_the_finest_level_sees_no_latents() -> None:
    made = network(SIZES)
    *planes, z2, z1 = inputs(made)
    q2, q1, *likelihoods = changed(made.probe(*planes, z2, z1), made.probe(*planes, z2 + 1, z1))
    top, finest, coarse = likelihoods[:3], likelihoods[3:12], likelihoods[12:]
    assert not q2 and q1 and all(top) and all(coarse)
    assert finest == [True] * 6 + [False] * 3  # D and B, then E
    q2, q1, *again = changed(made.probe(*planes, z2, z1), made.probe(*planes, z2, z1 + 1))
    assert not q2 and not q1 and again == likelihoods


def test_a_level_sees_nothing_of_the_finer_ones() -> None:
    made = network(SIZES)
    c, d, b, *rest = inputs(made)
    q2, q1, *likelihoods = changed(made.probe(c, d, b, *rest), made.probe(c, d + 1, b, *rest))
    assert q2 and q1 and not any(likelihoods[:3]) and not any(likelihoods[12:])


def test_what_latents_tell_begins_as_nothing() -> None:
    made = ThumbnailVAE(SIZES).requires_grad_(False)
    *planes, z2, z1 = inputs(made)
    after = changed(made.probe(*planes, z2, z1), made.probe(*planes, z2 + 1, z1 + 1))
    assert not any(after[5:])


def test_places_are_told_to_every_phase_of_every_level() -> None:
    made = network(SIZES)
    before = made.probe(*inputs(made))
    for place in (*made.place_db, *made.place_e):
        place.bias[0] += 1  # of the place at the upper left
    assert changed(before, made.probe(*inputs(made))) == [False] * 5 + [True] * 18


def test_a_model_begins_from_one_of_the_same_sizes_with_fewer_blocks() -> None:
    made, more = network(SIZES), ThumbnailVAE(replace(SIZES, blocks=(2, 1, 1)))
    weights = {name: tensor for name, tensor in made.state_dict().items() if not name.startswith("place_")}
    families.begin_from(more, weights)
    begun = more.state_dict()
    assert all(torch.equal(begun[name], tensor) for name, tensor in weights.items())
    assert not begun["levels.0.blocks_d.1.second.weight"].any() and not begun["place_e.0.bias"].any()
    with pytest.raises(BadModel, match="another form"):
        families.begin_from(more, {k: v for k, v in weights.items() if not k.startswith("tell_")})


def test_the_phases_of_a_photo_model_begin_the_levels() -> None:
    photo = PhotoVAE(PhotoConfig(channels=8, hidden=4, mixtures=2, latents=2, regional=8, blocks=(1, 1, 1)))
    made = ThumbnailVAE(replace(SIZES, blocks=(1, 2, 1)))
    families.begin_from(made, photo.state_dict())
    shared = photo.levels[0].state_dict()
    for level in made.levels:
        begun = level.state_dict()
        assert all(torch.equal(begun[name], shared[name]) for name in begun if "blocks_b.1" not in name)
        assert not begun["blocks_b.1.second.weight"].any()
    with pytest.raises(BadModel, match="other sizes"):
        families.begin_from(ThumbnailVAE(GREY), photo.state_dict())


@ALL
def test_planes_are_the_pixels(sizes: ThumbnailConfig) -> None:
    pixels = pictures(sizes)
    planes = families.picture_planes(network(sizes), pixels)
    assert planes.shape == (5, sizes.samples, sizes.height, sizes.width)
    assert torch.equal(sizes.sampling.pixels(planes, sizes.samples), pixels)


@ALL
def test_a_network_is_built_from_its_description(sizes: ThumbnailConfig) -> None:
    assert families.build(**families.describe(ThumbnailVAE(sizes))).config == sizes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"depth": 4}, "not 1 of 4|not 3 of 4"),
        ({"samples": 3, "depth": 1}, "not 3 of 1"),
        ({"levels": 0}, "levels: at least 1"),
        ({"blocks": (1, 1)}, "blocks are those of D, B and E"),
        ({"latents": (2,)}, "latents are"),
        ({"height": -8}, "height: at least 1"),
    ],
)
def test_sizes_that_make_no_network(change: dict[str, object], words: str) -> None:
    with pytest.raises(BadModel, match=words):
        replace(SIZES, **change)
    described = families.describe(ThumbnailVAE(SIZES))
    with pytest.raises(BadModel, match=words):
        families.build("thumbnail", {**described["config"], **change})
