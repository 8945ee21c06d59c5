from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbans.image.modes import MODES, SHEET_CHANNELS
from bbans.image.sheets import put_together, take_apart


@pytest.mark.parametrize("mode", MODES)
@given(data=st.data(), height=st.integers(1, 5), width=st.integers(1, 5))
def test_sheets_make_the_pixels_again(mode: str, data: st.DataObject, height: int, width: int) -> None:
    kind = MODES[mode]
    values = st.integers(0, 65535 if kind.deep else 1 if mode == "1" else 255)
    count = height * width * kind.channels
    drawn = data.draw(st.lists(values, min_size=count, max_size=count))
    pixels = np.array(drawn, kind.dtype).reshape(height, width, kind.channels)
    sheets = take_apart(pixels, mode)
    assert [sheet.shape[2] for sheet in sheets] == [SHEET_CHANNELS[name] for name in kind.sheets]
    assert all(sheet.dtype == np.uint8 and sheet.flags.c_contiguous for sheet in sheets)
    again = put_together(sheets, mode)
    assert again.dtype == kind.dtype
    np.testing.assert_array_equal(again, pixels)


@pytest.mark.parametrize("mode", [mode for mode, kind in MODES.items() if kind.deep])
def test_8_bits_made_16_leave_nothing_in_the_low_bytes(mode: str) -> None:
    pixels = np.arange(256, dtype=np.uint16).reshape(16, 16, 1).repeat(MODES[mode].channels, 2) * 257
    sheets = take_apart(pixels, mode)
    assert not any(sheet.any() for sheet in sheets[len(sheets) // 2 :])


def test_codes_are_part_of_the_format() -> None:
    assert [mode for mode, _ in sorted(MODES.items(), key=lambda item: item[1].code)] == [
        *("L", "RGB", "1", "LA", "RGBA", "P", "I;16", "LA;16", "RGB;16", "RGBA;16")
    ]
    assert sorted(kind.code for kind in MODES.values()) == list(range(len(MODES)))
