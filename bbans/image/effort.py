"""How much time an encoder takes to find fewer bytes: 1 to 9. Decoders need about the same time for all.

From the default on, last layers are fitted to each plane (`bbans.image.fitting`); above it, networks are tuned to each
tile (`bbans.image.tuning`).
"""

from __future__ import annotations

LEAST, DEFAULT, MOST = 1, 5, 9


def tuning_stages(effort: int) -> int:
    """How long networks are tuned to a tile: from effort 6 on. Each stage begins where the one before it ended."""
    return max(0, effort - DEFAULT)
