"""`vcell graph-profile`: the cost of each way of feeding gene networks to a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from vcell.config import configured, option
from vcell.plugin import Plugin


@dataclass(frozen=True, kw_only=True)
class GraphProfile:
    """Settings of `vcell graph-profile`, the [graph-profile] table."""

    graph: tuple[Path, ...] = option(
        (),
        help="Edge list (text or gzip) or folder of saved graphs; repeat it for several.",
        read=True,
    )
    triples: Path | None = option(
        None,
        help="Table of gene sets, such as trigenic interactions (default: random triples).",
        read=True,
    )
    strategy: tuple[str, ...] = option(
        (), help="What to measure; repeat it. Default: all of ours. `all` adds the references."
    )
    mode: Literal["data", "model", "full"] = option(
        "full", help="Time the data, the model on one batch, or both."
    )
    steps: int = option(5, help="Batches to time, after one to warm up.", minimum=1)
    batch_size: int = option(28, help="Samples per batch.", minimum=1)
    direction: Literal["in", "both"] = option(
        "in", help="Hops follow edges from target to source, or in both directions."
    )
    over: Literal["relation", "union"] = option(
        "relation", help="Hops stay within one relation, or may follow any."
    )
    perturbed: Literal["kept", "deleted"] = option(
        "kept", help="Perturbed genes stay in their neighbourhood, or are taken out of it."
    )
    width: int = option(32, help="Width of the models; a multiple of four.", minimum=4)
    layers: int = option(2, help="Layers of message passing, or of the transformer.", minimum=1)
    memory: float | None = option(
        None, help="Gigabytes that a batch may use (default: a quarter of the free memory)."
    )
    seconds: float = option(
        5.0, help="Seconds to spend finding each strategy's largest batch; 0 skips this.", minimum=0
    )
    ids: Path | None = option(
        None, help="Table of ids and gene names, for STRING's links.", read=True
    )
    weight: str | None = option(None, help="Column of weights (default: the format's).")
    minimum: float | None = option(None, help="Leave out edges with a lower weight.")
    scale: float = option(1.0, help="Size of the synthetic graphs, where no --graph is given.")
    save: Path | None = option(
        None, made="whole", help="Also save the graphs in this folder, to be read again."
    )
    device: Literal["auto", "cpu", "cuda"] = option("auto", help="Where the models run.")
    threads: int | None = option(None, help="Threads on a CPU (default: one per core).", minimum=1)
    seed: int = option(0, help="The seed of samples, models and synthetic graphs.", minimum=0)
    output: Path | None = option(None, made="whole", short="-o", help="The .html page to write.")
    overwrite: bool = option(default=False, help="Replace a page or graphs of that name.")

    def __post_init__(self) -> None:
        if self.width % 4:
            raise ValueError("width must be a multiple of four")
        if self.memory is not None and self.memory <= 0:
            raise ValueError("memory must be above 0")


@click.command("graph-profile")
@configured(GraphProfile)
def command(config: GraphProfile) -> None:
    r"""Time ways of feeding gene networks to a model: data, copying, forward and backward.

    Without --graph, synthetic graphs the size of yeast's are
    used. A reference (lazy-ref, khop1-ref,
    ...) does what torch-geometric does; khop1-scipy and the like use plain
    scipy. Strategies: dango,
    lazy, khop1, khop2, khop3, incidence, transformer; khop-ref and khop-scipy each stand for three.

    \b
    Examples:
      vcell graph-profile --scale 0.2 --batch-size 8 --steps 3
      vcell graph-profile --graph coexpression.tsv.gz --graph BIOGRID.tab3.txt -o profile.html
      vcell graph-profile --mode data --strategy khop2 --strategy khop-ref --batch-size 4
    """
    from vcell_graph_profile.work import run

    run(config)


plugin = Plugin(
    name="graph-profile",
    summary="Time ways of feeding gene networks to a model, end to end.",
    command=command,
    config=GraphProfile,
    needs=("numba", "torch"),
)
