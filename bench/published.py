"""What others report on the yardsticks, in bits per dim, with where it is from and how it counts initial bits.

Knows numbers from papers and their repositories; measures nothing. `checked` is false where a rate is quoted from a
paper that was not at hand to be read again. That HiLLoC leaves initial bits out is in its code: 10^8 random
words that the message begins with are subtracted; BB-ANS does so with fewer.
"""

from __future__ import annotations

from dataclasses import dataclass

EXCLUDED = "not counted"
INCLUDED = "counted, spread over 100 images"


@dataclass(frozen=True)
class Published:
    """One rate. coder: with the layers of its model; rate: bits per dim; initial: whether initial bits are in it."""

    coder: str
    rate: float
    initial: str
    source: str
    checked: bool = True

    @property
    def cited(self) -> str:
        """The source, for people."""
        return self.source if self.checked else f"{self.source}; quoted, not read again"


_BB_ANS = "Townsend et al. 2019, arXiv:1901.04866, table 2"
_BIT_SWAP = "Kingma et al. 2019, arXiv:1905.06845, and the arrays in its repository"
_PIXELS = "; counted there over 32 x 32 pixels, here over the 28 x 28 that are not padding"

PUBLISHED = {
    "mnist-binary": (Published("BB-ANS, 1 layer", 0.19, EXCLUDED, _BB_ANS, checked=False),),
    "mnist": (
        Published("BB-ANS, 1 layer", 1.41, EXCLUDED, _BB_ANS, checked=False),
        Published("BB-ANS, 8 layers", 1.48, INCLUDED, _BIT_SWAP + _PIXELS),
        Published("Bit-Swap, 8 layers", 1.29, INCLUDED, _BIT_SWAP + _PIXELS),
        Published("Bit-Swap, 8 layers", 1.27, EXCLUDED, _BIT_SWAP + _PIXELS),
    ),
    "cifar10": (
        Published("BB-ANS, 8 layers", 4.19, INCLUDED, _BIT_SWAP),
        Published("BB-ANS, 8 layers", 3.79, EXCLUDED, _BIT_SWAP),
        Published("Bit-Swap, 8 layers", 3.82, INCLUDED, _BIT_SWAP),
        Published("Bit-Swap, 8 layers", 3.80, EXCLUDED, _BIT_SWAP),
        Published("HiLLoC, 24 layers", 3.56, EXCLUDED, "Townsend et al. 2020, arXiv:1912.09953", checked=False),
    ),
}
