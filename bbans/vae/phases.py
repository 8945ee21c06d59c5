"""The networks of one level of a lattice model: three phases of a picture, each given those before it.

A level splits a picture into four phases by the parity of row and column,

    C B C B        C: even row, even column (the next, coarser level's picture)
    E D E D        D: odd, odd      B: even, odd      E: odd, even
    C B C B

and codes them as p(D | C) p(B | C, D) p(E | C, D, B), channel after channel; then C is split in turn. All maps of a
level have the size of C, rounded up. From elsewhere, such as from latents, the networks are *told* something of each
region. This module doesn't know pixels or codecs: see `bbans.vae.lattice`.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, cast

import torch
from torch import Tensor, nn

from bbans.errors import BadModel
from bbans.vae.lattice import COLOURS
from bbans.vae.layers import BYTE_UNIT, INPUT_DIGITS, ByteConv, Conv, Enlarged, Residual, signed_bytes

PHASES = ("d", "b", "e")
MAY_BE_ZERO = ("latents", "encoder")  # where 0 means something
MOST_SIZE, MOST_DEPTH = 1 << 12, 32  # of networks: more is a model made to do harm


def check_sizes(config: Any) -> None:
    """Raises `BadModel` unless all sizes are positive and of this world, and all else is what it can be. config: of a
    family."""
    for field in fields(config):
        value = getattr(config, field.name)
        if type(value) is int and value < (least := int(field.name not in MAY_BE_ZERO)):
            raise BadModel(f"{field.name}: at least {least}, not {value}")
        most = MOST_DEPTH if field.name in ("blocks", "distinct", "levels") else MOST_SIZE
        if field.name != "colour" and (largest := max(value) if isinstance(value, tuple) else value) > most:
            raise BadModel(f"{field.name}: at most {most}, not {largest}")
    if config.colour not in COLOURS:
        raise BadModel(f"colour: one of {'; '.join(COLOURS)}; not {config.colour}")
    if len(config.blocks) != len(PHASES) or min(config.blocks) < 0:
        raise BadModel(f"blocks are those of D, B and E; not {config.blocks}")


def parameters(mixtures: int) -> tuple[int, ...]:
    """Binary digits after the point of the parameters of one sample.

    Of a mixture of K logistics: logits in 1/16 octave, means in 1/256 of 16 pixels, log2-scales in 1/8. With K = 0, of
    a Bernoulli: its logit in 1/16 of a nat.
    """
    return (4,) * mixtures + (8,) * mixtures + (3,) * mixtures if mixtures else (4,)


INPUT_SCALE = 2.0**-INPUT_DIGITS


class Head(nn.Module):
    """Parameters of one phase, channel after channel, each seeing the residuals of the earlier ones.

    input_scale: what the integers that networks see are multiplied by while training.
    """

    input_scale = INPUT_SCALE

    def __init__(
        self,
        samples: int,
        channels: int,
        hidden: int,
        mixtures: int,
        *,
        source: str,
        inner: str,
        spread: float = 0.05,
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.shared = Conv(channels, samples * hidden, 1, source=source, target=inner, relu=False)
        self.earlier = nn.ModuleList(
            Conv(channel, hidden, 1, source="input", target=inner) for channel in range(1, samples)
        )
        digits = parameters(mixtures)
        self.out = nn.ModuleList(
            Conv(hidden, len(digits), 1, source=inner, target="params", relu=False, digits=digits)
            for _ in range(samples)
        )
        for out in self.out if mixtures else []:
            _spread(cast(Conv, out), mixtures, spread)

    def split(self, features: Tensor) -> tuple[Tensor, ...]:
        """What each channel takes from the features: tensors [N, hidden, h, w]."""
        return self.shared(features).split(self.hidden, 1)

    def channel(self, channel: int, mine: Tensor, earlier: Tensor) -> Tensor:
        """Parameters [N, 3K or 1, h, w] of `channel`.

        mine: its part of `split`; earlier: residuals [N, channel, h, w] of the channels before it.
        """
        return self.out[channel](self.inside(channel, mine, earlier))

    def inside(self, channel: int, mine: Tensor, earlier: Tensor) -> Tensor:
        """The features [N, hidden, h, w] that the last layer of `channel` reads; arguments as of `channel`."""
        return self.earlier[channel - 1](earlier, add=mine) if channel else torch.relu(mine)


class ByteHead(nn.Module):
    """A `Head` on bytes: each channel's layer reads the features and the residuals of earlier channels together."""

    input_scale = 1.0  # bytes are what integers are

    def __init__(self, samples: int, channels: int, hidden: int, mixtures: int, *, source: str, inner: str) -> None:
        super().__init__()
        self.inner = nn.ModuleList(
            ByteConv(channels + 2 * channel, hidden, 1, source=source, target=f"{inner}.{channel}", beside=2 * channel)
            for channel in range(samples)
        )
        digits = parameters(mixtures)
        self.out = nn.ModuleList(
            Conv(hidden, len(digits), 1, source=name, target="params", relu=False, digits=digits, reads=BYTE_UNIT)
            for name in (cast(ByteConv, layer).target for layer in self.inner)
        )
        for out in self.out if mixtures else []:
            _spread(cast(Conv, out), mixtures, spread=0.05)

    def split(self, features: Tensor) -> tuple[Tensor, ...]:
        """What each channel takes from the features: all of them."""
        return (features,) * len(self.out)

    def channel(self, channel: int, mine: Tensor, earlier: Tensor) -> Tensor:
        """As that of `Head`; earlier are integers."""
        return self.out[channel](self.inside(channel, mine, earlier))

    def inside(self, channel: int, mine: Tensor, earlier: Tensor) -> Tensor:
        """As that of `Head`."""
        if channel:
            mine = torch.cat([mine, signed_bytes(earlier).to(mine.dtype)], 1)
        return self.inner[channel](mine)


