"""How networks of a level begin, and what their layers read."""

from __future__ import annotations

import pytest
import torch

from bbans.train.muon import LEAST
from bbans.vae.layers import BYTE_UNIT, ByteConv, signed_bytes
from bbans.vae.objectives import level_count
from bbans.vae.photo import PhotoConfig, PhotoVAE


@pytest.fixture
def network() -> PhotoVAE:
    torch.manual_seed(0)
    return PhotoVAE(PhotoConfig(channels=24, hidden=20, mixtures=2, overview=False, bits=8))


def test_first_layers_on_signed_bytes_begin_linear(network: PhotoVAE) -> None:
    layer = network.level(0).enter_e
    x = torch.randint(-255, 256, (2, 12, 9, 7)).float()
    read = layer._convolve(signed_bytes(x), layer.kernel())
    linear = torch.nn.functional.conv2d(x, layer.weight[:, :12], BYTE_UNIT * layer.bias, padding=1)
    assert torch.allclose(read, linear, atol=1e-3)


def test_weights_that_read_residuals_are_apart_and_learn_by_adam(network: PhotoVAE) -> None:
    for channel, layer in enumerate(network.level(0).head("b").inner):
        assert isinstance(layer, ByteConv)
        assert layer.kernel().shape == layer.kernel_shape() == (20, 24 + 2 * channel, 1, 1)
        assert layer.weight.shape[1] == 24 and (layer.beside is None) == (channel == 0)
        assert layer.beside is None or layer.beside[0].numel() < LEAST <= min(20, 24)


@pytest.mark.parametrize(
    ("height", "width", "levels"),
    [(1, 1, 0), (2, 2, 0), (1, 4, 0), (1, 5, 1), (3, 3, 1), (16, 16, 3), (256, 255, 7), (512, 768, 7), (1024, 1024, 7)],
)
def test_levels_end_where_few_pixels_are_left(height: int, width: int, levels: int) -> None:
    assert level_count(height, width) == levels
    rows, columns = -(-height >> levels), -(-width >> levels)
    assert rows * columns <= max(4, height * width >> 14)
