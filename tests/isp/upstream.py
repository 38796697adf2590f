"""Upstream's statistics gene by gene, written from its formulas with scipy's and sklearn's own.

Each function takes ``{token: values in the order of cells}`` and returns the table that upstream's
tool would write, with its columns, its index and its order of lines.
"""

from __future__ import annotations

import random

import numpy as np
import pandas as pd
from scipy.stats import ranksums


def fdr_bh(p):
    """Benjamini and Hochberg, written as a definition."""
    p = np.asarray(p)
    n = len(p)
    order = np.argsort(p)
    out = np.empty(n)
    lowest = 1.0
    for rank in range(n, 0, -1):
        lowest = min(lowest, p[order[rank - 1]] * n / rank)
        out[order[rank - 1]] = lowest
    return out


def first_columns(tokens):
    return {
        "Gene": tokens,
        "Gene_name": [f"G{t}" for t in tokens],
        "Ensembl_ID": [f"ENSG{t:011d}" for t in tokens],
    }


def significant(fdr):
    return [1 if value < 0.05 else 0 for value in fdr]


def pool_of(by_gene):
    pool = [value for token in sorted(by_gene) for value in by_gene[token]]
    if len(pool) > 100_000:
        random.seed(42)
        pool = random.sample(pool, k=100_000)
    return pool


def goal_state_shift(goal, **alternatives):
    """The shift of each gene against the pool of all genes, for the goal and each alternative."""
    tokens = sorted(goal)
    pools = {name: pool_of(values) for name, values in {"": goal, **alternatives}.items()}

    def p_of(name, values):
        return [ranksums(pools[name], values[t]).pvalue for t in tokens]

    columns = first_columns(tokens)
    columns["Shift_to_goal_end"] = [np.mean(goal[t]) for t in tokens]
    for name, values in alternatives.items():
        columns[f"Shift_to_alt_end_{name}"] = [np.mean(values[t]) for t in tokens]
    columns["Goal_end_vs_random_pval"] = p_of("", goal)
    for name, values in alternatives.items():
        columns[f"Alt_end_vs_random_pval_{name}"] = p_of(name, values)
    columns["Goal_end_FDR"] = fdr_bh(columns["Goal_end_vs_random_pval"])
    for name in alternatives:
        columns[f"Alt_end_FDR_{name}"] = fdr_bh(columns[f"Alt_end_vs_random_pval_{name}"])
    columns["N_Detections"] = [len(goal[t]) for t in tokens]
    columns["Sig"] = significant(columns["Goal_end_FDR"])
    return pd.DataFrame(columns).sort_values(
        ["Sig", "Shift_to_goal_end", "Goal_end_FDR"], ascending=[False, False, True]
    )


def one_shift_to_goal(goal, **alternatives):
    """goal_state_shift for one perturbation, without a pool to compare with."""
    columns = {"Shift_to_goal_end": [np.mean(goal)]}
    for name, values in alternatives.items():
        columns[f"Shift_to_alt_end_{name}"] = [np.mean(values)]
    return pd.DataFrame(columns)


def vs_null(test, null):
    """Each gene against itself in a null run; without a value there, p is 1."""
    tokens = sorted(test)
    columns = first_columns(tokens)
    columns["Test_avg_shift"] = [np.mean(test[t]) for t in tokens]
    columns["Null_avg_shift"] = [np.mean(null[t]) if t in null else np.nan for t in tokens]
    columns["Test_vs_null_avg_shift"] = [
        np.mean(test[t]) - np.mean(null[t]) if t in null else np.nan for t in tokens
    ]
    columns["Test_vs_null_pval"] = [
        ranksums(test[t], null[t]).pvalue if t in null else 1.0 for t in tokens
    ]
    columns["Test_vs_null_FDR"] = fdr_bh(columns["Test_vs_null_pval"])
    columns["N_Detections_test"] = [len(test[t]) for t in tokens]
    columns["N_Detections_null"] = [len(null.get(t, [])) for t in tokens]
    columns["Sig"] = significant(columns["Test_vs_null_FDR"])
    return pd.DataFrame(columns).sort_values(
        ["Sig", "Test_vs_null_avg_shift", "Test_vs_null_FDR"], ascending=[False, False, True]
    )


def mixture_model(by_gene):
    """Two Gaussians over the genes' means; the first component is always the impact."""
    from sklearn.mixture import GaussianMixture

    tokens = sorted(by_gene)
    means = [np.mean(by_gene[t]) for t in tokens]
    fitted = GaussianMixture(n_components=2, random_state=0).fit(np.array(means).reshape(-1, 1))

    def component(value):
        if value > fitted.means_[1][0]:
            return 0
        if value < fitted.means_[0][0]:
            return 1
        return 1 - int(fitted.predict([[value]])[0])

    columns = first_columns(tokens)
    columns["Test_avg_shift"] = means
    columns["Impact_component"] = [component(mean) for mean in means]
    columns["Impact_component_percent"] = [
        np.mean([component(value) for value in by_gene[t]]) * 100 for t in tokens
    ]
    columns["N_Detections"] = [len(by_gene[t]) for t in tokens]
    return pd.DataFrame(columns).sort_values(
        ["Impact_component", "Test_avg_shift"], ascending=[False, True]
    )


def aggregate(by_gene, names):
    """Every value of each gene, with the gene's name; rows are numbered by gene."""
    return pd.concat(
        pd.DataFrame({"Cosine_sim": by_gene[t], "Gene": [names[t]] * len(by_gene[t])})
        for t in sorted(by_gene)
    )
