"""Turn errors of file libraries into one sentence that names the file and the part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vcell.errors import UserError

_DAMAGED = "the file may be truncated, damaged or still being written: copy or write it again"
_PLUGIN_HINT = "it is compressed by an HDF5 plugin that is missing here: pip install hdf5plugin"


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Convert errors while reading; `where` names file and part for the user."""
    try:
        yield
    except (UserError, MemoryError, NameError):
        raise
    except Exception as error:
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        text = " ".join(text.split()) or type(error).__name__
        missing_filter = "filter" in text and ("registered" in text or "not available" in text)
        hint = _PLUGIN_HINT if missing_filter else _DAMAGED
        if "open object" in text:  # h5py's words for a soft or external link that is broken
            hint = "a link inside the file leads to something that is not there"
        raise UserError(f"{where} cannot be read: {text}", hint=hint) from error


def damaged(where: str, what: str) -> UserError:
    """Return the error for a part that was read but is invalid."""
    return UserError(f"{where}: {what}", hint=_DAMAGED)
