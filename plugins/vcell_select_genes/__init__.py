"""`vcell select-genes`: choose the genes that a model uses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from vcell.config import CellsPath, ManyFiles, configured, option
from vcell.plugin import Plugin

DEFAULT_GROUPS = (
    "targets", "responsive", "cell-cycle", "pluripotency", "tf", "metabolic", "hvg",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SelectGenes(ManyFiles):
    """Settings of `vcell select-genes`, the [select-genes] table."""

    output: Path = option(Path("genes"), made="whole", short="-o", help="The folder to write to.")
    overwrite: bool = option(default=False, help="Replace the folder where it exists already.")
    n_genes: int = option(5000, help="How many genes to choose.", minimum=1)
    groups: tuple[str, ...] = option(
        DEFAULT_GROUPS,
        help="Groups to use, most important first; 'none' for highly variable genes only.",
    )
    quotas: tuple[str, ...] = option(
        (),
        help="How many of the chosen genes a group provides: tf=400 or tf=10%; 'all' for the "
        "whole group.",
    )
    phases: tuple[int, ...] = option(
        (500, 1200, 2500, 5000), help="Sizes of the curriculum's phases.", minimum=1
    )
    gene_set: tuple[Path, ...] = option(
        (), help="Your own groups: .gmt, .csv or .tsv with a gene column, or .txt."
    )
    targets: Path | None = option(
        None,
        read=True,
        help="Genes that must be included, such as the challenge's list: a .csv with target_gene.",
    )
    hvg_flavor: Literal[
        "seurat", "cell_ranger", "seurat_v3", "seurat_v3_paper", "pearson_residuals"
    ] = option("seurat", help="How variability is measured: scanpy's flavours.")
    hvg_by_batch: bool = option(
        default=False, help="Measure variability within each batch of --batch-column."
    )
    target_sum: float = option(
        10_000.0,
        help="Total that counts are normalised to; 0 for the median of the cells (one more pass).",
        minimum=0,
    )
    min_genes: int = option(0, help="Leave out cells with fewer genes.", minimum=0)
    max_mito: float = option(
        1.0, help="Leave out cells with a larger share of mitochondrial counts.", minimum=0,
        maximum=1,
    )  # fmt: skip
    min_cells: int = option(0, help="Leave out genes found in fewer cells.", minimum=0)
    fdr: float = option(
        0.05, help="False discovery rate at which a gene responds.", minimum=0, maximum=1
    )
    engine: Literal["local", "dask"] = option(
        "local", help="Use threads of this machine, or dask workers."
    )
    scheduler: str | None = option(
        None, help="Address of a dask scheduler (default: local workers)."
    )

    def __post_init__(self) -> None:
        if self.scheduler is not None and self.engine != "dask":
            raise ValueError("scheduler needs --engine dask")
        if "none" in self.groups and len(self.groups) > 1:
            raise ValueError("groups: 'none' stands alone")


@click.command("select-genes")
@click.argument("files", nargs=-1, type=CellsPath(path_type=Path))
@configured(
    SelectGenes,
    first=(
        "output",
        "overwrite",
        "n_genes",
        "groups",
        "gene_set",
        "targets",
        "hvg_flavor",
        "perturbation_column",
        "layer",
    ),
)
def command(files: tuple[Path, ...], config: SelectGenes) -> None:
    """Choose the genes that a model uses.

    Perturbation targets first, then genes that respond to perturbations, biological groups and
    highly variable genes, each up to its quota. The first 500, 1,200, 2,500 and 5,000 genes of
    selected_genes.csv are the phases of a curriculum. One pass over the file, in bounded memory.

    \b
    Examples:
      vcell select-genes cells.h5ad -o genes
      vcell select-genes cells.h5ad --n-genes 2000 --quotas tf=400,metabolic=10% -o genes
      vcell select-genes cells.h5ad --groups none --hvg-flavor seurat_v3 --n-genes 2000 -o hvg
    """  # noqa: D301  # click needs the \b itself
    from vcell_select_genes.work import run

    run(files, config)


plugin = Plugin(
    name="select-genes",
    summary="Choose the genes a model sees: targets, responsive, biological groups, HVG.",
    command=command,
    config=SelectGenes,
    needs=("anndata", "numba", "pandas", "scipy"),
)
