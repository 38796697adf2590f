"""The activity of a rank's device during training, recorded every few seconds.

On a GPU a ``gpu`` event (`vcell.gpu.reading.Reading`: watts, caps, clock, temperature, memory,
throttle reasons, energy), on a CPU a ``cpu`` event (processor seconds so far, resident memory). A
monitor on another machine cannot query this one's driver, and energy is lost if it is not recorded.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vcell import console
from vcell.gpu.reading import open_card

if TYPE_CHECKING:
    from vcell.gpu.accelerator import Accelerator
    from vcell.runs import EventLog

EVERY = 5.0  # seconds


@contextmanager
def watching(log: EventLog, device: Accelerator) -> Iterator[None]:
    """Record the device's activity: now, every `EVERY` seconds on a thread, and at the end."""
    stop = threading.Event()
    thread = threading.Thread(
        target=_watch, args=(log, device, stop), name="device watch", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(EVERY)


def _watch(log: EventLog, device: Accelerator, stop: threading.Event) -> None:
    if not device.uuid:
        return _write("cpu", process_use, log, stop)
    try:
        with open_card(device.uuid) as card:
            _write("gpu", lambda: card.read().as_dict(), log, stop)
    except LookupError as error:
        console.detail(f"{device.name} is not watched: {error}")


def _write(
    kind: str, read: Callable[[], dict[str, Any]], log: EventLog, stop: threading.Event
) -> None:
    while True:
        ends = stop.is_set()
        try:
            log.log(kind, **read())
        except (OSError, ValueError):  # a full disk: training reports it at its next step
            return
        if ends:
            return
        stop.wait(EVERY)


def process_use() -> dict[str, Any]:
    """Return this process's processor seconds so far, and its resident memory."""
    times = os.times()
    return {"cpu_seconds": round(times.user + times.system, 2), "rss_bytes": _resident()}


def _resident() -> int:
    try:
        with open("/proc/self/statm") as file:  # noqa: PTH123 - not a file of the user's
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # no Linux: the most so far instead
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
