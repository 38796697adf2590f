"""The names of perturbations and the genes they target. No other module parses such names.

``A`` targets a gene; ``A+B``, ``A,B``, ``A;B`` and ``A|B`` target two; ``A+ctrl`` is A together
with a guide that targets nothing, as Norman et al. (2019) and others write it.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence

from vcell.suggest import few

_BETWEEN = re.compile(r"[+,;|]")
_CONTROLS = frozenset({"ctrl", "control", "non-targeting", "nt", "neg"})


def parts(name: str) -> list[str]:
    """Return the parts between the separators, unchanged."""
    return _BETWEEN.split(name)


def members(perturbation: str, control: str | None = None) -> tuple[str, ...]:
    """Return the target genes of a perturbation, each once, in the order of its name.

    Parts that name a control, the usual ones or the screen's own label, are not targets.
    """
    named = dict.fromkeys(part.strip() for part in parts(perturbation))
    return tuple(
        part for part in named if part and part != control and part.lower() not in _CONTROLS
    )


def alike(
    perturbations: Iterable[str],
    control: str | None = None,
    known: Mapping[str, Hashable] | None = None,
) -> list[tuple[str, ...]]:
    """Return perturbations of the same targets, such as A+B and B+A, or A, a and A+ctrl.

    `known` has what targets are known by; others are the same if they differ in case only.
    """
    found: dict[frozenset[Hashable], list[str]] = {}
    for name in perturbations:
        genes = members(name, control)
        key = frozenset((known or {}).get(gene, gene.casefold()) for gene in genes)
        found.setdefault(key or frozenset([name]), []).append(name)
    return [tuple(names) for names in found.values() if len(names) > 1]


def of_the_same_targets(several: Sequence[tuple[str, ...]]) -> str:
    """Say that perturbations of the same targets count as different ones."""
    listed = few([" and ".join(map(repr, names)) for names in several])
    return f"perturbations of the same targets count as different ones: {listed}"


def single_rows(sets: Iterable[tuple[str, ...]]) -> dict[str, list[int]]:
    """Return the rows of each gene's perturbations without a second target."""
    rows: dict[str, list[int]] = {}
    for row, genes in enumerate(sets):
        if len(genes) == 1:
            rows.setdefault(genes[0], []).append(row)
    return rows
