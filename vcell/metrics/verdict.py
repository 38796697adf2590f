"""Does a model beat the baselines? Paired differences over held-out perturbations, with intervals.

Every held-out perturbation of every fold gives one difference between the model and a baseline.
The interval of their mean comes from a bootstrap over perturbations. Perturbations that share a
target gene (``A`` and ``A+B``, or ``A`` in two contexts) are not independent, so random weights are
drawn for the genes: the weight of a set S is 1 + sum over g in S of (e_g - 1) / sqrt(|S|), e_g
exponential with mean 1. Weights of two sets then correlate by |S and T| / sqrt(|S| |T|). Where no
gene is shared this is the Bayesian bootstrap (Rubin 1981).

A bootstrap interval is too short for few perturbations. Its ends are moved out by the factor that
makes it Student's interval for normal differences (Hesterberg 2015, section 5.3).

A model "beats the baselines" only if the interval lies above 0 against every one of them; this
needs no correction for several comparisons, as all must hold at once (Berger 1982).
P perturbations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

FEWEST = 5  # with fewer perturbations there is no claim
LEVEL = 0.95
_DRAWS, _AT_ONCE = 2000, 100  # bootstrap samples, and how many are in memory at once
_NARROW = 0.04  # intervals narrower than this are printed in thousandths
_FINEST = 9  # digits of what would look like 0
_SAME = 1e-9  # differences below it are rounding


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences, and its interval.

    Attributes
    ----------
    mean, low, high
        The mean over perturbations and the ends of its 95 % interval (NaN for fewer than five).
    error
        The standard error (NaN for fewer than two).
    n
        How many perturbations of different targets it is a mean of.
    """

    mean: float
    low: float
    high: float
    error: float
    n: int

    @property
    def none(self) -> bool:
        """Whether every single difference is zero."""
        return self.mean == self.low == self.high == 0

    def __str__(self) -> str:
        digits = 3 if self.high - self.low < _NARROW else 2
        low, high = (_seen(value, digits) for value in (self.low, self.high))
        return f"{_seen(self.mean, 3)} ({low} to {high})"


@dataclass(frozen=True)
class Verdict:
    """What may be claimed about a model.

    Attributes
    ----------
    claim
        ``beats``, ``worse`` (than one baseline at least), ``open`` (no difference shown), ``same``
        (as a baseline, in every perturbation), ``few`` (too few perturbations) or ``baseline`` (the
        model is itself a baseline).
    nearest
        The baseline whose interval has the lowest lower end, which decides.
    over
        The differences to every baseline.
    text
        The same as a sentence.
    """

    claim: Literal["beats", "worse", "open", "same", "few", "baseline"]
    nearest: str | None
    over: dict[str, Difference]
    text: str

    def plain(self) -> dict[str, Any]:
        """Return the verdict for JSON; unknown ends are None."""
        over = {
            name: {
                key: None if math.isnan(value := getattr(one, key)) else value
                for key in ("mean", "low", "high", "error", "n")
            }
            for name, one in self.over.items()
        }
        return {
            "claim": self.claim, "nearest": self.nearest, "over": over, "level": LEVEL,
            "text": self.text,
        }  # fmt: skip


def gains(scores: Mapping[str, Mapping[str, NDArray[np.floating]]]) -> dict[str, Array]:
    """Return the gain (P,) of every model: its share of the way from the mean to perfect.

    The mean of the gains in PDS and MAE, each scaled as the challenge scales it. The scale is that
    of all perturbations together, so the mean of the gains is the gain of the means. Where PDS is
    NaN, the gain is that in MAE.

    Parameters
    ----------
    scores
        ``pds`` and ``mae`` (P,) of every model, ``mean`` among them.
    """
    base = scores["mean"]
    available = [name for name in ("pds", "mae") if not np.isnan(base[name]).all()]
    level = {name: float(np.nanmean(base[name])) for name in available}
    return {name: gain(one, base, level) for name, one in scores.items()}


def gain(
    scores: Mapping[str, NDArray[np.floating] | float],
    before: Mapping[str, NDArray[np.floating] | float],
    level: Mapping[str, float],
) -> Array:
    """Return by how much scores are better than others, on the challenge's scale.

    The mean over the metrics of `level`, the scores of the mean effect: from there to a perfect
    score is a gain of 1.
    """
    found = []
    for metric, mean in level.items():
        one, other = (np.asarray(x[metric], np.float64) for x in (scores, before))
        zero_is_best = metric == "mae"
        room = max(mean, 1e-12) if zero_is_best else max(1 - mean, 1e-9)
        found.append((other - one if zero_is_best else one - other) / room)
    there = ~np.isnan(found)
    with np.errstate(invalid="ignore"):  # NaN where no metric is there
        return np.asarray(np.where(there, found, 0).sum(axis=0) / there.sum(axis=0))


def difference(values: NDArray[np.floating], targets: Sequence[tuple[str, ...]]) -> Difference:
    """Return the mean of paired differences (P,) and its 95 % interval.

    Parameters
    ----------
    values
        One difference for each perturbation.
    targets
        The target genes of each; perturbations that share genes are weighted together.
    """
    return _differences(np.asarray(values, np.float64)[:, None], targets)[0]


