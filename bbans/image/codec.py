"""The codec of a tile: pixels of one size and number of channels to payloads, and back, with a `photo` model.

Reads top down like the model: a picture is its coarse quarter C, then D, B (with latents, by bits back) and E given
it. Knows the model's networks and the codecs; knows nothing of files, headers or checksums. Several tiles of one size
go through the networks together, each with a message of its own.

A payload: varint latent bits (0: coded without latents) + 16 x number of doublings; varints of the lane schedule
(see `lanes`); the message, folded to one head, as little-endian words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bbans.ans import Message
from bbans.bitsback import bits_back
from bbans.codecs.core import Codec, autoregressive, dependent
from bbans.codecs.discrete import uniform
from bbans.codecs.latent import MAX_BITS, PRIOR_SCALE, BinnedPosterior, centres, prior_codec
from bbans.codecs.mixture import WEIGHT_BITS, Mixture
from bbans.codecs.tables import PER_OCTAVE, SCALE_OF_ONE, SCALES
from bbans.errors import BadFile, OutOfBits
from bbans.exact.layers import arithmetic
from bbans.image.lanes import Schedule
from bbans.image.varint import read_varint, write_varint
from bbans.vae import lattice
from bbans.vae.likelihoods import POSTERIOR_SCALES
from bbans.vae.objectives import level_count
from bbans.vae.photo import Head
from bbans.zoo import Model

PADDING_SEED = 0xBBA5
LATENT_BITS = (8, 6)  # tried in this order
LATENT_SHARE = 0.9  # of the bits on the message that popping latents may need
PRIOR_INDEX = SCALE_OF_ONE + PER_OCTAVE * (PRIOR_SCALE.bit_length() - 1)  # of the table whose scale is the prior's


@dataclass(frozen=True)
class TileStats:
    """What a tile cost, in bits. `elbo` is counted only when asked for."""

    dims: int
    net: float
    initial: float
    elbo: float | None


@dataclass
class _Tile:
    """The message of one tile, with what the codecs below must know of it."""

    message: Message
    schedule: Schedule
    latent_bits: int | None  # None: not chosen yet
    elbo: float | None
    rows: list[list[tuple[int, int, int]]] = field(default_factory=list)  # of the growing rows, when popping


@dataclass(frozen=True)
class _Latents:
    """The latents of a level of one tile: bins, of which there are 2^bits. With 0 bits there are none."""

    bits: int
    bins: NDArray[Any]


_NONE = _Latents(0, np.zeros(0, np.int64))
Tiles = Any  # Sequence[_Tile]; combinators take it for a Message


def encode_tile(model: Model, pixels: NDArray[np.uint8], *, want_elbo: bool = False) -> tuple[bytes, TileStats]:
    """One tile [height, width, 1 or 3] to its payload."""
    return encode_tiles(model, pixels[None], want_elbo=want_elbo)[0]


def decode_tile(model: Model, payload: bytes, height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """The inverse of `encode_tile`. Raises `BadFile` when the payload can't be what the encoder wrote."""
    return decode_tiles(model, [payload], height, width, channels)[0]


def encode_tiles(model: Model, pixels: NDArray[np.uint8], *, want_elbo: bool = False) -> list[tuple[bytes, TileStats]]:
    """Tiles of one size [n, height, width, 1 or 3]; the same bytes as one by one."""
    count, height, width, channels = pixels.shape
    dims = height * width * channels
    schedules = [Schedule(dims) for _ in range(count)]
    tiles = [_Tile(Message.empty(s.first, seed=PADDING_SEED), s, None, 0.0 if want_elbo else None) for s in schedules]
    before = [tile.message.bits() for tile in tiles]  # fresh heads, which hold nothing
    with arithmetic():
        _TileCodec(model, channels, dims).picture(height, width).push(tiles, _to_ycocg(pixels, model.network))
    results = []
    for tile, bits in zip(tiles, before, strict=True):
        initial = 32.0 * tile.message.words.padding
        tile.message.resize(1)  # what growing took comes back here, so only now is the growth known
        net = tile.message.bits() - bits - initial
        head = write_varint((tile.latent_bits or 0) + 16 * len(tile.schedule.counts))
        head += b"".join(write_varint(n) for n in tile.schedule.counts)
        results.append((head + tile.message.to_bytes(), TileStats(dims, net, initial, tile.elbo)))
    return results


