from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bbans.errors import BadModel
from bbans.vae.families import begin_from
from bbans.vae.layers import Conv, Residual
from bbans.vae.objectives import photo_bits
from bbans.vae.photo import PhotoConfig, PhotoLevel, PhotoVAE

CONFIG = PhotoConfig(channels=8, hidden=4, mixtures=2, latents=3, regional=8, blocks=(1, 1, 1), distinct=2)


@pytest.fixture(scope="module")
def model() -> PhotoVAE:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PhotoVAE(CONFIG).requires_grad_(False)


def maps(h: int, w: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs of `probe`."""
    generator = torch.Generator().manual_seed(h * w)
    sizes = [(6, h, w), (3, h, w), (3, h, w), (CONFIG.latents, -(-h // CONFIG.region), -(-w // CONFIG.region))]
    c, d, b, z = (torch.randn(2, *size, generator=generator) for size in sizes)
    return c, d, b, z


def pictures(h: int, w: int) -> Tensor:
    rgb = torch.randint(0, 256, (2, h, w, 3), generator=torch.Generator().manual_seed(h * w))
    return CONFIG.sampling.planes(rgb).float()


@pytest.mark.parametrize(("h", "w"), [(1, 1), (1, 9), (8, 8), (17, 5)])
def test_every_map_has_the_size_of_c(model: PhotoVAE, h: int, w: int) -> None:
    both = model.probe(*maps(h, w))
    posterior, *params = both[:10]
    assert len(both) == 20
    assert posterior.shape == (2, 2 * CONFIG.latents, -(-h // CONFIG.region), -(-w // CONFIG.region))
    assert len(params) == 9 and all(p.shape == (2, 3 * CONFIG.mixtures, h, w) for p in params)


@pytest.mark.parametrize("region", [2, 4, 16])
@pytest.mark.parametrize(("h", "w"), [(1, 1), (17, 5)])
def test_regions_of_other_sizes(region: int, h: int, w: int) -> None:
    level = PhotoVAE(replace(CONFIG, region=region)).requires_grad_(False).level(0)
    c, d, b, _ = maps(h, w)
    shape = (2, CONFIG.regional, -(-h // region), -(-w // region))
    assert level.regions(c).shape == shape and level.infer(c, d, b).shape == (2, 2 * CONFIG.latents, *shape[2:])


def test_the_encoder_may_be_wider(model: PhotoVAE) -> None:
    wide = PhotoVAE(replace(CONFIG, encoder=20))
    before, after = (dict(network.named_parameters()) for network in (model, wide))
    changed = {name for name, x in after.items() if x.shape != before[name].shape}
    assert changed and all("encoder." in name or "posterior." in name for name in changed)
    c, d, b, _ = maps(17, 5)
    assert wide.level(0).infer(c, d, b).shape == model.level(0).infer(c, d, b).shape
    with pytest.raises(BadModel, match="encoder: at least 0"):
        replace(CONFIG, encoder=-1)


@pytest.mark.parametrize("region", [1, 3, 64])
def test_regions_of_no_size(region: int) -> None:
    with pytest.raises(BadModel, match="region: one of 2, 4, 8, 16, 32"):
        replace(CONFIG, region=region)


def test_only_d_and_b_see_the_latents(model: PhotoVAE) -> None:
    c, d, b, z = maps(9, 7)
    level = model.level(1)
    before, after = level.probe(c, d, b, z), level.probe(c, d, b, z + 1)
    posterior, *phases = (torch.equal(x, y) for x, y in zip(before, after, strict=True))
    assert posterior and phases == [False] * 6 + [True] * 3


def test_d_does_not_see_the_phases_after_it(model: PhotoVAE) -> None:
    c, d, b, z = maps(9, 7)
    level = model.level(1)
    before, after = level.probe(c, d, b, z), level.probe(c, d, b + 1, z)
    posterior, *phases = (torch.equal(x, y) for x, y in zip(before, after, strict=True))
    assert not posterior and phases == [True] * 6 + [False] * 3


def test_every_scale_has_one_meaning(model: PhotoVAE) -> None:
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, Conv)}
    targets = {layer.target for layer in layers.values()}
    assert {layer.source for layer in layers.values()} <= targets | {"input"} and "input" not in targets
    for layer in layers.values():
        assert len(layer.digits) == (layer.out_channels if layer.target == "params" else 0)


def test_the_coarsest_networks_are_those_of_all_coarser_levels(model: PhotoVAE) -> None:
    assert model.level(0) is model.levels[0] and model.level(1) is model.level(5) is model.levels[1]
    x = pictures(32, 32)
    bits = []
    for changed in (model, copy.deepcopy(model)):
        if bits:
            changed.levels[1].head_e.out[0].bias += 1
        with torch.random.fork_rng():
            torch.manual_seed(1)
            bits.append(photo_bits(changed, x, levels=3)[0])
    same = {name for name in bits[0] if torch.equal(bits[0][name], bits[1][name])}
    assert bits[0].keys() - same == {"e2", "e3"}


def test_levels_of_their_own_begin_as_the_shared_ones(model: PhotoVAE) -> None:
    shared = PhotoVAE(replace(CONFIG, distinct=1)).requires_grad_(False)
    begun = PhotoVAE(replace(CONFIG, distinct=3, blocks=(1, 2, 1)))
    begin_from(begun, shared.state_dict())
    for level in begun.levels:
        for name, tensor in shared.levels[0].state_dict().items():
            assert torch.equal(level.state_dict()[name], tensor)
    again = PhotoVAE(CONFIG)
    begin_from(again, model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


def test_a_photo_without_an_overview_begins_from_one_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    other = PhotoVAE(CONFIG).requires_grad_(False)
    for parameter in other.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    begun = PhotoVAE(replace(CONFIG, overview=False)).requires_grad_(False)
    begin_from(begun, other.state_dict())
    monkeypatch.setattr(PhotoLevel, "regions", lambda level, c: torch.zeros_like(level.region(c)))
    blank = other.probe(*maps(9, 7))
    monkeypatch.undo()
    assert all(torch.allclose(x, y, atol=1e-5) for x, y in zip(begun.probe(*maps(9, 7)), blank, strict=True))
    with pytest.raises(BadModel, match="of another form"):
        begin_from(other, begun.state_dict())


def test_without_an_overview_only_latents_tell(model: PhotoVAE) -> None:
    plain = PhotoVAE(replace(CONFIG, overview=False)).requires_grad_(False)
    c, d, b, z = maps(9, 7)
    level = plain.level(0)
    assert level.regions(c) is None and level.condition_e(None) is None
    before, after = level.probe(c, d, b, z), level.probe(c, d, b, z + 1)
    posterior, *phases = (torch.equal(x, y) for x, y in zip(before, after, strict=True))
    assert posterior and phases == [False] * 6 + [True] * 3
    silent = PhotoVAE(replace(CONFIG, overview=False, latents=0)).level(0)
    assert silent.condition(None, None) == (None, None) and not hasattr(silent, "bias_db")


def test_a_block_starts_as_the_identity() -> None:
    h = torch.rand(1, 4, 5, 5)
    assert torch.equal(Residual(4, stream="a", inner="b")(h), h)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1), (7, 12)])
def test_the_elbo_of_any_size(model: PhotoVAE, size: tuple[int, int]) -> None:
    bits, rest = photo_bits(model, pictures(*size), levels=2)
    assert rest.shape == (2, 3, -(-size[0] // 4), -(-size[1] // 4))
    assert list(bits) == ["d1", "b1", "e1", "kl1", "d2", "b2", "e2", "kl2"]
    assert all(part.shape == (2,) and torch.isfinite(part).all() for part in bits.values())


def test_of_a_grey_picture_only_luma_counts(model: PhotoVAE) -> None:
    x = pictures(8, 8)
    x[:, 1:] = 0
    with torch.random.fork_rng():
        torch.manual_seed(1)
        colour, _ = photo_bits(model, x, levels=1)
        torch.manual_seed(1)
        grey, _ = photo_bits(model, x, levels=1, grey=True)
    assert torch.equal(grey["kl1"], colour["kl1"]) and (grey["e1"] > 0).all() and (grey["e1"] < colour["e1"]).all()


def test_a_model_without_latents_has_no_kl() -> None:
    plain = PhotoVAE(PhotoConfig(channels=8, hidden=4, mixtures=2, latents=0, regional=8, blocks=(1, 1, 1)))
    bits, _ = photo_bits(plain, pictures(8, 8), levels=1)
    assert not bits["kl1"].any() and not any("encoder" in name for name, _ in plain.named_parameters())