def _differences(values: Array, targets: Sequence[tuple[str, ...]]) -> list[Difference]:
    """Return the means of columns (P, B), and their intervals."""
    values = np.where(np.abs(values) < _SAME, 0.0, values)
    n, width = len(set(map(frozenset, targets))), values.shape[1]
    mean = values.mean(axis=0) if len(values) else np.full(width, math.nan)
    error, low, high = np.full((3, width), math.nan)
    member = _members(targets)
    free = _independent(member)
    if n > 1 and free > 1:
        apart = _bootstrap(values, member) - mean
        error = apart.std(axis=0) * math.sqrt((free + 1) / (free - 1))
        if n >= FEWEST:
            ends = np.quantile(apart, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
            low, high = mean + ends * _wider(free)
    columns = np.stack([mean, low, high, error], axis=1).tolist()
    return [Difference(a, b, c, d, n) for a, b, c, d in columns]


def _bootstrap(values: Array, member: sp.csr_array) -> Array:
    """Return the means (draws, B) under random weights of the genes."""
    rng, found = np.random.default_rng(0), []
    for _ in range(_DRAWS // _AT_ONCE):
        weight = 1 + member @ (rng.exponential(size=(member.shape[1], _AT_ONCE)) - 1)
        # weights of sets of several genes may be negative: totals are kept away from 0
        total = np.maximum(weight.sum(axis=0), 0.1 * len(values))
        found.append(weight.T @ values / total[:, None])
    return np.concatenate(found)


def _members(targets: Sequence[tuple[str, ...]]) -> sp.csr_array:
    """Return (P, genes): the genes of each set, as a unit vector."""
    place = {gene: i for i, gene in enumerate(sorted({g for one in targets for g in one}))}
    rows = np.repeat(np.arange(len(targets)), [len(one) for one in targets])
    columns = [place[gene] for one in targets for gene in one]
    shares = [1 / math.sqrt(len(one)) for one in targets for _ in one]
    return sp.csr_array((shares, (rows, columns)), shape=(len(targets), len(place)))


def _independent(member: sp.csr_array) -> float:
    """Return the effective number of independent perturbations: P^2 / (sum of correlations)."""
    return float(member.shape[0] ** 2 / max(np.square(member.sum(axis=0)).sum(), 1e-12))


def _wider(n: float) -> float:
    from vcell.student import ndtri, stdtrit

    end = (1 + LEVEL) / 2
    return float(math.sqrt((n + 1) / (n - 1)) * stdtrit(n - 1, end) / ndtri(end))


def judged(
    model: str,
    gain: Mapping[str, NDArray[np.floating]],
    targets: Sequence[tuple[str, ...]],
    *,
    weak: Sequence[str] = (),
) -> Verdict:
    """Decide whether a model beats all others.

    Parameters
    ----------
    model
        Its name.
    gain
        (P,) of the model and of every baseline, pooled over all folds.
    targets
        The target genes of the P perturbations.
    weak
        Names of baselines about which no claim is made.
    """
    others = [name for name in gain if name != model]
    apart = np.stack([gain[model] - gain[name] for name in others], axis=1) if others else None
    over = dict(zip(others, _differences(apart, targets), strict=True)) if apart is not None else {}
    n = len(set(map(frozenset, targets)))
    if model in weak or not over:
        return Verdict("baseline", None, over, f"the {model} baseline")
    if n < FEWEST:
        few = f"too few for a verdict: {n} held-out perturbation{'s' * (n != 1)}"
        return Verdict("few", None, over, f"{few}, at least {FEWEST} are needed")
    nearest = min(over, key=lambda name: over[name].low)
    one = over[nearest]
    if one.low > 0:
        text = f"{model} beats the baselines; the nearest is {nearest}: {one}"
        return Verdict("beats", nearest, over, text)
    lost = [name for name in over if over[name].high < 0]
    if lost:
        nearest = min(lost, key=lambda name: over[name].mean)
        text = f"{model} is worse than {' and '.join(lost)}: {over[nearest]}"
        text += f" over {nearest}" * (len(lost) > 1)
        return Verdict("worse", nearest, over, text)
    same = [name for name in over if over[name].none]
    if same and all(over[name].low > 0 for name in over if name not in same):
        text = f"{model} adds nothing to {' and '.join(same)}, which beats the other baselines"
        return Verdict("same", same[0], over, text)
    shown = min((name for name in over if over[name].low <= 0), key=lambda name: over[name].mean)
    text = f"no difference shown: {model} over {shown} {over[shown]}"
    return Verdict("open", shown, over, text)


def _seen(value: float, digits: int) -> str:
    """Write a difference or an end of its interval; what is not 0 does not look like 0."""
    while value and digits < _FINEST and signed(value, digits) == "0":
        digits += 1
    return signed(value, digits)


def signed(value: float, digits: int = 3) -> str:
    """Write +.005, -.02 or 0: scores are below 1, so the leading zero is left out."""
    if math.isnan(value):
        return "?"
    text = f"{value:+.{digits}f}"
    if float(text) == 0:
        return "0"
    return text[0] + text[2:] if text[1] == "0" else text
