"""Pictures of one size to payloads and back: tiles, which stand alone, and chains, many pictures on one message.

Knows messages, their lanes and what must be told the decoder; how a model codes pictures is `bbans.image.families`.
Knows nothing of files, headers or checksums.

The payload of a tile of `photo`: varint latent bits (0: coded without latents) + 16 x number of doublings + 512 if the
networks are tuned; varints of the lane schedule (see `lanes`); the message, folded to one head, as little-endian
words, whose last symbols are the steps of the tuning; the codes of a plane that is fitted (`fitting`) are popped
before it. Of a chain, and of every tile of `thumbnail`: varint number of batches; for each, in the order of pushing,
varint of its pictures and a byte, latent bits + 16 x log2 of the lanes; the message. A chain's first batch is one
picture, which pays the initial bits; those after it are as large as the bits on the message allow, so that the
networks work on many at once.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbans.ans import Message
from bbans.codecs.core import Codec
from bbans.codecs.latent import MAX_BITS
from bbans.errors import BadFile, BadImage, BadModel, OutOfBits
from bbans.exact.layers import arithmetic
from bbans.exact.tuning import tuned
from bbans.image import effort as effort_levels
from bbans.image import tuning
from bbans.image.families import pictures_codec
from bbans.image.fields import read_varint, write_varint
from bbans.image.fitting import QUICK, THOROUGH, USUAL, Fits, Search
from bbans.image.lanes import MOST_LANES, Schedule, first_lanes, most_lanes
from bbans.image.planes import CODES, INITIAL, LATENT_BITS, LATENT_SHARE, Ledger, Strand, Watch
from bbans.image.weighted import Particles
from bbans.vae.families import OF_ONE_SIZE, picture_planes
from bbans.vae.objectives import level_count
from bbans.vae.photo import PhotoVAE
from bbans.zoo import Model

PADDING_SEED = 0xBBA5
MAX_BATCH_DIMS = 1 << 18  # samples that go through the networks together in a chain; decoders refuse more
CHAIN_BITS = (8, 6, 5, 4, 3, 0)  # of a batch's latents: 8 unless that needs padding, else what makes the chain shortest
TUNED = 512
WORDS_FOR_A_LANE = 5.5  # on the message, before a chain has a lane: 2.2 go into its head, the rest is for latents


@dataclass(frozen=True)
class TileStats:
    """What a tile or a chain cost, in bits. `elbo` is counted only when asked for."""

    dims: int
    net: float
    initial: float
    elbo: float | None


def takes(model: Model, height: int, width: int, mode: str) -> bool:
    """Whether the model codes pictures of this size and mode ("1", "L" or "RGB")."""
    network = model.network
    if not isinstance(network.config, OF_ONE_SIZE):
        return mode in ("L", "RGB")
    config = network.config
    wanted = {1: "1", 8: "L" if config.samples == 1 else "RGB"}.get(config.depth)  # no mode has 12 bits
    return (height, width) == config.shape[:2] and mode == wanted


def takes_particles(model: Model) -> bool:
    """Whether its pictures can be coded with particles: they have one size, and latents."""
    config = model.network.config
    return isinstance(config, OF_ONE_SIZE) and bool(config.latent_count)


def check_particles(model: Model) -> None:
    """Raises `BadModel` unless it takes particles."""
    if not takes_particles(model):
        raise BadModel(f"the model {model.name} takes no particles: those with latents for pictures of one size do")


# -- tiles -------------------------------------------------------------------------------------------------------------


def encode_tile(
    model: Model,
    pixels: NDArray[np.uint8],
    *,
    want_elbo: bool = False,
    effort: int = effort_levels.DEFAULT,
    particles: Particles | None = None,
) -> tuple[bytes, TileStats]:
    """One tile [height, width, 1 or 3] to its payload. effort: see `bbans.image.effort`; from 4 on, more never
    takes more bytes.

    particles, and what is raised: see `encode_chain`.
    """
    if particles:
        return encode_chain(model, pixels[None], want_elbo=want_elbo, particles=particles)
    search = None
    if effort_levels.fits(effort):
        search = QUICK if effort < effort_levels.DEFAULT else USUAL
    payload, stats = encode_tiles(model, pixels[None], want_elbo=want_elbo, search=search)[0]
    stages, network = effort_levels.tuning_stages(effort), model.network
    if not stages or isinstance(network.config, OF_ONE_SIZE):
        return payload, stats
    space, grey = _space(model), pixels.shape[-1] == 1
    tunings = itertools.islice(tuning.search(network, space, _planes(model, pixels[None]), grey=grey), stages)
    untuned = [None] if model.fits else []  # but fitted with more care
    for values in itertools.chain(untuned, tunings):
        try:
            other = _encoded(model, pixels[None], want_elbo=want_elbo, search=THOROUGH, tuned_by=values)[0]
        except BadModel:  # weights that can't be exact
            continue
        if len(other[0]) < len(payload):
            payload, stats = other
    return payload, stats


def decode_tile(
    model: Model, payload: bytes, height: int, width: int, channels: int, ledger: Ledger | None = None
) -> NDArray[np.uint8]:
    """The inverse of `encode_tile`. ledger: see `decode_tiles`. Raises `BadFile` when the payload can't be what the
    encoder wrote."""
    return decode_tiles(model, [payload], height, width, channels, ledger)[0]


def encode_tiles(
    model: Model, pixels: NDArray[np.uint8], *, want_elbo: bool = False, search: Search | None = USUAL
) -> list[tuple[bytes, TileStats]]:
    """Tiles of one size [n, height, width, 1 or 3]; the same bytes as one by one, untuned. search: see `Fits`."""
    if isinstance(model.network.config, OF_ONE_SIZE):
        return [encode_chain(model, one[None], want_elbo=want_elbo) for one in pixels]
    return _encoded(model, pixels, want_elbo=want_elbo, search=search)


def _encoded(
    model: Model,
    pixels: NDArray[np.uint8],
    *,
    want_elbo: bool,
    search: Search | None,
    tuned_by: list[NDArray[np.int64]] | None = None,
    watch: Watch | None = None,
) -> list[tuple[bytes, TileStats]]:
    """Tiles of a `photo` model, all tuned alike. Raises `BadModel`."""
    network = cast(PhotoVAE, model.network)
    if tuned_by is not None:
        network = tuned(network, _space(model).steps(tuned_by))
    dims = pixels[0].size
    schedules = [Schedule(dims) for _ in pixels]
    tiles = [
        Strand(Message.empty(schedule.first, seed=PADDING_SEED), 1, None, {} if want_elbo else None, schedule)
        for schedule in schedules
    ]
    before = [tile.message.bits() for tile in tiles]  # fresh heads, which hold nothing
    with arithmetic():
        codec = pictures_codec(network, model.tables, _shape(pixels), _fits(model, search), watch)
        codec.push(tiles, _planes(model, pixels))
    results = []
    for tile, schedule, bits in zip(tiles, schedules, before, strict=True):
        if tuned_by is not None:
            untold = tile.message.bits()
            tuning.codec(model.tables.logistic, _space(model)).push(tile.message, tuned_by)
            tile.pays(CODES, tile.message.bits() - untold)
        head = write_varint((tile.latent_bits or 0) + 16 * len(schedule.counts) + TUNED * (tuned_by is not None))
        head += b"".join(write_varint(n) for n in schedule.counts)
        results.append(_finish(head, tile, bits, dims))
    return results


def watch_tile(model: Model, pixels: NDArray[np.uint8], watch: Watch) -> None:
    """Encode one tile [height, width, 1 or 3] for what there is to see. Raises `BadImage`."""
    pixels = pixels[None]
    if not isinstance(model.network.config, OF_ONE_SIZE):
        _encoded(model, pixels, want_elbo=False, search=USUAL, watch=watch)
        return
    with arithmetic():
        strand = Strand(Message.empty(first_lanes(pixels.size), seed=PADDING_SEED), 1, None, None)
        planes = _planes(model, pixels)
        chosen = _pushed(_codec(model, pixels.shape), strand, planes, 1)
        strand.latent_bits = chosen.latent_bits
        pictures_codec(model.network, model.tables, _shape(pixels), watch=watch).push([strand], planes)


def decode_tiles(
    model: Model,
    payloads: Sequence[bytes],
    height: int,
    width: int,
    channels: int,
    ledger: Ledger | None = None,
) -> NDArray[np.uint8]:
    """The inverse of `encode_tiles`: [n, height, width, channels]. ledger: what the bits were for is added to it."""
    if isinstance(model.network.config, OF_ONE_SIZE):
        return np.concatenate([decode_chain(model, one, 1, height, width, channels, ledger) for one in payloads])
    opened = [_tile(model, payload, height, width, channels, ledger) for payload in payloads]
    tiles, networks = [tile for tile, _ in opened], [network for _, network in opened]
    if all(network is model.network for network in networks):  # then they go through it together
        x = _popped(_codec(model, (len(tiles), height, width, channels)), tiles)
    else:
        shape, fits = (1, height, width, channels), _fits(model)
        codecs = [pictures_codec(network, model.tables, shape, fits) for network in networks]
        x = torch.cat([_popped(codec, [tile]) for codec, tile in zip(codecs, tiles, strict=True)])
    for tile in tiles:
        assert tile.schedule
        _check_end(_resized(tile.message, tile.schedule.first))
        tile.pays(INITIAL, 32.0 * len(tile.message.words))
    return _pixels(model, x, channels)


def decode_preview(
    model: Model, payload: bytes, height: int, width: int, channels: int, levels: int
) -> NDArray[np.uint8]:
    """Every 2^levels-th pixel of every 2^levels-th row of a tile, for which so many levels need not be decoded.

    Raises as `decode_tile` does, but notices less.
    """
    if isinstance(model.network.config, OF_ONE_SIZE):
        return decode_tile(model, payload, height, width, channels)[:: 1 << levels, :: 1 << levels]
    whole = level_count(height, width)
    depth = min(levels, whole)
    tile, network = _tile(model, payload, height, width, channels)
    shape = 1, -(-height >> depth), -(-width >> depth), channels
    codec = pictures_codec(network, model.tables, shape, _fits(model), levels=range(depth, whole))
    pixels = _pixels(model, _popped(codec, [tile]), channels)[0]
    return pixels[:: 1 << levels - depth, :: 1 << levels - depth]


def _tile(
    model: Model, payload: bytes, height: int, width: int, channels: int, ledger: Ledger | None = None
) -> tuple[Strand, PhotoVAE]:
    """The message of a tile of `photo`, as its decoder begins, and the networks that it is decoded by."""
    start, at = read_varint(payload, 0)
    bits, doublings = start % 16, start % TUNED // 16
    if start >= 2 * TUNED or doublings > 16 or bits > MAX_BITS:
        raise BadFile("the tile's head is impossible")
    counts = []
    for _ in range(doublings):
        n, at = read_varint(payload, at)
        counts.append(n)
    schedule = Schedule(height * width * channels, counts)
    message = _resized(Message.from_bytes(payload[at:], 1), schedule.lanes)
    rows = schedule.parts([(height // 2) * ((width + 1) // 2)] * channels)
    tile = Strand(message, 1, bits, ledger, schedule, rows)
    if start < TUNED:
        return tile, cast(PhotoVAE, model.network)
    before = message.bits()
    network = _network_of(model, message)
    tile.pays(CODES, before - message.bits())
    return tile, network


def _network_of(model: Model, message: Message) -> PhotoVAE:
    """The network tuned as the message says, whose last symbols that is."""
    space = _space(model)
    try:
        values = tuning.codec(model.tables.logistic, space).pop(message)
        return tuned(cast(PhotoVAE, model.network), space.steps(values))
    except OutOfBits as error:
        raise BadFile(f"the message is too short: {error}") from error
    except BadModel as error:
        raise BadFile(str(error)) from error


def _space(model: Model) -> tuning.Space:
    return tuning.Space.of(cast(PhotoVAE, model.network), model.directions)


def _fits(model: Model, search: Search | None = USUAL) -> Fits:
    return Fits.of(cast(PhotoVAE, model.network), model.fits, search)


def _shape(pixels: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    count, height, width, channels = pixels.shape
    return count, height, width, channels


# -- chains ------------------------------------------------------------------------------------------------------------


def encode_chain(
    model: Model, pixels: NDArray[np.uint8], *, want_elbo: bool = False, particles: Particles | None = None
) -> tuple[bytes, TileStats]:
    """Pictures of one size [n, height, width, 1 or 3] on one message, n > 0; of mode "1", their values are 0 and 1.

    particles: that each is coded with; `elbo` is the importance-weighted bound then. Raises `BadImage` when the model
    takes no such pictures, `BadModel` when it takes no particles, and `TooLarge` when there are too many.
    """
    if particles:
        check_particles(model)
        particles.check(pixels.size)
    dims = pixels[0].size
    depth = model.network.config.sampling.depth
    first = first_lanes(pixels.size * depth // 8)  # bilevel samples are worth less
    with arithmetic():
        chain = Strand(Message.empty(first, seed=PADDING_SEED), 0, None, {} if want_elbo else None)
        batches: list[tuple[int, int, int]] = []
        done = 0
        while done < len(pixels):
            one = particles or not done
            count = 1 if one else _affordable_pictures(model, chain.message, dims, len(pixels) - done)
            lanes = _affordable_lanes(chain.message, count * dims * depth // 8)
            chain.message.resize(lanes)
            batch = pixels[done : done + count]
            chain = _pushed(_codec(model, batch.shape, particles), chain, _planes(model, batch), count)
            alike = chain.latent_bits or 0, lanes
            if particles and batches and batches[-1][1:] == alike:
                batches[-1] = (batches[-1][0] + 1, *alike)
            else:
                batches.append((count, *alike))
            done += count
    head = (particles.pack() if particles else b"") + write_varint(len(batches))
    for count, bits, lanes in batches:
        head += write_varint(count) + bytes([bits + 16 * (lanes.bit_length() - 1)])
    return _finish(head, chain, Message.empty(first).bits(), pixels.size)


def decode_chain(
    model: Model,
    payload: bytes,
    count: int,
    height: int,
    width: int,
    channels: int,
    ledger: Ledger | None = None,
) -> NDArray[np.uint8]:
    """The inverse of `encode_chain`: [count, height, width, channels]. ledger: see `decode_tiles`.

    Raises `BadFile`, and `TooLarge` when there are too many particles.
    """
    particles, at = Particles.parse(payload)
    payload = payload[at:]
    most = max(1, MAX_BATCH_DIMS // (height * width * channels))
    batches, at = _read_batches(payload, count, most=count if particles else most)
    if particles:  # of which each picture has its own
        if not takes_particles(model):
            raise BadFile("the chain has particles, which its model does not take")
        particles.check(count * height * width * channels)
        batches = [(1, bits, lanes) for pictures, bits, lanes in batches for _ in range(pictures)]
    message = Message.from_bytes(payload[at:], 1)
    decoded = []
    for pictures, bits, lanes in reversed(batches):
        strand = Strand(_resized(message, lanes), pictures, bits, ledger)
        codec = _codec(model, (pictures, height, width, channels), particles)
        decoded.append(_pixels(model, _popped(codec, [strand]), channels))
    _check_end(message)
    strand.pays(INITIAL, 32.0 * len(message.words))
    return np.concatenate(decoded[::-1])


def _read_batches(payload: bytes, count: int, most: int) -> tuple[list[tuple[int, int, int]], int]:
    """(pictures, latent bits, lanes) of each batch of a chain of `count` pictures, and where its message begins.

    most: pictures in a batch.
    """
    impossible = BadFile("the chain's head is impossible")
    number, at = read_varint(payload, 0)
    if not 0 < number <= count:
        raise impossible
    batches = []
    for _ in range(number):
        pictures, at = read_varint(payload, at)
        if at == len(payload):
            raise impossible
        bits, lanes = payload[at] % 16, 1 << (payload[at] >> 4)
        at += 1
        if bits > MAX_BITS or lanes > MOST_LANES or not 0 < pictures <= most:
            raise impossible
        batches.append((pictures, bits, lanes))
    if sum(pictures for pictures, _, _ in batches) != count:
        raise impossible
    return batches, at


def _pushed(codec: Codec, chain: Strand, x: Tensor, count: int) -> Strand:
    """The chain with `count` more pictures x, whose latents have as many bits as make it shortest."""
    best: Strand | None = None
    for bits in CHAIN_BITS:
        strand = Strand(copy.deepcopy(chain.message), count, bits, copy.copy(chain.ledger))
        codec.push([strand], x)
        if best is None or strand.message.bits() < best.message.bits():
            best = strand
        if strand.message.words.padding == chain.message.words.padding:
            break
    assert best
    return best


def _affordable_pictures(model: Model, message: Message, dims: int, left: int) -> int:
    """How many pictures come next: their latents should need no more bits than there are."""
    most = max(1, MAX_BATCH_DIMS // dims)
    network = model.network
    if isinstance(network.config, OF_ONE_SIZE):
        bits = LATENT_BITS[0] * network.config.latent_count
        most = min(most, max(1, int(LATENT_SHARE * 32 * len(message.words) / 2 / bits))) if bits else most
    return min(most, left)


def _affordable_lanes(message: Message, dims: int) -> int:
    """How many lanes come next: never fewer than there are, and no more than the words are enough for.

    Four times as many as a tile of this size has: its lanes grow once in a chain, and narrow ones are slow.
    """
    lanes = len(message.heads)
    most = min(MOST_LANES, 4 * most_lanes(dims))
    while 2 * lanes <= most and len(message.words) >= WORDS_FOR_A_LANE * lanes + 8:
        lanes *= 2
    return lanes


# -- both --------------------------------------------------------------------------------------------------------------


def _codec(model: Model, shape: tuple[int, ...], particles: Particles | None = None) -> Codec:
    count, height, width, channels = shape
    network = model.network
    if isinstance(network.config, OF_ONE_SIZE):
        config = network.config
        if shape[1:] != config.shape:
            wanted = f"{config.width} x {config.height} with {config.samples} channels"
            raise BadImage(f"the model {model.name} takes pictures of {wanted}, not {width} x {height} with {channels}")
        return pictures_codec(network, model.tables, (count, height, width, channels), particles=particles)
    return pictures_codec(network, model.tables, (count, height, width, channels), _fits(model))


def _planes(model: Model, pixels: NDArray[np.uint8]) -> Tensor:
    return picture_planes(model.network, torch.from_numpy(np.array(pixels)))


def _pixels(model: Model, planes: Tensor, channels: int) -> NDArray[np.uint8]:
    return model.network.config.sampling.pixels(planes, channels).cpu().numpy()


def _finish(head: bytes, strand: Strand, before: float, dims: int) -> tuple[bytes, TileStats]:
    """The payload, and what it cost more than the fresh heads before."""
    initial = 32.0 * strand.message.words.padding
    strand.message.resize(1)  # what growing took comes back here, so only now is the growth known
    net = strand.message.bits() - before - initial
    elbo = None if strand.ledger is None else sum(strand.ledger.values())
    return head + strand.message.to_bytes(), TileStats(dims, net, initial, elbo)


def _popped(codec: Codec, strands: list[Strand]) -> Tensor:
    with arithmetic():
        try:
            return codec.pop(strands)
        except OutOfBits as error:
            raise BadFile(f"the message is too short: {error}") from error
        except BadModel as error:  # codes for weights that can't be exact
            raise BadFile(str(error)) from error


def _resized(message: Message, lanes: int) -> Message:
    try:
        message.resize(lanes)
    except OutOfBits as error:
        raise BadFile(f"the message is too short: {error}") from error
    return message


def _check_end(message: Message) -> None:
    if not message.is_initial(PADDING_SEED):
        raise BadFile("the message does not end where the encoder began")
