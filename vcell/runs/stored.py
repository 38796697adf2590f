"""A run directory, open for reading: its events, checkpoints and status."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self

from vcell.errors import UserError
from vcell.runs import folders, process
from vcell.runs.checkpoints import Checkpoint, Checkpoints
from vcell.runs.event_file import surviving
from vcell.runs.events import Event, Tail, last_step
from vcell.runs.history import History

Status = Literal["running", "stalled", "crashed", "done", "failed", "interrupted"]
ROOT = "runs"
REQUESTS = ("stop", "checkpoint", "pause")
_ENDED: tuple[Status, ...] = ("done", "failed", "interrupted")


class StoredRun:
    """A run directory, as any process may read it."""

    def __init__(self, path: Path, meta: dict[str, Any]) -> None:
        self.path = path
        self.meta = meta

    @classmethod
    def open(cls, name: Path | str = "latest", root: Path | str = ROOT) -> Self:
        """Open a run.

        Parameters
        ----------
        name
            The path of its folder, its name, the unique beginning of its name, or ``latest``.
        root
            The folder of runs in which to look for a name.

        Returns
        -------
        StoredRun

        Raises
        ------
        UserError
            If there is no such run, several names begin like this, or run.json is damaged.
        """
        path = folders.resolve(str(name), Path(root))
        return cls(path, folders.read_meta(path))

    @classmethod
    def find(cls, root: Path | str = ROOT) -> tuple[list[Self], list[str]]:
        """Find the runs in a folder.

        Parameters
        ----------
        root
            The folder of runs.

        Returns
        -------
        tuple
            The runs, oldest first, and messages about damaged ones.
        """
        root = Path(root)
        runs, problems = [], []
        for entry in sorted(root.iterdir() if root.is_dir() else []):
            if entry.is_symlink() or not folders.has_meta(entry):
                continue
            try:
                runs.append(cls.open(entry))
            except UserError as error:
                problems.append(error.message)
        return runs, problems

    def refresh(self) -> None:
        """Read run.json again, as another process may have changed it."""
        self.meta = folders.read_meta(self.path)

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.path.name

    def refuse_unless_of(self, command: str) -> None:
        """Raise an error if the run is of another command."""
        if self.meta.get("command") != command:
            raise UserError(
                f"{self.name} is a run of vcell {self.meta.get('command')}, not of {command}",
                hint=f"vcell {command} CELLS makes one",
            )

    def events(self, kinds: Iterable[str] | None = None) -> list[Event]:
        """Return the events, without steps that a resumed run has superseded.

        Parameters
        ----------
        kinds
            Kinds of events to return; by default all.
        """
        events = surviving(Tail(self.path / "events.jsonl").read())
        wanted = None if kinds is None else set(kinds)
        return events if wanted is None else [e for e in events if e["kind"] in wanted]

    def history(self, *, ranks: bool = True, recent_spans: bool = False) -> History:
        """Return the measurements as columns; `History.read` adds later ones.

        Parameters
        ----------
        ranks
            Whether to read every rank's own events too: spans of a step, GPUs, warnings.
        recent_spans
            Of the spans of steps, read only those near the end of each file.
        """
        history = History(self.path, ranks=ranks, recent_spans=recent_spans)
        history.read()
        return history

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.status()})"

    def last_step(self) -> int | None:
        """Return the last step, reading only the end of the events."""
        return last_step(self.path / "events.jsonl")

    def requests(self) -> set[str]:
        """Return the pending requests."""
        folder = self.path / "control"
        return {what for what in REQUESTS if (folder / what).exists()}

    @property
    def _checkpoints(self) -> Checkpoints:
        return Checkpoints(self.path / "ckpt")

    def checkpoints(self) -> list[int]:
        """List the steps of finished checkpoints, ascending."""
        return self._checkpoints.steps()

    def checkpoint(self, which: str | int = "latest") -> Checkpoint:
        """Return a checkpoint.

        Parameters
        ----------
        which
            ``latest``, ``best`` or a step.

        Raises
        ------
        UserError
            If there is no such checkpoint.
        """
        if which == "latest":
            return self._checkpoints.latest()
        if which == "best":
            return self._checkpoints.best()
        try:
            return self._checkpoints.at(int(which))
        except ValueError:
            raise UserError(f"a checkpoint is latest, best or a step, not {which!r}") from None

    # -- status --------------------------------------------------------------------------------

    def status(self) -> Status:
        """Return the status, from run.json, the process and the growth of the events."""
        self.refresh()
        if self._ended is None and process.is_alive(self.meta.get("process", {})) is False:
            self.refresh()  # it may have finished meanwhile
            return self._ended or ("done" if self.meta.get("earlier") else "crashed")
        return self._ended or ("stalled" if self._is_silent() else "running")

    def _is_silent(self) -> bool:
        """Return whether it, and the runs in it, have written nothing for long."""
        if time.time() - self.last_sign() <= folders.STALLED_AFTER:
            return False
        newest = self.parts()[-1:]
        if not self._parts or (newest and newest[0].status() == "stalled"):
            return True
        # between its parts it reads cells and writes nothing
        return process.is_alive(self.meta.get("process", {})) is not True

    def parts(self) -> list[Self]:
        """Return the runs inside this one, oldest first: folds of a screen, trials of a sweep.

        They are in the folder that run.json names as ``parts``.
        """
        found = self.find(self.path / self._parts)[0] if self._parts else []
        return sorted(found, key=lambda run: str(run.meta.get("created", "")))

    @property
    def _parts(self) -> str:
        """Return the name of the folder of the runs inside, or ""."""
        folder = str(self.meta.get("parts") or "")
        return folder if folders.NAME.match(folder) else ""

    def stands_for(self) -> list[Path]:
        """Return the runs inside that make its predictions: all folds, or the best trial."""
        names = self.meta.get("stands_for")
        return [
            self.path / self._parts / name
            for name in (names if isinstance(names, list) else [])
            if folders.NAME.match(str(name))
            and (self.path / self._parts / name / "run.json").is_file()
        ]

    @property
    def _ended(self) -> Status | None:
        """The final status in run.json, if there is one."""
        return next((status for status in _ENDED if self.meta.get("status") == status), None)

    def last_sign(self) -> float:
        """Return when it, or a run inside, last wrote something, in seconds since 1970."""
        times = []
        parts = self.path.glob(f"{self._parts}/*") if self._parts else ()
        for folder in (self.path, *parts):
            for name in ("events.jsonl", "run.json"):
                with suppress(OSError):
                    times.append((folder / name).stat().st_mtime)
        last = max(times, default=0.0)
        if self._ended is not None:
            with suppress(KeyError, TypeError, ValueError):
                ended = datetime.fromisoformat(self.meta["ended"]).timestamp()
                last = min(last, ended + 1)  # copied files are younger; it is noted in seconds
        return last


def differing(runs: Sequence[StoredRun]) -> dict[str, list[Any]]:
    """Return the settings that are not the same in all runs, of those that all of them have."""
    configs = [run.meta.get("config") or {} for run in runs]
    shared = [key for key in configs[0] if all(key in config for config in configs)]
    return {
        key: [config[key] for config in configs]
        for key in shared
        if len({repr(config[key]) for config in configs}) > 1
    }
