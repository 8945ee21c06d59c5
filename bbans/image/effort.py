"""How much time an encoder takes to find fewer bytes: 1 to 9. Decoders need about the same time for all."""

from __future__ import annotations

LEAST, DEFAULT, MOST = 1, 5, 9


def newton_steps(effort: int) -> int:
    """How many are taken to fit last layers to a plane: none below the default, and more above it."""
    return 0 if effort < DEFAULT else 2 if effort == DEFAULT else 4


def tuning_stages(effort: int) -> int:
    """How long networks are tuned to a tile: from effort 6 on. Each stage begins where the one before it ended."""
    return max(0, effort - DEFAULT)
