"""Variances of analytic Pearson residuals from the non-zeros alone.

With ``mu = g * c / total`` (``g`` a gene's sum, ``c`` a cell's) a residual is ``(x - mu) / sqrt(mu
+ mu**2 / theta)``, clipped. The part of the zeros depends on the cell only through ``c``, and
smoothly through ``log c``: it is summed over all cells by interpolation at Chebyshev nodes
(Lagrange weights of the cells, once per batch). The non-zeros add the difference.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from vcell.kernels.kernel import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


@njit(nogil=True, cache=True, error_model="numpy")
def residual_sums(  # noqa: PLR0913, PLR0917
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
    codes: NDArray[np.int32],
    depths: NDArray[np.float64],
    shares: NDArray[np.float64],
    theta: float,
    clip: float,
    out: NDArray[np.float64],
) -> None:
    """Add to ``out[B, G, 2]``: residual and its square, minus those of a zero, over the non-zeros.

    Parameters
    ----------
    depths
        Each cell's sum ``[C]``.
    shares
        Each gene's share of its batch's counts ``[B, G]``.
    """
    inverse = 1.0 / theta
    longest = 0
    for cell in range(len(indptr) - 1):
        longest = max(longest, indptr[cell + 1] - indptr[cell])
    first = np.empty(longest)
    second = np.empty(longest)
    for cell in range(len(indptr) - 1):
        batch = codes[cell]
        if batch < 0:
            continue
        begin = indptr[cell]
        length = indptr[cell + 1] - begin
        share = shares[batch]
        depth = depths[cell]
        for i in range(length):  # without stores that could alias, so that it is vectorised
            mu = share[indices[begin + i]] * depth
            weight = 1.0 / math.sqrt(mu + mu * mu * inverse)
            zero = max(-mu * weight, -clip)
            residual = min(max((data[begin + i] - mu) * weight, -clip), clip)
            first[i] = residual - zero
            second[i] = residual * residual - zero * zero
        sums = out[batch]
        for i in range(length):
            if data[begin + i] != 0:
                gene = sums[indices[begin + i]]
                gene[0] += first[i]
                gene[1] += second[i]


@njit(nogil=True, cache=True, error_model="numpy")
def zero_residual_sums(
    share: NDArray[np.float64],
    depths: NDArray[np.float64],
    weights: NDArray[np.float64],
    theta: float,
    clip: float,
    out: NDArray[np.float64],
) -> None:
    """Write to ``out[G, 2]`` the weighted sums of a zero's residual and of its square.

    `depths` and `weights` are the nodes and their weights, or all cells and ones.
    """
    for gene in range(len(share)):
        first = 0.0
        second = 0.0
        if share[gene] > 0:
            for node in range(len(depths)):
                mu = share[gene] * depths[node]
                if mu > 0:
                    residual = max(-mu / math.sqrt(mu + mu * mu / theta), -clip)
                    first += weights[node] * residual
                    second += weights[node] * residual * residual
        out[gene, 0] = first
        out[gene, 1] = second


@njit(nogil=True, cache=True)
def chebyshev_weights(
    position: NDArray[np.float64], nodes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum the Lagrange basis over `position` (in [-1, 1]): the weight of every node.

    `nodes` are Chebyshev points of the second kind, ``cos(pi k / n)``; the barycentric formula
    with their weights (1/2, -1, 1, ..., +-1/2) is stable.
    """
    n = len(nodes)
    weights = np.zeros(n)
    terms = np.empty(n)
    for i in range(len(position)):
        total = 0.0
        hit = -1
        for k in range(n):
            distance = position[i] - nodes[k]
            if distance == 0:
                hit = k
                break
            sign = 1.0 if k % 2 == 0 else -1.0
            half = 0.5 if k in (0, n - 1) else 1.0
            terms[k] = sign * half / distance
            total += terms[k]
        if hit >= 0:
            weights[hit] += 1.0
        else:
            for k in range(n):
                weights[k] += terms[k] / total
    return weights
