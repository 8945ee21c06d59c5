"""What Numba compiles codes what NumPy codes, to the word."""

import types
import warnings

import numpy as np
import pytest
import torch

from bbans import workers
from bbans.ans import Message
from bbans.codecs.standins import Ruler
from bbans.codecs.tables import logistic_tables
from bbans.errors import BadBackend, OutOfBits
from bbans.exact.layers import IntConv
from bbans.image import loops
from bbans.image.mixtures import Mixtures, proved, push_row
from bbans.image.outputs import Made, outputs_of
from bbans.zoo import Tables

compiled = pytest.importorskip("bbans.image.compiled", reason="needs numba", exc_type=ImportError)


@pytest.fixture(scope="module")
def tables():
    return Tables(logistic_tables(), np.zeros(1, np.int32), np.exp2(16 - np.arange(257) / 16).astype(np.uint32))


@pytest.fixture(autouse=True)
def counted(monkeypatch):
    """Count from 0, and restore the count afterwards."""
    monkeypatch.delenv(loops.CODER, raising=False)
    monkeypatch.setattr(loops, "_seen", 0)
    found = loops._compiled
    found.cache_clear()
    yield
    found.cache_clear()


def mixtures_of(tables, components, count, seed, lo=0, hi=255):
    rng = np.random.default_rng(seed)
    spread = np.array([200, 600, 300])[:, None, None]
    columns = (rng.integers(-1000, 1000, (3, components, count)) * spread // 1000).reshape(-1, count)
    return Mixtures(tables, Made(columns.astype(np.float32)), rng.integers(0, 4096, count, np.int32), lo, hi)


@pytest.mark.parametrize("components", [1, 2, 3, 5])
@pytest.mark.parametrize(("count", "lanes"), [(1, 1), (700, 64), (4096, 4096), (20_011, 1000), (5, 64)])
@pytest.mark.parametrize(("lo", "hi"), [(0, 255), (-255, 255), (0, 1)])
def test_words_are_those_of_numpy(tables, components, count, lanes, lo, hi):
    mixtures = mixtures_of(tables, components, count, components, lo, hi)
    source = Message.random(lanes, seed=3)
    symbols = mixtures.popped(source, None)
    plain, other = Message.random(lanes, seed=5), Message.random(lanes, seed=5)
    push_row(plain, *mixtures.intervals(symbols, None), None)
    push_row(other, *mixtures.intervals(symbols, compiled), compiled)
    assert np.array_equal(plain.flatten(), other.flatten())
    assert np.array_equal(mixtures.popped(other, compiled), symbols)
    assert np.array_equal(other.heads, Message.random(lanes, seed=5).heads)


def test_extreme_symbols_have_the_intervals_of_numpy(tables):
    mixtures = mixtures_of(tables, 3, 9000, 1)
    for symbol in (0, 1, 254, 255):
        x = np.full(9000, symbol)
        assert np.array_equal(mixtures.intervals(x, None), mixtures.intervals(x, compiled))


@pytest.mark.parametrize("largest", [100, 20_000, 60_000])
def test_last_layers_on_bytes_are_computed_alike(tables, largest):
    rng = np.random.default_rng(largest)
    weight = torch.from_numpy(rng.integers(-1, 2, (9, 6, 1, 1)) * largest)
    bias, shift = torch.from_numpy(rng.integers(-(1 << 18), 1 << 18, 9)), torch.full((9,), 14)
    layer = IntConv(weight, bias, shift, stride=1, lowest=-32767, highest=32767, source="byte.x")
    features = torch.from_numpy(rng.integers(0, 256, (1, 6, 40, 50)).astype(np.uint8))
    features = features.contiguous(memory_format=torch.channels_last)
    outputs = outputs_of([layer], features)
    part = slice(100, 1900)
    rows = outputs.rows(part)(slice(0, 1800), compiled)
    assert np.array_equal(rows.T, outputs.columns(part))
    assert np.array_equal(rows.T, layer(features)[0].flatten(1)[:, part].numpy())


def test_an_exhausted_stack_leaves_the_message_as_it_was(tables):
    mixtures, message = mixtures_of(tables, 3, 1000, 2), Message.empty(8)
    before = message.heads.copy()
    assert mixtures._popped(message, compiled) is None
    assert np.array_equal(message.heads, before)
    with pytest.raises(OutOfBits):
        mixtures.popped(message, compiled)


def test_symbols_outside_the_alphabet_are_refused(tables):
    mixtures = mixtures_of(tables, 1, 3, 2)
    with pytest.raises(ValueError, match=r"0\.\.255, not 0\.\.256"):
        mixtures.interval(np.array([0, 256, 3]))


def test_numba_comes_in_when_it_is_worth_it(monkeypatch):
    assert loops.compiled_loops(loops.WORTH_IT - 1) is None
    assert loops.compiled_loops(1) is compiled
    monkeypatch.setenv(loops.CODER, loops.NUMPY)
    assert loops.compiled_loops(1) is None


def test_the_environment_chooses(monkeypatch):
    monkeypatch.setenv(loops.CODER, loops.NUMBA)
    assert loops.compiled_loops(1) is compiled
    monkeypatch.setattr(loops, "_compiled", lambda: None)
    with pytest.raises(BadBackend, match="Numba is not installed"):
        loops.compiled_loops(1)
    monkeypatch.setenv(loops.CODER, "fortran")
    with pytest.raises(BadBackend, match="numpy or numba, not fortran"):
        loops.compiled_loops(1)


def test_loops_that_compute_wrongly_are_not_used(monkeypatch):
    def wrong(*arguments):
        used = compiled.pop(*arguments)
        arguments[-1][17] ^= 1
        return used

    broken = types.SimpleNamespace(pop=wrong, **{n: getattr(compiled, n) for n in ("prepare", "push", "interval")})
    assert proved(compiled)
    assert not proved(broken)
    monkeypatch.setattr("bbans.image.mixtures.proved", lambda _: False)
    monkeypatch.setattr(workers, "_warned", set())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert loops.compiled_loops(loops.WORTH_IT) is None
        assert loops.compiled_loops(1) is None
    assert ["give wrong results" in str(one.message) for one in caught] == [True]


def test_what_stands_in_for_a_message_is_measured_alike(tables):
    mixtures = mixtures_of(tables, 3, 500, 4)
    symbols = mixtures.popped(Message.random(16, seed=1), None)
    lengths = []
    for by in (None, compiled):
        ruler = Ruler(16)
        push_row(ruler, *mixtures.intervals(symbols, by), by)
        lengths.append(ruler.length)
        assert np.array_equal(mixtures.popped(ruler, by), mixtures.popped(Ruler(16), None))
    assert lengths[0] == lengths[1] > 0
