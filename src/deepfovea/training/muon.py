"""The optimiser Muon: orthogonalised momentum for matrices, Adam for all other parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
"""Share of the old momentum in the new one (Jordan et al. 2024)."""
STEP_SIZE = 0.2
"""Root mean square of the entries of a step, which is that of Adam's steps (Liu et al. 2025)."""
ITERATIONS, COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)
"""Number of Newton–Schulz iterations, and the coefficients of x, x³ and x⁵ (Jordan et al. 2024)."""
EPS = 1e-7
"""Added to the norm that divides a matrix (Jordan et al. 2024)."""


class Muon(torch.optim.Adam):
    """Muon (Jordan et al. 2024) for convolution kernels and Adam for the rest, with one learning
    rate.

    A kernel [O, I, k, k] is treated as a matrix of O rows. Its step is the momentum with all
    singular values brought to about 1, times 0.2 · √max(rows, columns), which gives it the size of
    Adam's steps (Liu et al. 2025, "Muon is scalable for LLM training").

    Args:
        matrices: the kernels.
        rest: all other parameters.
        lr: learning rate of both.
        betas: betas of Adam.
        fused: whether Adam's steps are made by one kernel.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        rest: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float],
        *,
        fused: bool = False,
    ) -> None:
        groups: list[dict[str, Any]] = [
            {"params": list(rest)},
            {"params": list(matrices), "orthogonal": True},
        ]
        super().__init__(groups, lr, betas=betas, fused=fused)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Make one step. It deletes the gradients of the kernels."""
        for group in self.param_groups:
            for parameter in group["params"] if group.get("orthogonal") else ():
                gradient = parameter.grad
                if gradient is None:
                    continue
                momentum = self.state[parameter]["exp_avg"].lerp_(gradient, 1.0 - MOMENTUM)
                direction = gradient.lerp(momentum, MOMENTUM).flatten(1)  # Nesterov momentum
                size = STEP_SIZE * max(direction.shape) ** 0.5
                direction = orthogonalized(direction).view_as(parameter)
                parameter.add_(direction, alpha=-group["lr"] * size)
                parameter.grad = None  # so that Adam skips it
        return super().step(closure)


def orthogonalized(matrix: Tensor) -> Tensor:
    """Bring the singular values of a matrix near 1 (0.7 to 1.2) and keep its singular vectors.

    Five Newton–Schulz iterations with the coefficients of Jordan et al. 2024, which trade
    exactness for speed.

    Args:
        matrix: [m, n]; a zero matrix stays zero.

    Returns:
        [m, n].
    """
    flat = matrix.shape[0] <= matrix.shape[1]
    x: Tensor = matrix if flat else matrix.T
    x = x / (x.norm() + EPS)  # no singular value above 1
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x if flat else x.T
