from __future__ import annotations

import numpy as np
import pytest

from bbans.codecs.tables import (
    MASS,
    SCALES,
    UNIT,
    ScaleTables,
    logistic_cdf,
    logistic_tables,
    normal_tables,
    scale_of,
)

LOGISTIC, NORMAL = logistic_tables(), normal_tables()


def row(tables: ScaleTables, index: int) -> np.ndarray:
    """One scale's table."""
    middle, half = tables.middles[index], tables.halves[index]
    return tables.values[middle - half : middle + half + 1].astype(np.int64)


def test_scales_are_eight_to_the_octave() -> None:
    assert scale_of(np.array([36, 44, 28])).tolist() == [1.0, 2.0, 0.5]


@pytest.mark.parametrize("tables", [LOGISTIC, NORMAL], ids=["logistic", "normal"])
@pytest.mark.parametrize("index", [0, 35, 36, 70, SCALES - 1])
def test_a_table_rises_from_nothing_to_the_whole_mass_and_is_symmetrical(tables: ScaleTables, index: int) -> None:
    values = row(tables, index)
    assert values[0] == 0 and values[-1] == MASS and (np.diff(values) >= 0).all()
    assert np.abs(values + values[::-1] - MASS).max() <= 1


def test_tables_are_end_to_end() -> None:
    assert sum(len(row(LOGISTIC, i)) for i in range(SCALES)) == len(LOGISTIC.values)


@pytest.mark.parametrize("index", [0, 36, 52, SCALES - 1])
def test_a_table_holds_its_cdf(index: int) -> None:
    half, step = LOGISTIC.halves[index], (1 << LOGISTIC.shifts[index]) / UNIT
    x = np.arange(-half, half + 1) * step
    np.testing.assert_allclose(row(LOGISTIC, index) / MASS, logistic_cdf(x / scale_of(index)), atol=1e-6)


def test_neighbouring_integers_are_a_whole_number_of_steps_apart() -> None:
    assert (UNIT % (1 << LOGISTIC.shifts) == 0).all()


@pytest.mark.parametrize("index", [0, 36, 60, SCALES - 1])
def test_interpolation_meets_the_entries_and_never_falls(index: int) -> None:
    half, shift = int(LOGISTIC.halves[index]), int(LOGISTIC.shifts[index])
    locations = np.arange(-(half + 2) << shift, (half + 2) << shift, dtype=np.int32)
    between = LOGISTIC.interpolated(locations, np.full(len(locations), index), 4)
    assert (np.diff(between) >= 0).all() and between[0] == 0 and between[-1] == MASS << 4
    np.testing.assert_array_equal(between[2 << shift : -2 << shift : 1 << shift], row(LOGISTIC, index)[:-1] << 4)
