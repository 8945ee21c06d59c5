"""What the bits of a .bbans file are for: an account that adds up to its size.

Decodes the file for it, since only a decoder knows. Knows the parts; refuses to know how they are shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bbans.image import container
from bbans.image.container import METHOD_NAMES, MODEL, Header
from bbans.image.modes import SHEET_CHANNELS

if TYPE_CHECKING:
    from bbans.zoo import Model

CODER, CONTAINER = "coder", "container"  # what its coder takes more than the model says; header, checksums and the rest


def account(data: bytes, models: Callable[[bytes], Model]) -> dict[str, float]:
    """Bits of each part, in order, of which those that come back are negative. models: see `decompress_picture`.

    likelihood, prior, bits back, codes: of the model, added up −ELBO; coder; initial; a library's name; container.
    Raises `BadFile`, `ModelMissing`.
    """
    from bbans.image.codec import decode_tiles
    from bbans.image.planes import BACK, CODES, INITIAL, LIKELIHOOD, PRIOR, Ledger

    header = Header.parse(data, limit=None)
    parts = dict.fromkeys((LIKELIHOOD, PRIOR, BACK, CODES, CODER, INITIAL), 0.0)
    sheets = len(header.sheets)
    grid = container.tile_grid(header.width, header.height, header.tile)
    for number, (piece, payload) in enumerate(zip(header.pieces, container.payloads(header, data), strict=True)):
        container.check_payload(header, number, payload)
        bits = 8.0 * len(payload)
        if piece.method != MODEL:
            name = METHOD_NAMES[piece.method]
            parts[name] = parts.get(name, 0.0) + bits
            continue
        ledger: Ledger = {}
        _, _, width, height = grid[number // sheets]
        channels = SHEET_CHANNELS[header.sheets[number % sheets]]
        decode_tiles(models(header.model_id), [bytes(payload)], height, width, channels, ledger)
        for name, part in ledger.items():
            parts[name] += part
        parts[CODER] += bits - sum(ledger.values())
    parts[CONTAINER] = 8.0 * len(data) - sum(parts.values())
    return parts
