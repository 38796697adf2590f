"""One thread, fixed seeds, and attention written out as its formula says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

if TYPE_CHECKING:
    from vcell.nn.patterns import Pattern


@pytest.fixture(autouse=True)
def one_thread_and_seed() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def formula(
    name: str, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None, pattern: Pattern | None
) -> Tensor:
    """Attention over a dense matrix of weights, in float64."""
    q, k, v = (x.double() for x in (q, k, v))
    seen = torch.ones(q.shape[0], 1, q.shape[2], q.shape[2], dtype=torch.bool)
    if valid is not None:
        seen = seen & valid[:, None, None, :]
    if pattern is not None:
        seen = seen & pattern.allowed()
    if name == "linear":
        positive = [torch.where(x > 0, x + 1, x.exp()) for x in (q, k)]
        weights = (positive[0] @ positive[1].transpose(-2, -1)) * seen
    else:
        scores = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).masked_fill(~seen, -1e30)
        weights = scores.sub(scores.amax(-1, keepdim=True)).exp() * seen
    total = weights.sum(-1, keepdim=True)
    return (weights / total.where(total > 0, 1)) @ v
