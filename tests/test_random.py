"""The counter-based generator: published vectors, statistics with fixed seeds, seeds."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from fastops._jit import FLAGS
from fastops.simd.random import bits32, seed_of, uniform32, words32

NUMBERS = 1 << 18


@njit(**FLAGS)
def words(seed, index):
    return words32(seed, index)


@njit(**FLAGS)
def draw_bits(seed, start, step, out):
    for i in range(out.size):
        out[i] = bits32(seed, start + i * step)


@njit(**FLAGS)
def draw_uniform(seed, out):
    for i in range(out.size):
        out[i] = uniform32(seed, i)


def bits(seed: int, start: int = 0, step: int = 1, count: int = NUMBERS) -> np.ndarray:
    out = np.empty(count, np.uint32)
    draw_bits(seed, start, step, out)
    return out


# Of the authors' implementation, Random123 (its file kat_vectors, lines "threefry2x32 13"): counter, key, result.
KNOWN = [
    ((0, 0), (0, 0), (0x9D1C5EC6, 0x8BD50731)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0xFD36D048, 0x2D17272C)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xBA3E4725, 0xF27D669E)),
]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_known_answers(counter, key, result):
    def joined(pair):
        return np.array(pair[0] | pair[1] << 32, np.uint64).view(np.int64)[()]

    assert words(joined(key), joined(counter)) == result


def chi_square(counts: np.ndarray) -> float:
    """Standard deviations from what equal probabilities would give."""
    expected = counts.sum() / counts.size
    return ((counts - expected) ** 2 / expected).sum() / np.sqrt(2 * counts.size) - np.sqrt(counts.size / 2)


@pytest.mark.parametrize("seed", [0, 1, 2, 1 << 31, 1 << 62, 0x123456789ABCDEF])
class TestStatistics:
    def test_each_bit_is_set_half_of_the_time(self, seed):
        ones = (bits(seed)[:, None] >> np.arange(32, dtype=np.uint32) & 1).sum(0)
        assert np.abs(ones - NUMBERS / 2).max() < 5 * np.sqrt(NUMBERS) / 2

    def test_pairs_of_neighbours_are_independent(self, seed):
        for shift in (0, 12, 24):
            part = bits(seed) >> np.uint32(shift) & 0xFF
            assert abs(chi_square(np.bincount(part[:-1] << 8 | part[1:], minlength=1 << 16))) < 5

    def test_streams_of_neighbouring_seeds_and_distant_indices_are_independent(self, seed):
        first = bits(seed)
        for other in (bits(seed ^ 1), bits(seed ^ 1 << 40), bits(seed, start=NUMBERS), bits(seed, start=1 << 32), bits(seed, step=1 << 20)):
            differing = (first[:, None] ^ other[:, None]) >> np.arange(32, dtype=np.uint32) & 1
            assert np.abs(differing[1:].sum(0) - NUMBERS / 2).max() < 5 * np.sqrt(NUMBERS) / 2

    def test_numbers_repeat_as_often_as_chance_has_it(self, seed):
        # birthdays: 2^18 of 2^32 numbers hold n^2 / 2^33 = 8 equal pairs on average; a permutation would hold none
        repeated = sum(NUMBERS - np.unique(bits(seed, start=k * NUMBERS)).size for k in range(8))
        assert abs(repeated - 64) < 5 * 8

    def test_uniform(self, seed):
        u = np.empty(NUMBERS, np.float32)
        draw_uniform(seed, u)
        assert u.min() >= 0
        assert u.max() < 1
        assert abs(chi_square(np.histogram(u, 1000, (0, 1))[0])) < 5
        assert (u * 2**24 == np.floor(u * 2**24)).all()


def test_seeds():
    assert seed_of("op", 5) == seed_of("op", np.uint8(5)) == 5
    generator = np.random.default_rng(3)
    assert seed_of("op", generator) == seed_of("op", np.random.default_rng(3)) != seed_of("op", generator)
    assert seed_of("op", None) != seed_of("op", None)
    assert 0 <= seed_of("op", None) < 1 << 63


@pytest.mark.parametrize(("rng", "error"), [(-1, ValueError), (1 << 63, ValueError), (1.0, TypeError), ("1", TypeError), (True, TypeError)])
def test_wrong_seeds(rng, error):
    with pytest.raises(error, match=r"^op: rng must be "):
        seed_of("op", rng)
