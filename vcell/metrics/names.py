"""Short names of the metrics, with their meaning."""

from __future__ import annotations

from typing import NamedTuple


class Called(NamedTuple):
    """Short name and meaning of a metric, and which direction is better."""

    short: str
    meaning: str
    less_is_better: bool = False


_NAMES = {
    "discrimination_score_l1": Called("PDS", "perturbation discrimination score"),
    "overlap_at_N": Called("DES", "differential expression score"),
    "mae": Called("MAE", "mean absolute error", less_is_better=True),
    "pds_cosine": Called("PDS", "perturbation discrimination score, cosine distance"),
    "expr_mse_unbiased_capped_norm": Called(
        "MSE", "squared error of the expression, noise taken out", less_is_better=True
    ),
    "de_wilcoxon_direction_fidelity_yield_raw": Called("fidelity", "direction fidelity"),
    "de_wilcoxon_direction_reach_raw": Called("reach", "direction reach"),
    "de_wilcoxon_sig_jaccard": Called("Jaccard", "shared significant genes"),
    "de_wilcoxon_lfc_nmae": Called("NMAE", "error of the fold changes", less_is_better=True),
    "pearson_delta": Called("delta correlation", "correlation of the effects"),
    "macro_f1": Called("macro-F1", "mean F1 of the labels"),
    "ece": Called("calibration error", "distance of confidence and accuracy", less_is_better=True),
    "ece_expected": Called("calibration error if honest", "of a calibrated model on as many"),
    "brier": Called("Brier score", "squared error of probabilities", less_is_better=True),
    "kl": Called("KL divergence", "of the latent space from its prior", less_is_better=True),
    "nelbo": Called("objective", "negative evidence lower bound", less_is_better=True),
}


_INITIALS = ("pds", "mae", "mse", "des", "ari", "nmi", "auc", "r2")
WITHOUT = "_without_own"  # ends the names of scores without the perturbations' own genes


def label(name: str) -> str:
    """Return the name for people of a metric, a score or a curve of a run."""
    short = called(name).short
    if short != name:
        return short
    return name.upper() if name in _INITIALS else name.replace("_", " ")


def called(metric: str) -> Called:
    """Return the short name and meaning of a metric; an unknown one keeps its name."""
    found = _NAMES.get(metric)
    if found is not None:
        return found
    return Called(metric, "", less_is_better=metric.startswith(("mse", "mae")))
