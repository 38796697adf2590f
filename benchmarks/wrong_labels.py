"""The share of wrong labels that train-gmvae finds before training, and the gain without them.

    python benchmarks/wrong_labels.py SET.h5ad ... --column cell_type --share 0.2

Labels are replaced by others, drawn uniformly. A fifth of the cells is held out and scored against
the right labels, by logistic regression on 30 principal components, fitted to labels as given,
without suspects, and to right labels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata
import numpy as np

from vcell.gmvae.cells import ResidentCells
from vcell.gmvae.components import Components
from vcell.gmvae.head import fit, folds_of
from vcell.gmvae.wrong_labels import doubts


def one(path: Path, column: str, share: float, seed: int) -> str:
    """Return the row of one set."""
    data = anndata.read_h5ad(path)
    x = data.X.tocsr()
    x.sort_indices()
    names, label = np.unique(data.obs[column].astype(str), return_inverse=True)
    target = float(np.median(np.asarray(x.sum(1))))
    indices, counts = x.indices.astype(np.uint32), x.data.astype(np.float32)
    cells = ResidentCells(indices, counts, x.indptr.astype(np.int64), x.shape[1], target)
    held = folds_of(label, seed) == 0
    train = np.flatnonzero(~held)
    components = Components.learnt(cells, train, seed=seed)
    near, far = components.of(cells, train), components.of(cells, np.flatnonzero(held))
    rng = np.random.default_rng((seed, 1))
    flip = rng.random(len(label)) < share
    other = (label + rng.integers(1, len(names), len(label))) % len(names)
    given, wrong = np.where(flip, other, label)[train], flip[train]
    found = doubts(near, given, len(names), seed)

    def accuracy(kept: np.ndarray, labels: np.ndarray) -> float:
        head = fit(near[kept], labels[kept], len(names))
        return float((head.log_probabilities(far).argmax(1) == label[held]).mean())

    everyone = np.ones(len(train), bool)
    right = (found.suspect & wrong).sum()
    return (
        f"{path.stem}: {wrong.mean():.3f} wrong, thought {found.share:.3f}; "
        f"{found.suspect.sum()} suspects, of the wrong {right / max(wrong.sum(), 1):.2f} found, "
        f"of the suspects {right / max(found.suspect.sum(), 1):.2f} wrong; accuracy "
        f"{accuracy(everyone, given):.3f} as given, {accuracy(~found.suspect, given):.3f} without "
        f"suspects, {accuracy(everyone, label[train]):.3f} right"
    )


def main() -> None:
    """Print a row for each set and seed, with right labels and with wrong ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--column", default="cell_type")
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    for path in args.sets:
        for seed in range(args.seeds):
            for share in (0.0, args.share):
                print(one(path, args.column, share, seed), flush=True)


if __name__ == "__main__":
    main()
