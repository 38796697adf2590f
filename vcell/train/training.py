"""The description of a command that trains, as a plugin gives it to `vcell.train`: a `Training`.

With it, `vcell.train.command` starts and resumes runs, `vcell.train.many` makes folds and sweeps of
them, and other commands can rehearse a step. Nothing here knows a plugin or imports torch.
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
class NewRun:
    """What is known before training: entries of run.json, and files of the run.

    Attributes
    ----------
    config
        The settings, including those chosen for the user.
    data
        Fingerprints of the files that were read; see `vcell.train.command.fingerprint`.
    facts
        Further fields of run.json, such as the model.
    files
        Files of the run by name: their text, or a function that writes them to a path.
    """

    config: Any
    data: Sequence[Mapping[str, Any]] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str | Callable[[Path], None]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """Results over all folds.

    Attributes
    ----------
    summary
        For the summary of the run that holds them, and for ``--json``: ``held_out`` (the scores of
        each model) and more.
    text, markdown
        The same for readers, on the terminal and in ``folds.md``.
    files
        Files of the run by name, and functions that write them.
    """

    summary: Mapping[str, Any]
    text: str
    markdown: str
    files: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Training(Generic[Settings]):
    """A command that trains.

    Attributes
    ----------
    name
        The command, which also begins the names of its runs: ``train-mine``.
    options
        Its config class. It inherits `RunOptions` and `LaunchOptions`; `ManyOptions`, to offer
        folds and sweeps.
    worker
        The function that trains, as ``module:function``. It is called with the run in every
        process; the first process ends the run: ``run.finish("done", held_out=scores)``.
    prepare
        Reads and checks the data and settings before the run directory is made.
    tell
        Prints the results of a finished run.
    first_look
        Refuses, before the first of several runs is announced, what `prepare` would refuse in all
        of them and costs little to find, such as an empty file.
    needs
        A file of the run that training needs: a run that ended before it was written cannot be
        resumed.
    apart
        Settings that cannot be combined with --folds, besides ``fold`` and ``sweep``.
    parts
        The settings of each run of --folds, ``fold`` among them; by default one run a fold.
    pool
        Combines the finished runs of all folds, for the model named; by default the means and
        standard deviations of ``held_out`` in their summaries.
    judge
        The score of a finished run, for sweeps; larger is better.
    """

    name: str
    options: type[Settings]
    worker: str
    prepare: Callable[[Settings, Plan], NewRun]
    tell: Callable[[Run], None]
    first_look: Callable[[Settings], object] | None = None
    needs: str | None = None
    apart: tuple[str, ...] = ()
    parts: Callable[[Settings], Sequence[Mapping[str, Any]]] | None = None
    pool: Callable[[str, Sequence[Run]], Pooled] | None = None
    judge: Callable[[Run], float] | None = None


def half_done(training: Training[Any], begun: Run | None) -> str | None:
    """Return the path of a part to resume; remove one that never began to train."""
    if begun is None:
        return None
    if training.needs is None or (begun.path / training.needs).is_file():
        return str(begun.path)
    remove(begun)
    return None
