"""Find the column of perturbations, the label of the controls, and other columns.

Configured names are used and checked; the rest is looked up under the names that published screens
use, and reported. If there are two candidates, the error asks the user to choose.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from vcell import console
from vcell.config.options import of_the_project
from vcell.errors import UserError
from vcell.suggest import did_you_mean, few

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from vcell.data.column import Column
    from vcell.data.source import CellSource

#: Names of the perturbation column, most likely first; compared without case and separators.
PERTURBATION_NAMES = (
    "target_gene", "perturbation", "gene", "condition", "perturbed_gene", "gene_target", "target",
    "perturbation_name", "pert", "pert_name", "guide_target", "genotype", "knockout", "ko",
    "treatment", "drug", "guide_identity", "perturbations",
)  # fmt: skip
CONTROL_LABELS = (
    "non-targeting", "control", "ctrl", "nt", "ntc", "non-target", "non-targeting control", "neg",
    "negctrl", "negative control", "neg_ctrl", "unperturbed", "wildtype", "wt", "safe-targeting",
    "vehicle", "dmso", "dmso_tf", "no perturbation", "mock", "untreated",
)  # fmt: skip
BATCH_NAMES = (
    "batch", "batch_id", "batch_var", "gem_group", "gem", "lane", "library", "plate", "sample",
    "replicate",
)  # fmt: skip
CELL_TYPE_NAMES = ("cell_type", "celltype", "cell_line", "cellline", "cell_line_id", "cell_name")


class LabelOptions(Protocol):
    """The settings of `vcell.config.DataOptions` about labels."""

    @property
    def perturbation_column(self) -> str | None:
        """Column that names perturbations."""
        ...

    @property
    def control(self) -> str | None:
        """Label of the controls."""
        ...

    @property
    def batch_column(self) -> str | None:
        """Column that names batches."""
        ...

    @property
    def cell_type_column(self) -> str | None:
        """Column that names cell types."""
        ...


@dataclass(frozen=True)
class NoOptions:
    """Nothing is configured: everything is detected."""

    perturbation_column: str | None = None
    control: str | None = None
    batch_column: str | None = None
    cell_type_column: str | None = None


@dataclass(frozen=True)
class Labels:
    """The columns of the labels; None for a column that the file lacks."""

    perturbation_column: str
    control: str
    n_controls: int
    n_perturbations: int
    batch_column: str | None
    cell_type_column: str | None

    @property
    def text(self) -> str:
        """The labels, as text for messages."""
        parts = [
            f"perturbations in {self.perturbation_column!r} ({self.n_perturbations:,})",
            f"controls {self.control!r} ({console.count(self.n_controls, 'cell')})",
        ]
        if self.batch_column:
            parts.append(f"batches in {self.batch_column!r}")
        if self.cell_type_column:
            parts.append(f"cell types in {self.cell_type_column!r}")
        return ", ".join(parts)


def find(source: CellSource, config: LabelOptions | None = None, *, quiet: bool = False) -> Labels:
    """Find the labels of a screen, and report them.

    Raises
    ------
    UserError
        If a configured name is not in the file, or no answer or more than one is possible.
    """
    config = config or NoOptions()
    if config.perturbation_column is not None:
        column = source.obs(config.perturbation_column)
        control = _control(source, column, config.control)
    else:
        column, control = _perturbation(source, config.control)
    counts = column.counts()
    code = column.categories.tolist().index(control)
    labels = Labels(
        perturbation_column=column.name,
        control=control,
        n_controls=int(counts[code]),
        n_perturbations=int((np.delete(counts, code) > 0).sum()),
        batch_column=_simple(source, "batch_column", config, column.name),
        cell_type_column=_simple(source, "cell_type_column", config, column.name),
    )
    if not quiet:
        console.say(f"{source.name}: {labels.text}")
    return labels


def groups(source: CellSource, name: str) -> Labels:
    """Use a column of groups without a control, such as cell types: each is compared with the rest.

    The control is then an empty text, which no cell has.
    """
    column = source.obs(name)
    n = int((column.counts() > 0).sum())
    if n < 2:
        groups = "no label for any cell" if n == 0 else "one group only, and no rest"
        raise UserError(f"{source.name}: obs column {name!r} has {groups}")
    console.say(f"{source.name}: groups in {name!r} ({n:,}), each against the rest")
    return Labels(column.name, "", 0, n, None, None)


def known_names(names: Iterable[object], no_label: Iterable[str]) -> NDArray[np.bool_]:
    """Return which names are labels; words that mean "no label" do so in any case."""
    none = {_without_case(word) for word in no_label}
    return np.array([_without_case(str(name)) not in none for name in names], np.bool_)


def warn_of_alike(at: str, names: Iterable[str]) -> None:
    """Warn of labels that differ in case or blanks only: they count as different labels."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_without_case(name), []).append(name)
    several = [" and ".join(map(repr, same)) for same in alike.values() if len(same) > 1]
    if several:
        console.warn(
            f"{at} has labels that differ in case or blanks only, and count as different ones: "
            f"{few(several)}"
        )


