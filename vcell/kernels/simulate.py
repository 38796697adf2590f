"""Draw negative binomial cells, each with its own random stream, for results independent of chunks.

A cell costs one uniform number per gene; `log` and `exp` are spent only where a count is possible,
because P(X > 0) <= mean. Each positive count comes from inverting the exact distribution function.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vcell.kernels.kernel import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_ONE = np.uint64(1)
_UNIT = 2.0**-53


@njit(nogil=True, cache=True, inline="always")
def _mix(word: np.uint64) -> np.uint64:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014)."""
    word = (word ^ (word >> _S30)) * _MIX1
    word = (word ^ (word >> _S27)) * _MIX2
    return word ^ (word >> _S31)


@njit(nogil=True, cache=True, inline="always")
def _uniform(word: np.uint64) -> float:
    """Convert 64 random bits to a number in the open interval (0, 1)."""
    return (float(_mix(word) >> _S11) + 0.5) * _UNIT


@njit(nogil=True, cache=True, inline="always")
def _positive_count(tail: float, none: float, mean: float, size: float) -> int:
    """Invert P(X > x) of NB(mean, size) at `tail` < P(X > 0) = 1 - `none`, walking up from 1."""
    ratio = mean / (mean + size)
    mass, above = none, 1.0 - none
    x = 0
    while above > tail and (mass > 0.0 or x < mean):  # mass 0: the tail is rounding error
        mass *= ratio * (x + size) / (x + 1)
        above -= mass
        x += 1
    return x


class Law(NamedTuple):
    """Parameters of all cells. N genes, K programmes, T cell types, B batches, S slots."""

    depth_median: float  # library sizes are log-normal
    depth_sd: float
    activity_sd: float  # spread of a cell's activities around its perturbation's
    base: NDArray[np.float64]  # (T, N) share of the library
    batch_factor: NDArray[np.float64]  # (B, N)
    level: NDArray[np.float64]  # (L,) the distinct loadings a gene may have in a programme
    slots: NDArray[np.int64]  # (N, S) programme * L + level of each membership
    size: NDArray[np.float64]  # (N,) variance = mean + mean^2 / size


class CellLabels(NamedTuple):
    """Parameters of C cells, from their labels."""

    shift: NDArray[np.float64]  # (C, K) shift of programme activities by the perturbation
    target: NDArray[np.int64]  # (C,) the gene knocked down, -1 for none
    kept: NDArray[np.float64]  # (C,) remaining share of its expression
    cell_type: NDArray[np.int32]  # (C,) row of Law.base
    batch: NDArray[np.int32]  # (C,) row of Law.batch_factor


def draw_cells(
    key: np.uint64,
    first: int,
    law: Law,
    labels: CellLabels,
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
) -> int:
    """Fill one CSR block with cells `first`, `first + 1`, ...; return the non-zeros needed.

    `key` identifies the simulation and the draw. If `indices` is too short, further non-zeros are
    counted but not stored: call again with more room.
    """
    return int(draw(key, first, *law, *labels, indptr, indices, data))


@njit(nogil=True, cache=True)
def draw(  # noqa: PLR0913, PLR0917 - only numba could tell one kind of tuple from another
    key: np.uint64,
    first: int,
    depth_median: float,
    depth_sd: float,
    activity_sd: float,
    base: NDArray[np.float64],
    batch_factor: NDArray[np.float64],
    level: NDArray[np.float64],
    slots: NDArray[np.int64],
    size: NDArray[np.float64],
    shift: NDArray[np.float64],
    target: NDArray[np.int64],
    kept: NDArray[np.float64],
    cell_type: NDArray[np.int32],
    batch: NDArray[np.int32],
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
) -> int:
    """Draw cells as `draw_cells` does, from the fields of its `law` and `labels`."""
    n_cells, n_programmes = shift.shape
    n_genes, n_slots = slots.shape
    factor = np.empty(n_programmes * level.size)
    filled = 0
    indptr[0] = 0
    for c in range(n_cells):
        cell = np.uint64(first + c)
        state = _mix(key ^ _mix(cell + _GOLDEN))
        step = _mix(state ^ key) | _ONE
        for k in range(-1, n_programmes):
            radius = math.sqrt(-2.0 * math.log(_uniform(state + step)))
            state += step + step
            normal = radius * math.cos(2.0 * math.pi * _uniform(state))
            if k < 0:
                depth = depth_median * math.exp(depth_sd * normal)
                continue
            activity = shift[c, k] + activity_sd * normal
            for j in range(level.size):
                factor[k * level.size + j] = math.exp(activity * level[j])
        share, batch_share = base[cell_type[c]], batch_factor[batch[c]]
        for g in range(n_genes):
            state += step
            tail = _uniform(state)
            mean = depth * share[g] * batch_share[g]
            for s in range(n_slots):
                mean *= factor[slots[g, s]]
            if g == target[c]:
                mean *= kept[c]
            if tail >= mean:  # P(X > 0) <= mean: certainly zero
                continue
            none = math.exp(-size[g] * math.log1p(mean / size[g]))
            above = 1.0 - none
            if tail >= above:
                continue
            if filled < indices.size:
                indices[filled] = g
                data[filled] = _positive_count(tail, none, mean, size[g])
            filled += 1
        indptr[c + 1] = filled
    return filled
