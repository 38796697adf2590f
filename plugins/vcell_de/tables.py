"""Write tables piece by piece, as Parquet or CSV, with the columns of pdex or scanpy."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vcell import arrow, outputs
from vcell.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vcell.metrics.significance import DeTable

_AT_ONCE = 20  # perturbations per piece, some 400,000 rows


@contextmanager
def growing_table(path: Path, layout: str, *, stratified: bool) -> Iterator[TableWriter]:
    """Yield a table to append to; it gets its name when it is complete."""
    with outputs.whole(path) as aside:
        writer = TableWriter(aside, layout, csv=path.suffix == ".csv", stratified=stratified)
        try:
            yield writer
        finally:
            writer.close()
        if not writer.begun:
            raise UserError("nothing could be tested, so nothing was written")


class TableWriter:
    """A table written piece by piece."""

    def __init__(self, path: Path, layout: str, *, csv: bool, stratified: bool) -> None:
        self.path, self.layout, self.stratified = path, layout, stratified
        self.csv = csv
        self._parquet: Any = None
        self.begun = False
        self.failed: OSError | None = None  # after a failure nothing more is written

    def append(self, table: DeTable, stratum: str | None) -> None:
        """Add every perturbation of a table."""
        if self.layout == "pdex" and not self.csv:
            for piece in table.arrow(_AT_ONCE, plain=True):
                self._write(_beside(piece, stratum) if self.stratified else piece)
            return
        for start in range(0, len(table.perturbations), _AT_ONCE):
            rows = slice(start, start + _AT_ONCE)
            frame = table.frame(rows) if self.layout == "pdex" else table.scanpy(rows)
            if self.stratified:
                frame.insert(0, "stratum", stratum)
            self._write(frame)

    def _write(self, piece: Any) -> None:
        """Write a data frame or an Arrow table."""
        if self.failed is not None:
            return
        try:
            if self.csv:
                piece.to_csv(
                    self.path, index=False, mode="a" if self.begun else "w", header=not self.begun
                )
            else:
                self._write_parquet(piece)
        except OSError as error:
            self.failed = error
        self.begun = True

    def _write_parquet(self, piece: Any) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not isinstance(piece, pa.Table):
            piece = pa.Table.from_pandas(piece, preserve_index=False)
        if self._parquet is None:
            schema = piece.schema.with_metadata(
                {**(piece.schema.metadata or {}), outputs.MADE_BY: outputs.made_by()}
            )
            repeated = [field.name for field in schema if not pa.types.is_floating(field.type)]
            self._parquet = pq.ParquetWriter(
                self.path, schema, compression="zstd", use_dictionary=repeated
            )
        self._parquet.write_table(piece)

    def close(self) -> None:
        """Close the file."""
        parquet, self._parquet = self._parquet, None
        try:
            if parquet is not None:
                parquet.close()
        except OSError as error:
            self.failed = self.failed or error


def _beside(piece: Any, stratum: str | None) -> Any:
    """Return a table with a column for the stratum, the first."""
    return piece.add_column(0, "stratum", arrow.strings([stratum or ""], each=len(piece)))