def decode_tiles(model: Model, payloads: Sequence[bytes], height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """The inverse of `encode_tiles`: [n, height, width, channels]."""
    dims = height * width * channels
    sizes = [((height // 2) * ((width + 1) // 2))] * channels
    tiles = []
    for payload in payloads:
        start, at = read_varint(payload, 0)
        bits, doublings = start % 16, start // 16
        if doublings > 16 or bits > MAX_BITS:
            raise BadFile("the tile's head is impossible")
        counts = []
        for _ in range(doublings):
            n, at = read_varint(payload, at)
            counts.append(n)
        message = Message.from_bytes(payload[at:], 1)
        schedule = Schedule(dims, counts)
        try:
            message.resize(schedule.lanes)
        except OutOfBits as error:
            raise BadFile(f"the tile's message is too short: {error}") from error
        tiles.append(_Tile(message, schedule, bits, None, schedule.parts(sizes)))
    with arithmetic():
        try:
            x = _TileCodec(model, channels, dims).picture(height, width).pop(tiles)
        except OutOfBits as error:
            raise BadFile(f"the tile's message is too short: {error}") from error
    for tile in tiles:
        tile.message.resize(tile.schedule.first)
        if not tile.message.is_initial(PADDING_SEED):
            raise BadFile("the tile's message does not end where the encoder began")
    return _from_ycocg(x, channels)


class _TileCodec:
    """Codecs of the parts of a tile. Symbols are float tensors of integers [n, 3, h, w] in YCoCg."""

    def __init__(self, model: Model, channels: int, dims: int) -> None:
        self.model, self.net, self.channels, self.dims = model, model.network, channels, dims

    def picture(self, height: int, width: int) -> Codec:
        """p(C) p(D, B, E | C), and so on down to a picture of 2x2 pixels."""
        if not level_count(height, width):
            return self._raw(height, width)
        finest = height * width * self.channels == self.dims
        parts = dependent(
            self.picture((height + 1) // 2, (width + 1) // 2), lambda c: self._level(c, height, width, finest)
        )

        def push(tiles: Tiles, x: Tensor) -> None:
            c, d, b, e = (phase.contiguous(memory_format=torch.channels_last) for phase in lattice.split(x))
            parts.push(tiles, (c, ((d, b), e)))

        def pop(tiles: Tiles) -> Tensor:
            c, ((d, b), e) = parts.pop(tiles)
            x = c.new_zeros((len(c), 3, height, width))
            for phase, values in zip(lattice.split(x), (c, d, b, e), strict=True):
                phase.copy_(values)
            return x

        return Codec(push, pop)

    def _level(self, c: Tensor, height: int, width: int, finest: bool) -> Codec:
        """p(z) p(D | C, z) p(B | C, D, z) by bits back, then p(E | C, D, B); q(z | C, D, B)."""
        net = self.net
        size = (c.shape[-2], c.shape[-1])
        size_d, size_b, size_e = (height // 2, width // 2), (size[0], width // 2), (height // 2, size[1])
        prediction_d = lattice.predict_d(c)
        see_c = lattice.inputs_c(c, prediction_d)
        regions = net.regions(see_c)

        def likelihood(z: list[_Latents]) -> Codec:
            tell_d, tell_b = net.condition(regions, self._latent_values(z, regions))
            h = net.features_d(see_c, tell_d)

            def b_given(d: Tensor) -> Codec:
                full = lattice.fill(d, c)
                h_b = net.features_b(h, lattice.residual(full, prediction_d), tell_b)
                return self._phase(net.head_b, h_b, lattice.predict_b(c, full), size_b)

            return dependent(self._phase(net.head_d, h, prediction_d, size_d), b_given)

        def seen(d: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            full_d, full_b = lattice.fill(d, c), lattice.fill(b, c)
            prediction_b = lattice.predict_b(c, full_d)
            return full_d, lattice.residual(full_d, prediction_d), lattice.residual(full_b, prediction_b)

        def posterior(db: tuple[Tensor, Tensor]) -> Codec:
            _, see_d, see_b = seen(*db)
            return self._posterior(net.infer(see_c, see_d, see_b))

        def e_given(db: tuple[Tensor, Tensor]) -> Codec:
            full_d, see_d, see_b = seen(*db)
            h = net.features_e(see_c, see_d, see_b, regions)
            return self._phase(net.head_e, h, lattice.predict_e(c, full_d), size_e, grows=finest)

        if net.config.latents:
            count = net.config.latents * regions.shape[-2] * regions.shape[-1]
            first = bits_back(self._prior(count), likelihood, posterior)
        else:
            first = likelihood([])
        return dependent(first, e_given)

    # -- latents -------------------------------------------------------------------------------------------------

    def _prior(self, count: int) -> Codec:
        """Uniform over the bins; symbols are a list of `_Latents`, one for each tile."""

        def push(tiles: Tiles, z: list[_Latents]) -> None:
            for tile, latents in zip(tiles, z, strict=True):
                if latents.bits:
                    prior_codec(latents.bits, count).push(tile.message, latents.bins)
                    if tile.elbo is not None:
                        tile.elbo += latents.bits * count

        def pop(tiles: Tiles) -> list[_Latents]:
            return [
                _Latents(t.latent_bits, prior_codec(t.latent_bits, count).pop(t.message)) if t.latent_bits else _NONE
                for t in tiles
            ]

        return Codec(push, pop)

    def _posterior(self, params: Tensor) -> Codec:
        means, scales = _rows(params).reshape(2, params.shape[1] // 2, len(params), -1)
        least, most = POSTERIOR_SCALES
        index = PRIOR_INDEX + np.clip(scales, PER_OCTAVE * least, PER_OCTAVE * most)

        def of(i: int, bits: int) -> BinnedPosterior:
            tables = self.model.tables
            return BinnedPosterior(tables.logistic, tables.edges, bits, means[:, i].ravel(), index[:, i].ravel())

        def push(tiles: Tiles, z: list[_Latents]) -> None:
            for i, (tile, latents) in enumerate(zip(tiles, z, strict=True)):
                if latents.bits:
                    of(i, latents.bits).row_codec().push(tile.message, latents.bins)

        def pop(tiles: Tiles) -> list[_Latents]:
            z = []
            for i, tile in enumerate(tiles):
                if tile.latent_bits is None:
                    tile.latent_bits = _affordable_bits(tile.message, means[:, i].size)
                if not tile.latent_bits:
                    z.append(_NONE)
                    continue
                q = of(i, tile.latent_bits)
                bins = q.row_codec().pop(tile.message)
                z.append(_Latents(tile.latent_bits, bins))
                if tile.elbo is not None:
                    tile.elbo += float(q.log2_prob(bins).sum())
            return z

        return Codec(push, pop)

    def _latent_values(self, z: list[_Latents], regions: Tensor) -> Tensor | None:
        """Bins to what the network sees: the bin's median in 1/64 of the prior's scale; 0 without latents."""
        if not self.net.config.latents:
            return None
        shape = (len(z), self.net.config.latents, regions.shape[-2], regions.shape[-1])
        values = np.zeros((shape[0], shape[1] * shape[2] * shape[3]), np.float32)
        for row, latents in zip(values, z, strict=True):
            if latents.bits:
                row[:] = centres(latents.bits, self.model.tables.edges)[latents.bins] >> 2
        return torch.from_numpy(values.reshape(shape)).to(regions)

    # -- pixels --------------------------------------------------------------------------------------------------

    def _phase(
        self, head: Head, features: Tensor, prediction: Tensor, size: tuple[int, int], *, grows: bool = False
    ) -> Codec:
        """The channels of one phase, one after another; symbols are tensors [n, 3, *size]."""
        rows, columns = size
        prediction = prediction[..., :rows, :columns]

        def planes() -> Codec:
            """Made when needed and dropped after: what the channels take from the features is large."""
            shared = head.split(features[..., :rows, :columns]) if rows and columns else ()

            def given(earlier: list[Tensor]) -> Codec:
                channel = len(earlier)
                if not shared:
                    return _nothing(features, size)
                before = torch.cat(earlier, 1) if earlier else prediction[:, :0]
                residuals = lattice.residual(before, prediction[:, :channel])
                params = head.channel(channel, shared[channel], residuals)
                mixtures = self._mixture(params, prediction[:, channel], channel)
                return _plane(mixtures, size, params, grows=self.channels - 1 - channel if grows else None)

            return autoregressive(given, self.channels)

        def push(tiles: Tiles, x: Tensor) -> None:
            planes().push(tiles, [x[:, i : i + 1] for i in range(self.channels)])

        def pop(tiles: Tiles) -> Tensor:
            popped = planes().pop(tiles)
            x = torch.cat([*popped, *([torch.zeros_like(popped[0])] * (3 - self.channels))], 1)
            return x.contiguous(memory_format=torch.channels_last)

        return Codec(push, pop)

    def _mixture(self, params: Tensor, prediction: Tensor, channel: int) -> Mixture:
        """Network outputs [n, 3K, h, w] to mixtures of all n h w symbols."""
        logits, means, scales = _rows(params).reshape(3, params.shape[1] // 3, -1)
        exp2 = self.model.tables.exp2
        heaviest = logits.argmax(0)
        below = logits.max(0) - logits
        np.minimum(below, len(exp2) - 1, out=below)
        weights = exp2.take(below)
        weights *= np.uint32(0xFFFFFFFF) // weights.sum(0, dtype=np.uint32)
        weights >>= np.uint32(32 - WEIGHT_BITS)
        rest = np.uint32(1 << WEIGHT_BITS) - weights.sum(0, dtype=np.uint32)
        weights.reshape(-1)[heaviest * rest.size + np.arange(rest.size)] += rest
        base = prediction.to(torch.int32).cpu().numpy().ravel()
        return Mixture(
            self.model.tables.logistic,
            weights,
            means + 4 * base,
            np.clip(scales + SCALE_OF_ONE, 0, SCALES - 1),
            *lattice.RANGES[channel],
        )

    def _raw(self, height: int, width: int) -> Codec:
        """The coarsest picture: its RGB or grey values, uniform."""
        count = height * width * self.channels

        def push(tiles: Tiles, x: Tensor) -> None:
            for tile, values in zip(tiles, _from_ycocg(x, self.channels).reshape(len(x), count), strict=True):
                for value in reversed(values):
                    uniform(256).push(tile.message.lanes(np.s_[:1]), np.array([value]))
                if tile.elbo is not None:
                    tile.elbo += 8.0 * count

        def pop(tiles: Tiles) -> Tensor:
            values = [[int(uniform(256).pop(t.message.lanes(np.s_[:1]))[0]) for _ in range(count)] for t in tiles]
            pixels = np.array(values, np.uint8).reshape(len(values), height, width, self.channels)
            return _to_ycocg(pixels, self.net)

        return Codec(push, pop)


def _plane(mixtures: Mixture, size: tuple[int, int], like: Tensor, grows: int | None) -> Codec:
    """One channel of all tiles. `grows`: the index, in the order of pushing, of a row that makes the lanes grow."""
    count = size[0] * size[1]

    def push(tiles: Tiles, x: Tensor) -> None:
        rows = x.to(torch.int32).cpu().numpy().reshape(len(tiles), count)
        for i, tile in enumerate(tiles):
            mine = mixtures[i * count : (i + 1) * count]
            if grows is None:
                mine.row_codec().push(tile.message, rows[i])
            else:
                tile.schedule.push(tile.message, mine, rows[i])
            if tile.elbo is not None:
                tile.elbo -= float(mine.log2_prob(rows[i]).sum())

    def pop(tiles: Tiles) -> Tensor:
        rows = []
        for i, tile in enumerate(tiles):
            mine = mixtures[i * count : (i + 1) * count]
            if grows is None:
                rows.append(mine.row_codec().pop(tile.message))
            else:
                rows.append(tile.schedule.pop(tile.message, mine, tile.rows[grows]))
        return torch.from_numpy(np.stack(rows)).to(like).reshape(len(tiles), 1, *size)

    return Codec(push, pop)


def _nothing(like: Tensor, size: tuple[int, int]) -> Codec:
    """A phase without pixels."""
    return Codec(lambda tiles, x: None, lambda tiles: like.new_zeros((len(tiles), 1, *size)))


def _rows(params: Tensor) -> NDArray[np.int32]:
    """[n, c, h, w] floats to int32 [c, n h w]."""
    return params.permute(1, 0, 2, 3).to(torch.int32).cpu().numpy().reshape(params.shape[1], -1)


def _affordable_bits(message: Message, latents: int) -> int:
    """Bits for each latent such that popping them needs no padding; 0 when there is no such number."""
    available = LATENT_SHARE * 32.0 * len(message.words)
    return next((bits for bits in LATENT_BITS if latents * bits <= available), 0)


def _to_ycocg(pixels: NDArray[np.uint8], network: nn.Module) -> Tensor:
    """[n, h, w, 1 or 3] to [n, 3, h, w], on the device and in the dtype of the network."""
    like = next(network.buffers())
    x = torch.from_numpy(np.array(pixels)).to(like.device, torch.int32).permute(0, 3, 1, 2)
    grey = x.shape[1] == 1
    ycocg = torch.cat([x, *[torch.zeros_like(x)] * 2], 1) if grey else lattice.ycocg_from_rgb(x)
    return ycocg.to(like.dtype)


def _from_ycocg(x: Tensor, channels: int) -> NDArray[np.uint8]:
    values = x.to(torch.int32)
    rgb = values[:, :1] if channels == 1 else lattice.rgb_from_ycocg(values)
    return rgb.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()
