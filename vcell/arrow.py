"""Convert numpy arrays and strings to Arrow, without pandas.

pyarrow imports pandas, which takes a third of a second, when it converts an array or a list. Arrays
made from buffers avoid that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def numbers(values: NDArray[Any], *, nan_is_null: bool = False) -> Any:
    """Return integers or floats as an Arrow array that shares their memory."""
    import pyarrow as pa

    values = np.ascontiguousarray(values)
    missing = np.isnan(values) if nan_is_null else np.zeros(0, bool)
    valid = pa.py_buffer(np.packbits(~missing, bitorder="little")) if missing.any() else None
    buffers = [valid, pa.py_buffer(values)]
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), buffers)


def strings(values: Sequence[str]) -> Any:
    """Return text as an Arrow array."""
    import pyarrow as pa

    coded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, coded)], dtype=np.int32)
    return pa.StringArray.from_buffers(
        len(coded), pa.py_buffer(ends), pa.py_buffer(b"".join(coded))
    )


def categories(codes: NDArray[np.integer[Any]], texts: Any) -> Any:
    """Return codes into an Arrow array of text."""
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(numbers(codes.astype(np.int32)), texts)


def is_categories(values: Any) -> bool:
    """Whether an array or a column is dictionary-encoded."""
    import pyarrow as pa

    return bool(pa.types.is_dictionary(values.type))
