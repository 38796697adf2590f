"""Names of perturbations: which genes they target."""

from __future__ import annotations

_CONTROL_PARTS = ("ctrl", "control", "non-targeting", "nt", "neg")


def members(perturbation: str) -> tuple[str, ...]:
    """Return the target genes of a perturbation's name: A+B has two, A+ctrl one."""
    parts = dict.fromkeys(part.strip() for part in perturbation.split("+"))
    return tuple(part for part in parts if part and part.lower() not in _CONTROL_PARTS)
