"""A run that holds runs: what `--folds` and `--sweep` share.

Its directory has a folder of runs (``folds/`` or ``trials/``), and run.json names the folder
(``parts``) and the runs that are asked when this one is asked for predictions (``stands_for``).
"""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from vcell import models
from vcell.config import provenance
from vcell.errors import UserError, VcellError
from vcell.launch import LaunchOptions, ended_by_signals
from vcell.runs import Run, remove

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vcell_train_vcc import TrainVcc

# what may change when it goes on: how many, and what has no say in what is learnt
_FREE = {"sweep", "micro_batch", "memory_share", "empty_cache_every", "checkpoint_every", "sinks"}
_FREE |= {field.name for field in dataclasses.fields(LaunchOptions)}


def started(config: TrainVcc, parts: str, apart: tuple[str, ...], **more: Any) -> Run:
    """Make the run that holds the others; the settings `apart` cannot go with it."""
    way = "folds" if parts == "folds" else "sweep"
    given = [name.replace("_", "-") for name in apart if getattr(config, name) is not None]
    if given:
        raise UserError(f"--{way} cannot go with --{given[0]}", hint=f"leave out --{given[0]}")
    if config.nodes > 1:
        raise UserError(f"--{way} makes runs of its own on one machine", hint="leave out --nodes")
    return Run.create(
        config.runs,
        "train-vcc",
        config=dataclasses.asdict(config),
        provenance=provenance(),
        seed=config.seed,
        model=config.model,
        parts=parts,
        **more,
    )


def claimed(this: Run, settings: TrainVcc, given: dict[str, Any]) -> TrainVcc:
    """Take one back into use, and return its settings with what is `given` anew."""
    fixed = sorted(given.keys() - _FREE)
    if fixed:
        raise UserError(
            f"{this.name} cannot go on with another --{fixed[0].replace('_', '-')}: "
            "its runs would not be comparable",
            hint="start a new one",
        )
    if this.meta["parts"] != "trials" and given.get("sweep"):
        raise UserError(f"{this.name} holds folds, and no sweep", hint="leave out --sweep")
    this.claim()
    return dataclasses.replace(settings, **given)


@contextmanager
def ended_well(this: Run, *, new: bool) -> Iterator[None]:
    """Say in the run how the work on its parts ended; one refused before any began is removed."""
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
            remove(this, this.path.parent)
            with suppress(OSError):
                this.path.parent.rmdir()
        raise


def half_done(begun: Run | None) -> str | None:
    """Return the path of a part to go on with; one that never got to train is removed."""
    if begun is None:
        return None
    if (begun.path / models.SCREEN).is_file():
        return str(begun.path)
    remove(begun)
    return None
