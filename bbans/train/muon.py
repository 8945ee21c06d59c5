"""The optimiser: momentum made orthogonal for the kernels of convolutions (Muon), Adam for everything else.

A kernel's momentum, as a matrix from inputs to outputs, is replaced by the nearest orthogonal matrix, so that a step
turns all directions alike and not only the few in which gradients are large. What that is worth for our networks:
`bench.ablations`, rows "base" and "Adam".

Source: Jordan et al. 2024, "Muon" (kellerjordan.github.io/posts/muon), with the scale of Liu et al. 2025
(arXiv:2502.16982), by which a step is as large as one of Adam's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

POLYNOMIAL = (3.4445, -4.7750, 2.0315)  # takes singular values in (0, 1] to about 1 when iterated
ITERATIONS = 5
ADAMS_RMS = 0.2  # of the entries of a typical update by Adam
LEAST = 16  # smaller matrices have too few directions to gain


class Muon(torch.optim.Optimizer):
    """For the parameters of convolutional networks; those of 4 dimensions are kernels.

    momentum: of the orthogonal steps; betas: of Adam's; weight_decay: what a step takes away, as a share of the kernels
    that take orthogonal steps, for a learning rate of 1.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 5e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "weight_decay": weight_decay}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have gradients."""
        assert closure is None, "there is no line search"
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[Tensor]] = {}  # kernels of one shape go through the iteration together
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter.ndim == 4 and min(len(parameter), parameter[0].numel()) >= LEAST:
                    alike.setdefault(tuple(parameter.shape), []).append(parameter)
                else:
                    self._adam(parameter, group)
            for kernels in alike.values():
                self._muon(kernels, group)

    def _muon(self, kernels: list[Tensor], group: dict[str, Any]) -> None:
        ahead = []
        for kernel in kernels:
            assert kernel.grad is not None
            state = self.state[kernel]
            mean = state.setdefault("mean", torch.zeros_like(kernel))
            mean.lerp_(kernel.grad, 1 - group["momentum"])
            ahead.append(kernel.grad.lerp(mean, group["momentum"]).flatten(1))  # Nesterov's
        updates = orthogonal(torch.stack(ahead))
        scale = ADAMS_RMS * max(updates.shape[1:]) ** 0.5
        for kernel, update in zip(kernels, updates, strict=True):
            kernel.mul_(1 - group["lr"] * group["weight_decay"])
            kernel.add_(update.view(kernel.shape), alpha=-group["lr"] * scale)

    def _adam(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        state, (beta, beta_square) = self.state[parameter], group["betas"]
        if not state:
            state.update(step=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
        state["step"] += 1
        state["mean"].lerp_(parameter.grad, 1 - beta)
        state["square"].lerp_(parameter.grad.square(), 1 - beta_square)
        mean = state["mean"] / (1 - beta ** state["step"])
        square = state["square"] / (1 - beta_square ** state["step"])
        parameter.addcdiv_(mean, square.sqrt() + 1e-8, value=-group["lr"])


def orthogonal(matrices: Tensor) -> Tensor:
    """Nearly the nearest orthogonal matrices [n, rows, columns]: U V^T for U S V^T, with singular values of about 1.

    A Newton-Schulz iteration: an odd polynomial of a matrix is one of its singular values.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonal(matrices.mT).mT
    a, b, c = POLYNOMIAL
    x = matrices.float()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x
