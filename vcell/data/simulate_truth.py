"""The input of a simulation: its design, and the truth that follows from the design's seed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcell.errors import UserError
from vcell.outputs import MADE_BY, made_by, whole

LEVELS = np.arange(-8, 9) / 8  # the loadings a gene may have; 0 is not a membership
_SLOTS = 2  # memberships a gene can have
_RESPONSIVE = 0.6  # share of genes in some programme


@dataclass(frozen=True, kw_only=True)
class SimulationDesign:
    """The design of a simulated screen.

    Parameters
    ----------
    cells, genes, perturbations
        Numbers of each; controls are among the cells, but not among the perturbations.
    umis
        Median library size of an unperturbed cell.
    null_fraction
        Share of the perturbations without any effect.
    control_fraction
        Share of the cells that carry the control label.
    batches, cell_types, programmes
        Numbers of each.
    effect
        Scale of the effects on programmes; with 0 only the target is knocked down.
    knockdown
        Share of the target's expression that a perturbation removes.
    shared
        Scale of the response that all perturbations, except null ones, share.
    batch_effect, depth_sd, activity_sd
        Standard deviations, on the log scale, of the batches' factors per gene, of library sizes
        and of each cell's programme activities.
    seed
        Seed of all random numbers.
    draw
        Number of the draw: other cells under the same truth.
    """

    cells: int = 6000
    genes: int = 2000
    perturbations: int = 60
    umis: float = 5000
    null_fraction: float = 0.1
    control_fraction: float = 0.2
    batches: int = 4
    cell_types: int = 1
    programmes: int = 10
    effect: float = 1.0
    knockdown: float = 0.8
    shared: float = 0.3
    batch_effect: float = 0.1
    depth_sd: float = 0.35
    activity_sd: float = 0.35
    seed: int = 0
    draw: int = 0

    def __post_init__(self) -> None:
        for name in ("cells", "genes", "perturbations", "batches", "cell_types", "programmes"):
            if getattr(self, name) < 1:
                raise UserError(f"cannot simulate {getattr(self, name)} {name}")
        if not (0 <= self.null_fraction <= 1 and 0 <= self.control_fraction < 1):
            raise UserError("null_fraction and control_fraction are shares between 0 and 1")
        if not 0 <= self.knockdown < 1:
            raise UserError("knockdown is a share between 0 and 1, and less than 1")
        if self.cells - self.controls < self.perturbations:
            raise UserError(
                f"too few cells ({self.cells}) for so many perturbations ({self.perturbations})",
                hint="simulate more cells or fewer perturbations",
            )

    @property
    def controls(self) -> int:
        """Number of control cells."""
        return round(self.control_fraction * self.cells)

    @property
    def nulls(self) -> int:
        """Number of perturbations without effect."""
        return round(self.null_fraction * self.perturbations)


@dataclass(frozen=True)
class SimulationTruth:
    """The truth of a simulation. P perturbations, N genes, K programmes, T cell types.

    Parameters
    ----------
    genes, perturbations
        Names; a perturbation is named after its target gene.
    target
        (P,) the target's gene number.
    null
        (P,) whether the perturbation changes nothing.
    response
        (P, K) change of the programme activities by each perturbation.
    loadings
        (K, N) log change of a gene per unit of activity; also the feature that predicts effects.
    kept
        (P,) share of the target's expression that is left.
    base
        (T, N) expected share of the library in unperturbed cells.
    batch_factor
        (B, N) factor of each batch.
    size
        (N,) negative binomial size, given the activities: variance = mean + mean^2 / size.
    """

    genes: NDArray[np.str_]
    perturbations: NDArray[np.str_]
    target: NDArray[np.int64]
    null: NDArray[np.bool_]
    response: NDArray[np.float64]
    loadings: NDArray[np.float64]
    kept: NDArray[np.float64]
    base: NDArray[np.float64]
    batch_factor: NDArray[np.float64]
    size: NDArray[np.float64]

    @property
    def effect(self) -> NDArray[np.float64]:
        """(P, N) true log fold change of the expected count."""
        effect = self.response @ self.loadings
        effect[np.arange(len(self.target)), self.target] += np.log(self.kept)
        return effect

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the truth as .npz, arrays only."""
        arrays = self.__dict__ | {"effect": self.effect.astype(np.float32)}
        arrays[MADE_BY] = np.array(made_by())
        with whole(path) as aside, aside.open("wb") as file:  # savez would add .npz to a name
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SimulationTruth:
        """Read a truth that `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(**{name: file[name] for name in cls.__dataclass_fields__})


def draw_truth(design: SimulationDesign) -> tuple[NDArray[np.int64], SimulationTruth]:
    """Draw everything except cells; return memberships in the kernel's format, and the truth."""
    rng = np.random.default_rng([design.seed, 0])
    names = np.array([f"GENE{i + 1:05d}" for i in range(design.genes)])
    base = np.exp(rng.normal(0, 2.2, design.genes))  # 9,000 UMIs: about 2,700 of 18,080 genes
    types = base * np.exp(rng.normal(0, 0.5, (design.cell_types, design.genes)))
    types[0] = base
    slots, loadings = _memberships(rng, design)
    target, null = _targets(rng, design, base, np.abs(loadings).sum(axis=0) > 0)
    response = _responses(rng, design, loadings[:, target].T)
    response[null] = 0
    order = np.argsort(names[target])
    size = np.clip(np.exp(rng.normal(np.log(4), 0.5, design.genes)), 0.5, 50)
    batch_factor = np.exp(rng.normal(0, design.batch_effect, (design.batches, design.genes)))
    return slots, SimulationTruth(
        genes=names,
        perturbations=names[target][order],
        target=target[order],
        null=null[order],
        response=response[order],
        loadings=loadings,
        kept=np.where(null, 1.0, 1 - design.knockdown)[order],
        base=types / types.sum(axis=1, keepdims=True),
        batch_factor=batch_factor,
        size=size,
    )


