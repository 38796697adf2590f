"""Effects of perturbations against matched controls, measured in one pass over the cells.

The controls are split in halves: training effects are differences to one half, held-out effects to
the other. If both used the same controls, their noise would be in both, and a model would get
credit for predicting it: correlations of .8 where the halves agree by .2.
P rows, N genes, C contexts, B groups of matched controls, T held-out rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.screen.design import confounded
from vcell.screen.pseudobulk import GroupMoments

if TYPE_CHECKING:
    from vcell.data.log_cells import LogCells
    from vcell.screen.design import Design, ScreenRows


Array = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Effects:
    """Effects and what belongs to them.

    Attributes
    ----------
    delta, noise, cells
        (P, N) effects, (P,) their sampling variance averaged over genes, (P,) cells.
    control
        (C, N) means of all controls.
    control_noise
        (C,) sampling variance, averaged over genes, of the mean of the controls that the learnt
        effects of a context were compared with; 0 where scored effects have the same noise.
    halves
        (2, T, N) effects of two halves of each held-out perturbation's cells, in the order of the
        rows, each against its own half of the controls.
    """

    delta: Array
    noise: Array
    cells: Codes
    control: Array
    control_noise: Array
    halves: NDArray[np.float32]


def measure(
    cells: LogCells, rows: ScreenRows, design: Design, held_out: NDArray[np.bool_], *,
    shared: bool = False, seed: int = 0,
) -> Effects:  # fmt: skip
    """Measure the effects of the rows (P,); `held_out` (P,) marks those that are scored.

    Parameters
    ----------
    cells, rows, design
        The values; which cells belong to which row; which are controls, and what they match.
    held_out
        Held-out rows are compared with the first half of the controls, the others with the
        second. If no row is held out, all controls are used for learning.
    shared
        Compare every row with all controls, as papers do.
    seed
        Seed of the random halves.
    """
    n, n_matched, tested = len(rows), design.n_matched, np.flatnonzero(held_out)
    split = not shared and len(tested) > 0
    second = n + np.arange(len(tested))  # second halves of the held-out rows
    first = n + len(tested)  # of the groups of controls: all first halves, all second halves
    group = np.where(design.control, first + design.matched, rows.of_cell)
    second_of = np.full(n + 1, -1)
    second_of[tested] = second
    other = np.where(design.control, group + n_matched, second_of[rows.of_cell])
    code = np.where(_second_half(group, seed) & (other >= 0), other, group)
    sums = GroupMoments.of(cells, code, first + 2 * n_matched)
    mean, variance, count = sums.mean, sums.variance, sums.count
    share = _shares(code, design, first)
    controls, sizes, per_context = _controls(
        mean[first:], count[first:], design, shared=not split, perturbed=share.sum(axis=0) > 0
    )
    spread = _pooled(variance[first:], count[first:])
    halves = np.array(
        [mean[at] - _normal(share[at]) @ controls[h] for h, at in enumerate((tested, second))],
        np.float32,
    )
    share[tested] += share[second]
    share = _normal(share[:n])
    delta, noise, size = _joined(mean, variance, count, tested, n)
    noise /= np.maximum(size, 1)
    common = np.zeros(len(per_context))
    for half, own in enumerate((held_out, ~held_out)):
        delta[own] -= share[own] @ controls[half]
        reached = _reached(share[own], sizes[half], design)
        each = spread / np.maximum(sizes[half], 1)
        noise[own] += np.square(reached) @ each
        if half and (split or not len(tested)):
            for context in np.unique(rows.context[own]):
                its = reached[rows.context[own] == context]
                common[context] = np.square(its.mean(axis=0)) @ each
    return Effects(delta, noise, size, per_context, common, halves)


def _second_half(group: Codes, seed: int) -> NDArray[np.bool_]:
    """Return which cells are in the second half of their group, drawn at random."""
    order = np.random.default_rng([seed, 0x4A1F]).permutation(len(group))
    order = order[np.argsort(group[order], kind="stable")]
    start = np.searchsorted(group[order], group[order])
    second = np.zeros(len(group), bool)
    second[order] = (np.arange(len(group)) - start) % 2 == 1
    return second


def _shares(code: Codes, design: Design, n_groups: int) -> Array:
    """Return (groups, B): how many cells of each group match which controls."""
    n_matched = design.n_matched
    own = (code >= 0) & ~design.control
    place = code[own] * n_matched + design.matched[own]
    count = np.bincount(place, minlength=n_groups * n_matched)
    return np.asarray(count.reshape(n_groups, n_matched), np.float64)


def _normal(share: Array) -> Array:
    return np.asarray(share / np.maximum(share.sum(axis=1, keepdims=True), 1))


def _joined(
    mean: Array, variance: Array, count: Codes, tested: Codes, n: int
) -> tuple[Array, Array, Codes]:
    """Return means (P, N), variances and cells (P,) of rows, the halves of some put together."""
    second = n + np.arange(len(tested))
    whole, spread, size = mean[:n].copy(), variance[:n].copy(), count[:n].copy()
    a, b = count[tested], count[second]
    total = np.maximum(a + b, 1)
    whole[tested] = (a[:, None] * mean[tested] + b[:, None] * mean[second]) / total[:, None]
    between = np.square(mean[tested] - mean[second]).mean(axis=1) * a * b / total
    within = np.maximum(a - 1, 0) * variance[tested] + np.maximum(b - 1, 0) * variance[second]
    spread[tested] = (within + between) / np.maximum(a + b - 1, 1)
    size[tested] = a + b
    return whole, spread, size


def _pooled(variance: Array, count: Codes) -> float:
    """Return the variance of a cell within its group; groups of one cell do not count."""
    free = np.maximum(count - 1, 0)
    return float(free @ variance / max(free.sum(), 1))


def _reached(share: Array, size: Codes, design: Design) -> Array:
    """Return (P, B): the share of each group of controls in what a row is compared with.

    A batch without controls, of `size` 0, borrows those of the whole context, or of all.
    """
    context = _contexts(design)
    found = np.where(size > 0, share, 0.0)
    for code in np.unique(context[size == 0]):
        lent = np.where(context == code, size, 0)
        lent = lent if lent.any() else size
        lost = share[:, (size == 0) & (context == code)].sum(axis=1)
        found += lost[:, None] * (lent / max(lent.sum(), 1))
    return found


def _contexts(design: Design) -> Codes:
    """Return (B,) the context of each group of controls."""
    found = np.zeros(design.n_matched, np.int64)
    found[design.matched] = design.context
    return found


def _controls(
    mean: Array, size: Codes, design: Design, *, shared: bool, perturbed: NDArray[np.bool_]
) -> tuple[Array, Codes, Array]:
    """Return what rows are compared with.

    Means (2, B, N) and numbers of cells (2, B) of each half of the controls, and means (C, N) of
    all controls. `perturbed` (B,) marks the groups that have perturbed cells.
    """
    n_matched, context = len(perturbed), _contexts(design)
    halves, sizes = mean.reshape(2, n_matched, -1), size.reshape(2, n_matched)
    total = sizes.sum(axis=0)
    both = (sizes[0][:, None] * halves[0] + sizes[1][:, None] * halves[1]) / np.maximum(total, 1)[
        :, None
    ]
    per_context = _of_contexts(both, total, context, design, warn=True)
    bare = np.flatnonzero((total == 0) & perturbed)
    if len(bare) == np.count_nonzero(perturbed):
        raise confounded()
    if len(bare):
        console.warn(
            f"no control cells in {len(bare)} of {n_matched} batches: the cells there are compared "
            "with the controls of all batches"
        )
    if not shared and (sizes.sum(axis=1) == 0).any():
        console.warn("a single control cell cannot be halved: held-out effects share it")
        shared = True
    if shared:
        both[bare] = per_context[context[bare]]
        return np.stack([both, both]), np.stack([total, total]), per_context
    for half, number in zip(halves, sizes, strict=True):
        lacking = number == 0  # the mean of this half of the controls in the whole context
        half[lacking] = _of_contexts(half, number, context, design)[context[lacking]]
    return halves, sizes, per_context


def _of_contexts(
    controls: Array, size: Codes, context: Codes, design: Design, *, warn: bool = False
) -> Array:
    """Return (C, N) control means; a context without controls gets those of all."""
    overall = size @ controls / size.sum()
    found = np.tile(overall, (len(design.contexts), 1))
    for code, name in enumerate(design.contexts):
        weight = np.where(context == code, size, 0)
        if weight.sum():
            found[code] = weight @ controls / weight.sum()
        elif warn and (design.context == code).any():
            console.warn(
                f"{name} has no control cells: the controls of all contexts are used instead"
            )
    return found
