"""The models without training steps: a process, factors, both together, and baselines."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import scipy.sparse as sp
from scipy.optimize import nnls
from scipy.sparse.linalg import cg

from vcell.screen.split import TEST
from vcell_train_graph.factors import Alikeness, FactorSampler
from vcell_train_graph.kernels import SetBlock, indicator, weighed
from vcell_train_graph.problem import without_graphs
from vcell_train_graph.process import drawn, gene_kernels, left_out_parts, process

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell_train_graph.problem import GraphProblem

    Array = NDArray[np.float64]

_WEIGHED = 500  # sets by which additive's ridge is found


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
    kind: Literal["process", "factors", "additive", "query-mean"]
    graphs: bool = False  # whether it looks at them
    takes_steps: bool = False

    def fit(self, problem: GraphProblem, groups: NDArray[np.int64]) -> Told:
        """Learn from all sets that are not held out, and say the value of every set."""
        if self.kind == "query-mean":
            return query_mean(problem, groups)
        if self.kind == "additive":
            return additive(problem, groups)
        seen = problem if self.graphs else without_graphs(problem)
        return Told(*process(seen, groups)) if self.kind == "process" else factors(seen, groups)

    @property
    def unaided(self) -> ClosedModel:
        """The same without graphs."""
        return dataclasses.replace(self, graphs=False)


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
    some = drawn(known, groups, _WEIGHED, rng)
    values = (problem.values - mean) / sd
    mix = weighed([block], problem.members[some], values[some], problem.n_own)
    ridge = mix.noise / max(float(mix.weights.sum()), 1e-9)
    x = indicator(problem.members, problem.n_own)
    found = np.zeros(len(values))
    for learn, asked in left_out_parts(known, groups, np.flatnonzero(problem.part == TEST)):
        a = x[learn]
        effect, _ = cg(
            (a.T @ a + ridge * sp.eye_array(a.shape[1])).tocsr(), a.T @ values[learn], rtol=1e-8,
            maxiter=500,
        )  # fmt: skip
        found[asked] = x[asked] @ effect
    return Told(mean + sd * found, {})


def factors(problem: GraphProblem, groups: NDArray[np.int64]) -> Told:
    """Add a process and factors of genes, each as far as sets that were left out speak for it."""
    mean, sd = problem.scale
    values = (problem.values - mean) / sd
    known, test = (np.flatnonzero(one) for one in (problem.part != TEST, problem.part == TEST))
    named = gene_kernels(problem)
    whole, shares = process(problem, groups)
    said, alike = np.zeros((2, len(values))), None
    said[0] = (whole - mean) / sd
    for learn, asked in left_out_parts(known, groups, test):
        sampler = FactorSampler(
            problem.members[learn], values[learn], problem.n_own, list(named.values())
        )
        said[1, asked], alike = sampler.run(problem.members[asked], alike)
    weight = _worth(said[:, known], values[known])
    told = {f"process: {name}": float(weight[0] * share) for name, share in shares.items()}
    assert alike is not None
    told |= _named_shares(alike, list(named), float(weight[1]))
    return Told(mean + sd * (weight @ said), told | {"weight of the process": float(weight[0])})


def _worth(said: Array, values: Array) -> Array:
    """Return weights (M,) of what M models said (M, T) of sets that were left out.

    Those of least squares, none below 0, less one standard error of their sum: of few sets, or of
    noise, next to nothing is believed.
    """
    weight, _ = nnls(said.T, values)
    both = weight @ said
    size = float(both @ both)
    if size < 1e-12:
        return np.zeros(len(weight))
    error = float(np.sqrt(np.square(both * (values - both)).sum())) / size
    return np.asarray(weight * max(0.0, 1 - error))


def _named_shares(alike: Alikeness, names: list[str], weight: float) -> dict[str, float]:
    of = dict(zip(["genes", *names], alike.factors.tolist(), strict=True))
    return {f"factors: {name}": x for name, x in of.items()} | {"weight of the factors": weight}


graph_gp = ClosedModel(
    "graph-gp", "Gaussian process over sets, with the graphs' kernels", "process", graphs=True
)
no_graph_gp = ClosedModel("gp", "the same process without graphs", "process")
factors_model = ClosedModel(
    "factors", "a few factors of genes, smooth over the graphs, beside graph-gp", "factors",
    graphs=True,
)  # fmt: skip
additive_model = ClosedModel(
    "additive", "the effects of genes add up: ridge regression", "additive"
)
query_mean_model = ClosedModel("query-mean", "the mean of the sets of the query pair", "query-mean")
