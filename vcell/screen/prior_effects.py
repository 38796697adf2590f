"""Effects measured in other screens, as `vcell effects` writes them, and how far to trust them.

A Parquet file has a row for each perturbation and context: ``perturbation``, ``context``, ``cells``
and, as lists over the genes, ``effect`` and ``standard_error``; the genes are in the file's
metadata. K prior perturbations, N genes, P perturbations.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell import outputs
from vcell.errors import UserError
from vcell.genes import GeneIndex
from vcell.screen.targets import members
from vcell.text_files import require_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_META = b"vcell.effects"
_COLUMNS = ("perturbation", "context", "cells", "effect", "standard_error")


@dataclass(frozen=True)
class PriorEffects:
    """Effects of a screen.

    Attributes
    ----------
    genes
        (N,) names.
    perturbations, contexts, cells
        (K,) of each row.
    effect, error
        (K, N) change of the mean log1p expression, and its standard error.
    """

    genes: list[str]
    perturbations: list[str]
    contexts: list[str]
    cells: NDArray[np.int64]
    effect: NDArray[np.float32]
    error: NDArray[np.float32]

    def write(self, path: Path, about: dict[str, Any]) -> None:
        """Write the file; `about` says where the effects come from."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        def lists(values: NDArray[np.float32]) -> Any:
            flat = pa.array(np.ascontiguousarray(values).ravel())
            return pa.FixedSizeListArray.from_arrays(flat, len(self.genes))

        columns = {
            "perturbation": pa.array(self.perturbations, pa.string()),
            "context": pa.array(self.contexts, pa.string()),
            "cells": pa.array(self.cells),
            "effect": lists(self.effect),
            "standard_error": lists(self.error),
        }
        table = pa.table(columns).replace_schema_metadata(
            {
                _META: json.dumps({"genes": self.genes, **about}),
                outputs.MADE_BY: outputs.made_by(),
            }
        )
        with outputs.whole(path) as aside:
            pq.write_table(table, aside, compression="zstd")

    @classmethod
    def read(cls, path: Path) -> PriorEffects:
        """Read what `write` wrote; a UserError where it is something else."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        hint = "vcell effects CELLS -o effects.parquet makes one"
        require_file(path, hint)
        try:
            table = pq.read_table(path)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(f"{path} is not a file of effects: {error}", hint=hint) from None
        meta = (table.schema.metadata or {}).get(_META)
        if meta is None or not set(_COLUMNS) <= set(table.column_names):
            raise UserError(f"{path} is a Parquet file, but not one of effects", hint=hint)
        genes = [str(gene) for gene in json.loads(meta)["genes"]]

        def matrix(name: str) -> NDArray[np.float32]:
            flat = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            return np.asarray(flat, np.float32).reshape(table.num_rows, len(genes))

        return cls(
            genes, table["perturbation"].to_pylist(), table["context"].to_pylist(),
            np.asarray(table["cells"], np.int64), matrix("effect"), matrix("standard_error"),
        )  # fmt: skip

    def components(self, rank: int) -> tuple[list[str], NDArray[np.float32]]:
        """Return target genes and (genes, R): what single knock-downs do, as features of theirs."""
        names, effect = self.believed(self.genes)
        single = [i for i, name in enumerate(names) if len(members(name)) == 1]
        if len(single) < 2:
            raise UserError("fewer than two single perturbations: no features can be made of them")
        centred = effect[single] - effect[single].mean(axis=0)
        left, values, _ = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
        rank = min(rank, len(single) - 1)
        genes = [members(names[i])[0] for i in single]
        return genes, np.asarray(left[:, :rank] * values[:rank], np.float32)

    def believed(self, genes: Sequence[str]) -> tuple[list[str], NDArray[np.float32]]:
        """Return names and (K, N) effects on other genes, averaged over contexts and shrunk.

        Each gene's effects shrink by how much of their variance over perturbations is noise. Genes
        are found under any of their names; those that this screen did not measure are 0.
        """
        names = list(dict.fromkeys(self.perturbations))
        place = {name: i for i, name in enumerate(names)}
        rows = np.array([place[name] for name in self.perturbations])
        weight = 1 / np.maximum(np.square(self.error, dtype=np.float64), 1e-12)
        total, summed = np.zeros((2, len(names), len(self.genes)))
        np.add.at(total, rows, weight)
        np.add.at(summed, rows, weight * self.effect)
        effect, noise = summed / total, 1 / total
        spread = np.square(effect - effect.mean(axis=0)).mean(axis=0)
        signal = np.maximum(spread - noise.mean(axis=0), 0)
        centre = effect.mean(axis=0)
        shrunk = centre + (effect - centre) * signal / np.maximum(signal + noise, 1e-12)
        index = GeneIndex(self.genes).match(genes).index
        found = np.zeros((len(names), len(genes)), np.float32)
        found[:, index >= 0] = shrunk[:, index[index >= 0]]
        return names, found
