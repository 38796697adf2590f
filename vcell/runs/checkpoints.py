"""Checkpoints: folders that are complete or absent.

A checkpoint is written under a temporary name, flushed to disk, listed with the checksum of every
file, and renamed. ``ckpt/latest`` holds the name of the newest. Old ones are removed, except the
best and the last two.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vcell.as_json import plain
from vcell.errors import UserError
from vcell.outputs.aside import ASIDE, sync_file, sync_folder, write_json, write_text
from vcell.runs import files

_KEEP_LAST = 2  # the older one is used if the newest is damaged
_MANIFEST = "checkpoint.json"
_NAME = re.compile(r"^step-([0-9]{6,18})$")


@dataclass(frozen=True)
class Checkpoint:
    """One finished checkpoint."""

    path: Path
    step: int

    @property
    def manifest(self) -> dict[str, Any]:
        """Its manifest: step, metric and the checksum of each file."""
        return files.read_json(self.path / _MANIFEST)

    @property
    def metric(self) -> float | None:
        """The score it was saved with, or None."""
        value = self.manifest.get("metric")
        return float(value) if isinstance(value, int | float) else None

    @property
    def merit(self) -> float | None:
        """The score, with its sign chosen so that more is better."""
        metric = self.metric
        if metric is None:
            return None
        return metric if self.manifest.get("higher_is_better") else -metric

    @property
    def state(self) -> dict[str, Any]:
        """The trainer's own state.json."""
        return files.read_json(self.path / "state.json")

    def verify(self) -> None:
        """Compare every file with its checksum; a UserError names the first damaged one."""
        listed = self.manifest.get("files")
        if not isinstance(listed, dict):
            raise UserError(f"{self.path / _MANIFEST}: is damaged: it lists no files")
        for name, expected in listed.items():
            path = self.path / str(name)
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise UserError(f"{self.path / _MANIFEST}: lists a file outside its folder")
            if not path.is_file():
                raise UserError(f"{path}: is missing from the checkpoint")
            if files.checksum(path) != expected:
                raise UserError(f"{path}: is damaged: its checksum does not match")


class Checkpoints:
    """The checkpoints of one run; one process writes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def steps(self) -> list[int]:
        """List the steps that have a finished checkpoint, ascending."""
        if not self.folder.is_dir():
            return []
        found = [_NAME.match(entry.name) for entry in self.folder.iterdir() if entry.is_dir()]
        return sorted(int(match[1]) for match in found if match)

    def at(self, step: int) -> Checkpoint:
        """Return the checkpoint of one step."""
        path = self.folder / f"step-{step:06d}"
        if not path.is_dir():
            have = ", ".join(str(s) for s in self.steps()) or "none"
            raise UserError(f"{self.folder}: has no checkpoint of step {step}; it has {have}")
        return Checkpoint(path, step)

    def latest(self) -> Checkpoint:
        """Return the newest checkpoint."""
        pointer = self.folder / "latest"
        text = pointer.read_text(errors="replace").strip() if pointer.is_file() else ""
        match = _NAME.match(text)
        steps = self.steps()
        if match and int(match[1]) in steps:
            return self.at(int(match[1]))
        if not steps:
            raise UserError(f"{self.folder}: holds no checkpoint yet")
        return self.at(steps[-1])  # killed between the rename and the update of `latest`

    def best(self) -> Checkpoint:
        """Return the checkpoint with the best score; the newest if several are equal."""
        scored = self._scored()
        if not scored:
            raise UserError(f"{self.folder}: holds no checkpoint with a score")
        return self.at(max(scored)[1])

    def _scored(self) -> list[tuple[float, int]]:
        """Return merit and step of every checkpoint that has a score and is readable."""
        scored = []
        for step in self.steps():
            try:
                merit = self.at(step).merit
            except UserError:
                continue  # damaged
            if merit is not None:
                scored.append((merit, step))
        return scored

    def save(
        self,
        step: int,
        write: Callable[[Path], None],
        metric: float | None,
        *,
        higher_is_better: bool,
        keep_best: int,
    ) -> Path:
        """Let `write` fill a folder, then make it the checkpoint of `step`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        files.remove_leftovers(self.folder)
        target = self.folder / f"step-{step:06d}"
        aside = self.folder / f"step-{step:06d}{ASIDE}{os.getpid()}"
        aside.mkdir()
        try:
            write(aside)
            written = sorted(p for p in aside.rglob("*") if p.is_file())
            for path in written:
                sync_file(path)
            sums = {str(p.relative_to(aside)): files.checksum(p) for p in written}
            manifest = {"step": step, "metric": metric, "higher_is_better": higher_is_better}
            write_json(aside / _MANIFEST, plain(manifest) | {"files": sums})
            self._replace(target, aside)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        write_text(self.folder / "latest", target.name + "\n")
        self._thin_out(step, keep_best)
        return target

    def _replace(self, target: Path, aside: Path) -> None:
        """Move the new folder into place; a folder cannot be renamed over one with files."""
        if target.exists():
            target.rename(target.with_name(f"{target.name}{ASIDE}old"))
        aside.rename(target)
        sync_folder(self.folder)
        shutil.rmtree(target.with_name(f"{target.name}{ASIDE}old"), ignore_errors=True)

    def _thin_out(self, newest: int, keep_best: int) -> None:
        """Remove all but the last two, the `keep_best` best, and those that resuming superseded."""
        scored = [pair for pair in self._scored() if pair[1] <= newest]
        kept = {step for _, step in sorted(scored, reverse=True)[:keep_best]}
        kept |= set([step for step in self.steps() if step <= newest][-_KEEP_LAST:])
        for step in self.steps():
            if step not in kept:
                path = self.folder / f"step-{step:06d}"
                doomed = path.with_name(f"{path.name}{ASIDE}old")
                path.rename(doomed)  # a half-removed folder must not look like a checkpoint
                shutil.rmtree(doomed, ignore_errors=True)
