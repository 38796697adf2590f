"""Division where the denominator may be zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def share(
    part: NDArray[Any],
    whole: NDArray[Any],
    *,
    otherwise: float = np.nan,
    where: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Return part / whole; `otherwise` where the whole is not positive (or `where` is false)."""
    out = np.full(np.shape(whole), otherwise)
    np.divide(part, whole, out=out, where=whole > 0 if where is None else where)
    return out
