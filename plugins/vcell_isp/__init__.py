"""`vcell isp`: in-silico perturbation with Geneformer: exact, resumable, with checks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from vcell.config import ColumnOptions, configured, option
from vcell.launch import LaunchOptions
from vcell.plugin import Plugin


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The model, and how it reads cells."""

    model: str | None = option(
        None, help="Folder of a Geneformer model, or synthetic:gf-6L-10M-i2048 (random weights)."
    )
    vocabulary: Path | None = option(
        None,
        read=True,
        help="A TSV of token, id, median, symbol, for a model with other tokens than V1 or V2.",
    )
    gene_column: str | None = option(
        None, help="The var column with Ensembl ids or symbols (default: ensembl_id, or the names)."
    )
    layer: str | None = option(
        None, help="The layer of the file that holds raw counts (default: X)."
    )
    model_layer: str = option(
        "second-to-last", help="Layer to read embeddings from: last, second-to-last, or a number."
    )
    readout: Literal["auto", "mean", "cls"] = option(
        "auto", help="A cell is the mean of its genes, or <cls>; auto: mean in V1, cls in V2."
    )
    precision: Literal["fp32", "tf32", "fp16", "bf16"] = option(
        "fp32",
        help="Type of matrix products. On a CPU, half precision is emulated to show its "
        "rounding error.",
    )
    seed: int = option(0, help="The seed of everything random.", minimum=0)


@dataclass(frozen=True, kw_only=True)
class IspRun(ModelOptions, LaunchOptions):
    """Settings of `vcell isp run`."""

    perturb: Literal["delete", "overexpress", "inhibit", "activate"] = option(
        "delete", help="What happens to a gene."
    )
    genes: str = option(
        "all",
        help="all, each:FILE (one gene per line, each perturbed alone) or group:FILE (all "
        "at once).",
    )
    anchor: str | None = option(
        None, help="A gene that is perturbed together with each other gene."
    )
    quarters: int = option(
        1,
        help="How many quarters of the ranking inhibit and activate move a gene.",
        minimum=1,
        maximum=3,
    )
    state: str | None = option(None, help="The obs column that names each cell's state.")
    start: str | None = option(None, help="The state whose cells are perturbed.")
    goal: str | None = option(None, help="The state to move towards.")
    alt: tuple[str, ...] = option((), help="Other states to measure shifts towards.")
    donor: str | None = option(None, help="The obs column that names each cell's donor.")
    cell_type: str | None = option(
        None, help="The obs column of cell types, for the table and the heat map of genes by type."
    )
    paired: bool = option(
        default=False, help="Use only donors that have cells of both the start and the goal."
    )
    min_cells_per_donor: int = option(
        10, help="Minimum number of perturbed cells for a donor to count for a gene.", minimum=1
    )
    controls: str | None = option(
        None, help="matched:20 adds 20 null genes for each gene, matched by detection and rank."
    )
    cells_with_gene: bool = option(
        default=False, help="Overexpress a listed gene only in cells that express it."
    )
    max_cells: int | None = option(
        None, help="Perturb at most this many cells, chosen by the seed.", minimum=1
    )
    screen: Literal["exact", "first-order"] = option(
        "exact",
        help="first-order estimates all deletions by one backward pass, and checks the estimates.",
    )
    exact_top: int = option(
        200, help="Genes with the largest estimates to compute exactly.", minimum=1
    )
    exact_random: int = option(
        100, help="Random genes to compute exactly, for the estimate's recall.", minimum=20
    )
    shard: int = option(
        500, help="Events per shard: the most work that a kill can lose.", minimum=1
    )
    gates: bool = option(
        default=True,
        help="Check the shifts against the model's own nulls, such as shuffled weights.",
    )
    dry_run: bool = option(
        default=False, help="Show what would be done and how long it would take, then stop."
    )
    runs: Path = option(Path("runs"), help="The folder of run directories.")
    resume: str | None = option(None, help="Resume this run: a name, a path, or latest.")
    export_upstream_pickles: Path | None = option(
        None,
        made="into",
        help="Also write the files that Geneformer's InSilicoPerturberStats reads into this "
        "folder.",
    )


@dataclass(frozen=True, kw_only=True)
class IspEmbed(ModelOptions):
    """Settings of `vcell isp embed`."""

    output: Path | None = option(
        None, made="whole", short="-o", help="The .h5ad or .zarr to write."
    )
    genes: bool = option(
        default=False, help="Also embed genes: the mean over cells of each gene's token (varm)."
    )
    overwrite: bool = option(default=False, help="Replace the output where it exists already.")
    device: Literal["auto", "cpu", "cuda"] = option("auto", help="Where to compute.")


