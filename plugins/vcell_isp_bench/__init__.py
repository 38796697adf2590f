"""`vcell isp-bench`: the speed of embedding cells with Geneformer, and what each method ran."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from vcell.config import configured, option
from vcell.plugin import Plugin


@dataclass(frozen=True, kw_only=True)
class IspBench:
    """Settings of `vcell isp-bench`, the [isp-bench] table."""

    model: str = option(
        "synthetic:gf-6L-10M-i2048", help="Folder of a Geneformer model, or random weights."
    )
    vocabulary: Path | None = option(
        None, read=True, help="A TSV of tokens, for a model of another size."
    )
    method: Literal[
        "baseline", "original", "batching", "packed", "mixed_precision", "quantization", "compile",
        "all",
    ] = option("all", help="Methods to measure; docs/isp-bench.md describes each.")  # fmt: skip
    precision: Literal["fp16", "bf16"] = option(
        "fp16", help="For mixed_precision. fp16 keeps the ranking of shifts, bf16 may not."
    )
    batch_size: int = option(8, help="Cells of a padded batch (batching, original).", minimum=1)
    token_budget: int = option(8192, help="Tokens of a packed batch.", minimum=64)
    max_cells: int = option(64, help="How many cells to embed.", minimum=2)
    repeats: int = option(
        5, help="How many times each method is timed, after one warm-up.", minimum=1
    )
    label: str | None = option(None, help="The obs column of labels, for the embedding's quality.")
    control: str | None = option(
        None, help="The label of control cells, to measure how well they separate."
    )
    gene_column: str | None = option(None, help="The var column with Ensembl ids or symbols.")
    layer: str | None = option(None, help="The layer that holds raw counts (default: X).")
    gpus: int = option(
        0,
        help="GPUs that share the cells, one process each; 0 uses one if there is one.",
        minimum=0,
    )
    procs: int | None = option(
        None, help="Processes that share the cells on a CPU, as GPUs would.", minimum=1, maximum=64
    )
    device: Literal["auto", "cpu", "cuda"] = option("auto", help="Where to compute.")
    threads: int | None = option(None, help="Threads on a CPU (default: one per core).", minimum=1)
    search: int = option(
        0, help="Number of trials in which Optuna searches for the best settings.", minimum=0
    )
    shifts: bool = option(default=True, help="Also compare shifts of deletions with float32.")
    output: Path | None = option(None, made="whole", short="-o", help="The .html page to write.")
    wandb: bool = option(default=False, help="Also log the rows to Weights & Biases.")
    seed: int = option(0, help="The seed of cells and search.", minimum=0)


@click.command("isp-bench")
@click.argument("cells", required=False, type=click.Path(path_type=Path))
@configured(
    IspBench,
    first=(
        "model",
        "method",
        "precision",
        "token_budget",
        "max_cells",
        "repeats",
        "label",
        "search",
        "output",
    ),
)
def command(cells: Path | None, config: IspBench) -> None:
    r"""Benchmark ways of embedding CELLS with Geneformer, and show what each really computed.

    Without CELLS, synthetic cells of realistic lengths are used. Every row names the type of the
    matrix products, the attention kernel, the cells per forward pass, the layers and the head, all
    observed in a forward pass.

    \b
    Examples:
      vcell isp-bench --max-cells 16 --method all
      vcell isp-bench cells.h5ad --model DIR --label perturbation --control control -o bench.html
    """
    from vcell_isp_bench.work import run

    run(cells, config)


plugin = Plugin(
    name="isp-bench",
    summary="Benchmark ways of running Geneformer, and show what each really ran.",
    command=command,
    config=IspBench,
    needs=("numba", "safetensors", "torch"),
)
