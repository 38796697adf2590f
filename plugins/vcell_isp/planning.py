"""Plan a run from the options and the file of cells, before any work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vcell import console
from vcell.data import open_cells
from vcell.data.detect import require_counts
from vcell.errors import UserError
from vcell.geneformer import tokens
from vcell.geneformer.perturbation import CellBounds
from vcell.suggest import did_you_mean
from vcell.text_files import read_text
from vcell_isp.controls import matched
from vcell_isp.design import IspDesign, PerturbedGenes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.data import CellSource
    from vcell.data.column import Column
    from vcell.geneformer.checkpoint import Geneformer
    from vcell.geneformer.vocabulary import Vocabulary
    from vcell_isp import IspRun

STATE_CELLS = 1000  # cells averaged for the embedding of a state, as in upstream's example


def first_look(path: Path, config: IspRun) -> None:
    """Check the options that need no model, since loading a model takes long."""
    _check(config)
    if config.genes != "all":
        _names(config)
    with open_cells(path, config.layer) as source:
        require_counts(source, quiet=True)
        for column in (config.state, config.donor, config.cell_type):
            if column is not None:
                source.obs(column)


def design(path: Path, config: IspRun, model: Geneformer) -> IspDesign:
    """Read the cells and return the design of the run."""
    genes = _genes(config, model.vocabulary)
    with open_cells(path, config.layer) as source:
        labels = _Labels(source, config)
        rows = labels.rows(config)
        cells = tokens.encode(
            source, model.vocabulary, model.shape.n_positions, rows=rows,
            column=config.gene_column,
        )  # fmt: skip
    framed = int(model.vocabulary.cls is not None)
    start = labels.start[cells.rows]
    if not start.any():
        raise UserError("no cell of the start state has a gene of the vocabulary")
    for name in labels.targets:
        if not (labels.state[cells.rows] == labels.states.index(name)).any():
            raise UserError(f"no cell of the state {name!r} has a gene of the vocabulary")
    if config.controls:
        genes = matched(genes, cells.take(np.flatnonzero(start)), _how_many(config.controls))
    return IspDesign(
        cells, start, labels.state[cells.rows], labels.donor[cells.rows], labels.states,
        labels.donors, labels.targets, config.perturb, config.quarters,
        config.cells_with_gene, CellBounds(framed, framed, model.shape.n_positions), genes,
        labels.kind[cells.rows] if labels.kinds else labels.kind[:0], labels.kinds,
    )  # fmt: skip


def _check(config: IspRun) -> None:
    given = [name for name in ("state", "start", "goal") if getattr(config, name) is not None]
    if given and len(given) < 3:
        missing = ", ".join(f"--{n}" for n in ("state", "start", "goal") if n not in given)
        raise UserError(f"shifts towards a state need {missing} too")
    if config.alt and not given:
        raise UserError("--alt needs --state, --start and --goal")
    if config.goal is not None and config.goal in (config.start, *config.alt):
        raise UserError(f"the goal {config.goal!r} is also the start or an alternative")
    if config.paired and not (config.donor and config.goal):
        raise UserError("--paired needs --donor, --start and --goal")
    if config.screen == "first-order" and (
        config.perturb != "delete" or config.genes != "all" or not config.goal or config.anchor
    ):
        raise UserError(
            "a first-order screen covers all deletions towards a goal",
            hint="it needs --perturb delete, --genes all and --state, --start, --goal",
        )
    if config.controls:
        if not config.genes.startswith("each:"):
            raise UserError(
                "--controls needs --genes each:FILE: with all, every gene is there to compare with"
            )
        _how_many(config.controls)
    if config.anchor and config.genes.startswith("group:"):
        raise UserError("--anchor goes with --genes all or each:FILE, not with a group")


def _how_many(text: str) -> int:
    kind, _, number = text.partition(":")
    if kind != "matched" or not number.isdecimal() or int(number) < 1:
        raise UserError(f"--controls is matched:20 or another number, not {text!r}")
    return int(number)


def _genes(config: IspRun, vocabulary: Vocabulary) -> PerturbedGenes:
    """Find the tokens of the requested genes; those without a token are reported."""
    anchor = None
    if config.anchor is not None:
        anchor = vocabulary.find(config.anchor)
        if anchor < 0:
            raise UserError(f"the anchor {config.anchor!r} has no token in {vocabulary.name}")
    if config.genes == "all":
        return PerturbedGenes("all", anchor=anchor)
    how, path, names = _names(config)
    found = {name: vocabulary.find(name) for name in names}
    missing = {name: "no token in the vocabulary" for name, token in found.items() if token < 0}
    tested = tuple(dict.fromkeys(token for token in found.values() if token >= 0))
    if not tested:
        raise UserError(
            f"{path}: none of its {len(names):,} names has a token in {vocabulary.name}"
        )
    if missing:
        console.warn(f"{path}: not run, without a token: {len(missing):,} of {len(names):,} genes")
    if how == "group" and missing:
        raise UserError(
            f"{path}: {next(iter(missing))} has no token, so the group cannot be perturbed as one"
        )
    symbols = tuple(vocabulary.label(token) for token in tested)
    return PerturbedGenes(how, tested, anchor=anchor, missing=missing, symbols=symbols)


def _names(config: IspRun) -> tuple[str, Path, list[str]]:
    """Return how genes are perturbed, and the file that lists them with its names."""
    how, _, name = config.genes.partition(":")
    if how not in ("each", "group") or not name:
        raise UserError(f"--genes is all, each:FILE or group:FILE, not {config.genes!r}")
    path = Path(name)
    lines = read_text(path).splitlines()
    names = dict.fromkeys(line.split("#")[0].strip() for line in lines)
    return how, path, [name for name in names if name]


class _Labels:
    """States and donors of all cells of a file, and which cells to perturb."""

    def __init__(self, source: CellSource, config: IspRun) -> None:
        n = source.n_cells
        self.state, self.donor, self.kind = np.full((3, n), -1, np.int32)
        self.kinds: tuple[str, ...] = ()
        self.states: tuple[str, ...] = ()
        self.donors: tuple[str, ...] = ()
        self.targets: tuple[str, ...] = ()
        self.start = np.ones(n, bool)
        if config.donor is not None:
            column = source.obs(config.donor)
            self.donor, self.donors = column.codes, tuple(str(c) for c in column.categories)
        if config.cell_type is not None:
            column = source.obs(config.cell_type)
            self.kind, self.kinds = column.codes, tuple(str(c) for c in column.categories)
        if config.state is not None and config.start and config.goal:
            column = source.obs(config.state)
            self.state, self.states = column.codes, tuple(str(c) for c in column.categories)
            self.targets = (config.goal, *config.alt)
            for name in (config.start, *self.targets):
                _present(source, column, name)
            self.start = self.state == self.states.index(config.start)
        if config.paired and config.goal:
            self._pair(source, config.goal)

    def _pair(self, source: CellSource, goal: str) -> None:
        """Keep only donors that have cells of both states."""
        there = self.state == self.states.index(goal)
        both = np.intersect1d(self.donor[self.start], self.donor[there])
        both = both[both >= 0]
        if not len(both):
            raise UserError(f"{source.name}: no donor has cells of both the start and the goal")
        left = len(np.unique(self.donor[self.start | there])) - len(both)
        console.say(f"donors of both states: {len(both):,}; others, left out: {left:,}")
        inside = np.isin(self.donor, both)
        self.start &= inside
        self.state = np.where(inside, self.state, -1)

    def rows(self, config: IspRun) -> NDArray[np.int64] | None:
        """Return the cells to read, and restrict the start to those chosen."""
        rng = np.random.default_rng(config.seed)
        if config.max_cells is not None and self.start.sum() > config.max_cells:
            chosen = rng.choice(np.flatnonzero(self.start), config.max_cells, replace=False)
            self.start = np.zeros_like(self.start)
            self.start[chosen] = True
        start = self.start.copy()
        names = [config.start, *self.targets] if self.targets else []
        for name in names:
            these = np.flatnonzero(self.state == self.states.index(str(name)))
            if len(these) > STATE_CELLS:
                these = rng.choice(these, STATE_CELLS, replace=False)
            start[these] = True
        return None if start.all() else np.flatnonzero(start)


def _present(source: CellSource, column: Column, name: str) -> None:
    known = [str(c) for c in column.categories]
    counts = dict(zip(known, column.counts().tolist(), strict=True))
    if not counts.get(name):
        listed = ", ".join(f"{k} ({v:,})" for k, v in list(counts.items())[:12])
        raise UserError(
            f"{source.name}: no cell has {column.name} {name!r}{did_you_mean(name, known)}",
            hint=f"its values: {listed}",
        )
