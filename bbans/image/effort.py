"""What an effort of 1 to 9 means: which model is the default, and how long its encoder searches for fewer bytes.

    1, 2    photo-fast, and no search
    3       photo-fast; last layers are fitted to each plane (`bbans.image.fitting`)
    4       photo, and no search
    5       photo; last layers are fitted: the default
    6 to 9  photo; last layers are fitted, and networks tuned to each tile (`bbans.image.tuning`), ever longer

A model that is named takes the place of the default; the effort then decides the search alone, so that the model makes
larger files with effort 4 than with 3. Decoding needs about the same time, however long the encoder searched.
"""

from __future__ import annotations

LEAST, DEFAULT, MOST = 1, 5, 9
FAST = "photo-fast"
FAST_FITTED = 3  # the most that `FAST` is the default of


def default_model(effort: int) -> str:
    """The name of the model that is used unless another is named."""
    from bbans.zoo import DEFAULT as BEST  # imports NumPy, which `--help` has no time for

    return FAST if effort <= FAST_FITTED else BEST


def fits(effort: int) -> bool:
    """Whether last layers are fitted, of models that can be."""
    return effort == FAST_FITTED or effort >= DEFAULT


def tuning_stages(effort: int) -> int:
    """How long networks are tuned to a tile: from effort 6 on. Each stage begins where the one before it ended."""
    return max(0, effort - DEFAULT)
