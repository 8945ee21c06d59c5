"""What the bits of a .bbans file are for: an account that adds up to its size.

Decodes the file for it, since only a decoder knows. Knows the parts; refuses to know how they are shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bbans.image.container import METHOD_NAMES, MODEL, Header

if TYPE_CHECKING:
    from bbans.zoo import Model

CODER, CONTAINER = "coder", "container"  # what its coder takes more than the model says; header, checksums and the rest


def account(data: bytes, models: Callable[[bytes], Model]) -> dict[str, float]:
    """Bits of each part, in order, of which those that come back are negative. models: see `decompress_picture`.

    likelihood, prior, bits back, codes: of the model, added up −ELBO; coder; initial; a library's name; container.
    Raises as `decompress_picture` does.
    """
    from bbans.image.picture import decompress_picture
    from bbans.image.planes import BACK, CODES, INITIAL, LIKELIHOOD, PRIOR

    ledger: dict[str, float] = {}
    decompress_picture(data, models, ledger=ledger)
    parts = dict.fromkeys((LIKELIHOOD, PRIOR, BACK, CODES, CODER, INITIAL), 0.0) | ledger
    parts[CODER] = -sum(ledger.values())
    for piece in Header.parse(data).pieces:
        name = CODER if piece.method == MODEL else METHOD_NAMES[piece.method]
        parts[name] = parts.get(name, 0.0) + 8.0 * piece.size
    parts[CONTAINER] = 8.0 * len(data) - sum(parts.values())
    return parts
