"""A second decoder of chains of the family `dense`, from docs/format.md alone: integers, and nothing of ours."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, safe_open

from bbans import zoo
from bbans.image.codec import encode_chain

from ..conftest import DENSE_KINDS, dense_pictures
from ..golden.make import DENSE, VERSION, stack

M = (1 << 20) - 64
WHOLE = 1 << 24


def clip(x: int, low: int, high: int) -> int:
    return max(low, min(high, x))


class Reader:
    """Section 3: heads and words."""

    def __init__(self, data: bytes) -> None:
        numbers = np.frombuffer(data, "<u4").tolist()
        self.heads, self.words = [numbers[0] << 32 | numbers[1]], numbers[:1:-1]

    def spill(self, limits: list[int]) -> None:
        """The last of them first."""
        for i, limit in reversed([*enumerate(limits)]):
            if self.heads[i] >= limit:
                self.words.append(self.heads[i] & 0xFFFFFFFF)
                self.heads[i] >>= 32

    def refill(self, heads: range) -> None:
        for i in heads:
            if self.heads[i] < 1 << 31:
                self.heads[i] = self.heads[i] << 32 | self.words.pop()

    def pop_row(self, total: int, finds: list[Callable[[int], tuple[Any, int, int]]]) -> list[Any]:
        out, n = [], len(self.heads)
        for begin in range(0, len(finds), n):
            some = finds[begin : begin + n]
            self.spill([total * (2**31 // total) << 32] * len(some))
            for i, find in enumerate(some):
                quotient, cf = divmod(self.heads[i], total)
                x, start, freq = find(cf)
                self.heads[i] = freq * quotient + cf - start
                out.append(x)
            self.refill(range(len(some)))
        return out

    def push_row(self, total: int, intervals: list[tuple[int, int]]) -> None:
        n = len(self.heads)
        for begin in reversed(range(0, len(intervals), n)):
            some = intervals[begin : begin + n]
            self.spill([(2**31 // total << 32) * freq for _, freq in some])
            for i, (start, freq) in enumerate(some):
                assert freq > 0
                self.heads[i] = self.heads[i] // freq * total + self.heads[i] % freq + start
            self.refill(range(len(some)))

    def resize(self, count: int) -> None:
        while len(self.heads) < count:
            self._grow()
        while len(self.heads) > count:
            self._fold()

    def _uniform(self, bits: list[int]) -> list[int]:
        out = []
        for i, b in enumerate(bits):
            out.append(self.heads[i] & ((1 << b) - 1))
            self.heads[i] >>= b
        self.refill(range(len(bits)))
        return out

    def _grow(self) -> None:
        n = len(self.heads)
        a = self._uniform([5] * n)
        f = [min(each, 16) for each in a]
        u = self._uniform([x - y for x, y in zip(a, f, strict=True)])
        v, w, x = self._uniform(f), self._uniform([15] * n), self._uniform([16] * n)
        parts = zip(a, f, u, v, w, x, strict=True)
        self.heads += [(1 << 31 + a) + (u << 31 + f) + (v << 31) + (w << 16) + x for a, f, u, v, w, x in parts]

    def _fold(self) -> None:
        n = len(self.heads) // 2
        surplus, self.heads = self.heads[n:], self.heads[:n]
        a = [head.bit_length() - 32 for head in surplus]
        f = [min(each, 16) for each in a]
        rest = [head - (1 << 31 + each) for head, each in zip(surplus, a, strict=True)]
        for shift, bits in (
            ([0] * n, [16] * n),
            ([16] * n, [15] * n),
            ([31] * n, f),
            ([31 + y for y in f], [x - y for x, y in zip(a, f, strict=True)]),
        ):
            self._push_uniform([r >> s & (1 << b) - 1 for r, s, b in zip(rest, shift, bits, strict=True)], bits)
        self._push_uniform(a, [5] * n)

    def _push_uniform(self, x: list[int], bits: list[int]) -> None:
        self.spill([(2**31 >> b) << 32 for b in bits])
        for i, b in enumerate(bits):
            self.heads[i] = (self.heads[i] << b) + x[i]

    def check_end(self) -> None:
        assert set(self.heads) == {1 << 31}
        for i, word in enumerate(reversed(self.words), 1):
            x = (i * 0x9E3779B97F4A7C15 + 0xBBA5) % 2**64
            for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
                x = (x ^ x >> shift) * factor % 2**64
            assert word == (x ^ x >> 31) >> 32


class Tables:
    """Section 7: I_i of the logistic, or of the normal."""

    def __init__(self, tensors: dict[str, np.ndarray], named: str) -> None:
        halves = tensors[f"{named}halves"].tolist()
        ends = np.cumsum([0, *(half + 1 for half in halves)])
        upper = tensors[f"{named}upper"].tolist()
        self.rows = [upper[a:b] for a, b in itertools.pairwise(ends)]
        self.shifts = tensors[f"{named}shifts"].tolist()

    def entry(self, i: int, j: int) -> int:
        row = self.rows[i]
        value = row[abs(j)] if abs(j) < len(row) else M
        return value if j >= 0 else M - value

    def at(self, i: int, x: int, more: int) -> int:
        s = self.shifts[i]
        j = x >> s
        low, high = self.entry(i, j), self.entry(i, j + 1)
        return (low << more) + (((high - low << more) * (x - (j << s))) >> s)


class Grid:
    """Section 11: grid normals."""

    def __init__(self, tables: Tables, a: int, w: int, n: int, mean: int, i: int, floor: int) -> None:
        self.tables, self.a, self.w, self.n, self.mean, self.i, self.floor = tables, a, w, n, mean, i, floor

    def cdf(self, k: int) -> int:
        if k <= 0 or k >= self.n:
            return 0 if k <= 0 else WHOLE
        inside = self.tables.at(self.i, self.a + self.w * k - self.mean, 4)
        return self.floor * k + inside * (WHOLE - self.floor * self.n) // (M << 4)

    def find(self, cf: int) -> tuple[int, int, int]:
        return search(self.cdf, 0, self.n, cf)

    def interval(self, k: int) -> tuple[int, int]:
        return self.cdf(k), self.cdf(k + 1) - self.cdf(k)


def search(cdf: Callable[[int], int], low: int, high: int, cf: int) -> tuple[int, int, int]:
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cdf(middle) <= cf else (low, middle)
    return low, cdf(low), cdf(low + 1) - cdf(low)


def varints(data: bytes, at: int) -> Iterator[tuple[int, int]]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            yield value, at
            value = shift = 0


class Decoder:
    def __init__(self, folder: Path) -> None:
        with safe_open(folder / "weights.safetensors", "numpy") as file:
            self.config = json.loads(file.metadata()["bbans"])["config"]
        self.tensors = load_file(folder / "weights.safetensors")
        self.exp2 = self.tensors["tables.exp2"].tolist()
        self.logistic, self.normal = (Tables(self.tensors, name) for name in ("tables.", "tables.normal."))
        self.dims = self.config["height"] * self.config["width"]

    # -- networks

    def layer(self, name: str, x: np.ndarray, low: int, high: int, add: np.ndarray | int = 0) -> np.ndarray:
        weight, bias, shift = (self.tensors[f"{name}.{part}"].astype(np.int64) for part in ("weight", "bias", "shift"))
        return np.clip(((x @ weight[:, :, 0, 0].T + bias + (1 << shift - 1)) >> shift) + add, low, high)

    def tower(self, name: str, x: np.ndarray) -> np.ndarray:
        for i in range(len(self.config["hidden"])):
            x = self.layer(f"{name}.{i}", x, 0, 4095)
        return x

    def params(self, name: str, x: np.ndarray) -> np.ndarray:
        return self.layer(name, x, -32767, 32767)

    # -- latents

    def grid(self, mean: int, scale: int, bits: int, floor: int) -> Grid:
        i = 76 + clip(scale, -72, 16)
        return Grid(self.normal, -4096, 1 << 9 - bits, 1 << 4 + bits, mean, i, floor)

    def mean(self, parameter: int) -> int:
        return clip(parameter, -2560, 2560)

    def scale(self, parameter: int) -> int:
        return clip(parameter, -72, 4)

    def location(self, k: int, bits: int) -> int:
        w = 1 << 9 - bits
        return -4096 + k * w + w // 2

    def plain(self, p: np.ndarray, d: int, bits: int, floor: int) -> Callable[[int, list[list[int]]], list[Grid]]:
        """Means and scales of latent j [of each picture], given the bins of those before."""

        def given(j: int, before: list[list[int]]) -> list[Grid]:
            out = []
            for n, row in enumerate(p.tolist()):
                mean, scale = self.mean(row[j]), self.scale(row[d + j])
                if self.config["posterior"] == "full" and floor == 0:
                    mean, scale = row[j], row[d + j]
                    pairs = (row[2 * d + j * (j - 1) // 2 + k] * self.location(before[k][n], bits) for k in range(j))
                    mean += sum(pairs) >> 8
                out.append(self.grid(mean, scale, bits, floor))
            return out

        return given

    def flow(self, context: np.ndarray, d: int, bits: int) -> Callable[[int, list[list[int]]], list[Grid]]:
        def given(j: int, before: list[list[int]]) -> list[Grid]:
            e = np.zeros((len(context), d), np.int64)
            for latent in range(j + 1):
                p = self.params("flow", self.layer("see_noise", e, 0, 4095, context)).tolist()
                grids = [self.grid(self.mean(row[latent]), self.scale(row[d + latent]), bits, 0) for row in p]
                if latent == j:
                    return grids
                for n, grid in enumerate(grids):
                    z = self.location(before[latent][n], bits)
                    e[n, latent] = clip((z - grid.mean) * self.exp2[2 * grid.i + 8] >> 6, -4095, 4095)
            raise AssertionError

        return given

    def pop(self, message: Reader, d: int, given: Callable[[int, list[list[int]]], list[Grid]]) -> list[list[int]]:
        z: list[list[int]] = []
        for j in range(d):
            z.append(message.pop_row(WHOLE, [grid.find for grid in given(j, z)]))
        return z

    def push(self, message: Reader, z: list[list[int]], given: Callable[[int, list[list[int]]], list[Grid]]) -> None:
        for j in reversed(range(len(z))):
            message.push_row(WHOLE, [grid.interval(k) for grid, k in zip(given(j, z[:j]), z[j], strict=True)])

    def seen(self, z: list[list[int]], count: int, d: int, bits: int) -> np.ndarray:
        if not bits:
            return np.zeros((count, d), np.int64)
        return np.array([[self.location(k, bits) for k in row] for row in z]).T

    def vamp(self, message: Reader, count: int, d: int, bits: int) -> list[list[int]]:
        number = self.config["components"]
        pseudo = self.layer("pseudo", np.zeros((1, 1), np.int64), -4095, 4095).reshape(number, self.dims)
        p = self.params("posterior", self.tower("encoder", pseudo))
        component = message.pop_row(number, [lambda cf: (cf, cf, 1)] * count)
        z = self.pop(message, d, self.plain(p[component], d, bits, 1))
        intervals = []
        for n in range(count):
            logs = []
            for row in p.tolist():
                total = 0
                for j in range(d):
                    i = 76 + self.scale(row[d + j])
                    t = (self.location(z[j][n], bits) - self.mean(row[j])) * self.exp2[2 * i] >> 8
                    total -= (11819 * t * t >> 25) + 2 * i
                logs.append(total)
            w = [self.exp2[min(257, max(logs) - one)] for one in logs]
            freqs = [one * (WHOLE - number) // sum(w) + 1 for one in w]
            freqs[freqs.index(max(freqs))] += WHOLE - sum(freqs)
            intervals.append((sum(freqs[: component[n]]), freqs[component[n]]))
        message.push_row(WHOLE, intervals)
        return z

    # -- samples

    def finds(self, p: np.ndarray) -> list[Callable[[int], tuple[int, int, int]]]:
        """Of all samples; p: [pictures, parameters, dims]."""
        of = {"bernoulli": self.bernoulli, "normal": self.discrete, "logistic": self.mixture}
        make = of[self.config["likelihood"]]
        return [make(p[n, :, s].tolist()) for n in range(len(p)) for s in range(self.dims)]

    def bernoulli(self, p: list[int]) -> Callable[[int], tuple[int, int, int]]:
        one = 1 + self.logistic.at(36, p[0], 0) * (WHOLE - 2) // M
        zero = WHOLE - one
        return lambda cf: (1, zero, one) if cf >= zero else (0, 0, zero)

    def discrete(self, p: list[int]) -> Callable[[int], tuple[int, int, int]]:
        share, depth = self.config["scale"], self.config["depth"]
        i = 36 + round(8 * math.log2(256 * share)) if share else p[1] + 68
        return Grid(self.normal, 0, 4096 >> depth, 1 << depth, 2048 + p[0], clip(i, 0, 95), 1).find

    def mixture(self, p: list[int]) -> Callable[[int], tuple[int, int, int]]:
        k = self.config["mixtures"]
        logits, means, scales = p[:k], p[k : 2 * k], [clip(s + 36, 0, 95) for s in p[2 * k :]]
        powers = [self.exp2[min(257, max(logits) - one)] for one in logits]
        q = (2**32 - 1) // sum(powers)
        w = [one * q >> 20 for one in powers]
        w[logits.index(max(logits))] += 4096 - sum(w)

        def cdf(x: int) -> int:
            if x <= 0 or x >= 256:
                return 0 if x <= 0 else WHOLE
            total = 0
            for weight, mean, i in zip(w, means, scales, strict=True):
                s = self.logistic.shifts[i]
                total += weight * self.logistic.entry(i, 16 * x - 8 - (mean + 4 * 512) + (1 << s >> 1) >> s)
            return x + (total >> 8)

        return lambda cf: search(cdf, 0, 256, cf)

    # -- pictures

    def batch(self, message: Reader, count: int, bits: int) -> np.ndarray:
        config, two = self.config, len(self.config["latents"]) > 1
        d, u = config["latents"][0], config["latents"][-1]
        if not bits:
            z1: list[list[int]] = []
        elif config["prior"] == "vamp":
            z1 = self.vamp(message, count, d, bits)
        else:
            top = self.pop(message, u, self.plain(np.zeros((count, 2 * u), np.int64), u, bits, 1))
            z1 = top
            if two:
                lower = self.params("prior_lower", self.tower("downwards", self.seen(top, count, u, bits)))
                z1 = self.pop(message, d, self.plain(lower, d, bits, 1))
                upper = self.params("posterior_upper", self.tower("upwards", self.seen(z1, count, d, bits)))
                self.push(message, top, self.plain(upper, u, bits, 0))
        p = self.params("likelihood", self.tower("decoder", self.seen(z1, count, d, bits)))
        x = np.array(message.pop_row(WHOLE, self.finds(p.reshape(count, -1, self.dims)))).reshape(count, self.dims)
        if bits:
            see = 8 * (2 * x - 255) if config["depth"] == 8 else 2047 * (2 * x - 1)
            see = 2 * (x >> 1) - 2047 if config["depth"] == 12 else see
            h = self.tower("encoder", see)
            if config["posterior"] == "flow":
                given = self.flow(self.layer("context", h, -4095, 4095), d, bits)
            else:
                given = self.plain(self.params("posterior", h), d, bits, 0)
            self.push(message, z1, given)
        return x

    def chain(self, payload: bytes, count: int) -> np.ndarray:
        number, at = next(varints(payload, 0))
        batches = []
        for _ in range(number):
            pictures, at = next(varints(payload, at))
            batches.append((pictures, payload[at] % 16, 1 << (payload[at] >> 4)))
            at += 1
        message, found = Reader(payload[at:]), []
        for pictures, bits, heads in reversed(batches):
            message.resize(heads)
            found.append(self.batch(message, pictures, bits))
        message.check_end()
        x = np.concatenate(found[::-1])
        assert len(x) == count
        return x.reshape(count, self.config["height"], self.config["width"])


@pytest.mark.parametrize("kind", DENSE_KINDS)
def test_chains_are_what_the_document_says(tiny_dense: Callable[[str], Path], kind: str) -> None:
    folder = tiny_dense(kind)
    model = zoo.load(folder, device="cpu")
    x = dense_pictures(model.network.config, 12)
    payload, _ = encode_chain(model, x)
    np.testing.assert_array_equal(Decoder(folder).chain(payload, 12), x[..., 0])


@pytest.mark.parametrize(("name", "mode"), [(name, mode) for name, (mode, _) in DENSE.items()])
def test_so_are_those_of_the_golden_models(name: str, mode: str) -> None:
    x = stack(mode)[:9].astype(np.uint8)[..., None]
    payload, _ = encode_chain(zoo.load(VERSION / name, device="cpu"), x)
    np.testing.assert_array_equal(Decoder(VERSION / name).chain(payload, 9), x[..., 0])
