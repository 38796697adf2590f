"""Features of a classifier, learnt from training patients only: genes, centres, scales, axes.

A test patient is used only by `Fitted.bulk`, which applies what was learnt. P patients, S further
examples; features of an example are those of its patient, except for proportions drawn with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell.data.log_scale import log_profiles

if TYPE_CHECKING:
    from vcell.patients.cohort import Cohort

    Array = NDArray[Any]

MODALITIES = ("proportions", "states", "communication")
_TARGET = 1e6  # counts per million
_LEAST = 1e-8  # standard deviation below which a feature is constant


@dataclass(frozen=True)
class Axes:
    """Centre and scale, then the first principal axes, each scaled to unit variance.

    Attributes
    ----------
    columns
        Indices of the features used.
    centre, scale
        Their mean and scale over training patients.
    axes
        ``[columns, D]``; None for no projection.
    """

    columns: NDArray[np.int64]
    centre: Array
    scale: Array
    axes: Array | None

    @classmethod
    def fit(cls, x: Array, most: int | None, *, keep: int | None = None, even: bool = True) -> Axes:
        """Learn from training patients [n, F]; NaN is ignored.

        Parameters
        ----------
        most
            Maximum number of axes; None: no axes.
        keep
            Number of features to use, those of the largest variance.
        even
            Whether features are scaled to unit variance.
        """
        seen = np.isfinite(x)
        n = seen.sum(0)
        centre = np.where(seen, x, 0).sum(0) / np.maximum(n, 1)
        apart = np.where(seen, x - centre, 0)
        spread = np.sqrt((apart**2).sum(0) / np.maximum(n, 1))
        columns = np.flatnonzero((spread > _LEAST) & (n > 1))
        if keep is not None and len(columns) > keep:
            columns = np.sort(columns[np.argsort(-spread[columns], kind="stable")[:keep]])
        scale = spread[columns] if even else np.ones(len(columns))
        z = apart[:, columns] / scale
        axes = None
        if most is not None:
            _, size, right = np.linalg.svd(z, full_matrices=False)
            d = int(min(most, (size > 1e-6 * max(float(size.max(initial=0)), 1e-12)).sum()))
            axes = right[:d].T / np.maximum(size[:d], 1e-12) * np.sqrt(len(x))
        return cls(columns, centre[columns], scale, axes)

    def __call__(self, x: Array) -> Array:
        """Return features of patients; missing values are at the centre."""
        z = (x[:, self.columns] - self.centre) / self.scale
        z = np.where(np.isfinite(z), z, 0)
        found: Array = z if self.axes is None else z @ self.axes
        return found

    @property
    def width(self) -> int:
        """Number of output features."""
        return len(self.columns) if self.axes is None else self.axes.shape[1]

    def arrays(self) -> dict[str, Array]:
        """Return all parameters as arrays, for storage."""
        fitted = {"columns": self.columns, "centre": self.centre, "scale": self.scale}
        return fitted if self.axes is None else fitted | {"axes": self.axes}

    @classmethod
    def of(cls, arrays: dict[str, Array]) -> Axes:
        """Make axes from `arrays`."""
        return cls(arrays["columns"], arrays["centre"], arrays["scale"], arrays.get("axes"))


def log_counts(bulk: Array) -> Array:
    """Return ``log1p`` of counts per million."""
    return log_profiles(bulk, _TARGET)


def log_ratios(cells: Array) -> Array:
    """Return centred log ratios of numbers of cells [P, K]; half a cell is added to each type."""
    share = np.log((cells + 0.5) / (cells.sum(1, keepdims=True) + 0.5 * cells.shape[1]))
    found: Array = share - share.mean(1, keepdims=True)
    return found


def there(cohort: Cohort, learner: str) -> tuple[str, ...]:
    """Return which modalities the cohort has."""
    has = {
        "proportions": True,
        "states": learner in cohort.states,
        "communication": cohort.communication.shape[1] > 0,
    }
    return tuple(name for name in MODALITIES if has[name])


@dataclass(frozen=True)
class Fitted:
    """Transformations learnt from training patients, and the patients' examples.

    Attributes
    ----------
    bulk
        Maps log counts of any sample to features.
    x
        ``[E, D]`` bulk features of the examples: the patients' own first.
    of
        ``[E]`` training patient of each example.
    modalities
        ``[E, F]`` features of each modality.
    """

    bulk: Axes
    x: Array
    of: NDArray[np.int64]
    modalities: dict[str, Array]


def fit(cohort: Cohort, train: NDArray[np.int64], learner: str, *, genes: int, axes: int) -> Fitted:
    """Learn from the training patients (ascending) only.

    Parameters
    ----------
    learner
        Which of the cohort's states to use: those of a run that saw training patients only.
    genes
        Number of genes: those that vary most between training patients.
    axes
        Maximum number of principal axes, of bulk expression and of each modality.
    """
    own = log_counts(cohort.bulk[train])
    bulk = Axes.fit(own, axes, keep=genes, even=False)
    place = np.full(cohort.n, -1, np.int64)
    place[train] = np.arange(len(train))
    more = np.flatnonzero(place[cohort.more_of] >= 0)
    of = np.concatenate([np.arange(len(train)), place[cohort.more_of[more]]])
    x = bulk(own)
    if len(more):
        x = np.concatenate([x, bulk(log_counts(cohort.more_bulk[more]))])
    found: dict[str, Array] = {}
    for name in there(cohort, learner):
        if name == "proportions":
            raw = log_ratios(cohort.cells[train])
            scaled = Axes.fit(raw, None)
            n = np.maximum(cohort.cells[train].sum(1), 1)[of[len(train) :], None]
            drawn = log_ratios(cohort.more_cells[more] * n)
            found[name] = np.concatenate([scaled(raw), scaled(drawn)])
            continue
        if name == "states":
            raw = cohort.states[learner][train].reshape(len(train), -1).astype(np.float64)
        else:
            raw = np.log1p(cohort.communication[train].astype(np.float64))
        found[name] = Axes.fit(raw, axes)(raw)[of]
    return Fitted(bulk, x, of, found)


def bulk_of(cohort: Cohort, fitted: Fitted, patients: NDArray[np.int64]) -> Array:
    """Return the bulk features of any patients, by the learnt transformation."""
    return fitted.bulk(log_counts(cohort.bulk[patients]))
