"""What a plugin tells `vcell.train` about a command that trains: a `Training`.

With it, `vcell.train.command` starts runs and goes on with them, `vcell.train.many` makes folds and
sweeps of them, and other commands can rehearse a step of theirs. Nothing here knows a plugin, or
imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from vcell.launch import Plan
from vcell.runs import Run, remove

Settings = TypeVar("Settings", bound=Any)  # a command's config class, with RunOptions
Scores = dict[str, dict[str, float]]  # what each model scored: {"gp": {"pds": 0.8}, ...}


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What is known before training: what run.json says of it, and files of the run.

    Attributes
    ----------
    config
        The settings, with what was decided about them.
    data
        Fingerprints of the files that were read; see `vcell.train.command.fingerprint`.
    facts
        Further fields of run.json, such as the model.
    files
        Files of the run by name: their text, or what writes them to a path.
    """

    config: Any
    data: Sequence[Mapping[str, Any]] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str | Callable[[Path], None]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """What is said of the held-out parts of all folds together, rather than of their means.

    Attributes
    ----------
    summary
        For run.json and ``--json``; its ``held_out`` replaces the means over folds.
    text, markdown
        What to print, and what to write into ``folds.md``.
    files
        Further files of the run by name, and what writes them to a path.
    """

    summary: Mapping[str, Any]
    text: str
    markdown: str
    files: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)


def _held_out(run: Run) -> Scores:
    found: Scores = run.meta["summary"]["held_out"]
    return found


@dataclass(frozen=True, kw_only=True)
class Training(Generic[Settings]):
    """A command that trains.

    Attributes
    ----------
    name
        The command, which is also in the names of its runs: ``train-mine``.
    options
        Its config class. It inherits `RunOptions` and `LaunchOptions`; `ManyOptions`, to offer
        folds and sweeps.
    worker
        The function that trains, as ``module:function``. It is called with the run in every
        process; the first process ends the run: ``run.finish("done", held_out=scores)``.
    prepare
        Reads the data and refuses what cannot be, before there is a run directory.
    tell
        Prints what came of a finished run.
    needs
        A file of the run that training needs: a run that ended before it was written cannot be
        resumed.
    apart
        Settings that cannot be combined with --folds, beside ``fold`` and ``sweep``.
    columns
        For the table of folds: the scores to show, and their headings.
    held_out
        What each model scored in a finished run; by default ``held_out`` of its summary.
    pooled
        What is said of a model by all folds together, with a verdict; without it the means and
        standard deviations over folds are told.
    judge
        The score of a finished run, for sweeps; larger is better.
    """

    name: str
    options: type[Settings]
    worker: str
    prepare: Callable[[Settings, Plan], Prepared]
    tell: Callable[[Run], None]
    needs: str | None = None
    apart: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    held_out: Callable[[Run], Scores] = _held_out
    pooled: Callable[[str, Sequence[Run]], Pooled] | None = None
    judge: Callable[[Run], float] | None = None


def half_done(training: Training[Any], begun: Run | None) -> str | None:
    """Return the path of a part to go on with; one that never got to train is removed."""
    if begun is None:
        return None
    if training.needs is None or (begun.path / training.needs).is_file():
        return str(begun.path)
    remove(begun)
    return None
