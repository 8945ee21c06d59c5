"""Codecs of what the models of all families are made of: planes of pixels, the phases of a level, layers of latents.

A batch of pictures goes through the networks together. Its pictures lie on one message or on several: each `Strand` is
a message and the number of pictures on it, in order; one of a tile, all of a chain. Symbols are float tensors of
integers [n, samples, h, w] for all pictures, or a list of `Latents`, one for each strand. Knows networks' outputs and
codecs; knows nothing of how a model puts them together, nor of payloads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbans.ans import Message
from bbans.codecs.bilevel import Bernoullis
from bbans.codecs.core import Codec, autoregressive, dependent, over_lanes, serial
from bbans.codecs.discrete import uniform
from bbans.codecs.grid import GridNormals
from bbans.codecs.latent import PRIOR_SCALE, BinnedPosterior, centres, prior_codec
from bbans.codecs.tables import PER_OCTAVE, SCALE_OF_ONE
from bbans.exact.layers import IntConv
from bbans.image.fitting import Fit, Fits, Plane, find_codes
from bbans.image.lanes import Schedule
from bbans.image.mixtures import Mixtures
from bbans.image.outputs import Made, Outputs, outputs_of, rows_of
from bbans.vae import lattice
from bbans.vae.lattice import Sampling
from bbans.vae.layers import Enlarged
from bbans.vae.likelihoods import POSTERIOR_SCALES
from bbans.vae.phases import ByteHead, Head, Phases
from bbans.zoo import Tables

LATENT_BITS = (8, 6)  # tried in this order
LATENT_SHARE = 0.9  # of the bits on the message that popping latents may need
PRIOR_INDEX = SCALE_OF_ONE + PER_OCTAVE * (PRIOR_SCALE.bit_length() - 1)  # of the table whose scale is the prior's

Size = tuple[int, int]
TOP = "top"  # in the place of a phase: a coarsest picture that is coded whole
Watch = Callable[[int, str, NDArray[np.float64]], None]
"""Is given the depth of a level, a phase, and the bits [n, rows, columns] of one of its channels, when it is pushed."""
Ledger = dict[str, float]
"""Bits by what they are for: the parts of −ELBO. Pushing and popping enter the same."""
LIKELIHOOD, PRIOR, BACK, CODES = "likelihood", "prior", "bits back", "codes"  # bits back are negative
Likelihood = Mixtures | Bernoullis | GridNormals
INITIAL = "initial"  # of decoders only, and no part of −ELBO
DRAW_PIXELS, DRAW_MEANS = "pixels", "means"
Strands = Any  # Sequence[Strand]; combinators take it for a Message


@dataclass
class Strand:
    """A message and the pictures on it, with what the codecs must know of it.

    latent_bits: None: not chosen yet; ledger: what its parts took so far, None if that isn't wanted; schedule, rows: of
    lanes that grow while the first rows are pushed; draws: what is popped is drawn from the model, and never pushed:
    latents are not put back, and of DRAW_MEANS pixels are not popped, but are the means of what they would be popped
    with.
    """

    message: Message
    count: int
    latent_bits: int | None
    ledger: Ledger | None
    schedule: Schedule | None = None
    rows: list[list[tuple[int, int, int]]] = field(default_factory=list)
    draws: str | None = None

    def pays(self, part: str, bits: float) -> None:
        """Add to the ledger, if there is one."""
        if self.ledger is not None:
            self.ledger[part] = self.ledger.get(part, 0.0) + bits


@dataclass(frozen=True)
class Latents:
    """A layer of latents of one strand, of so many pictures: bins [latents, pictures, h, w] in a row, 2^bits of them.

    With 0 bits there are none, and the networks see zeros.
    """

    pictures: int
    bits: int
    bins: NDArray[Any]


class Layer:
    """Codecs of a layer of latents [n, latents, h, w]; symbols are a list of `Latents`."""

    def __init__(self, tables: Tables, latents: int, size: Size) -> None:
        self.tables, self.shape = tables, (latents, *size)
        self.count = int(np.prod(self.shape))  # of one picture

    def prior(self) -> Codec:
        """Uniform over the bins."""

        def push(strands: Sequence[Strand], z: list[Latents]) -> None:
            for strand, latents in zip(strands, z, strict=True):
                if latents.bits:
                    prior_codec(latents.bits, len(latents.bins)).push(strand.message, latents.bins)
                    strand.pays(PRIOR, latents.bits * len(latents.bins))

        def pop(strands: Sequence[Strand]) -> list[Latents]:
            z = []
            for strand in strands:
                bits = strand.latent_bits or 0
                bins = prior_codec(bits, strand.count * self.count if bits else 0).pop(strand.message)
                strand.pays(PRIOR, bits * len(bins))
                z.append(Latents(strand.count, bits, bins))
            return z

        return Codec(push, pop)

    def posterior(self, params: Tensor) -> Codec:
        """Logistics with these parameters [n, 2 latents, h, w]. Popping chooses the bits of a strand that has none."""
        means, scales = rows_of(params).astype(np.int32).reshape(2, self.shape[0], len(params), -1)
        least, most = POSTERIOR_SCALES
        index = PRIOR_INDEX + np.clip(scales, PER_OCTAVE * least, PER_OCTAVE * most)

        def of(part: slice, bits: int) -> BinnedPosterior:
            tables = self.tables
            return BinnedPosterior(tables.logistic, tables.edges, bits, means[:, part].ravel(), index[:, part].ravel())

        def enter(strand: Strand, q: BinnedPosterior, bins: NDArray[Any]) -> None:
            if strand.ledger is not None:
                strand.pays(BACK, float(q.log2_prob(bins).sum()))

        def push(strands: Sequence[Strand], z: list[Latents]) -> None:
            for strand, part, latents in zip(strands, parts_of(strands), z, strict=True):
                if latents.bits and not strand.draws:
                    q = of(part, latents.bits)
                    q.row_codec().push(strand.message, latents.bins)
                    enter(strand, q, latents.bins)

        def pop(strands: Sequence[Strand]) -> list[Latents]:
            z = []
            for strand, part in zip(strands, parts_of(strands), strict=True):
                if strand.latent_bits is None:
                    strand.latent_bits = _affordable_bits(strand.message, strand.count * self.count)
                if not strand.latent_bits:
                    z.append(Latents(strand.count, 0, np.zeros(0, np.int64)))
                    continue
                q = of(part, strand.latent_bits)
                bins = q.row_codec().pop(strand.message)
                z.append(Latents(strand.count, strand.latent_bits, bins))
                enter(strand, q, bins)
            return z

        return Codec(push, pop)

    def values(self, z: list[Latents], like: Tensor) -> Tensor:
        """What the networks see [n, latents, h, w]: each bin's median, in 1/64 of the prior's scale."""
        latents, h, w = self.shape
        values = np.zeros((latents, sum(mine.pictures for mine in z), h, w), np.float32)
        done = 0
        for mine in z:
            if mine.bits:
                middles = centres(mine.bits, self.tables.edges) >> 2
                values[:, done : done + mine.pictures] = middles[mine.bins].reshape(latents, -1, h, w)
            done += mine.pictures
        return torch.from_numpy(values).to(like).transpose(0, 1).contiguous(memory_format=torch.channels_last)


class Planes:
    """Codecs of pixels. sampling: of the networks; channels: of the picture, the first so many are coded."""

    def __init__(
        self,
        tables: Tables,
        sampling: Sampling,
        channels: int,
        *,
        fits: Fits | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.tables, self.sampling, self.channels = tables, sampling, channels
        self.fits, self.watch = fits or Fits(), watch

    def phase(
        self,
        head: Head | ByteHead,
        features: Tensor,
        prediction: Tensor,
        size: Size,
        *,
        grows: bool = False,
        fits: Sequence[Fit] = (),
        place: tuple[int, str] | None = None,
    ) -> Codec:
        """The channels of one phase, one after another; symbols are tensors [n, samples, *size].

        prediction: four times what the means are relative to; grows: with the strands' schedules of lanes; fits: of
        each channel, if last layers are fitted; place: the depth and the phase that who watches is told.
        """
        rows, columns = size
        prediction = prediction[..., :rows, :columns]

        def planes() -> Codec:
            """Made when needed and dropped after: what the channels take from the features is large."""
            shared = head.split(features[..., :rows, :columns]) if rows and columns else ()

            def given(earlier: list[Tensor]) -> Codec:
                channel = len(earlier)
                if not shared:
                    return _nothing(prediction, size)
                before = torch.cat(earlier, 1) if earlier else prediction[:, :0]
                residuals = lattice.residual(before, prediction[:, :channel])
                inside = head.inside(channel, shared[channel], residuals)
                row = self.channels - 1 - channel if grows else None
                here = prediction[:, channel : channel + 1]
                base = self.sampling.base(channel, earlier[0]) if channel else torch.zeros_like(here)

                def plane(layers: Sequence[IntConv]) -> Codec:
                    """layers: the last one, of all pictures or of each."""
                    likelihood = self._likelihood(outputs_of(layers, inside), here + 4 * base, channel)
                    return self._plane(likelihood, size, base, row, place)

                last = cast(IntConv, head.out[channel])
                if not fits:
                    return plane([last])
                return self._fitted(fits[channel], last, inside, here / 4, base, channel, plane)

            return autoregressive(given, self.channels)

        def push(strands: Strands, x: Tensor) -> None:
            planes().push(strands, [x[:, i : i + 1] for i in range(self.channels)])

        def pop(strands: Strands) -> Tensor:
            popped = planes().pop(strands)
            x = torch.cat([*popped, *([torch.zeros_like(popped[0])] * (self.sampling.samples - self.channels))], 1)
            return x.contiguous(memory_format=torch.channels_last)

        return Codec(push, pop)

    def given(self, params: Tensor, likelihood: Callable[[Tensor], Likelihood] | None = None) -> Codec:
        """One channel of pictures [n, 1, h, w] whose pixels are independent, given their parameters [n, ..., h, w].

        likelihood: of the parameters, where it isn't that of the other families, around the middle of the range.
        """
        middle = params.new_full((len(params), 1, *params.shape[-2:]), 4 * 128)
        made = likelihood(params) if likelihood else self._likelihood(Made.of(params), middle, 0)
        return self._plane(made, (params.shape[-2], params.shape[-1]), torch.zeros_like(middle), None, (0, TOP))

    def raw(self, height: int, width: int, like: Tensor) -> Codec:
        """A picture as it is: its RGB or grey values, uniform."""
        count = height * width * self.channels

        def row(strand: Strand) -> Codec:
            return over_lanes(lambda part: uniform(256), strand.count * count)

        def push(strands: Sequence[Strand], x: Tensor) -> None:
            values = self.sampling.pixels(x, self.channels).cpu().numpy().reshape(-1, count)
            for strand, part in zip(strands, parts_of(strands), strict=True):
                row(strand).push(strand.message, values[part].ravel())
                strand.pays(LIKELIHOOD, 8.0 * count * strand.count)

        def pop(strands: Sequence[Strand]) -> Tensor:
            for strand in strands:
                strand.pays(LIKELIHOOD, 8.0 * count * strand.count)
            values = np.concatenate([row(strand).pop(strand.message) for strand in strands]).astype(np.uint8)
            pixels = torch.from_numpy(values).reshape(-1, height, width, self.channels)
            return self.sampling.planes(pixels.to(like.device)).to(like.dtype)

        return Codec(push, pop)

    def _fitted(
        self,
        fit: Fit,
        last: IntConv,
        features: Tensor,
        prediction: Tensor,
        base: Tensor,
        channel: int,
        plane: Callable[[Sequence[IntConv]], Codec],
    ) -> Codec:
        """p(codes) p(plane | codes), with codes of its own for each picture.

        features: what the last layer reads; plane(layers): the codec of the plane, by the last layer of each picture.
        """
        count = prediction[0].numel()
        each = fit.codec(self.tables.logistic, count)

        def push(strands: Sequence[Strand], x: Tensor) -> None:
            pixels, centre = ((plane + base).float().cpu() for plane in (x, prediction))
            pictures = zip(features.split(1), pixels.split(1), centre.split(1), strict=True)
            seen = (Plane(*picture, *self.sampling.range(channel)) for picture in pictures)
            found = [find_codes(fit, self.tables.logistic, last, picture, self.fits.search) for picture in seen]
            codes = [code for code, _ in found]
            plane([layer for _, layer in found]).push(strands, x)
            for strand, part in zip(strands, parts_of(strands), strict=True):
                serial([each] * strand.count).push(strand.message, codes[part])
                enter(strand, codes[part])

        def pop(strands: Sequence[Strand]) -> Tensor:
            codes = []
            for strand in strands:
                mine = serial([each] * strand.count).pop(strand.message)
                enter(strand, mine)
                codes += mine
            return plane([fit.layer(last, code, count) for code in codes]).pop(strands)

        def enter(strand: Strand, codes: Sequence[NDArray[np.int64]]) -> None:
            if strand.ledger is not None:
                strand.pays(CODES, sum(fit.bits(self.tables.logistic, count, code) for code in codes))

        return Codec(push, pop)

    def _likelihood(self, outputs: Outputs, prediction: Tensor, channel: int) -> Likelihood:
        """Network outputs, 3K or 1 for each pixel, to the distributions of all n h w symbols."""
        centres = 4 * prediction.to(torch.int32).cpu().numpy().ravel()
        if self.sampling.bilevel:
            return Bernoullis(self.tables.logistic, outputs.columns(slice(0, len(centres)))[0].astype(np.int32))
        return Mixtures(self.tables, outputs, centres, *self.sampling.range(channel))

    def _plane(
        self,
        likelihood: Likelihood,
        size: Size,
        base: Tensor,
        grows: int | None,
        place: tuple[int, str] | None,
    ) -> Codec:
        """One channel of all pictures. base: see `Sampling`; grows: the index, in the order of pushing, of a row that
        makes lanes grow."""
        count = size[0] * size[1]
        step = 255 if self.sampling.bilevel else 1  # between symbols that follow one another

        def enter(strand: Strand, likelihood: Likelihood, symbols: NDArray[Any]) -> None:
            if strand.ledger is not None:
                strand.pays(LIKELIHOOD, -float(likelihood.log2_prob(symbols).sum()))

        def push(strands: Sequence[Strand], x: Tensor) -> None:
            symbols = (x + base).to(torch.int32).cpu().numpy().ravel() // step
            if self.watch and place:
                self.watch(*place, -likelihood.log2_prob(symbols).reshape(-1, *size))
            for strand, part in zip(strands, parts_of(strands, count), strict=True):
                mine = likelihood[part]
                if grows is None or strand.schedule is None or not isinstance(mine, Mixtures):
                    mine.row_codec().push(strand.message, symbols[part])
                else:
                    strand.schedule.push(strand.message, mine, symbols[part])
                enter(strand, mine, symbols[part])

        def pop(strands: Sequence[Strand]) -> Tensor:
            rows = []
            for strand, part in zip(strands, parts_of(strands, count), strict=True):
                mine = likelihood[part]
                if strand.draws == DRAW_MEANS:
                    rows.append(np.floor(mine.mean() * step + 0.5).astype(np.int32))
                    continue
                if grows is None or strand.schedule is None or not isinstance(mine, Mixtures):
                    symbols = mine.row_codec().pop(strand.message)
                else:
                    symbols = strand.schedule.pop(strand.message, mine, strand.rows[grows])
                rows.append(symbols * step)
                enter(strand, mine, symbols)
            return torch.from_numpy(np.concatenate(rows)).to(base).reshape(-1, 1, *size) - base

        return Codec(push, pop)


class LevelCodec:
    """Codecs of the phases of one level, given C [n, samples, h, w], of pictures of `size`; depth: 0 is the finest."""

    def __init__(self, planes: Planes, nets: Phases, c: Tensor, size: Size, depth: int) -> None:
        c = planes.sampling.decided(c)
        self.planes, self.nets, self.c, self.size, self.depth = planes, nets, c, size, depth
        height, width = size
        self.size_d, self.size_b = (height // 2, width // 2), (c.shape[-2], width // 2)
        self.size_e = (height // 2, c.shape[-1])
        self.prediction_d = lattice.predict_d(c)
        self.see_c = lattice.inputs_c(c, self.prediction_d)

    def d_b(self, told_d: Enlarged | None, told_b: Enlarged | None) -> Codec:
        """p(D | C) p(B | C, D); symbols are (d, b)."""
        h = self.nets.features_d(self.see_c, told_d)

        def b_given(d: Tensor) -> Codec:
            full = self._full(d)
            h_b = self.nets.features_b(h, lattice.residual(full, self.prediction_d), told_b)
            return self._phase("b", h_b, lattice.predict_b(self.c, full), self.size_b)

        return dependent(self._phase("d", h, self.prediction_d, self.size_d), b_given)

    def seen(self, d_b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """D at the size of C, and what networks see of D and of B."""
        full_d, full_b = (self._full(phase) for phase in d_b)
        prediction_b = lattice.predict_b(self.c, full_d)
        return full_d, lattice.residual(full_d, self.prediction_d), lattice.residual(full_b, prediction_b)

    def e(self, d_b: tuple[Tensor, Tensor], told_e: Enlarged | None, *, grows: bool = False) -> Codec:
        """p(E | C, D, B)."""
        full_d, see_d, see_b = self.seen(d_b)
        h = self.nets.features_e(self.see_c, see_d, see_b, told_e)
        return self._phase("e", h, lattice.predict_e(self.c, full_d), self.size_e, grows=grows)

    def _full(self, phase: Tensor) -> Tensor:
        """D or B at the size of C, as networks see them."""
        return lattice.fill(self.planes.sampling.decided(phase), self.c)

    def _phase(self, phase: str, features: Tensor, prediction: Tensor, size: Size, *, grows: bool = False) -> Codec:
        fits = self.planes.fits.phase(self.depth, phase, size[0] * size[1])
        head, place = self.nets.head(phase), (self.depth, phase)
        return self.planes.phase(head, features, prediction, size, grows=grows, fits=fits, place=place)


def of_phases(phases: Codec, size: Size) -> Codec:
    """The codec of pictures x of `size`, from that of their phases (C, ((D, B), E))."""

    def push(strands: Strands, x: Tensor) -> None:
        c, d, b, e = (phase.contiguous(memory_format=torch.channels_last) for phase in lattice.split(x))
        phases.push(strands, (c, ((d, b), e)))

    def pop(strands: Strands) -> Tensor:
        c, ((d, b), e) = phases.pop(strands)
        x = c.new_zeros((*c.shape[:2], *size))
        for phase, values in zip(lattice.split(x), (c, d, b, e), strict=True):
            phase.copy_(values)
        return x

    return Codec(push, pop)


def parts_of(strands: Sequence[Strand], each: int = 1) -> list[slice]:
    """Where each strand's pictures are, of `each` symbols, in a row of those of all."""
    ends = np.cumsum([strand.count * each for strand in strands]).tolist()
    return [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]


def _nothing(like: Tensor, size: Size) -> Codec:
    """A phase without pixels."""
    return Codec(lambda strands, x: None, lambda strands: like.new_zeros((len(like), 1, *size)))


def _affordable_bits(message: Message, latents: int) -> int:
    """Bits for each latent such that popping them needs no padding; 0 when there is no such number."""
    available = LATENT_SHARE * 32.0 * len(message.words)
    return next((bits for bits in LATENT_BITS if latents * bits <= available), 0)
