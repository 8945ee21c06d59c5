"""Bernoullis given by their logits, which integer networks put out: the likelihood of bilevel pictures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbans.codecs.core import Codec, over_lanes
from bbans.codecs.discrete import bernoulli
from bbans.codecs.tables import MASS, SCALE_OF_ONE, UNIT, ScaleTables

PRECISION = 24


@dataclass(frozen=True)
class Bernoullis:
    """n independent Bernoullis. logits: int32 [n] in 1/16 nat; tables: of the logistic, whose CDF is P(1)."""

    tables: ScaleTables
    logits: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, part: slice) -> Bernoullis:
        return Bernoullis(self.tables, self.logits[part])

    @cached_property
    def freqs(self) -> NDArray[np.int64]:
        """Of 1, out of 2^24; both symbols have at least 1."""
        table = np.full(len(self.logits), SCALE_OF_ONE, np.int32)
        return self.tables.interpolated(self.logits, table, 0) * ((1 << PRECISION) - 2) // MASS + 1

    def mean(self) -> NDArray[np.float64]:
        """P(1) [n], as it is coded: the same everywhere."""
        return self.freqs / (1 << PRECISION)

    def row_codec(self) -> Codec:
        """All n symbols over the lanes of a message."""
        return over_lanes(lambda part: bernoulli(self.freqs[part], PRECISION), len(self))

    def log2_prob(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """log2 P(x) with real-valued probabilities of the same parameters: what `elbo` counts.

        The floor under both frequencies is part of the model.
        """
        against = np.where(x, -1.0, 1.0) * self.logits / UNIT
        p = 1 / (1 + np.exp(np.minimum(against, 700.0)))  # which is 0 to any precision that matters
        return np.log2(p * (1 - 2.0 ** (1 - PRECISION)) + 2.0**-PRECISION)
