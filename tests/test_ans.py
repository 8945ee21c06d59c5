from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bbans.ans import HEAD_MIN, Message, Words, padding
from bbans.errors import BadFile, OutOfBits

from .codecs.helpers import random_message

DATA = Path(os.environ.get("BBANS_DATA", Path(__file__).parents[2] / "shared" / "data"))

# One lane of craystack 0.2 (case 0 of its vectors, the last 48 operations): the message before, the pushes as
# (start, freq, precision, or a total that is no power of two), and the words that it wrote.
SHARED = [471602289, 1424647969, 952301638, 3167310249, 3581152338, 4081941549, 2144670389, 2805859970, 408917946]
SHARED += [1911657200, 3269803327, 3357472227, 3741839389, 520618623, 3578903044, 865105316]
BEFORE = [1940, 1408985772, *SHARED]
AFTER = [9935701, 3266319647, 2108219307, 3983807227, 2791254713, 3084443544, 1395242854, 1527956824, 1293605750]
AFTER += [664296230, 335759357, 2630154285, 268116221, *SHARED]
# fmt: off
PUSHES = [
    (16451889, 16160, 24), (9190, 8, 14), (109007, 178767, 512177), (16, 1, 7), (200, 1, 8), (12897849, 12675, 24),
    (2500610, 765, 24), (206411, 168848, 513925), (163, 1, 8), (15, 1, 4), (29, 1, 5), (11, 1, 7),
    (398673, 404, 409024), (1, 1, 1), (34178, 57, 16), (6, 1, 4), (13502518, 1015, 26), (533929, 39298, 704108),
    (886, 1, 10), (351, 1, 10), (340, 1, 14), (4914, 6, 13), (153832, 70135, 299333), (7428764, 28677, 24),
    (3706, 47, 12), (636504, 461, 21), (536, 1, 11), (53369, 82898, 224980), (1505472, 1554, 21), (972, 1, 10),
    (0, 1, 1), (1007, 1, 10), (29776, 20366, 133821), (8, 1, 4), (207527, 122, 18), (220, 1, 8), (4, 1, 3),
    (282803, 2587, 361289), (68, 1, 7), (24352711, 33712, 26), (146163, 658, 21), (36453, 2, 16),
    (68628, 63522, 195868), (2337, 8, 12), (1, 1, 1), (133772, 672, 18), (376109, 947, 19), (6820, 53735, 451451),
]
# fmt: on


def push_any(message: Message, starts: np.ndarray, freqs: np.ndarray, whole: int) -> None:
    """`whole` is a precision up to 31, or else a total."""
    (message.push if whole <= 31 else message.push_total)(starts, freqs, whole)


def pop_any(message: Message, starts: np.ndarray, freqs: np.ndarray, whole: int) -> None:
    """The inverse of `push_any`; what is found must lie in the interval pushed."""
    cf, commit = (message.pop if whole <= 31 else message.pop_total)(whole)
    assert ((starts <= cf) & (cf < np.asarray(starts) + freqs)).all()
    commit(starts, freqs)


# -- golden words ----------------------------------------------------------------------------------------------------


def test_the_arithmetic_of_a_push() -> None:
    message = Message.empty(1)
    message.push(3, 1, 2)  # 2^31 * 2^2 + 3
    assert message.flatten().tolist() == [2, 3]
    message.push(5, 2, 31)  # (2^33 + 3) // 2 * 2^31 + remainder 1 + start 5, when 2^33 + 3 < 2 * 2^32 does not hold
    assert message.flatten().tolist() == [0, (1 << 31) + 5, 3]


def test_words_are_little_endian_at_rest() -> None:
    message = Message.empty(1)
    message.push(3, 1, 2)
    assert message.to_bytes() == bytes([2, 0, 0, 0, 3, 0, 0, 0])


def test_writes_the_words_of_craystack() -> None:
    message = Message.unflatten(BEFORE, 1)
    for push in PUSHES:
        push_any(message, *push)
    assert message.flatten().tolist() == AFTER
    for push in reversed(PUSHES):
        pop_any(message, *push)
    assert message.flatten().tolist() == BEFORE


