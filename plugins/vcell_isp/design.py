"""What a run perturbs: its cells as tokens, its genes, and the resulting events.

The design is fixed before any work and kept in the run directory (``design.npz``, ``design.json``),
so that every process has the same events in the same order.
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

GROUP = -1  # stands for the token of an event that perturbs several genes


@dataclass(frozen=True)
class PerturbedGenes:
    """Which genes are perturbed, by token.

    Attributes
    ----------
    how
        all, each or group.
    tested
        Tokens asked for; empty for all.
    controls
        For each tested token, the tokens of its matched nulls.
    anchor
        The token perturbed together with each other gene, or None.
    missing
        Names that lead to no token, and why.
    symbols
        Of each tested token: its symbol.
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
    def wanted(self) -> NDArray[np.int64] | None:
        """Tokens that are perturbed by themselves, ascending; None for every gene of a cell."""
        if self.chosen is not None:
            return np.array(sorted(self.chosen), np.int64)
        if self.how == "all":
            return None
        nulls = {token for tokens in self.controls.values() for token in tokens}
        return np.array(sorted({*self.tested, *nulls}), np.int64)


@dataclass(frozen=True)
class CellEvents:
    """The events of one cell: its tokens with those it lacks, and copies with each event's gene."""

    tokens: NDArray[np.int32]
    length: int
    parts: tuple[tuple[Copies, NDArray[np.int64]], ...]

    def __len__(self) -> int:
        return sum(len(genes) for _, genes in self.parts)

    def cut(self, start: int, stop: int) -> CellEvents:
        """Return the events from `start` to `stop`."""
        kept, before = [], 0
        for copies, genes in self.parts:
            some = slice(max(start - before, 0), max(min(stop - before, len(genes)), 0))
            if some.start < some.stop:
                part = replace(copies, at=copies.at[some], to=copies.to[some])
                kept.append((part, genes[some]))
            before += len(genes)
        return CellEvents(self.tokens, self.length, tuple(kept))


@dataclass(frozen=True)
class IspDesign:
    """Everything that decides which numbers a run computes.

    Attributes
    ----------
    cells
        Ranked cells: those to perturb, and those that states are measured from.
    start
        ``[C]`` which are perturbed.
    state, donor
        ``[C]`` number of each cell's state and donor, -1 where it has none.
    states, donors
        Their names.
    targets
        States to measure shifts towards, the goal first.
    kind, kinds
        ``[C]`` number of each cell's type, -1 where it has none; and the names of the types.
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
        """Cells to perturb, the longest first: what does not fit memory is met at once."""
        chosen = np.flatnonzero(self.start)
        return chosen[np.argsort(-self.cells.lengths[chosen], kind="stable")]

    def events(self, cell: int) -> CellEvents:
        """Return the events of one cell; where no gene would be left, there is nothing to embed."""
        found = self._events(self.cells[cell])
        parts = tuple(p for p in found.parts if self.frame.n_genes(p[0].length) > 0 and len(p[1]))
        return replace(found, parts=parts)

    def _events(self, tokens: NDArray[np.int32]) -> CellEvents:
        length, frame, wanted = len(tokens), self.frame, self.genes.wanted
        if self.genes.how == "group":
            return self._group(tokens)
        if self.genes.anchor is not None:
            return self._pairs(tokens, self.genes.anchor, wanted)
        places = np.arange(frame.first, length - frame.last)
        if wanted is not None:
            places = places[np.isin(tokens[places], wanted)]
        copies = perturbation.single(self.operation, length, places, frame, quarters=self.quarters)
        parts = [_moving(copies, tokens[places].astype(np.int64))]
        lacking = self._lacking(tokens, wanted)
        if len(lacking):
            sources = length + np.arange(len(lacking))
            parts.append((perturbation.absent(length, sources, frame), lacking))
        extended = np.concatenate([tokens, lacking.astype(np.int32)])
        return CellEvents(extended, length, tuple(parts))

    def _lacking(
        self, tokens: NDArray[np.int32], wanted: NDArray[np.int64] | None
    ) -> NDArray[np.int64]:
        """Return the listed genes that a cell lacks and that can be overexpressed nevertheless."""
        if wanted is None or self.operation != "overexpress" or self.only_present:
            return np.zeros(0, np.int64)
        return wanted[~np.isin(wanted, tokens)]

    def _group(self, tokens: NDArray[np.int32]) -> CellEvents:
        """Perturb all listed genes at once; a deletion needs all of them in the cell."""
        length, place = len(tokens), {int(t): i for i, t in enumerate(tokens)}
        lacking = [t for t in self.genes.tested if t not in place]
        if lacking and (self.operation != "overexpress" or self.only_present):
            return CellEvents(tokens, length, ())
        number = {t: length + i for i, t in enumerate(lacking)}
        sources = [place.get(t, number.get(t, 0)) for t in self.genes.tested]
        copies = perturbation.group(
            self.operation, length, sources, self.frame, quarters=self.quarters
        )
        extended = np.concatenate([tokens, np.array(lacking, np.int32)])
        return CellEvents(extended, length, ((copies, np.array([GROUP], np.int64)),))

    def _pairs(
        self, tokens: NDArray[np.int32], anchor: int, wanted: NDArray[np.int64] | None
    ) -> CellEvents:
        """Perturb the anchor together with each other gene of the cell."""
        length = len(tokens)
        found = np.flatnonzero(tokens == anchor)
        absent = not len(found)
        if absent and (self.operation != "overexpress" or self.only_present):
            return CellEvents(tokens, length, ())
        extended = np.concatenate([tokens, np.array([anchor] if absent else [], np.int32)])
        source = length if absent else int(found[0])
        whole = perturbation.group(
            self.operation, length, [source], self.frame, quarters=self.quarters
        )
        places = np.arange(self.frame.first, len(whole.base) - self.frame.last)
        genes = extended[whole.base[places]]
        keep = genes != anchor
        if wanted is not None:
            keep &= np.isin(genes, wanted)
        copies = perturbation.single(
            self.operation, length, places[keep], self.frame, quarters=self.quarters,
            base=whole.base, touched=(source,),
        )  # fmt: skip
        copies = replace(copies, overflow=whole.overflow)
        return CellEvents(extended, length, ((copies, genes[keep].astype(np.int64)),))

    def counts(self) -> NDArray[np.int64]:
        """Return how many events each cell of `order` has."""
        return np.array([len(self.events(int(cell))) for cell in self.order], np.int64)

    # -- on disk ---------------------------------------------------------------------------------

    def save(self, run: Run) -> None:
        """Keep the design in a run directory."""
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
        run.save_file("design.json", lambda path: _write(path, json.dumps(text)))

    @classmethod
    def load(cls, folder: Path) -> IspDesign:
        """Read the design of a run."""
        text = read_json(folder / "design.json")
        try:
            with np.load(folder / "design.npz", allow_pickle=False) as kept:
                arrays = {name: kept[name] for name in kept.files}
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
                f"{folder}: the design of the run is damaged: {error}", hint="start it anew"
            ) from None


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _moving(copies: Copies, genes: NDArray[np.int64]) -> tuple[Copies, NDArray[np.int64]]:
    """Leave out events that change nothing: a gene moved to where it is."""
    if copies.kind != "move":
        return copies, genes
    keep = copies.at != copies.to
    return replace(copies, at=copies.at[keep], to=copies.to[keep]), genes[keep]
