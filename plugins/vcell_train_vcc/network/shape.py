"""The shape of a network in a run: preset, token genes and phases, fixed when the run starts.

`auto` settings depend on the device. Their values are saved in the run as ``network.json``, so that
it can be resumed and used on another device.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from vcell import console
from vcell.errors import UserError
from vcell.graph import read
from vcell.models import read_genes
from vcell.nn.patterns import Graph
from vcell.nn.presets import PRESETS, Preset
from vcell.screen.graphs import graphs_of
from vcell.screen.split import TRAIN
from vcell.train.task import Phase

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vcell.models import Screen
    from vcell.runs import Run
    from vcell_train_vcc import TrainVcc

FILE = "network.json"
PHASES = (500, 1200, 2500, 5000)  # genes
DEFAULT_TOKENS = {"cuda": 5000, "cpu": 384}
_FEWEST = 8  # genes in a phase
NEAR = 20  # co-expressed genes that each gene attends to, where no graph is given


@dataclass(frozen=True)
class NetworkShape:
    """Everything about a network but its weights.

    Attributes
    ----------
    kind
        ``transformer`` or ``shared-encoder``.
    preset
        Name of the preset.
    dropout
        Replaces the preset's.
    tokens
        Names of the token genes; a phase uses the first of them.
    phases
        Number of tokens and first step of each phase.
    """

    kind: str
    preset: str
    dropout: float
    tokens: tuple[str, ...]
    phases: tuple[tuple[int, int], ...]

    @property
    def sizes(self) -> Preset:
        """The preset with this dropout."""
        return Preset(**asdict(PRESETS[self.preset]) | {"dropout": self.dropout})

    def n_tokens(self, step: int) -> int:
        """Return the number of tokens at a step."""
        return max(n for n, start in self.phases if start <= step)

    def announced(self) -> tuple[Phase, ...]:
        """Return the phases for the training loop; none if there is only one."""
        if len(self.phases) == 1:
            return ()
        return tuple(
            Phase(f"phase {i}: {n:,} genes", start)
            for i, (n, start) in enumerate(self.phases, start=1)
        )

    @classmethod
    def of(cls, run: Run) -> NetworkShape:
        """Read the shape saved in a run."""
        path = run.path / FILE
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            phases = tuple((int(n), int(start)) for n, start in saved["phases"])
            tokens = tuple(saved["tokens"])
            return cls(saved["kind"], saved["preset"], saved["dropout"], tokens, phases)
        except (OSError, KeyError, TypeError, ValueError):
            raise UserError(f"{path} is missing or damaged", hint="train again") from None

    @classmethod
    def decide(
        cls, kind: str, screen: Screen, config: TrainVcc, device: torch.device
    ) -> NetworkShape:
        """Resolve the settings for a device."""
        preset, tokens = config.preset, config.tokens
        if config.set_size % config.pseudo:
            raise UserError(
                f"sets of {config.set_size} cells cannot be pooled into {config.pseudo} equal "
                "pseudo-cells",
                hint="let set-size be a multiple of pseudo",
            )
        if preset == "auto":
            preset = "base" if device.type == "cuda" else "tiny"
            console.say(f"preset: {preset} (the default on {device.type})")
        chosen = ordered(screen, config.genes)
        if tokens is None:
            tokens = DEFAULT_TOKENS[device.type]
            if tokens < len(chosen):
                console.say(
                    f"tokens: {tokens:,} of {len(chosen):,} genes (the default on {device.type}); "
                    "the prior alone predicts the others"
                )
        chosen = chosen[:tokens]
        phases = plan(config, len(chosen))
        return cls(kind, preset, config.dropout, tuple(chosen), phases)

    @property
    def text(self) -> str:
        """The file saved in a run."""
        return json.dumps(asdict(self), indent=1)


def device_of(run: Run, config: TrainVcc) -> torch.device:
    """Return the kind of device that the run uses."""
    kind = str(run.meta.get("device", config.device))
    gpu = torch.cuda.is_available() if kind == "auto" else kind == "cuda"
    return torch.device("cuda" if gpu else "cpu")


def ordered(screen: Screen, path: Path | None) -> list[str]:
    """Return genes for tokens: in the order of the file, or the most responsive first."""
    if path is not None:
        have = set(screen.genes.tolist())
        chosen = [gene for gene in dict.fromkeys(read_genes(path)) if gene in have]
        if not chosen:
            raise UserError(f"{path} names none of the genes of the cells")
        return chosen
    response = np.square(screen.delta[screen.rows(TRAIN)], dtype=np.float64).mean(axis=0)
    return [str(gene) for gene in screen.genes[np.argsort(-response, kind="stable")]]


def plan(config: TrainVcc, n_genes: int) -> tuple[tuple[int, int], ...]:
    """Return (tokens, first step) of every phase; an error if there are too few genes."""
    if config.strategy == "standard":
        return ((n_genes, 0),)
    sizes = config.phase_genes or PHASES
    if list(sizes) != sorted(set(sizes)) or sizes[0] < _FEWEST:
        raise UserError(
            f"phase-genes {', '.join(map(str, sizes))}: each phase must have more genes than the "
            f"previous one, the first at least {_FEWEST}"
        )
    if sizes[-1] > n_genes:
        sizes = _scaled(sizes, n_genes, given=bool(config.phase_genes))
    if config.max_steps < len(sizes):
        raise UserError(f"{config.max_steps} steps are too few for {len(sizes)} phases")
    starts = [config.max_steps * i // len(sizes) for i in range(len(sizes))]
    return tuple(zip(sizes, starts, strict=True))


def _scaled(sizes: Sequence[int], n_genes: int, *, given: bool) -> tuple[int, ...]:
    if given:
        number = next(i for i, n in enumerate(sizes, start=1) if n > n_genes)
        raise UserError(
            f"phase {number} wants {sizes[number - 1]:,} genes and there are {n_genes:,} tokens",
            hint="choose more genes (--tokens, select-genes --n-genes), or smaller --phase-genes",
        )
    scaled = tuple(n * n_genes // sizes[-1] for n in sizes)
    if scaled[0] < _FEWEST:
        raise UserError(
            f"{n_genes} genes are too few for {len(sizes)} phases: phase 1 would have {scaled[0]}",
            hint="use --strategy standard",
        )
    console.say(
        f"progressive: there are {n_genes:,} genes, not {sizes[-1]:,}, so the phases have "
        + ", ".join(f"{n:,}" for n in scaled)
    )
    return scaled


def graph_of(paths: Sequence[Path], tokens: Sequence[str], screen: Screen) -> Graph:
    """Return the graph of sparse attention: that of the screen, or co-expression."""
    graphs = graphs_of(screen, tokens)
    if graphs is None and paths:  # older runs saved only the path
        graphs = read(paths, tokens)
    if graphs is not None:
        if not graphs.n_edges:
            raise UserError(f"no edge of {', '.join(graphs.names)} joins two of the token genes")
        return Graph.from_edges(len(tokens), graphs.union().edge_index().T)
    column = [screen.gene_number[gene] for gene in tokens]
    return Graph.coexpressed(screen.delta[screen.rows(TRAIN)][:, column], NEAR)
