"""Differential expression of a screen, from cells to a table: `compare`, as `vcell de` does it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Literal

import pandas as pd

from vcell.data import CellSource, detect, open_cells
from vcell.data import labels as find_labels
from vcell.errors import UserError
from vcell.metrics.screen import Chosen, ScreenCells, tables

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData

    from vcell.metrics.significance import FoldChange, Scope


def compare(  # noqa: PLR0913 - every choice has a name and a default
    cells: AnnData | CellSource | str | Path | Sequence[str | Path],
    *,
    perturbation_column: str | None = None,
    control: str | None = None,
    layer: str | None = None,
    layout: Literal["pdex", "scanpy"] = "pdex",
    test: Literal["wilcoxon", "t-test"] = "wilcoxon",
    against: Literal["control", "rest"] = "control",
    values: Literal["log1p", "stored"] = "log1p",
    fold_change: FoldChange = "geometric",
    fdr: Scope = "perturbation",
    min_cpm: float = 0.0,
    stratify: str | None = None,
    threads: int | None = None,
) -> pd.DataFrame:
    """Test every gene of every perturbation for differential expression, as `vcell de` does.

    Counts become log1p, every cell scaled to the median total; log1p values are taken as they are.
    Cells are read in chunks: memory does not grow with their number. `cells` is not changed.

    Parameters
    ----------
    cells
        AnnData (in memory or backed), an open `vcell.data.CellSource`, or what
        `vcell.data.open_cells` opens: a path to h5ad, zarr or 10x, or several.
    perturbation_column, control
        The obs column that names perturbations, and the label of the controls in it; detected by
        their usual names if not given, and reported.
    layer
        Layer with the values, if not in ``X``.
    layout
        "pdex": the columns target, feature, target_mean, ref_mean, target_membership,
        ref_membership, log2_fold_change, percent_change, p_value, statistic, fdr. "scanpy": group,
        names, scores, logfoldchanges, pvals, pvals_adj, highest score first.
    test
        Wilcoxon's rank-sum test (tie and continuity correction, float64), or Welch's t-test.
    against
        Compare each perturbation with the controls, or each group with all other cells.
    values
        Test log1p values, or values as they are stored.
    fold_change
        "geometric": log2 of the ratio of expm1(mean(log1p)); "clipped": the same with 20 for
        infinity; "arithmetic": of mean(expm1(log1p)) with 1e-9 added to both.
    fdr
        Benjamini and Hochberg within each perturbation, or over all tests ("global").
    min_cpm
        Test only genes whose mean counts per million in the controls exceed this.
    stratify
        Test within each value of this obs column; the frame then begins with a column "stratum".
    threads
        Number of threads; None for one per core.

    Returns
    -------
    pandas.DataFrame
        One row per test.

    Raises
    ------
    UserError
        If values are NaN, infinite or neither counts nor log1p, or a name is not in the data.

    Examples
    --------
    >>> from vcell.metrics import de
    >>> table = de.compare(adata, perturbation_column="target_gene", control="non-targeting")
    >>> table[table["fdr"] < 0.05].groupby("target", observed=True).size()  # doctest: +SKIP
    """
    chosen = Chosen(
        perturbation_column=perturbation_column, control=control, test=test, against=against,
        values=values, fold_change=fold_change, fdr=fdr, min_cpm=min_cpm, stratify=stratify,
        threads=threads,
    )  # fmt: skip
    opened: AbstractContextManager[CellSource] = (
        nullcontext(cells) if isinstance(cells, CellSource) else open_cells(cells, layer=layer)
    )
    frames = []
    with opened as source:
        detect.refuse_nothing(source)
        labels = find_labels.find(source, chosen)
        screen = ScreenCells.of(source, values, ranked=test == "wilcoxon", threads=threads)
        for stratum, table in tables(screen, labels, chosen):
            frame = table.frame() if layout == "pdex" else table.scanpy()
            if stratify is not None:
                frame.insert(0, "stratum", stratum)
            frames.append(frame)
    if not frames:
        raise UserError(f"no {stratify} has both controls and perturbations")
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)
