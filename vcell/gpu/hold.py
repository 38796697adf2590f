"""Change settings of cards, and restore them even after errors, signals and kill -9.

    with holding({uuid: CardSettings(power_limit=400)}):
        ...                                   # restored afterwards in any case

A watchdog process, in its own session, holds the other end of a pipe. When this process dies, the
pipe closes and the watchdog restores the settings from the journal. It exits once everything is
restored, or once `settle` has made the settings permanent.

    python -m vcell.gpu.hold UUID...           # the watchdog
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from vcell.errors import RunFailed, UserError
from vcell.gpu.journal import Entry, Journal, stale
from vcell.gpu.nvml import session
from vcell.gpu.settings import CardSettings, Control

_READY, _STAY = b"r", b"s"
_PATIENCE = 60.0  # seconds for a watchdog to start on a busy machine
_TRIES, _PAUSE = 5, 0.2  # attempts to restore, and seconds in between: a driver may be busy


@contextmanager
def controls(uuids: list[str]) -> Iterator[list[Control]]:
    """Open whole cards by their uuid."""
    with session() as nvml:
        found = {}
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                control = Control(nvml, nvml.nvmlDeviceGetHandleByIndex(index))
            except nvml.NVMLError:
                continue  # skip a card that does not answer
            found[control.uuid] = control
        missing = [uuid for uuid in uuids if uuid not in found]
        if missing:
            raise UserError(f"the driver does not answer for {', '.join(missing)}")
        yield [found[uuid] for uuid in uuids]


class Holding:
    """Cards with changed settings, until `restore` or permanently."""

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog
        self.stays = False

    def settle(self) -> None:
        """Keep the settings after this process; `restore` resets them."""
        self._watchdog.dismiss()
        self.stays = True


@contextmanager
def holding(requested: Mapping[str, CardSettings], *, shared: bool = False) -> Iterator[Holding]:
    """Change settings of cards while the block runs.

    Parameters
    ----------
    requested
        Settings by the card's uuid.
    shared
        Whether to set cards on which other processes compute.
    """
    uuids = list(requested)
    with ExitStack() as stack:
        cards = stack.enter_context(controls(uuids))
        for card in cards:
            stack.enter_context(Journal(card.uuid).alone())
            _allowed(card, requested[card.uuid], shared=shared)
        touched: dict[str, list[str]] = {}  # cards that no earlier apply has set
        for card in cards:
            if _journal(card, requested[card.uuid]):
                touched[card.uuid] = []
        watchdog = stack.enter_context(Watchdog(uuids))
        held = Holding(watchdog)
        try:
            for card in cards:
                for name in requested[card.uuid].names():
                    card.write(name, requested[card.uuid])
                    touched.get(card.uuid, []).append(name)
                    card.verify(name, requested[card.uuid])
                Journal(card.uuid).note("held")
            yield held
        finally:
            if not held.stays:
                _restore(cards, touched)
                watchdog.dismiss()


def _allowed(card: Control, requested: CardSettings, *, shared: bool) -> None:
    """Check that a card may be set, before anything is changed."""
    entry = Journal(card.uuid).read()
    if entry is not None and entry.state != "held":
        raise UserError(
            f"{card.name} was left in the middle of {entry.state}: it is not as it was before",
            hint="vcell gpu-tune restore brings it back",
        )
    if card.in_instances():
        raise UserError(
            f"{card.name} is split into MIG instances; its settings belong to all of them",
            hint="ask whoever shares the card, or switch MIG off",
        )
    users = card.users()
    if users and not shared:
        shown = ", ".join(map(str, users))
        raise UserError(
            f"{card.name} computes for other processes ({shown})",
            hint="wait for them, or add --shared if they are yours",
        )
    card.check(requested)


def _journal(card: Control, requested: CardSettings) -> bool:
    """Record the current settings, unless an earlier change that is still active has done so.

    Returns
    -------
    bool
        Whether nothing had been recorded.
    """
    journal = Journal(card.uuid)
    entry = journal.read()
    before = card.current().plain() if entry is None else dict(entry.before)
    # locks cannot be queried: without a record by vcell, clocks count as not locked
    for name in ("clocks", "memory_clocks"):
        if name in requested.names():
            before.setdefault(name, [0, 0])
    if requested.temp_limit is None and entry is None:
        before.pop("temp_limit", None)
    names = set(requested.names()) | (set(entry.before) if entry else set())
    kept = {name: value for name, value in before.items() if name in names}
    journal.write(Entry(card.uuid, card.name, "journalled", kept, requested.plain(), os.getpid()))
    return entry is None


def restore(uuids: list[str] | None = None) -> list[Entry]:
    """Restore the settings of cards from before vcell; by default of all cards with a journal."""
    entries = [entry for entry in stale() if uuids is None or entry.uuid in uuids]
    with ExitStack() as stack:
        if entries:
            cards = stack.enter_context(controls([entry.uuid for entry in entries]))
            for card in cards:
                stack.enter_context(Journal(card.uuid).alone())
            _restore(cards)
    return entries


def _restore(cards: list[Control], touched: Mapping[str, list[str]] | None = None) -> None:
    """Restore every card; a card that fails keeps its journal, and the others are still restored.

    `touched` lists the changed settings, if known; others are not touched.
    """
    failed: list[str] = []
    for card in cards:
        journal = Journal(card.uuid)
        entry = journal.read()
        if entry is None:
            continue
        journal.note("restoring")
        before, problem = CardSettings.of(entry.before), ""
        for name in reversed(before.names()):
            if name in (touched or {}).get(card.uuid, [name]):
                problem = _insist(card, name, before) or problem
        if problem:
            failed.append(problem)
        else:
            journal.clear()
    if failed:
        raise RunFailed(
            f"not everything could be restored: {'; '.join(failed)}",
            hint="vcell gpu-tune restore tries again; the journal is kept",
        )


def _insist(card: Control, name: str, before: CardSettings) -> str:
    """Restore one setting, with a few attempts; return the error, or ""."""
    problem = ""
    for _ in range(_TRIES):
        try:
            card.write(name, before)
            card.verify(name, before)
        except RunFailed as error:
            problem = error.message
            time.sleep(_PAUSE)
        else:
            return ""
    return problem


class Watchdog:
    """The process that restores the settings when this one dies."""

    def __init__(self, uuids: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vcell.gpu.hold", *uuids],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # gets no signals of our terminal
        )

    def __enter__(self) -> Watchdog:
        assert self._process.stdout is not None
        if self._process.stdout.read(1) != _READY:
            raise RunFailed("the watchdog that would restore the cards did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self.dismiss()

    def dismiss(self) -> None:
        """End it without restoring."""
        assert self._process.stdin is not None
        if not self._process.stdin.closed:
            try:
                self._process.stdin.write(_STAY)
                self._process.stdin.close()
            except BrokenPipeError:
                pass  # it has ended already
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process.wait(_PATIENCE)


def watch(uuids: list[str]) -> None:
    """Wait until the parent sends a message or is gone; restore if necessary."""
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    with session():  # loads the driver's library in advance
        sys.stdout.buffer.write(_READY)
        sys.stdout.buffer.flush()
        if sys.stdin.buffer.read(1) == _STAY:
            return
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            restore(uuids)
        except (UserError, RunFailed) as error:
            # the dead parent's lock is free at once; another process may hold it for a moment
            if time.monotonic() > deadline:
                sys.stderr.write(f"vcell: {error.message}\n")
                return
            time.sleep(_PAUSE)
        else:
            return


if __name__ == "__main__":
    watch(sys.argv[1:])
