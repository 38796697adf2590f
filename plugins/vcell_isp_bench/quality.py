"""The quality of embeddings: by labels, and by similarity to the baseline's embeddings.

The definitions are those of the original benchmark: RidgeClassifier on a stratified split, k-means
with as many clusters as labels, 15 nearest neighbours, seed 42.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED, NEIGHBOURS = 42, 15


def refuse_few(labels: NDArray[Any]) -> None:
    """Refuse labels that are too few to measure quality."""
    names, counts = np.unique(labels, return_counts=True)
    if len(names) < 2 or counts.min() < 2:
        raise UserError("quality by labels needs two labels, each with two cells or more")


def by_labels(
    x: NDArray[np.float32], labels: NDArray[Any], control: str | None
) -> dict[str, float | None]:
    """Return the original's metrics of an embedding."""
    try:
        from sklearn import metrics
        from sklearn.cluster import KMeans
        from sklearn.linear_model import RidgeClassifier
        from sklearn.model_selection import train_test_split
        from sklearn.neighbors import NearestNeighbors
    except ImportError:
        raise UserError(
            "quality by labels needs scikit-learn", hint="pip install 'vcell[isp]'"
        ) from None
    names, codes = np.unique(labels, return_inverse=True)
    train, test = train_test_split(
        np.arange(len(x)), test_size=0.2, random_state=SEED, stratify=codes
    )
    guess = RidgeClassifier().fit(x[train], codes[train]).predict(x[test])
    k = min(NEIGHBOURS, len(x) - 1)
    near = NearestNeighbors(n_neighbors=k + 1).fit(x).kneighbors(x, return_distance=False)[:, 1:]
    found = KMeans(n_clusters=len(names), n_init=10, random_state=SEED).fit_predict(x)
    return {
        "accuracy": float((guess == codes[test]).mean()),
        "f1": float(metrics.f1_score(codes[test], guess, average="weighted")),
        "silhouette": float(metrics.silhouette_score(x, codes)),
        "davies_bouldin": float(metrics.davies_bouldin_score(x, codes)),
        "calinski_harabasz": float(metrics.calinski_harabasz_score(x, codes)),
        "separation": separation(x, codes),
        "neighbours": float((codes[near] == codes[:, None]).mean()),
        "ari": float(metrics.adjusted_rand_score(codes, found)),
        "nmi": float(metrics.normalized_mutual_info_score(codes, found)),
        "control_separation": None if control is None else control_ratio(x, labels == control),
    }


def _distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    squared = np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None] - 2 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(squared, 0)))


def separation(x: NDArray[Any], codes: NDArray[Any]) -> float:
    """Return the mean distance between labels divided by that within them."""
    d = _distances(x.astype(np.float64), x.astype(np.float64))
    same = codes[:, None] == codes[None]
    upper = np.triu(np.ones_like(same), 1)
    within, between = d[same & upper], d[~same & upper]
    return float(between.mean() / (within.mean() + 1e-8)) if len(within) and len(between) else 0.0


def control_ratio(x: NDArray[Any], control: NDArray[np.bool_]) -> float | None:
    """Return the mean distance of controls to all others divided by that among controls."""
    if control.sum() < 2 or control.all():
        return None
    a, b = x[control].astype(np.float64), x[~control].astype(np.float64)
    own = _distances(a, a)[np.triu_indices(len(a), 1)].mean()
    return float(_distances(a, b).mean() / own) if own > 0 else None


def closeness(x: NDArray[np.float32], baseline: NDArray[np.float32]) -> dict[str, float]:
    """Return cosines to the baseline's embeddings: minimum, first percentile, mean."""
    a, b = x.astype(np.float64), baseline.astype(np.float64)
    cosines = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return {
        "cosine_min": float(cosines.min()), "cosine_p01": float(np.quantile(cosines, 0.01)),
        "cosine_mean": float(cosines.mean()),
    }  # fmt: skip