def _without_case(name: str) -> str:
    return "".join(name.casefold().split())


def folded(text: str) -> str:
    """Return a name without case, blanks and separators, for comparison."""
    return re.sub(r"[\s_\-.]+", "", text.casefold())


def named_like(names: list[str], known: tuple[str, ...]) -> list[str]:
    """Return the names that are known, in the order of `known`."""
    order = [folded(name) for name in known]
    hits = [name for name in names if folded(name) in order]
    return sorted(hits, key=lambda name: order.index(folded(name)))


def control_labels(column: Column) -> list[str]:
    """Return the known control labels among the categories that have cells."""
    present = [c for c, n in zip(column.categories.tolist(), column.counts(), strict=True) if n]
    return named_like(present, CONTROL_LABELS)


def _control(source: CellSource, column: Column, wanted: str | None) -> str:
    """Return the control label of a column: the configured one, else the only known one."""
    present: list[str] = column.categories[column.counts() > 0].tolist()
    shown = ", ".join(map(repr, present[:8])) + (", ..." if len(present) > 8 else "")
    at = f"{source.name}: obs column {column.name!r}"
    if wanted is not None:
        if wanted in present:
            return wanted
        raise UserError(
            f"{at} has no cell labelled {wanted!r}{did_you_mean(wanted, present)}",
            hint=f"its labels: {shown}",
        )
    if not present:
        raise UserError(f"{at} has no label for any cell")
    known = control_labels(column)
    if len(known) == 1:
        return known[0]
    if known:
        raise UserError(
            f"{at} has several labels that could be the control: {', '.join(map(repr, known))}",
            hint=f"choose one: --control {known[0]}",
        )
    raise UserError(
        f"{at} has no label that is known to mean control",
        hint=f"name it with --control; its labels: {shown}",
    )


def _perturbation(source: CellSource, control: str | None) -> tuple[Column, str]:
    """Find the one perturbation column."""
    named = [source.obs(name) for name in named_like(source.obs_columns, PERTURBATION_NAMES)]
    likely = [column for column in named if column.kind in ("categorical", "string")]
    if named and not likely:
        raise UserError(
            f"{source.name}: obs column {named[0].name!r} holds numbers, not names",
            hint=f"if they are labels: --perturbation-column {named[0].name} --control NUMBER",
        )
    if not likely:
        listed = ", ".join(source.obs_columns[:30]) or "none"
        raise UserError(
            f"{source.name}: no obs column has a name that says it holds perturbations",
            hint=f"name it with --perturbation-column; the columns: {listed}",
        )
    if control is None:
        fitting = [column for column in likely if control_labels(column)]
    else:
        fitting = [column for column in likely if control in column.categories.tolist()]
    fitting = [column for column in fitting if int((column.counts() > 0).sum()) > 1] or fitting
    if not fitting:
        return likely[0], _control(source, likely[0], control)
    first, label = fitting[0], _control(source, fitting[0], control)
    others = [column for column in fitting[1:] if not _same_groups(first.codes, column.codes)]
    if others:
        names = ", ".join(repr(column.name) for column in [first, *others])
        raise UserError(
            f"{source.name}: several obs columns could name the perturbation: {names}",
            hint=f"choose one: --perturbation-column {first.name}",
        )
    return first, label


def _same_groups(a: NDArray[np.int32], b: NDArray[np.int32]) -> bool:
    """Whether two columns group the cells in the same way."""
    pairs = np.unique(a.astype(np.int64) << 32 | (b.astype(np.int64) & 0xFFFFFFFF))
    return len(pairs) == len(np.unique(a)) == len(np.unique(b))


def _simple(source: CellSource, setting: str, config: LabelOptions, taken: str) -> str | None:
    """Return the configured column, checked, else the most likely one."""
    known = BATCH_NAMES if setting == "batch_column" else CELL_TYPE_NAMES
    wanted: str | None = getattr(config, setting)
    if wanted is not None:
        if wanted not in source.obs_columns and of_the_project(setting):
            console.say(
                f"{source.name}: there is no obs column {wanted!r}, which [data] names as "
                f"{setting.replace('_', '-')}: continuing without it"
            )
            return None
        return source.obs(wanted).name
    hits = [name for name in named_like(source.obs_columns, known) if name != taken]
    return hits[0] if hits else None
