"""The modes of pictures, and how each is taken apart into sheets: pictures of 8 bits, which is what coders take.

    mode       pixels                              sheets
    1          uint8 [h, w, 1], 0 and 1            1
    L, RGB     uint8 [h, w, 1 or 3]                L, RGB
    LA, RGBA   uint8 [h, w, 2 or 4]                L or RGB; L (alpha)
    P          uint8 [h, w, 1], into a palette     P
    I;16       uint16 [h, w, 1]                    L (high bytes); L (low bytes, less the high ones)
    LA;16, RGB;16, RGBA;16                         those of the high bytes; those of the low bytes

Names are Pillow's, and in their fashion where it has none. The low bytes of 16 bits go less the high ones, modulo 256,
since files are often made of 8 bits times 257; then nothing is left. The arithmetic is that of `bbans.image.sheets`.
"""

from __future__ import annotations

from dataclasses import dataclass

PALETTE, PALETTE_ALPHA = "palette", "palette-alpha"  # attributes of mode P: RGB of each entry; alpha of the first ones
SHEET_CHANNELS = {"1": 1, "L": 1, "P": 1, "RGB": 3}


@dataclass(frozen=True)
class Mode:
    """code: in files; never renumber. sheets: the modes of those of the first 8 bits. deep: of 16 bits."""

    code: int
    channels: int
    first: tuple[str, ...]
    deep: bool = False

    @property
    def together(self) -> bool:
        """Whether WebP takes all sheets of a tile at once: see `bbans.image.seen`."""
        return not self.deep and self.first in (("L", "L"), ("RGB", "L"), ("P",))

    @property
    def sheets(self) -> tuple[str, ...]:
        """The modes of all sheets."""
        return self.first * (2 if self.deep else 1)

    @property
    def dtype(self) -> str:
        """Of the pixels, as NumPy calls it."""
        return "uint16" if self.deep else "uint8"


MODES = {
    "L": Mode(0, 1, ("L",)),
    "RGB": Mode(1, 3, ("RGB",)),
    "1": Mode(2, 1, ("1",)),
    "LA": Mode(3, 2, ("L", "L")),
    "RGBA": Mode(4, 4, ("RGB", "L")),
    "P": Mode(5, 1, ("P",)),
    "I;16": Mode(6, 1, ("L",), deep=True),
    "LA;16": Mode(7, 2, ("L", "L"), deep=True),
    "RGB;16": Mode(8, 3, ("RGB",), deep=True),
    "RGBA;16": Mode(9, 4, ("RGB", "L"), deep=True),
}

NOT_PILLOWS = {"LA;16", "RGB;16", "RGBA;16"}
"""The modes that Pillow's images don't have."""
