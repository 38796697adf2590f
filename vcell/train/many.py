"""A run that holds runs: what `--folds` and `--sweep` share.

Its directory has a folder of runs (``folds/`` or ``trials/``), and run.json names the folder
(``parts``) and the runs that make this one's predictions (``stands_for``).
"""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vcell.config import provenance
from vcell.errors import UserError, VcellError
from vcell.launch import LaunchOptions, ended_by_signals
from vcell.runs import Run
from vcell.train import sweep

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vcell.train.training import Settings, Training

# settings that may change on resuming: the number of trials, and what does not affect the result
_FREE = {"sweep", "micro_batch", "memory_share", "empty_cache_every", "checkpoint_every", "sinks"}
_FREE |= {field.name for field in dataclasses.fields(LaunchOptions)}


def parts_folder(config: Any) -> str | None:
    """Return the folder of runs that the settings require: folds, trials, or None."""
    if getattr(config, "folds", None):
        return "folds"
    return "trials" if getattr(config, "sweep", None) else None


def started(training: Training[Settings], config: Settings, parts: str) -> Run:
    """Make the run that holds the runs of folds or trials."""
    way = "folds" if parts == "folds" else "sweep"
    apart = ("fold", *training.apart, "sweep") if parts == "folds" else ("folds",)
    if parts == "trials":
        sweep.check(training, config)
    given = [name.replace("_", "-") for name in apart if getattr(config, name) is not None]
    if given:
        raise UserError(f"--{way} cannot go with --{given[0]}", hint=f"leave out --{given[0]}")
    if config.nodes > 1:
        raise UserError(f"--{way} makes runs of its own on one machine", hint="leave out --nodes")
    if training.first_look is not None:
        training.first_look(config)
    return Run.create(
        config.runs,
        training.name,
        config=dataclasses.asdict(config),
        provenance=provenance(),
        seed=config.seed,
        model=getattr(config, "model", training.name),
        parts=parts,
        **({"folds": config.folds} if parts == "folds" else {}),
    )


def claimed(this: Run, settings: Settings, given: dict[str, Any]) -> Settings:
    """Reopen such a run, and return its settings updated by `given`."""
    fixed = sorted(given.keys() - _FREE)
    if fixed:
        raise UserError(
            f"{this.name} cannot go on with another --{fixed[0].replace('_', '-')}: "
            "its runs would not be comparable",
            hint="start a new one",
        )
    if this.meta["parts"] != "trials" and given.get("sweep"):
        raise UserError(f"{this.name} holds folds, not a sweep", hint="leave out --sweep")
    this.claim()
    found: Settings = dataclasses.replace(settings, **given)
    return found


@contextmanager
def ended_well(this: Run, *, new: bool) -> Iterator[None]:
    """Record in the run how the block ended; remove a new run if no part was begun."""
    try:
        with ended_by_signals():
            yield
    except KeyboardInterrupt:
        this.finish("interrupted")
        raise
    except VcellError as error:
        if not new or this.parts():
            this.finish("failed", error=error.message)
        else:
            this.discard()
        raise
