"""Pairs of genes from tables, as edges of a graph over some genes."""

from __future__ import annotations

import csv
import gzip
from typing import TYPE_CHECKING

import numpy as np

from vcell.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray


def read_pairs(path: Path, tokens: Sequence[str]) -> NDArray[np.int64]:
    """Read (E, 2) pairs of token numbers from a csv or tsv, packed or not; others are left out."""
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            mark = "\t" if ".tsv" in path.name else ","
            rows = [row[:2] for row in csv.reader(file, delimiter=mark) if len(row) > 1]
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table of gene pairs: {error}") from None
    place = {gene: i for i, gene in enumerate(tokens)}
    pairs = [(place[a], place[b]) for a, b in rows if a in place and b in place]
    if not pairs:
        raise UserError(
            f"{path}: none of its {len(rows):,} pairs joins two of the {len(tokens):,} token genes",
            hint="its first two columns must be gene names as in the cells",
        )
    return np.array(pairs, np.int64)
