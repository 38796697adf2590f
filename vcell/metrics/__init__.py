"""Scores and tests: arrays and blocks in, arrays and frames out. torch is used in one module only.

- `score(prediction, real)`: the challenge's scores of AnnData or files, as `vcell evaluate`.
- `quick`: scores for every epoch; `screen` and `de.compare`: a screen tested from end to end.
- `groups`: sums, means and rank sums of groups of cells, from CSR blocks, in bounded memory.
- `de`: differential expression from the sums of `groups` (`differential`, `benjamini_hochberg`).
- `vcc2025`: DES, PDS, MAE and their relatives; `calls`: more of cell-eval's full profile.
- `measured`: one side measured; `vcc2026`: the six members of two sides, both anchors, the scale.
- `scaled`: cells normalised on the fly; `torch`: PDS and MAE of tensors, with gradients.

Profiles and tables are all that the metrics need, so a trainer scores an epoch's P x G pseudobulks
in milliseconds, without any cell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vcell.metrics.evaluation.scoring import score

__all__ = ["score"]


def __getattr__(name: str) -> Any:
    """Import `score` on first access."""
    if name == "score":
        from vcell.metrics.evaluation.scoring import score

        return score
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
