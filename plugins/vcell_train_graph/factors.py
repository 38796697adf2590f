"""A few factors of genes, smooth over graphs, whose products are the effects of gene pairs.

A Gaussian process assumes that the effects of pairs of genes are independent, apart from the
similarity of the genes. Often the structure is simpler: each gene has a few traits, and the joint
effect of two genes is the sum of the products of their traits. With V the factors (one trait of
every gene each) and e the effects of single genes,

    value of S = mean + sum of e_i over S + sum over r of sign_r sum over pairs of V_ri V_rj + noise
    V_r ~ N(0, C / scale_r),   C = c_0 I + sum of c_k K_k,   e likewise with its own weights

With many factors this approaches the process with the kernel `pair` of C. A few factors are a much
stronger assumption, so their weight is estimated on left-out sets (`closed._stacking_weights`).
Everything is sampled by Gibbs sampling, and the prediction is the mean over draws. A factor without
support in the data stays near 0, so the number of factors matters little. The weights c maximise
the likelihood of the drawn factors.
G genes, T sets, K kernels, R factors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize

from vcell.kernels.factors import draw_effects, draw_factors
from vcell_train_graph.kernels import indicator, inverse_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import scipy.sparse as sp
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Members = NDArray[np.int64]

FACTORS = 8  # with alternating signs
_BURN, _KEPT = 100, 100  # draws that are discarded, and draws that are averaged
_WEIGHED_AT = (20, 40, 60, 80)  # draws after which the weights of kernels are estimated
_GENES = 400  # genes used for that: their covariance is a submatrix of that of all genes


@dataclass(frozen=True, eq=False)
class GeneSimilarity:
    """The prior similarity of genes: weights of I and of each kernel."""

    factors: Array  # (1 + K,)
    effects: Array

    @classmethod
    def even(cls, n_kernels: int) -> GeneSimilarity:
        """Return equal weights."""
        even = np.full(1 + n_kernels, 1 / (1 + n_kernels))
        return cls(even, even)


def inverse_mixture(weights: Array, kernels: Sequence[Array], n_genes: int) -> Array:
    """Return the inverse (G, G) of the weighted sum of I and the kernels."""
    total = weights[0] * np.eye(n_genes)
    for weight, kernel in zip(weights[1:], kernels, strict=True):
        total += weight * kernel
    return inverse_of(total)[0]


class FactorSampler:
    """A sampler of effects and factors, given sets and their standardised values.

    Parameters
    ----------
    members, values
        (T, S) and (T,) of the training sets.
    n_genes, kernels
        G, and K matrices (G, G).
    """

    def __init__(
        self, members: Members, values: Array, n_genes: int, kernels: Sequence[Array]
    ) -> None:
        self.members, self.values = members, values
        self.n_genes, self.kernels = n_genes, kernels
        there = members >= 0
        gene, which = members[there], np.nonzero(there)[0]
        order = np.argsort(gene, kind="stable")
        self.sets = which[order]
        self.indptr = np.searchsorted(gene[order], np.arange(n_genes + 1))
        self.signs = np.where(np.arange(FACTORS) % 2, -1.0, 1.0)

    def run(
        self, sets: Members, similarity: GeneSimilarity | None = None
    ) -> tuple[Array, GeneSimilarity]:
        """Return the mean prediction of sets over the draws, and the weights of kernels.

        Parameters
        ----------
        sets
            (A, S) sets to predict.
        similarity
            Weights to use; by default they are estimated.
        """
        rng = np.random.default_rng(0)
        found, n = similarity or GeneSimilarity.even(len(self.kernels)), self.n_genes
        q_effects = inverse_mixture(found.effects, self.kernels, n)
        q_factors = inverse_mixture(found.factors, self.kernels, n)
        effects, factors = np.zeros(n), 0.1 * rng.standard_normal((FACTORS, n))
        scale, effect_scale, by_noise = np.full(FACTORS, 4.0), 10.0, 2.0
        has = indicator(sets, n)
        total = np.zeros(len(sets))
        left = self.values - values_of(indicator(self.members, n), effects, factors, self.signs)
        for turn in range(_BURN + _KEPT):
            draw_effects(
                self.indptr, self.sets, left, effects, effect_scale * q_effects, by_noise,
                rng.standard_normal(n),
            )  # fmt: skip
            draw_factors(
                self.members, self.indptr, self.sets, left, factors, q_factors, scale, self.signs,
                by_noise, rng.standard_normal(factors.shape),
            )  # fmt: skip
            by_noise = _precision(len(left), float(left @ left), 0.5, rng)
            effect_scale = _precision(n, float(effects @ q_effects @ effects), 0.01, rng)
            size = ((factors @ q_factors) * factors).sum(1)
            scale = np.array([_precision(n, float(x), 0.01, rng) for x in size])
            if similarity is None and self.kernels and turn in _WEIGHED_AT:
                drawn = factors * np.sqrt(scale)[:, None]
                one = effects[None] * effect_scale**0.5
                found = GeneSimilarity(
                    self._weights(found.factors, drawn), self._weights(found.effects, one)
                )
                q_effects = inverse_mixture(found.effects, self.kernels, n)
                q_factors = inverse_mixture(found.factors, self.kernels, n)
            if turn >= _BURN:
                total += values_of(has, effects, factors, self.signs)
        return total / _KEPT, found

    def _weights(self, before: Array, drawn: Array) -> Array:
        """Return the weights that maximise the likelihood of draws (R, G) with one covariance."""
        n = self.n_genes
        some = np.sort(np.random.default_rng(0).permutation(n)[:_GENES])
        parts = [np.eye(len(some)), *(k[np.ix_(some, some)] for k in self.kernels)]
        x = drawn[:, some].T  # (G, R)

        def loss(logs: Array) -> tuple[float, Array]:
            weight = np.exp(logs)
            total = sum(w * part for w, part in zip(weight, parts, strict=True))
            inverse, log_det = inverse_of(np.asarray(total))
            pulled = inverse @ x
            value = 0.5 * (float((pulled * x).sum()) + x.shape[1] * log_det)
            slope = 0.5 * (x.shape[1] * inverse - pulled @ pulled.T)
            each = [float((slope * part).sum()) for part in parts]
            return value, weight * np.array(each)

        start = np.log(np.maximum(before, 3e-3))
        ends = [(-6.0, 3.0)] * len(parts)
        best = minimize(
            loss, start, jac=True, method="L-BFGS-B", bounds=ends, options={"maxiter": 15}
        )
        weight = np.exp(best.x)
        return np.asarray(weight / weight.sum())


def values_of(has: sp.csr_array, effects: Array, factors: Array, signs: Array) -> Array:
    """Return the values (T,) of sets, given the genes they contain (T, G)."""
    total, squares = has @ factors.T, has @ np.square(factors).T
    return np.asarray(has @ effects + (np.square(total) - squares) @ signs / 2)


def _precision(n: int, squares: float, least: float, rng: np.random.Generator) -> float:
    """Draw the inverse of a variance, given a sum of `n` squares."""
    return float(rng.gamma(n / 2 + 1, 1 / (squares / 2 + least)))
