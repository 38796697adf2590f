"""Likelihoods of counts as torch functions: a readable reference, and a fast decoder.

`reference` defines each likelihood in plain torch; it has gradients and runs on any device.
`CountDecoder` combines a network's last layer with the likelihood: the numba kernels (CPU) and the
Triton kernels (CUDA) overwrite the logits by their gradient, so that cells x genes exists once. If
neither is available, the reference is used, with a message.

All likelihoods are computed in float32, for any precision of the products before.
B cells, G genes, H hidden units.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vcell import console
from vcell.kernels import counting, likelihood, zero_inflated
from vcell.nn.compressed import CompressedRows, each, slices
from vcell.nn.likelihood_types import CellLosses, Kernel, Kind, Work

_ROWS = 32  # rows per task: fixed, so that sums do not depend on the threads
_LEAST, _MOST = -13.8, 13.8  # log theta: 1e-6 to 1e6


def reference(
    kind: Kind,
    logits: Tensor,
    target: Tensor,
    library: Tensor,
    theta: Tensor | None = None,
    pi: Tensor | None = None,
) -> Tensor:
    """Return each cell's negative log-likelihood, (B,), in plain torch.

    Parameters
    ----------
    logits, target
        (B, G). Means are ``library * softmax(logits)``; `target` holds counts. For ``mse`` the
        logits themselves are compared with `target`: half the squared error.
    library
        (B,) sums of counts.
    theta
        (G,) dispersions: the variance is ``mu + mu**2 / theta``.
    pi
        (B, G) logits of dropout.
    """
    if kind == "mse":
        return 0.5 * (logits - target).square().sum(1)
    log_mu = library.clamp_min(1e-30).log()[:, None] + torch.log_softmax(logits, 1)
    mu = log_mu.exp()
    factorial = torch.lgamma(target + 1)
    if kind == "poisson":
        return (mu - target * log_mu + factorial).sum(1) * (library > 0)
    assert theta is not None
    log_zero = -theta * torch.log1p(mu / theta)
    rising = torch.lgamma(target + theta) - torch.lgamma(theta) - target * theta.log()
    loss = target * (torch.log1p(mu / theta) - log_mu) - rising + factorial - log_zero
    if kind == "zinb":
        assert pi is not None
        zero = functional.softplus(-pi) - functional.softplus(log_zero - pi)
        loss = torch.where(target > 0, functional.softplus(pi) + loss, zero)
    return loss.sum(1) * (library > 0)


def on_cpu(work: Work, logits: Tensor, pi: Tensor | None) -> CellLosses:
    """Compute a likelihood by the numba kernels; overwrite `logits` and `pi` by gradients."""
    rows = work.rows
    begin, indices = rows.begin.numpy(), rows.indices.numpy()
    counts = rows.values.numpy() if work.kind == "mse" else rows.counts.numpy()
    library, weight = rows.library.double().numpy(), work.weight.double().numpy()
    values, loss = logits.numpy(), np.empty(len(rows))
    parts = slices(len(rows), _ROWS)
    theta, by_theta = None, np.empty((0, 0), np.float32)
    if work.kind in {"nb", "zinb"}:
        assert work.theta is not None
        theta = np.ascontiguousarray(work.theta.detach().numpy())
        size = counting.table_size(counts[begin[0] : begin[-1]], len(theta))
        shared = (theta, 1 / theta, *counting.tables(theta, size))
        by_theta = np.zeros((len(parts), len(theta)), np.float32)
    pis = None if pi is None else pi.numpy()

    def one(number: int) -> None:
        part = parts[number]
        x = begin[part.start : part.stop + 1], indices, counts
        out, row_loss, w = values[part], loss[part], weight[part]
        if work.kind == "mse":
            likelihood.square_rows(out, *x, w, row_loss, out)
        elif work.kind == "poisson":
            likelihood.poisson_rows(out, *x, library[part], w, row_loss, out)
        elif work.kind == "nb":
            likelihood.nb_rows(out, *x, library[part], w, *shared, row_loss, out, by_theta[number])
        else:
            assert pis is not None
            zero_inflated.zinb_rows(
                out, pis[part], *x, library[part], w, *shared, row_loss, out, pis[part],
                by_theta[number],
            )  # fmt: skip

    each(one, range(len(parts)))
    slope = None if theta is None else torch.from_numpy(by_theta.sum(0, dtype=np.float64)).float()
    return CellLosses(torch.from_numpy(loss).float(), slope)


def by_reference(work: Work, logits: Tensor, pi: Tensor | None) -> CellLosses:
    """Compute the same in plain torch, on any device."""
    rows = work.rows
    target = rows.dense(rows.values if work.kind == "mse" else rows.counts, torch.float32)
    leaves = [leaf for leaf in (logits, pi, work.theta) if leaf is not None]
    with torch.enable_grad():
        copies = [leaf.detach().float().requires_grad_() for leaf in leaves]
        x = iter(copies)
        a, p, t = (None if leaf is None else next(x) for leaf in (logits, pi, work.theta))
        loss = reference(work.kind, cast("Tensor", a), target, rows.library, t, p)
        slopes = torch.autograd.grad((loss * work.weight).sum(), copies, allow_unused=True)
    logits.copy_(slopes[0])
    if pi is not None:
        pi.copy_(slopes[1])
    return CellLosses(loss.detach(), slopes[-1] if work.theta is not None else None)


@cache
def kernel_for(device_type: str, kind: Kind) -> Kernel:
    """Return the fastest available kernel; report if it is the reference."""
    if device_type == "cpu":
        return on_cpu
    if device_type == "cuda" and kind in {"nb", "zinb"}:
        try:
            from vcell.nn import triton_likelihoods
        except ImportError as error:
            console.warn(f"no Triton ({error}): the likelihood runs in plain torch, slower")
        else:
            kernel: Kernel = triton_likelihoods.on_cuda
            return kernel
    else:
        console.say(f"the {kind} likelihood runs in plain torch on {device_type}")
    return by_reference


class _LastLayer(torch.autograd.Function):
    """Product and likelihood in one, so that the gradient may overwrite the logits."""

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917 - autograd hands over tensors one by one
        ctx: Any,
        hidden: Tensor,
        matrix: Tensor,
        bias: Tensor,
        pi_matrix: Tensor | None,
        pi_bias: Tensor | None,
        theta: Tensor | None,
        rows: CompressedRows,
        kind: Kind,
    ) -> tuple[Tensor, Tensor]:
        device = hidden.device.type
        half = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if half else torch.float32
        with torch.autocast(device, enabled=False):
            h = hidden.to(dtype)
            logits = torch.addmm(bias.to(dtype), h, matrix.to(dtype).T)
            pi = None
            if pi_matrix is not None and pi_bias is not None:
                pi = torch.addmm(pi_bias.to(dtype), h, pi_matrix.to(dtype).T)
            weight = torch.ones(len(rows), device=hidden.device)  # 1 / B would underflow in fp16
            found = kernel_for(device, kind)(Work(kind, rows, theta, weight), logits, pi)
        ctx.save_for_backward(h, matrix, logits, pi_matrix, pi, found.by_theta)
        ctx.dtypes = hidden.dtype, matrix.dtype
        ctx.mark_non_differentiable(found.loss)
        return found.loss.mean(), found.loss

    @staticmethod
    def backward(ctx: Any, slope: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        h, matrix, grad, pi_matrix, grad_pi, by_theta = ctx.saved_tensors
        like_hidden, like_weight = ctx.dtypes
        slope = slope / len(h)
        with torch.autocast(h.device.type, enabled=False):
            scaled = h * slope.to(h.dtype)
            by_hidden = grad @ matrix.to(grad.dtype)
            found: list[Tensor | None] = [grad.T @ scaled, grad.sum(0) * slope, None, None]
            if grad_pi is not None:
                by_hidden = by_hidden + grad_pi @ pi_matrix.to(grad.dtype)
                found[2:] = grad_pi.T @ scaled, grad_pi.sum(0) * slope
        weights = [None if one is None else one.to(like_weight) for one in found]
        by_t = None if by_theta is None else by_theta * slope
        return (by_hidden * slope).to(like_hidden), *weights, by_t, None, None


class CountDecoder(nn.Module):
    """From hidden units to the likelihood of the cells' counts.

    Parameters
    ----------
    width
        Hidden units.
    n_genes
        Genes.
    kind
        Name of the likelihood.
    """

    def __init__(self, width: int, n_genes: int, kind: Kind) -> None:
        super().__init__()
        self.kind = kind
        self.means = nn.Linear(width, n_genes)
        self.dropped = nn.Linear(width, n_genes) if kind == "zinb" else None
        self.log_theta = nn.Parameter(torch.zeros(n_genes)) if kind in {"nb", "zinb"} else None

    def start_at(self, shares: Tensor) -> None:
        """Initialise the bias to the mean profile of the cells: each gene's share of all counts."""
        with torch.no_grad():
            self.means.weight.mul_(0.5)
            self.means.bias.copy_(shares.clamp_min(1e-8).log() if self.kind != "mse" else shares)
            if self.dropped is not None:
                self.dropped.bias.fill_(-3.0)

    def theta(self) -> Tensor | None:
        """Return the genes' dispersions."""
        return None if self.log_theta is None else self.log_theta.clamp(_LEAST, _MOST).exp()

    def forward(self, hidden: Tensor, rows: CompressedRows) -> tuple[Tensor, Tensor]:
        """Return the mean negative log-likelihood, and that of each cell (without gradient)."""
        pi = (None, None) if self.dropped is None else (self.dropped.weight, self.dropped.bias)
        found: tuple[Tensor, Tensor] = _LastLayer.apply(  # type: ignore[no-untyped-call]
            hidden, self.means.weight, self.means.bias, *pi, self.theta(), rows, self.kind
        )
        return found
