"""One run directory: settings, events and results.

    run = Run.create("runs", "train-vcc", config={...}, seed=0)
    run.log("metric", step=1, loss=0.7)
    run.save_checkpoint(1, write=lambda folder: ..., metric=0.7)
    run.finish("done", loss=0.7)

    Run.open("latest").status()      # running, stalled, crashed, done, failed or interrupted

It is the only interface between training, monitor, report and predict. Standard library only.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from vcell import console, signals
from vcell.as_json import plain
from vcell.cores import cores
from vcell.errors import UserError
from vcell.outputs.aside import (
    ASIDE,
    FULL,
    cannot_write,
    missing_folders,
    remove_empty,
    whole,
    write_json,
    write_text,
)
from vcell.runs import files, folders, process, software
from vcell.runs.events import EventLog
from vcell.runs.stored import REQUESTS, Status, StoredRun

_OUTCOME = ("status", "ended", "summary")  # fields of a finished run


class Run(StoredRun):
    """A run directory, open for reading; the process that created or claimed it also writes."""

    def __init__(self, path: Path, meta: dict[str, Any]) -> None:
        super().__init__(path, meta)
        self._log: EventLog | None = None
        self._around: list[Path] = []  # parent folders that were created for it, innermost first

    # -- making and opening --------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        root: Path | str,
        command: str,
        *,
        config: Mapping[str, Any] | None = None,
        provenance: Mapping[str, str] | None = None,
        seed: int | None = None,
        data: Iterable[Mapping[str, Any]] = (),
        name: str | None = None,
        begin: Callable[[Run], None] | None = None,
        **more: Any,
    ) -> Run:
        """Make a run directory with a unique name, and write its run.json.

        run.json is written last, and a folder without it is not a run. If making the run fails,
        nothing is left; what a kill leaves is removed by the next process that makes a run.

        Parameters
        ----------
        root
            The folder that holds runs.
        command
            The command, such as ``train-vcc``.
        config, provenance
            All settings, and the source of each.
        seed
            The seed of all random numbers.
        data
            Fingerprints of the input files.
        name
            Name of its folder, which must be new; by default made from command and time.
        begin
            Writes the first files of the run.
        more
            Further fields of run.json, of JSON types.

        Returns
        -------
        Run
            Open for writing by this process.
        """
        around = missing_folders(Path(root))
        folders.sweep(Path(root), name)
        path = folders.make(Path(root), command, name)
        meta = {
            "schema": folders.SCHEMA,
            "command": command,
            "argv": sys.argv,
            "created": datetime.now(UTC).isoformat(timespec="microseconds"),
            "config": plain(config or {}),
            "provenance": dict(provenance or {}),
            "seed": seed,
            "data": [plain(item) for item in data],
            "versions": software.versions(),
            "git": software.git_state(),
            "machine": {"host": platform.node(), "cpus": cores(), "cwd": str(Path.cwd())},
            "process": process.identity(),
            "status": "running",
            **plain(more),
        }
        this = cls(path, meta)
        this._around = around
        maker = path / f"{folders.MAKER}{os.getpid()}"
        try:
            write_json(maker, process.identity(), sync=False)
            for folder in ("ckpt", "control", "logs"):
                (path / folder).mkdir()
            if begin is not None:
                begin(this)
            write_json(path / "run.json", meta)
            maker.unlink()
        except BaseException as error:
            this.discard()
            if isinstance(error, OSError) and error.errno in FULL:
                raise cannot_write(path, error) from None
            raise
        return this

    def discard(self) -> None:
        """Remove a run that this process made and that has no results; other files stay."""
        with signals.held_back():
            with suppress(OSError):  # already removed
                remove(self)
            remove_empty(self._around)

    def claim(self) -> None:
        """Reopen a run that ended, or whose process is gone, for writing by this process.

        Requests to its last process are cleared, and partial files of that process removed.
        """
        log = self.path / "events.jsonl"
        new = not log.exists()
        with log.open("ab") as events:
            if new:
                os.utime(log, (0, 0))  # it is no sign of life of the last process
            with suppress(OSError):  # not every cluster's file system has locks
                fcntl.flock(events, fcntl.LOCK_EX)  # of two concurrent claims, one is first
            if self.status() in ("running", "stalled") and not self._is_ours():
                self._refuse_unless_abandoned()
            done = self.meta.get("status") == "done"
            earlier = {k: self.meta.get(k) for k in _OUTCOME} if done else self.meta.get("earlier")
            self.update(status="running", process=process.identity(), earlier=earlier)
        files.remove_leftovers(self.path)
        for request in REQUESTS:
            self.clear(request)

    def _refuse_unless_abandoned(self) -> None:
        """Raise if another process may be writing; on another machine, if it wrote recently."""
        owner = self.meta.get("process", {})
        writer = f"process {owner.get('pid')} on {owner.get('host')}"
        minutes = f"{folders.STALLED_AFTER / 60:.0f} minutes"
        if process.is_alive(owner) is True:
            hint = "stop it first, or wait for it to end"
        elif self.status() == "running":
            hint = f"if that process is gone: after {minutes} of silence the run can be taken over"
        else:
            console.warn(f"{self.name}: nothing from {writer} in {minutes}; taking the run over")
            return
        raise UserError(f"{self.name} is still being written by {writer}", hint=hint)

    def _is_ours(self) -> bool:
        return bool(self.meta.get("process") == process.identity())

    def update(self, **fields: Any) -> None:
        """Change fields of run.json, atomically."""
        self.meta |= plain(fields)
        write_json(self.path / "run.json", self.meta)

    # -- events --------------------------------------------------------------------------------

    def log(self, kind: str, step: int | None = None, **fields: Any) -> None:
        """Append an event; only rank 0 may call this.

        Parameters
        ----------
        kind
            Such as ``metric`` or ``eval``; docs/runs.md lists the kinds.
        step
            The step that it is about.
        fields
            Its values, of JSON types.
        """
        if self._log is None:
            self._log = EventLog(self.path / "events.jsonl")
        self._log.log(kind, step, **fields)

    def rank_log(self, rank: int) -> EventLog:
        """Return the event log of one rank."""
        return EventLog(self.path / f"rank-{rank}.jsonl")

    # -- requests from outside -----------------------------------------------------------------

    def request(self, what: str) -> None:
        """Send a request to the trainer, which serves it after its step.

        Parameters
        ----------
        what
            ``stop``, ``checkpoint`` or ``pause``.
        """
        if what not in REQUESTS:
            raise UserError(f"a run can be asked to {', '.join(REQUESTS)}, not to {what!r}")
        (self.path / "control").mkdir(exist_ok=True)
        (self.path / "control" / what).touch()

    def clear(self, what: str) -> None:
        """Withdraw a request, or mark it as served."""
        if what in REQUESTS:
            (self.path / "control" / what).unlink(missing_ok=True)

    def save_file(
        self, name: str, content: str | Mapping[str, Any] | Callable[[Path], None]
    ) -> Path:
        """Write a file of the run, complete or not at all.

        Parameters
        ----------
        name
            Name of the file.
        content
            Its text, the value of a JSON file, or a function that writes to a temporary path.

        Returns
        -------
        Path
            The file.
        """
        path = self.path / name
        if isinstance(content, str):
            write_text(path, content)
        elif isinstance(content, Mapping):
            write_json(path, content)
        else:
            with whole(path) as aside:
                content(aside)
        return path

    def console_log(self) -> TextIO:
        """Open the run's console log for appending."""
        (self.path / "logs").mkdir(exist_ok=True)
        return (self.path / "logs" / "console.log").open("a", encoding="utf-8")

    def write_log(self, name: str, text: str) -> None:
        """Write a text file into the folder of logs."""
        (self.path / "logs").mkdir(exist_ok=True)
        write_text(self.path / "logs" / name, text)

    # -- checkpoints ---------------------------------------------------------------------------

    def save_checkpoint(
        self,
        step: int,
        write: Callable[[Path], None],
        metric: float | None = None,
        *,
        higher_is_better: bool = False,
        keep_best: int = 1,
    ) -> Path:
        """Write the checkpoint of a step, complete or not at all; remove old ones.

        Parameters
        ----------
        step
            The step.
        write
            Writes the files into the given temporary folder.
        metric
            The score that decides which checkpoint is the best, if there is one.
        higher_is_better
            Whether a higher score is better.
        keep_best
            Number of best checkpoints not to remove; the last two also stay.

        Returns
        -------
        Path
            The checkpoint's folder.
        """
        path = self._checkpoints.save(
            step, write, metric, higher_is_better=higher_is_better, keep_best=keep_best
        )
        self.log("ckpt", step=step, path=path.name, metric=metric)
        return path

    def finish(self, status: Status, **summary: Any) -> None:
        """End the run.

        A run that was done before stays done, with its results: resuming it may fail, for example
        when its cells have moved.

        Parameters
        ----------
        status
            How it ended.
        summary
            Its results, of JSON types.
        """
        earlier = self.meta.get("earlier")
        if earlier and status != "done":
            self.update(**earlier, earlier=None)
            self._close()
            return
        self.log("end", status=status, **summary)
        self.update(
            status=status,
            ended=datetime.now(UTC).isoformat(timespec="seconds"),
            summary=plain(summary),
            earlier=None,
        )
        self._close()

    def _close(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None


find_runs = Run.find


def remove(run: Run, root: Path | str | None = None) -> None:
    """Remove a run directory: renamed first, so that a half-removed one does not look like a run.

    With `root`, a run anywhere else is not removed.
    """
    if root is not None and run.path.resolve().parent != Path(root).resolve():
        raise UserError(
            f"{run.path} does not lie in {root}, and only what does is removed",
            hint=f"name its folder with --runs-dir {run.path.resolve().parent}",
        )
    doomed = run.path.with_name(f".{run.path.name}{ASIDE}removed")
    run.path.rename(doomed)
    shutil.rmtree(doomed)
