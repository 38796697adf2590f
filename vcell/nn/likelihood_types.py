"""The input and output of kernels that compute likelihoods. B cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from vcell.nn.compressed import CompressedRows

Kind = Literal["nb", "zinb", "poisson", "mse"]


@dataclass(frozen=True)
class Work:
    """The inputs of a kernel besides the logits."""

    kind: Kind
    rows: CompressedRows
    theta: Tensor | None
    weight: Tensor  # (B,) of each cell in the gradients


@dataclass(frozen=True)
class CellLosses:
    """Each cell's loss, and the gradient by theta; the gradient by logits overwrites them."""

    loss: Tensor
    by_theta: Tensor | None


Kernel = Callable[[Work, Tensor, Tensor | None], CellLosses]