def _of_signed(layer: ByteConv) -> ByteConv:
    """Initialise a layer that reads `signed_bytes` so that it is linear in the integers themselves."""
    if layer.weight.is_meta:  # it has no values, and operating on it makes PyTorch import its compiler
        return layer
    with torch.no_grad():
        positive, negative = layer.weight.chunk(2, 1)
        positive *= 2**0.5  # it reads half as many inputs
        negative.copy_(-positive)
    return layer


def _spread(out: Conv, mixtures: int, spread: float) -> None:
    """Start with components apart, up to `spread` times 16 pixels, and 4 pixels wide."""
    assert out.bias is not None
    if out.bias.is_meta:  # as above
        return
    with torch.no_grad():
        out.bias[mixtures : 2 * mixtures] = torch.linspace(-spread, spread, mixtures)
        out.bias[2 * mixtures :] = 2.0


class Phases(nn.Module):
    """The networks of one level.

    samples: channels of the picture; channels: features of the networks; blocks: residual blocks of each phase;
    level: what the names of this level's scales begin with; bytes: whether the activations of blocks have 8 bits.
    """

    def __init__(
        self,
        samples: int,
        channels: int,
        hidden: int,
        mixtures: int,
        blocks: tuple[int, ...],
        level: str,
        bytes: bool = False,
    ) -> None:
        super().__init__()
        c, (nd, nb, ne) = channels, blocks
        db, e = (f"byte.{level}{name}" if bytes else f"{level}{name}" for name in ("db", "e"))
        self.bytes = bytes

        def enter(channels_in: int, target: str) -> Conv:
            if bytes:
                return _of_signed(ByteConv(2 * channels_in, c, 3, source="byte.input", target=target))
            return Conv(channels_in, c, 3, source="input", target=target)

        def residuals(count: int, stream: str, phase: str) -> nn.Sequential:
            names = (f"{'byte.' if bytes else ''}{level}{phase}.{i}" for i in range(count))
            return nn.Sequential(*(Residual(c, stream=stream, inner=inner, bytes=bytes) for inner in names))

        def head(stream: str, phase: str) -> Head | ByteHead:
            sizes = samples, c, hidden, mixtures
            if bytes:
                return ByteHead(*sizes, source=stream, inner=f"byte.{level}{phase}.hidden")
            return Head(*sizes, source=stream, inner=f"{level}{phase}.hidden")

        self.enter_d, self.enter_b, self.enter_e = enter(2 * samples, db), enter(samples, db), enter(4 * samples, e)
        self.blocks_d, self.blocks_b = residuals(nd, db, "d"), residuals(nb, db, "b")
        self.blocks_e = residuals(ne, e, "e")
        self.head_d, self.head_b, self.head_e = head(db, "d"), head(db, "b"), head(e, "e")

    @property
    def input_scale(self) -> float:
        """As that of its heads."""
        return self.head("d").input_scale

    def see(self, x: Tensor) -> Tensor:
        """Integers as the first layers read them."""
        return signed_bytes(x) if self.bytes else x

    def features_d(self, c: Tensor, told: Enlarged | None) -> Tensor:
        """c: inputs from C [N, 2 samples, h, w]; told: of each region, if anything -> features [N, channels, h, w]."""
        return self.blocks_d(self.enter_d(self.see(c), told=told))

    def features_b(self, h: Tensor, d: Tensor, told: Enlarged | None) -> Tensor:
        """h: the features of D, refined by d, its residuals [N, samples, h, w]."""
        return self.blocks_b(self.enter_b(self.see(d), add=h, told=told))

    def features_e(self, c: Tensor, d: Tensor, b: Tensor, told: Enlarged | None) -> Tensor:
        """As the others."""
        return self.blocks_e(self.enter_e(self.see(torch.cat([c, d, b], 1)), told=told))

    def head(self, phase: str) -> Head | ByteHead:
        """The head of "d", "b" or "e"."""
        return cast(Head | ByteHead, getattr(self, f"head_{phase}"))
