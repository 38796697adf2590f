"""Signals that end a process: raised as an exception, or deferred in critical sections.

Without this, SIGTERM, which schedulers and `kill` send, ends Python at once: without a message, and
half-written files remain. Standard library only.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NoReturn

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # signals that end a process

_came: list[KeyboardInterrupt] = []


def raise_if_interrupted() -> None:
    """Raise the interrupt that came, which a library may have turned into another error.

    C++ code that calls Python does so: matplotlib reports a wrong matrix, HDF5 a damaged file.
    """
    if _came:
        raise _came[0]


def _interrupt(number: int, _frame: object) -> NoReturn:
    name = signal.Signals(number).name
    _came.append(KeyboardInterrupt(*([] if name == "SIGINT" else [name])))
    raise _came[-1]


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt like Ctrl-C, unless they are handled.

    While torch is imported, signals wait.
    """
    before = {number: signal.getsignal(number) for number in ENDING if _here()}
    for number, handler in before.items():
        if handler in (signal.SIG_DFL, signal.default_int_handler):  # nohup ignores SIGHUP
            signal.signal(number, _interrupt)
    _came.clear()
    hook = sys.unraisablehook
    sys.unraisablehook = partial(_raise_again, hook)
    finder = _TorchFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        with suppress(ValueError):  # torch was imported
            sys.meta_path.remove(finder)
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise_again(hook: Callable[[Any], None], lost: Any) -> None:
    """Send a signal again if Python ignored its exception, as in a finaliser."""
    if not isinstance(lost.exc_value, KeyboardInterrupt):
        hook(lost)
        return
    number = signal.Signals[str(lost.exc_value) or "SIGINT"]
    while True:
        try:
            again = threading.Timer(0.01, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
            return
        except KeyboardInterrupt:  # it came before Python left this function, which ignores it too
            continue


@contextmanager
def held_back() -> Iterator[None]:
    """Delay ending signals to the end of the block, such as renaming or removing partial files.

    Blocking signals in the kernel does not work: another thread would receive them, and Python
    would still call the handler in this one.
    """
    waiting: list[int] = []

    def note(number: int, _frame: object) -> None:
        waiting.append(number)

    before = {number: signal.getsignal(number) for number in ENDING if _here()}
    for number, handler in before.items():
        if callable(handler) or handler is signal.SIG_DFL:
            signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if waiting:
            signal.raise_signal(waiting[0])


class _TorchFinder:
    """Delays ending signals while torch is imported.

    Its C++ code imports Python modules; an exception there, such as KeyboardInterrupt, ends the
    process by SIGABRT (`_c10d_init`, `_dist_autograd_init`) or SIGSEGV (`_autograd_init`).
    """

    def find_spec(
        self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                with held_back():
                    load(module)

            # this one loader, made for this import; mypy takes it for a change of the class
            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def forget_interrupt() -> None:
    """Let a process that was interrupted end with its exit code.

    ``python -m`` ends by SIGINT instead if the interrupt left code that was compiled from text, as
    the methods of dataclasses are, and no other such code ran since.
    """
    exec("")


def _here() -> bool:
    return threading.current_thread() is threading.main_thread()
