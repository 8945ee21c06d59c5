from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bbans.vae.layers import Conv, Enlarged
from bbans.vae.photo import PhotoConfig, PhotoVAE
from bbans.vae.thumbnail import ThumbnailConfig, ThumbnailVAE

PHOTO = PhotoConfig(channels=8, hidden=4, mixtures=2, latents=2, regional=8, blocks=(1, 1, 1))
THUMBNAIL = ThumbnailConfig(16, 16, channels=8, hidden=4, mixtures=2, blocks=(1, 1, 1), top=8, latents=(3, 2))


@pytest.mark.parametrize(
    ("network", "config"), [(PhotoVAE, PHOTO), (ThumbnailVAE, THUMBNAIL)], ids=["photo", "thumbnail"]
)
def test_only_inputs_are_ever_negative(network: Any, config: Any) -> None:
    """On this rest the bounds of `bbans.exact.export`."""
    torch.manual_seed(0)
    made = network(config).requires_grad_(False)
    for weights in made.parameters():
        weights.add_(0.2 * torch.randn_like(weights))
    least: dict[str, float] = {}

    def seen(layer: Any, inputs: tuple[Tensor, ...]) -> None:
        least[layer.source] = min(least.get(layer.source, 0.0), float(inputs[0].min()))

    convs = [layer for layer in made.modules() if isinstance(layer, Conv)]
    for layer in convs:
        layer.register_forward_pre_hook(seen)
    made.probe(*(torch.randn(2, *shape) for shape in made.probe_shapes(16, 24)))
    assert least.keys() == {layer.source for layer in convs}
    assert least.pop("input") < 0 and set(least.values()) == {0.0}


@pytest.mark.parametrize("size", [(1, 1), (8, 12), (9, 14), (3, 30), (16, 4), (5, 5)], ids=str)
@pytest.mark.parametrize("times", [1, 4, 8])
@pytest.mark.parametrize("batch", [1, 3])
def test_what_is_enlarged_is_the_same_at_once_and_in_place(batch: int, times: int, size: tuple[int, int]) -> None:
    """Regions that divide the map, and that reach over its ends; of one picture, for a batch too."""
    h, w = size
    told = Enlarged(torch.randn(batch, 2, -(-h // times), -(-w // times)), times)
    rows, columns = torch.arange(h) // times, torch.arange(w) // times
    expected = told.regions[:, :, rows][..., columns]
    for layout in (torch.contiguous_format, torch.channels_last):
        y = torch.randn(3, 2, h, w).contiguous(memory_format=layout)
        assert torch.equal(told.at(y), expected)
        before = y.clone()
        assert torch.equal(told.add_to(y), before + expected) and told.add_to(y).data_ptr() == y.data_ptr()
