"""Models without training steps: a Gaussian process, factors, both together, and baselines."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import scipy.sparse as sp
from scipy.optimize import nnls
from scipy.sparse.linalg import cg

from vcell.screen.split import TEST
from vcell_train_graph.factors import FactorSampler, GeneSimilarity
from vcell_train_graph.kernels import SetBlock, indicator, weighed
from vcell_train_graph.problem import without_graphs
from vcell_train_graph.process import drawn, gene_kernels, left_out_parts, process

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell_train_graph.problem import GraphProblem

    Array = NDArray[np.float64]

_WEIGHED = 500  # sets that choose the ridge penalty of `additive`


@dataclass(frozen=True, eq=False)
class SetPredictions:
    """Predictions of a closed-form model.

    Attributes
    ----------
    values
        (T,) of every set; training sets are left out together with their group.
    shares
        The explained share of the variance, by component.
    """

    values: Array
    shares: dict[str, float]


@dataclass(frozen=True)
class ClosedModel:
    """A model without training steps, by name."""

    name: str
    summary: str
    kind: Literal["process", "factors", "additive", "query-mean"]
    graphs: bool = False  # whether it uses graphs
    takes_steps: bool = False

    def fit(self, problem: GraphProblem, groups: NDArray[np.int64]) -> SetPredictions:
        """Fit all sets that are not held out, and predict every set."""
        if self.kind == "query-mean":
            return query_mean(problem, groups)
        if self.kind == "additive":
            return additive(problem, groups)
        seen = problem if self.graphs else without_graphs(problem)
        return (
            SetPredictions(*process(seen, groups))
            if self.kind == "process"
            else factors(seen, groups)
        )

    @property
    def graph_free(self) -> ClosedModel:
        """Return the same model without graphs."""
        return dataclasses.replace(self, graphs=False)


def query_mean(problem: GraphProblem, groups: NDArray[np.int64]) -> SetPredictions:
    """Predict the mean of the other sets of the query pair, or of all sets if there are none."""
    del groups
    known = problem.known
    mean, _ = problem.scale
    if (problem.group < 0).all():
        return SetPredictions(np.full(len(problem.values), mean), {})
    about = np.where(known, problem.values - mean, 0.0)
    total = np.bincount(problem.group, about)
    count = np.bincount(problem.group, known.astype(float))
    others = total[problem.group] - about
    found = others / (count[problem.group] - known + 1.0)  # shrunk as if by one more set
    return SetPredictions(mean + found, {})


def additive(problem: GraphProblem, groups: NDArray[np.int64]) -> SetPredictions:
    """Add the effects of single genes: ridge regression on gene membership over all sets."""
    mean, sd = problem.scale
    known = np.flatnonzero(problem.known)
    rng = np.random.default_rng(0)
    block = SetBlock("genes", "linear", None)
    some = drawn(known, groups, _WEIGHED, rng)
    values = (problem.values - mean) / sd
    mix = weighed([block], problem.members[some], values[some], problem.n_own)
    ridge = mix.noise / max(float(mix.weights.sum()), 1e-9)
    x = indicator(problem.members, problem.n_own)
    found = np.zeros(len(values))
    for learn, left_out in left_out_parts(known, groups, np.flatnonzero(problem.part == TEST)):
        a = x[learn]
        effect, _ = cg(
            (a.T @ a + ridge * sp.eye_array(a.shape[1])).tocsr(), a.T @ values[learn], rtol=1e-8,
            maxiter=500,
        )  # fmt: skip
        found[left_out] = x[left_out] @ effect
    return SetPredictions(mean + sd * found, {})


def factors(problem: GraphProblem, groups: NDArray[np.int64]) -> SetPredictions:
    """Add a Gaussian process and factors of genes, each weighted by its left-out predictions."""
    mean, sd = problem.scale
    values = (problem.values - mean) / sd
    known, test = (np.flatnonzero(one) for one in (problem.known, problem.part == TEST))
    named = gene_kernels(problem)
    by_process, shares = process(problem, groups)
    predicted, similarity = np.zeros((2, len(values))), None
    predicted[0] = (by_process - mean) / sd
    for learn, left_out in left_out_parts(known, groups, test):
        sampler = FactorSampler(
            problem.members[learn], values[learn], problem.n_own, list(named.values())
        )
        predicted[1, left_out], similarity = sampler.run(problem.members[left_out], similarity)
    weight = _stacking_weights(predicted[:, known], values[known])
    explained = {f"process: {name}": float(weight[0] * share) for name, share in shares.items()}
    assert similarity is not None
    explained |= _named_shares(similarity, list(named), float(weight[1]))
    return SetPredictions(
        mean + sd * (weight @ predicted), explained | {"weight of the process": float(weight[0])}
    )


def _stacking_weights(predicted: Array, values: Array) -> Array:
    """Return weights (M,) of predictions (M, T) of left-out sets by M models.

    Non-negative least squares, scaled down by one standard error of their sum. With few sets, or
    pure noise, the weights are close to 0.
    """
    weight, _ = nnls(predicted.T, values)
    both = weight @ predicted
    size = float(both @ both)
    if size < 1e-12:
        return np.zeros(len(weight))
    error = float(np.sqrt(np.square(both * (values - both)).sum())) / size
    return np.asarray(weight * max(0.0, 1 - error))


def _named_shares(similarity: GeneSimilarity, names: list[str], weight: float) -> dict[str, float]:
    of = dict(zip(["genes", *names], similarity.factors.tolist(), strict=True))
    return {f"factors: {name}": x for name, x in of.items()} | {"weight of the factors": weight}


graph_gp = ClosedModel(
    "graph-gp", "Gaussian process over sets, with the graphs' kernels", "process", graphs=True
)
no_graph_gp = ClosedModel("gp", "the same process without graphs", "process")
factors_model = ClosedModel(
    "factors", "a few factors of genes, smooth over the graphs, plus graph-gp", "factors",
    graphs=True,
)  # fmt: skip
additive_model = ClosedModel(
    "additive", "the effects of genes add up: ridge regression", "additive"
)
query_mean_model = ClosedModel("query-mean", "the mean of the sets of the query pair", "query-mean")
