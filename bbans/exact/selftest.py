"""Known answers: does this device compute these networks exactly as the machine that exported them?

The inputs reach the traps known: batches of 16 and more (Winograd), odd sizes, several shapes, values of the largest
magnitude. They come from integer arithmetic alone.
"""

from __future__ import annotations

import numpy as np
import torch
import xxhash
from torch import Tensor

from bbans.ans import padding
from bbans.exact.layers import INPUT_MAX, arithmetic
from bbans.vae.families import Network

# (batch, largest magnitude of the inputs), and for networks that take any size also (height, width)
CASES = ((1, 200, (37, 51)), (16, INPUT_MAX, (16, 24)), (3, INPUT_MAX, (1, 5)), (1, 60, (64, 64)))


def answers(network: Network) -> list[int]:
    """One hash for each of `CASES`, on the device and in the dtype of the network."""
    like = next(b for b in network.buffers())
    return [_hash(network, like, seed, *case) for seed, case in enumerate(CASES)]


def inputs(network: Network, like: Tensor, seed: int, batch: int, largest: int, size: tuple[int, int]) -> list[Tensor]:
    """What `network.probe` takes: integers, in the dtype of `like` and on its device."""
    made = []
    for i, shape in enumerate(network.probe_shapes(*size)):
        count = batch * int(np.prod(shape))
        values = padding(seed * 8 + i, 0, count).astype(np.int64) % (2 * largest + 1) - largest
        x = torch.from_numpy(values.astype(np.float64).reshape(batch, *shape))
        x = x.to(like)
        made.append(x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x)
    return made


def _hash(network: Network, like: Tensor, seed: int, batch: int, largest: int, size: tuple[int, int]) -> int:
    digest = xxhash.xxh64()
    with arithmetic():
        for out in network.probe(*inputs(network, like, seed, batch, largest, size)):
            digest.update(np.ascontiguousarray(out.to(torch.int32).cpu().numpy(), dtype="<i4").tobytes())
    return digest.intdigest()