def _memberships(
    rng: np.random.Generator, design: SimulationDesign
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Give each gene up to two programmes and a loading in each."""
    n, k = design.genes, design.programmes
    programme = np.stack([rng.integers(k, size=n), rng.integers(k, size=n)], axis=1)
    strength = rng.choice([-8, -6, -4, -3, 3, 4, 6, 8], size=(n, _SLOTS))
    member = rng.random((n, _SLOTS)) < np.array([_RESPONSIVE, 0.5])
    member[:, 1] &= member[:, 0] & (programme[:, 1] != programme[:, 0])
    level = np.where(member, strength, 0) + 8
    loadings = np.zeros((k, n))
    for s in range(_SLOTS):
        loadings[programme[:, s], np.arange(n)] += LEVELS[level[:, s]]
    return programme * len(LEVELS) + level, loadings


def _targets(
    rng: np.random.Generator,
    design: SimulationDesign,
    base: NDArray[Any],
    responsive: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Choose well expressed targets: members of programmes, and for the nulls genes of none."""
    expressed = base >= np.median(base)
    chosen = []
    for pool, wanted in (
        (expressed & responsive, design.perturbations - design.nulls),
        (expressed & ~responsive, design.nulls),
    ):
        genes = np.flatnonzero(pool)
        if len(genes) < wanted:
            raise UserError(
                f"too few genes ({design.genes}) for so many perturbations "
                f"({design.perturbations})",
                hint="simulate about six genes per perturbation or more",
            )
        chosen.append(rng.choice(genes, wanted, replace=False))
    null = np.arange(design.perturbations) >= design.perturbations - design.nulls
    return np.concatenate(chosen).astype(np.int64), null


def _responses(
    rng: np.random.Generator, design: SimulationDesign, membership: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Losing a gene lowers its programmes, which regulate others; plus a shared response."""
    k = design.programmes
    regulation = -0.8 * np.eye(k)
    for row in range(k):
        others = rng.choice(k, size=min(2, k), replace=False)
        regulation[row, others] += rng.normal(0, 0.5, len(others))
    common = rng.normal(0, 1, k) * (rng.random(k) < 0.4)
    return design.effect * (membership @ regulation) + design.shared * common
