"""The likelihoods on CUDA: launches of `vcell.nn.triton_kernels`. Imported only with Triton."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vcell.nn import triton_kernels as kernels
from vcell.nn.likelihood_types import CellLosses, Work

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Counts below this come from tables.
TABLE = 33
ROWS, BLOCK, COUNTS = 32, 1024, 256  # per program


def tables(theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums of `vcell.kernels.counting` for counts below `TABLE`, each (TABLE, G)."""
    t = theta.double()[None]
    i = torch.arange(TABLE - 1, device=theta.device, dtype=torch.float64)[:, None]
    parts: Iterable[Tensor] = (torch.log1p(i / t), 1 / (t + i), i / (t + i))
    none = torch.zeros_like(t)
    s, a0, a1 = (torch.cat([none, part.cumsum(0)]).float() for part in parts)
    return s, a0, a1


@cache
def _factorials(device: torch.device) -> Tensor:
    return torch.lgamma(torch.arange(TABLE, device=device, dtype=torch.float64) + 1).float()


def on_cuda(work: Work, logits: Tensor, pi: Tensor | None) -> CellLosses:
    """Compute a likelihood, and overwrite `logits` and `pi` by its gradients."""
    rows, zero = work.rows, pi is not None
    n, n_genes = logits.shape
    assert work.theta is not None
    theta = work.theta.detach().float().contiguous()
    first, last = int(rows.begin[0]), int(rows.begin[-1])
    new = torch.empty
    device = logits.device
    highest, total = new(n, device=device), new(n, device=device)
    kernels.row_sums[(n,)](logits, highest, total, n_genes, BLOCK=BLOCK)
    some = rows.library > 0
    library = torch.where(some, rows.library, torch.ones_like(rows.library))
    shift = (library.double().log() - highest - total.double().log()).float()
    scale = rows.library / total
    loss, slope = new(n, device=device), new(n, device=device)
    by_logit, by_theta = (new(max(last - first, 1), device=device) for _ in range(2))
    by_pi = torch.empty_like(by_logit) if zero else by_logit
    p = logits if pi is None else pi
    x = rows.begin, rows.indices, rows.counts
    kernels.at_counts[(n,)](
        logits, p, *x, shift, theta, *tables(theta), _factorials(device), first,
        loss, slope, by_logit, by_theta, by_pi, n_genes, TABLE=TABLE, ZERO=zero, BLOCK=COUNTS,
    )  # fmt: skip
    tiles, blocks = -(-n // ROWS), -(-n_genes // BLOCK)
    losses, slopes = new(n, blocks, device=device), new(n, blocks, device=device)
    parts = new(tiles, n_genes, device=device)
    weight = work.weight.float() * some  # an empty cell gets no gradient
    kernels.dense_sums[(tiles, blocks)](
        logits, p, highest, scale, weight, theta, losses, slopes, parts, n, n_genes,
        ZERO=zero, ROWS=ROWS, BLOCK=BLOCK,
    )  # fmt: skip
    factor = (slope + slopes.sum(1)) / total
    kernels.gradients[(n, blocks)](
        logits, p, highest, scale, factor, weight, theta, n_genes, ZERO=zero, BLOCK=BLOCK
    )
    kernels.scatter[(n,)](
        logits, p, *x, weight, by_logit, by_pi, first, n_genes, ZERO=zero, BLOCK=COUNTS
    )
    weights = torch.repeat_interleave(weight, rows.begin.diff(), output_size=last - first)
    found = parts.sum(0, dtype=torch.float64)
    at = rows.indices[first:last].long()
    found.index_add_(0, at, (by_theta[: last - first] * weights).double())
    each = (losses.sum(1, dtype=torch.float64) + loss).float() * some
    return CellLosses(each, found.float())
