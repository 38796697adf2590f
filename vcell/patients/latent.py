"""Cells in two dimensions, before and after: axes of log counts, and latent means of a GMVAE.

The plane is UMAP's if umap-learn is installed, otherwise two principal components; the output says
which.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.data import open_cells
from vcell.data.detect import require_counts
from vcell.data.log_scale import log_profiles
from vcell.errors import UserError
from vcell.gmvae.encoding import encoded, matched
from vcell.patients.pictures import Picture
from vcell.report import Table

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from vcell.gmvae.trained import Trained

    Array = NDArray[Any]

_MOST, _AXES, _NAMES = 3000, 30, 8
_TARGET, _FEWEST = 1e4, 3


def pictures(cells: Path, trained: Trained, column: str, seed: int) -> list[Picture]:
    """Draw some cells of a file before and after; colours are the largest values of a column."""
    rng = np.random.default_rng((seed, 0x1A7))
    with open_cells(cells) as source:
        require_counts(source, quiet=True)
        if source.n_cells < _FEWEST:
            raise UserError(f"{source.name}: a plane needs {_FEWEST} cells or more")
        rows = np.sort(rng.permutation(source.n_cells)[:_MOST])
        named = source.obs(column)
        word = np.array([str(v) for v in named.values])[rows]
        parts = [block.toarray() for block in source.chunks(rows)]
        genes = matched(source, trained, 0.2, quiet=True)
        after = [mean for _, mean, _ in encoded(source, trained, genes, "encoding cells", rows)]
    counts = np.concatenate(parts).astype(np.float64)
    logs = log_profiles(counts, _TARGET)
    before = _axes(logs, _AXES)
    return [
        _picture("before", "log counts", before, word, seed),
        _picture("after", "GMVAE latent", np.concatenate(after).astype(np.float64), word, seed),
    ]


def method() -> str:
    """Return the name of the method of projection."""
    return "UMAP" if importlib.util.find_spec("umap") else "PCA"


def _axes(x: Array, n: int) -> Array:
    """Return the first principal components of cells."""
    left, size, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    found: Array = left[:, :n] * size[:n]
    return found


def _plane(x: Array, seed: int) -> Array:
    if method() == "PCA":
        return _axes(x, 2)
    import umap

    found: Array = umap.UMAP(random_state=seed).fit_transform(x)
    return found


def _picture(name: str, what: str, x: Array, word: Array, seed: int) -> Picture:
    plane = _plane(x, seed)
    names, number = np.unique(word, return_counts=True)
    largest = names[np.argsort(-number, kind="stable")[: _NAMES - 1]].tolist()
    shown = np.where(np.isin(word, largest), word, "others")
    series = {
        k: (plane[shown == k, 0].tolist(), plane[shown == k, 1].tolist())
        for k in [*largest, *(["others"] if (shown == "others").any() else [])]
    }
    rows = [(w, *at) for w, at in zip(word.tolist(), plane.tolist(), strict=True)]
    how = method()
    return Picture(
        name=f"latent-{name}", title=f"{name.capitalize()}: {how} of {what}", kind="scatter",
        x=f"{how} 1", y=f"{how} 2", series=series, equal=how == "PCA",
        labels={k: word[shown == k].tolist() for k in series},
        table=Table.of(("label", "x", "y"), rows),
    )  # fmt: skip
