"""The recipe of a store: the settings of `vcell prepare` and the identity of its input files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

from vcell.data.opening import Join
from vcell.store.shards import Codec

if TYPE_CHECKING:
    from io import FileIO

#: Bytes of a piece, and of a read, which stays in the cache.
_PIECE, _CACHED = 8 << 20, 1 << 18


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings for making a store from cells.

    Parameters
    ----------
    min_genes, min_counts, max_mito
        Cells with fewer genes or counts, or a larger share (0 to 1) of mitochondrial counts, are
        left out. Measured on all genes of the input.
    min_cells
        Genes seen in fewer of the kept cells are left out.
    doublet_column
        An obs column that says which cells are doublets, to be left out.
    genes
        The genes to keep, in this order (default: all). Totals still include all genes.
    target_sum
        Library size for log-normalising (default: the median of the kept cells). Counts are stored
        unscaled; this number is stored with them.
    group_by
        Keep cells with equal values of these columns together, shuffled within each group (default:
        shuffle all cells, so that any slice is a random sample).
    layer
        The layer with the values.
    join
        How the genes of several files are combined; see `vcell.data.open_cells`.
    """

    min_genes: int = 0
    min_counts: float = 0
    max_mito: float | None = None
    mito_prefix: str = "MT-"
    min_cells: int = 0
    doublet_column: str | None = None
    genes: tuple[str, ...] | None = None
    target_sum: float | None = None
    group_by: tuple[str, ...] = ()
    codec: Codec = "lz4"
    seed: int = 0
    layer: str | None = None
    join: Join = "strict"

    def __post_init__(self) -> None:
        if self.max_mito is not None and not 0 <= self.max_mito <= 1:
            raise ValueError("max_mito is a share and lies between 0 and 1")

    def plain(self) -> dict[str, Any]:
        """Return JSON types, without the default join, so that keys of older stores stay valid."""
        fields = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        if self.join == "strict":
            del fields["join"]
        return fields


@dataclass(frozen=True)
class Fingerprint:
    """The identity of an input file: its name and its content."""

    path: str
    size: int
    mtime_ns: int
    content: str

    def plain(self) -> dict[str, Any]:
        """Return JSON types."""
        return asdict(self)


def files_of(path: Path) -> list[Path]:
    """Return the files that make up an input: itself, or all in the folder."""
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file())
    return [path]


def fingerprint(path: Path, known: Iterable[dict[str, Any]] = ()) -> Fingerprint:
    """Identify an input by content; a `known` file of the same size and date is not read."""
    files = [(f, f.stat()) for f in files_of(path)]
    size = sum(s.st_size for _, s in files)
    mtime = max((s.st_mtime_ns for _, s in files), default=0)
    name = str(path.resolve())
    for old in known:
        if (old["path"], old["size"], old["mtime_ns"]) == (name, size, mtime):
            return Fingerprint(name, size, mtime, old["content"])
    digest = hashlib.sha256()
    for file, stat in files:
        relative = file.relative_to(path).as_posix() if path.is_dir() else ""
        digest.update(f"{relative}\0{stat.st_size}\0".encode())
        with file.open("rb", buffering=0) as stream:
            # crc32c of pieces runs at memory speed, unlike a cryptographic hash of all bytes.
            while (crc := _crc_of_piece(stream)) is not None:
                digest.update(crc.to_bytes(4, "little"))
    return Fingerprint(name, size, mtime, digest.hexdigest()[:32])


def _crc_of_piece(stream: FileIO) -> int | None:
    """Read the next piece by way of the cache; None at the end of the file."""
    crc, left = 0, _PIECE
    held: Any = np.empty(_CACHED, np.uint8)
    while left and (n := stream.readinto(held[:left])):
        crc, left = google_crc32c.extend(crc, held[:n]), left - n
    return crc if left < _PIECE else None


def key_of(recipe: Recipe, inputs: Iterable[Fingerprint], version: int) -> str:
    """Return the identity of a store: equal keys mean equal stores."""
    text = json.dumps(
        {"format": version, "recipe": recipe.plain(), "inputs": [i.content for i in inputs]},
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()[:32]