@dataclass(frozen=True, kw_only=True)
class IspStats(ColumnOptions):
    """Settings of `vcell isp stats`; columns are those of the screen of --perturb-seq."""

    mode: Literal["genes", "goal_state_shift", "vs_null", "mixture_model", "aggregate"] = option(
        "genes", help="genes: the main table and a page. The others: Geneformer's own tables."
    )
    output: Path | None = option(
        None, made="whole", short="-o", help="Where to write (default: into the run)."
    )
    overwrite: bool = option(default=False, help="Replace the output where it exists already.")
    null: str | None = option(None, help="For vs_null: the run with the null distribution.")
    min_cells: int = option(10, help="Minimum number of cells for a gene to count.", minimum=1)
    min_donors: int = option(
        2, help="Minimum number of donors for a gene to count, if donors are known.", minimum=1
    )
    nulls: int = option(100, help="Genes matched by detection and rank to compare with.", minimum=1)
    perturb_seq: Path | None = option(
        None,
        read=True,
        help="Compare with a real screen: its cells, or the effects.parquet of vcell effects.",
    )
    perturb_seq_kind: Literal["knockdown", "activation"] = option(
        "knockdown",
        help="Whether that screen lowers its targets (CRISPRi, knock-out) or raises them.",
    )
    fdr: float = option(0.05, help="False discovery rate of a call.", minimum=0, maximum=1)
    runs: Path = option(Path("runs"), help="The folder of run directories.")


@dataclass(frozen=True, kw_only=True)
class IspCompare:
    """Settings of `vcell isp compare`."""

    top: int = option(20, help="How many genes of each ranking to compare.", minimum=1)
    runs: Path = option(Path("runs"), help="The folder of run directories.")


@click.group("isp")
def command() -> None:
    r"""Perturb genes in silico with Geneformer, and find those that move cells towards a state.

    \b
    Example:
      vcell isp run cells.h5ad --model models/gf-12L-38M-i4096 \
        --state disease --start dcm --goal healthy --donor patient
      vcell isp stats latest
    """


@command.command("run")
@click.argument("cells", required=False, type=click.Path(path_type=Path))
@configured(
    IspRun,
    first=(
        "model",
        "perturb",
        "genes",
        "state",
        "start",
        "goal",
        "donor",
        "controls",
        "max_cells",
        "dry_run",
        "resume",
        "gpus",
    ),
)
def run_command(cells: Path | None, config: IspRun) -> None:
    r"""Delete or overexpress genes in every cell of CELLS and measure how far each cell moves.

    The result is one Parquet table with a row for each cell and gene. A killed run continues with
    --resume and repeats at most one shard. --dry-run shows first how long it will take.

    \b
    Examples:
      vcell isp run cells.h5ad --model DIR --dry-run
      vcell isp run cells.h5ad --model DIR --state disease --start dcm --goal healthy
      vcell isp run cells.h5ad --model DIR --perturb overexpress --genes each:tfs.txt \
        --controls matched:20
      vcell isp run --resume latest
    """
    from vcell_isp.work import run

    run(cells, config)


@command.command("embed")
@click.argument("cells", type=click.Path(path_type=Path))
@configured(IspEmbed)
def embed_command(cells: Path, config: IspEmbed) -> None:
    r"""Embed the cells of CELLS with a Geneformer, into obsm of an .h5ad or a .zarr.

    Cells are written as they come: memory does not grow with them.

    \b
    Examples: vcell isp embed cells.h5ad --model models/gf-12L-38M-i4096 -o embedded.h5ad
              vcell isp embed cells.h5ad --model DIR --genes --model-layer last -o embedded.zarr
    """
    from vcell_isp.embed import run

    run(cells, config)


@command.command("stats")
@click.argument("names", nargs=-1)
@configured(IspStats)
def stats_command(names: tuple[str, ...], config: IspStats) -> None:
    r"""Test the results of the runs NAMES: genes.csv with a status for every gene, and a page.

    Give a run of deletions and one of overexpressions of the same cells to see whether they agree.
    NAMES default to the latest run.

    \b
    Examples:
      vcell isp stats latest
      vcell isp stats latest --perturb-seq screen.h5ad
      vcell isp stats RUN --mode goal_state_shift -o upstream.csv
    """
    from vcell_isp.stats import run

    run(names or ("latest",), config)


@command.command("compare")
@click.argument("one")
@click.argument("other")
@configured(IspCompare)
def compare_command(one: str, other: str, config: IspCompare) -> None:
    r"""Compare two runs on the same genes: models, seeds or precisions.

    \b
    Example: vcell isp compare RUN-V1 RUN-V2
    """
    from vcell_isp.compare import run

    run(one, other, config)


plugin = Plugin(
    name="isp",
    summary="Perturb genes in silico with Geneformer and test which move cells.",
    command=command,
    needs=("numba", "pyarrow", "safetensors", "torch"),
)