@pytest.mark.parametrize("case", range(7))
def test_writes_all_the_words_of_craystack(case: int) -> None:
    path = DATA / "craystack_vectors.npz"
    if not path.exists():
        pytest.skip(f"{path} is absent; BBANS_DATA names the folder")
    with np.load(path) as vectors:
        init, starts, freqs, whole, kinds, flat, words = (
            vectors[f"{name}_{case}"] for name in ("init", "starts", "freqs", "precs", "kind", "flat0", "words")
        )
    message = Message(init.copy(), Words())
    np.testing.assert_array_equal(message.flatten(), flat)
    assert ((whole > 31) == (kinds == 1)).all()
    for i in range(len(kinds)):
        push_any(message, starts[i], freqs[i], int(whole[i]))
    np.testing.assert_array_equal(message.flatten(), words)
    for i in reversed(range(len(kinds))):
        pop_any(message, starts[i], freqs[i], int(whole[i]))
    np.testing.assert_array_equal(message.flatten(), flat)


# -- push and pop ----------------------------------------------------------------------------------------------------

SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, max_side=5)
WHOLES = st.one_of(st.integers(0, 31), st.integers(32, 1 << 31))


@given(SHAPES, st.lists(WHOLES, min_size=1, max_size=8), st.integers(0, 1 << 30))
def test_pop_undoes_push_for_any_total(shape: tuple[int, ...], wholes: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    message = random_message(shape, words=10, seed=seed)
    start, before = message.flatten(), message.bits()
    pushes, cost = [], 0.0
    for whole in wholes:
        total = 1 << whole if whole <= 31 else whole
        starts = random.integers(0, total, shape)
        freqs = random.integers(1, total - starts + 1)
        pushes.append((starts, freqs, whole))
        push_any(message, *pushes[-1])
        assert (message.heads >= HEAD_MIN).all() and (message.heads < 1 << 63).all()
        cost += np.log2(total / freqs).sum()
    assert message.bits() - before == pytest.approx(cost, abs=len(wholes) * message.heads.size)
    for push in reversed(pushes):
        pop_any(message, *push)
    np.testing.assert_array_equal(message.flatten(), start)


def test_a_precision_for_each_head() -> None:
    message = random_message(3, words=3)
    start = message.flatten()
    message.push([1, 2, 3], [1, 2, 3], [1, 4, 31])
    _, commit = message.pop([1, 4, 31])
    commit([1, 2, 3], [1, 2, 3])
    np.testing.assert_array_equal(message.flatten(), start)


def test_a_push_of_a_total_that_is_no_power_of_two_refills() -> None:
    # spilling leaves (2^31 // 3) * 1; times 3 that is 2^31 - 2, no longer a head
    # (github.com/j-towns/craystack/issues/14)
    message = Message(np.array([(HEAD_MIN // 3) << 32], np.uint64), Words([7]))
    start = message.flatten()
    push_any(message, 0, 1, 3 << 5)
    message.push_total(0, 1, 3)
    assert message.heads[0] >= HEAD_MIN
    _, commit = message.pop_total(3)
    commit(0, 1)
    pop_any(message, 0, 1, 3 << 5)
    np.testing.assert_array_equal(message.flatten(), start)


# -- words -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3000), max_size=12), st.integers(0, 1 << 30))
def test_words_are_last_in_first_out(sizes: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    words, model = Words(), np.zeros(0, np.uint32)
    for size in sizes:
        block = random.integers(0, 1 << 32, size, np.uint32)
        words.extend(block)
        model = np.concatenate([block, model])
        taken = int(random.integers(0, len(model) + 1))
        np.testing.assert_array_equal(words.take(taken), model[:taken])
        model = model[taken:]
        assert len(words) == len(model)
    np.testing.assert_array_equal(words.array(), model)


def test_the_callers_words_stay_as_they_are() -> None:
    mine = np.arange(4, dtype=np.uint32)
    words = Words(mine)
    words.take(2)
    words.extend(np.array([9, 9], np.uint32))
    assert mine.tolist() == [0, 1, 2, 3]


def test_running_out_of_bits_raises() -> None:
    message = Message.empty(2)
    cf, commit = message.pop(16)
    with pytest.raises(OutOfBits, match="2 words short"):
        commit(cf, 1)


def test_padding_comes_from_the_seed_and_is_counted() -> None:
    message = Message.empty(2, seed=5)
    cf, commit = message.pop(16)
    commit(cf, 1)
    assert message.words.padding == 2
    message.push(cf, 1, 16)
    assert message.words.array().tolist() == padding(5, 0, 2).tolist()
    assert message.is_initial(5) and not message.is_initial() and not message.is_initial(6)


def test_padding_is_one_sequence_however_it_is_taken() -> None:
    words = Words(seed=1)
    taken = np.concatenate([words.take(n).copy() for n in (1, 5, 2)])
    np.testing.assert_array_equal(taken, padding(1, 0, 8))
    assert padding(0, 0, 3).tolist() == [0xE220A839, 0x6E789E6A, 0x06C45D18]  # SplitMix64 from 0, high halves


def test_random_bits_look_like_a_message_and_never_end() -> None:
    message = Message.random(4000, seed=3)
    lengths = np.floor(np.log2(message.heads.astype(np.float64))).astype(int)
    counts = np.bincount(lengths - 31, minlength=32)
    assert len(counts) == 32 and counts.min() > 60 and counts.max() < 210  # 125 of each
    digits, commit = message.pop(8)
    assert abs(digits.mean() - 127.5) < 5 and len(np.unique(digits)) == 256
    commit(digits, 1)
    heads, words = message.heads.copy(), message.words.padding
    np.testing.assert_array_equal(message.words.take(5), padding(3, words, 5))
    other = Message.random(4000, seed=3)
    other.pop(8)[1](digits, 1)
    np.testing.assert_array_equal(other.heads, heads)
    assert (Message.random(4000, seed=4).heads != Message.random(4000, seed=3).heads).all()


def test_only_an_empty_message_is_initial() -> None:
    message = Message.empty(2)
    assert message.is_initial()
    message.push([1, 0], [1, 1], 1)
    assert not message.is_initial()


# -- lanes -----------------------------------------------------------------------------------------------------------


def test_lanes_are_a_view_over_the_same_words() -> None:
    message = random_message(6, words=20)
    start = message.flatten()
    untouched = message.heads[3:].copy()
    message.lanes(np.s_[:3]).push([0, 0, 0], [1, 1, 1], 30)
    np.testing.assert_array_equal(message.heads[3:], untouched)
    assert len(message.words) > 20
    _, commit = message.lanes(np.s_[:3]).pop(30)
    commit([0, 0, 0], [1, 1, 1])
    np.testing.assert_array_equal(message.flatten(), start)


def test_lanes_must_not_be_a_copy() -> None:
    with pytest.raises(AssertionError, match="view"):
        Message.empty(4).lanes([0, 2])


@given(st.integers(1, 20), st.integers(1, 40), st.integers(0, 1 << 30))
def test_resizing_there_and_back_changes_nothing(before: int, after: int, seed: int) -> None:
    message = random_message(before, words=3 * after + 10, seed=seed)
    start, bits = message.flatten(), message.bits()
    message.resize(after)
    assert message.heads.shape == (after,) and (message.heads >= HEAD_MIN).all()
    made = after - before
    assert message.bits() == pytest.approx(bits - 4.5 * made, abs=0.6 * abs(made))  # log2(ln 2^32) = 4.5 bits a head
    message.resize(before)
    np.testing.assert_array_equal(message.flatten(), start)


@pytest.mark.parametrize("head", [HEAD_MIN, (1 << 49) - 1, 1 << 49, (1 << 63) - 1])
def test_folding_keeps_heads_at_the_ends_of_their_octave(head: int) -> None:
    message = Message(np.array([HEAD_MIN, head], np.uint64), Words())
    message.resize(1)
    message.resize(2)
    assert message.heads.tolist() == [HEAD_MIN, head] and not len(message.words)


def test_only_a_row_of_heads_can_be_resized() -> None:
    for message, lanes in ((Message.empty((2, 2)), 3), (Message.empty(2), 0)):
        with pytest.raises(ValueError, match="row"):
            message.resize(lanes)
    with pytest.raises(OutOfBits):
        Message.empty(1).resize(2)


# -- at rest ---------------------------------------------------------------------------------------------------------


@given(SHAPES, st.integers(0, 50))
def test_flatten_and_bytes_are_the_message(shape: tuple[int, ...], words: int) -> None:
    message = random_message(shape, words)
    for copy in (
        Message.unflatten(message.flatten(), shape),
        Message.from_bytes(message.to_bytes(), shape),
    ):
        np.testing.assert_array_equal(copy.heads, message.heads)
        np.testing.assert_array_equal(copy.words.array(), message.words.array())


@pytest.mark.parametrize(
    ("flat", "why"),
    [
        ([], "shorter"),
        ([2, 0, 0], "shorter"),
        ([0, 1, HEAD_MIN - 1, 0], "range"),
        ([HEAD_MIN, 1, 0, 0], "range"),
    ],
)
def test_what_cannot_be_a_message_is_refused(flat: list[int], why: str) -> None:
    with pytest.raises(BadFile, match=why):
        Message.unflatten(flat, 2)


def test_bytes_must_be_whole_words() -> None:
    with pytest.raises(BadFile, match="whole number"):
        Message.from_bytes(bytes(9), 1)
