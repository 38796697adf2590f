"""A temporary file without a name, for what is too large for memory; it goes with its process."""

from __future__ import annotations

import os
import tempfile
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.data.descriptor import read_into
from vcell.errors import DiskFull, UserError
from vcell.outputs.aside import FULL, room

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HINT = "set TMPDIR to a folder with more room"


class OverflowFile:
    """Arrays that are appended, and read from any offset; reading is thread-safe.

    `close` deletes it.
    """

    def __init__(self) -> None:
        try:
            self.folder = tempfile.gettempdir()
            with tempfile.TemporaryFile(prefix="vcell-") as file:
                self._file = os.dup(file.fileno())
        except OSError as error:
            raise UserError(
                f"no temporary file can be made: {error.strerror or error}", hint=_HINT
            ) from error
        self.size = 0
        self.close = weakref.finalize(self, os.close, self._file)  # at the latest when it is lost

    def append(self, array: NDArray[Any]) -> None:
        """Write an array to the end."""
        left = array.view(np.uint8).data
        while left:
            try:
                n = os.pwrite(self._file, left, self.size)
            except OSError as error:
                what = f"the temporary file in {self.folder} cannot be written"
                if error.errno in FULL:
                    why = room(error)
                    raise DiskFull(f"{what}: {why}", hint=_HINT, why=why) from error
                raise UserError(f"{what}: {error.strerror}", hint=_HINT) from error
            left, self.size = left[n:], self.size + n

    def fill(self, out: NDArray[Any], offset: int) -> None:
        """Read what was written from an offset on."""
        if read_into(self._file, out, offset) < out.nbytes:
            raise UserError(f"the temporary file in {self.folder} was cut short")
