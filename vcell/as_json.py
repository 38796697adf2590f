"""Convert results, settings and events to JSON types, without importing numpy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def none_if_nan(value: Any) -> Any:
    """Return None in place of NaN, the only value unequal to itself; infinities stay."""
    return None if value != value else value  # noqa: PLR0124


def plain(value: Any) -> Any:
    """Return `value` as JSON types; NaN and infinities, which JSON lacks, become null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return plain(value.tolist())
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
