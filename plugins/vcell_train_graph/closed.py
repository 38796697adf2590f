"""Models in closed form: `graph-gp`, and the baselines `additive` and `query-mean`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse.linalg import cg

from vcell import console
from vcell.graph.diffusion import kernels
from vcell.screen.split import TEST
from vcell_train_graph.kernels import KernelMixture, SetBlock, indicator, inverse_of, weighed
from vcell_train_graph.problem import without_graphs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell_train_graph.problem import GraphProblem

    Array = NDArray[np.float64]

_WEIGHED = 500  # sets by which blocks are weighed
_MOST = 4000  # sets that a process is solved with


@dataclass(frozen=True, eq=False)
class Told:
    """What a model in closed form says.

    Attributes
    ----------
    values
        (T,) of every set: those that it learnt from are left out with their group.
    shares
        What it found that explains the values.
    """

    values: Array
    shares: dict[str, float]


@dataclass(frozen=True)
class ClosedModel:
    """A model without steps, by name."""

    name: str
    summary: str
    graphs: bool  # whether it looks at them
    takes_steps: bool = False

    def fit(self, problem: GraphProblem, groups: NDArray[np.int64]) -> Told:
        """Learn from all sets that are not held out, and say the value of every set."""
        if self.name == "query-mean":
            return query_mean(problem, groups)
        if self.name == "additive":
            return additive(problem, groups)
        return process(problem if self.graphs else without_graphs(problem), groups)


def query_mean(problem: GraphProblem, groups: NDArray[np.int64]) -> Told:
    """Say the mean of the other sets of the query pair; of all, where there are none."""
    del groups
    known = problem.part != TEST
    mean, _ = problem.scale
    if (problem.group < 0).all():
        return Told(np.full(len(problem.values), mean), {})
    about = np.where(known, problem.values - mean, 0.0)
    total = np.bincount(problem.group, about)
    count = np.bincount(problem.group, known.astype(float))
    others = total[problem.group] - about
    found = others / (count[problem.group] - known + 1.0)  # one set's worth of doubt
    return Told(mean + found, {})


def additive(problem: GraphProblem, groups: NDArray[np.int64]) -> Told:
    """Add up what genes do: ridge regression on which genes a set has, on all sets."""
    mean, sd = problem.scale
    known = np.flatnonzero(problem.part != TEST)
    rng = np.random.default_rng(0)
    block = SetBlock("genes", "linear", None)
    some = _some(known, groups, _WEIGHED, rng)
    values = (problem.values - mean) / sd
    mix = weighed([block], problem.members[some], values[some], problem.n_own)
    ridge = mix.noise / max(float(mix.weights.sum()), 1e-9)
    x = indicator(problem.members, problem.n_own)
    fold = rng.permutation(int(groups.max()) + 1)[groups] % 5
    found = np.zeros(len(values))
    for k in range(6):  # five times left out, and once with all that is known for the rest
        learn = known[fold[known] != k]
        asked = known[fold[known] == k] if k < 5 else np.flatnonzero(problem.part == TEST)
        if not len(asked):
            continue
        a = x[learn]
        effect, _ = cg(
            (a.T @ a + ridge * _identity(a.shape[1])).tocsr(), a.T @ values[learn], rtol=1e-8,
            maxiter=500,
        )  # fmt: skip
        found[asked] = x[asked] @ effect
    return Told(mean + sd * found, {})


def process(problem: GraphProblem, groups: NDArray[np.int64]) -> Told:
    """Solve a Gaussian process over sets, with the graphs' and the features' kernels."""
    mean, sd = problem.scale
    values = (problem.values - mean) / sd
    rng = np.random.default_rng(0)
    known = np.flatnonzero(problem.part != TEST)
    some = _some(known, groups, _WEIGHED, rng)
    mix = weighed(blocks(problem), problem.members[some], values[some], problem.n_own)
    if len(known) > _MOST:
        console.say(f"graph-gp: solved with {_MOST:,} of {len(known):,} sets, groups drawn whole")
        known = _some(known, groups, _MOST, rng)
    sets = problem.members[known]
    matrix = mix(sets, sets, problem.n_own)
    matrix[np.diag_indices_from(matrix)] += mix.noise
    inverse, _ = inverse_of(matrix)
    weight = inverse @ values[known]
    found = _predicted(mix, problem, sets, weight)
    found[known] = values[known] - _left_out(inverse, weight, groups[known])
    return Told(mean + sd * found, mix.shares)


def _predicted(
    mix: KernelMixture, problem: GraphProblem, sets: NDArray[np.int64], weight: Array
) -> Array:
    step = 2000
    parts = [
        mix(problem.members[i : i + step], sets, problem.n_own) @ weight
        for i in range(0, len(problem.members), step)
    ]
    return np.concatenate(parts)


def _left_out(inverse: Array, weight: Array, groups: NDArray[np.int64]) -> Array:
    """Return by how much each set is missed, with all of its group left out."""
    missed = np.empty(len(weight))
    order = np.argsort(groups, kind="stable")
    ends = np.flatnonzero(np.diff(groups[order])) + 1
    for rows in np.split(order, ends):
        missed[rows] = np.linalg.solve(inverse[np.ix_(rows, rows)], weight[rows])
    return missed


def blocks(problem: GraphProblem) -> list[SetBlock]:
    """Return everything by which sets may be alike; kernels are of the genes of the table."""
    own = np.arange(problem.n_own)
    found = [SetBlock("genes", "linear", None), SetBlock("genes", "pair", None)]
    alike: list[tuple[str, Any]] = []
    if problem.features.shape[1]:
        x = problem.features[: problem.n_own]
        alike.append(("features", x @ x.T / max(float(np.square(x).sum(1).mean()), 1e-12)))
    for relation in problem.graphs:
        near, far = kernels(relation, own)
        alike += [(f"{relation.name}, near", near), (f"{relation.name}, far", far)]
    for name, kernel in alike:
        found += [SetBlock(name, "linear", kernel), SetBlock(name, "pair", kernel),
                  SetBlock(name, "within", kernel)]  # fmt: skip
    return found


def _some(
    rows: NDArray[np.int64], groups: NDArray[np.int64], most: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw groups as a whole until there are enough sets."""
    if len(rows) <= most:
        return rows
    order = rng.permutation(np.unique(groups[rows]))
    place = np.empty(int(groups.max()) + 1, np.int64)
    place[order] = np.arange(len(order))
    ranked = rows[np.argsort(place[groups[rows]], kind="stable")]
    return np.sort(ranked[:most])


def _identity(n: int) -> Any:
    import scipy.sparse as sp

    return sp.eye_array(n)


graph_gp = ClosedModel("graph-gp", "Gaussian process over sets, with the graphs' kernels", True)  # noqa: FBT003
no_graph_gp = ClosedModel("gp", "the same process without graphs", False)  # noqa: FBT003
additive_model = ClosedModel("additive", "what genes do adds up: ridge regression", False)  # noqa: FBT003
query_mean_model = ClosedModel("query-mean", "the mean of the sets of the query pair", False)  # noqa: FBT003
