"""What a run perturbs: its cells as tokens, its genes, and the resulting events.

The design is fixed before any work and saved in the run directory (``design.npz``,
``design.json``), so that every process has the same events in the same order.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell.errors import UserError
from vcell.geneformer import perturbation
from vcell.geneformer.perturbation import CellBounds, Copies, Operation
from vcell.geneformer.tokens import TokenCells
from vcell.runs.files import read_json

if TYPE_CHECKING:
    from vcell.runs import Run

GROUP = -1  # the token of events that perturb several genes


@dataclass(frozen=True)
class PerturbedGenes:
    """The perturbed genes, by token.

    Attributes
    ----------
    how
        ``all``, ``each`` or ``group``.
    tested
        Requested tokens; empty for all.
    controls
        The tokens of the matched nulls of each tested token.
    anchor
        The token that is perturbed together with each other gene, or None.
    missing
        Names without a token, and the reason.
    symbols
        The symbol of each tested token.
    chosen
        After a first-order screen: the tokens to compute exactly, or None.
    """

    how: str
    tested: tuple[int, ...] = ()
    controls: dict[int, tuple[int, ...]] = field(default_factory=dict)
    anchor: int | None = None
    missing: dict[str, str] = field(default_factory=dict)
    symbols: tuple[str, ...] = ()
    chosen: tuple[int, ...] | None = None

    @property
    def individual(self) -> NDArray[np.int64] | None:
        """Tokens perturbed individually, ascending; None for every gene of a cell."""
        if self.chosen is not None:
            return np.array(sorted(self.chosen), np.int64)
        if self.how == "all":
            return None
        nulls = {token for tokens in self.controls.values() for token in tokens}
        return np.array(sorted({*self.tested, *nulls}), np.int64)


@dataclass(frozen=True)
class CellEvents:
    """The events of one cell: its tokens, the tokens it lacks, and a copy for each event."""

    tokens: NDArray[np.int32]
    length: int
    parts: tuple[tuple[Copies, NDArray[np.int64]], ...]

    def __len__(self) -> int:
        return sum(len(genes) for _, genes in self.parts)

    def cut(self, start: int, stop: int) -> CellEvents:
        """Return the events from `start` to `stop`."""
        rows, before = [], 0
        for copies, genes in self.parts:
            some = slice(max(start - before, 0), max(min(stop - before, len(genes)), 0))
            if some.start < some.stop:
                part = replace(copies, at=copies.at[some], to=copies.to[some])
                rows.append((part, genes[some]))
            before += len(genes)
        return CellEvents(self.tokens, self.length, tuple(rows))


@dataclass(frozen=True)
class IspDesign:
    """Everything that determines the results of a run.

    Attributes
    ----------
    cells
        Ranked cells: those to perturb, and those that define states.
    start
        ``[C]`` whether each cell is perturbed.
    state, donor
        ``[C]`` number of each cell's state and donor, -1 for none.
    states, donors
        Their names.
    targets
        States towards which shifts are measured, the goal first.
    kind, kinds
        ``[C]`` number of each cell's type, -1 for none; and the names of the types.
    """

    cells: TokenCells
    start: NDArray[np.bool_]
    state: NDArray[np.int32]
    donor: NDArray[np.int32]
    states: tuple[str, ...]
    donors: tuple[str, ...]
    targets: tuple[str, ...]
    operation: Operation
    quarters: int
    only_present: bool
    frame: CellBounds
    genes: PerturbedGenes
    kind: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    kinds: tuple[str, ...] = ()

    @property
    def order(self) -> NDArray[np.int64]:
        """Cells to perturb, longest first, so that running out of memory shows at once."""
        chosen = np.flatnonzero(self.start)
        return chosen[np.argsort(-self.cells.lengths[chosen], kind="stable")]

    def events(self, cell: int) -> CellEvents:
        """Return the events of one cell, without those that would leave no gene to embed."""
        found = self._events(self.cells[cell])
        parts = tuple(p for p in found.parts if self.frame.n_genes(p[0].length) > 0 and len(p[1]))
        return replace(found, parts=parts)

    def _events(self, tokens: NDArray[np.int32]) -> CellEvents:
        length, frame, individual = len(tokens), self.frame, self.genes.individual
        if self.genes.how == "group":
            return self._group(tokens)
        if self.genes.anchor is not None:
            return self._pairs(tokens, self.genes.anchor, individual)
        places = np.arange(frame.first, length - frame.last)
        if individual is not None:
            places = places[np.isin(tokens[places], individual)]
        copies = perturbation.single(self.operation, length, places, frame, quarters=self.quarters)
        parts = [_moving(copies, tokens[places].astype(np.int64))]
        absent = self._lacking(tokens, individual)
        if len(absent):
            sources = length + np.arange(len(absent))
            parts.append((perturbation.absent(length, sources, frame), absent))
        extended = np.concatenate([tokens, absent.astype(np.int32)])
        return CellEvents(extended, length, tuple(parts))

    def _lacking(
        self, tokens: NDArray[np.int32], individual: NDArray[np.int64] | None
    ) -> NDArray[np.int64]:
        """Return the listed genes that a cell lacks and that can still be overexpressed."""
        if individual is None or self.operation != "overexpress" or self.only_present:
            return np.zeros(0, np.int64)
        return individual[~np.isin(individual, tokens)]

    def _group(self, tokens: NDArray[np.int32]) -> CellEvents:
        """Perturb all listed genes at once; a deletion needs all of them in the cell."""
        length, place = len(tokens), {int(t): i for i, t in enumerate(tokens)}
        absent = [t for t in self.genes.tested if t not in place]
        if absent and (self.operation != "overexpress" or self.only_present):
            return CellEvents(tokens, length, ())
        number = {t: length + i for i, t in enumerate(absent)}
        sources = [place.get(t, number.get(t, 0)) for t in self.genes.tested]
        copies = perturbation.group(
            self.operation, length, sources, self.frame, quarters=self.quarters
        )
        extended = np.concatenate([tokens, np.array(absent, np.int32)])
        return CellEvents(extended, length, ((copies, np.array([GROUP], np.int64)),))

    def _pairs(
        self, tokens: NDArray[np.int32], anchor: int, individual: NDArray[np.int64] | None
    ) -> CellEvents:
        """Perturb the anchor together with each other gene of the cell."""
        length = len(tokens)
        found = np.flatnonzero(tokens == anchor)
        absent = not len(found)
        if absent and (self.operation != "overexpress" or self.only_present):
            return CellEvents(tokens, length, ())
        extended = np.concatenate([tokens, np.array([anchor] if absent else [], np.int32)])
        source = length if absent else int(found[0])
        events = perturbation.group(
            self.operation, length, [source], self.frame, quarters=self.quarters
        )
        places = np.arange(self.frame.first, len(events.base) - self.frame.last)
        genes = extended[events.base[places]]
        keep = genes != anchor
        if individual is not None:
            keep &= np.isin(genes, individual)
        copies = perturbation.single(
            self.operation, length, places[keep], self.frame, quarters=self.quarters,
            base=events.base, touched=(source,),
        )  # fmt: skip
        copies = replace(copies, overflow=events.overflow)
        return CellEvents(extended, length, ((copies, genes[keep].astype(np.int64)),))

    def counts(self) -> NDArray[np.int64]:
        """Return the number of events of each cell of `order`."""
        return np.array([len(self.events(int(cell))) for cell in self.order], np.int64)

    # -- on disk ---------------------------------------------------------------------------------

    def save(self, run: Run) -> None:
        """Save the design in a run directory."""
        arrays: dict[str, Any] = {
            "rows": self.cells.rows, "indptr": self.cells.indptr, "tokens": self.cells.tokens,
            "n_genes": self.cells.n_genes, "n_ties": self.cells.n_ties, "start": self.start,
            "state": self.state, "donor": self.donor, "kind": self.kind,
        }  # fmt: skip

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez_compressed(file, **arrays)

        run.save_file("design.npz", write)
        text: dict[str, Any] = {
            "states": self.states, "donors": self.donors, "targets": self.targets,
            "operation": self.operation, "quarters": self.quarters,
            "only_present": self.only_present, "frame": asdict(self.frame),
            "genes": asdict(self.genes), "kinds": self.kinds,
        }  # fmt: skip
        run.save_file("design.json", json.dumps(text))

    @classmethod
    def load(cls, folder: Path) -> IspDesign:
        """Read the design of a run."""
        text = read_json(folder / "design.json")
        try:
            with np.load(folder / "design.npz", allow_pickle=False) as saved:
                arrays = {name: saved[name] for name in saved.files}
            genes = text["genes"]
            controls = {int(k): tuple(v) for k, v in genes["controls"].items()}
            chosen = None if genes["chosen"] is None else tuple(genes["chosen"])
            cells = TokenCells(
                *(arrays[name] for name in ("rows", "indptr", "tokens", "n_genes", "n_ties"))
            )
            return cls(
                cells, arrays["start"], arrays["state"], arrays["donor"], tuple(text["states"]),
                tuple(text["donors"]), tuple(text["targets"]), text["operation"], text["quarters"],
                text["only_present"], CellBounds(**text["frame"]),
                PerturbedGenes(
                    genes["how"], tuple(genes["tested"]), controls, genes["anchor"],
                    genes["missing"], tuple(genes.get("symbols", ())), chosen,
                ),
                arrays.get("kind", np.zeros(0, np.int32)), tuple(text.get("kinds", ())),
            )  # fmt: skip
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{folder}: the design of the run is damaged: {error}", hint="start a new run"
            ) from None


def _moving(copies: Copies, genes: NDArray[np.int64]) -> tuple[Copies, NDArray[np.int64]]:
    """Leave out events that change nothing: a gene moved to its own place."""
    if copies.kind != "move":
        return copies, genes
    keep = copies.at != copies.to
    return replace(copies, at=copies.at[keep], to=copies.to[keep]), genes[keep]
