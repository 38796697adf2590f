"""Write tables piece by piece, as Parquet or CSV, in the columns of pdex or scanpy."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from vcell.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    import pandas as pd

    from vcell.metrics.de import Table

_AT_ONCE = 20  # perturbations per piece: some 400,000 lines


class TableWriter:
    """A table that grows, and takes its name once it is whole."""

    def __init__(self, path: Path, layout: str, *, stratified: bool) -> None:
        self.path, self.layout, self.stratified = path, layout, stratified
        self._aside = path.with_name(f"{path.name}.tmp-{os.getpid()}")
        self._parquet: Any = None
        self._begun = False

    def append(self, table: Table, stratum: str | None) -> None:
        """Add every perturbation of a table."""
        for start in range(0, len(table.perturbations), _AT_ONCE):
            piece = slice(start, start + _AT_ONCE)
            frame = table.frame(piece) if self.layout == "pdex" else table.scanpy(piece)
            if self.stratified:
                frame.insert(0, "stratum", stratum)
            self._write(frame)

    def _write(self, frame: pd.DataFrame) -> None:
        try:
            if self.path.suffix == ".csv":
                frame.to_csv(
                    self._aside, index=False, mode="a" if self._begun else "w",
                    header=not self._begun,
                )  # fmt: skip
            else:
                self._write_parquet(frame)
        except OSError as error:
            raise UserError(
                f"{self.path} could not be written: {error.strerror or error}"
            ) from error
        self._begun = True

    def _write_parquet(self, frame: pd.DataFrame) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for name in frame.columns[frame.dtypes == "category"]:
            frame[name] = frame[name].astype(str)
        piece = pa.Table.from_pandas(frame, preserve_index=False)
        if self._parquet is None:
            self._parquet = pq.ParquetWriter(self._aside, piece.schema, compression="zstd")
        self._parquet.write_table(piece)

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._parquet is not None:
            self._parquet.close()
        if error is None and self._begun:
            os.replace(self._aside, self.path)  # noqa: PTH105
        else:
            self._aside.unlink(missing_ok=True)
        if error is None and not self._begun:
            raise UserError("there was nothing to test, so nothing was written")
