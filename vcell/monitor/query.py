"""Filter runs by words: ``status:running|paused lr>=1e-3 -transformer``."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from vcell.monitor.overview import STATES, Overview
from vcell.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

_TERM = re.compile(r"^(-?)([A-Za-z_][\w.-]*)(>=|<=|!=|==|=|:|>|<)(.*)$")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
}
_FIELDS = (
    "name", "status", "command", "model", "step", "max_steps", "share", "loss", "best",
    "best_step", "seconds_a_step", "examples_per_s", "wait", "eta_s", "took_s",
)  # fmt: skip


class BadQuery(ValueError):
    """An invalid filter; the message says which word and why."""


def parse(text: str) -> Callable[[Overview], bool]:
    """Return a function that tests whether a run matches `text`; every word must match.

    A word is part of a run's name or model, ``field:a|b`` for one of several values, or a
    comparison such as ``lr>=1e-3``. A field is a column of the list, a metric of the validation or
    a setting. ``-`` before a word negates it.
    """
    tests = [_term(word) for word in text.split()]
    return lambda run: all(test(run) for test in tests)


def _term(word: str) -> Callable[[Overview], bool]:
    match = _TERM.match(word)
    if match is None:
        negated, plain = word.startswith("-"), word.lstrip("-").lower()
        return lambda run: (plain in f"{run.name} {run.model}".lower()) != negated
    sign, name, operator, wanted = match.groups()
    if not wanted:
        raise BadQuery(f"{word} lacks a value")
    name = name.replace("-", "_")
    if operator in _COMPARE:
        try:
            bound = float(wanted)
        except ValueError:
            raise BadQuery(f"{wanted!r} after {operator} is not a number") from None
        compare = _COMPARE[operator]
        return lambda run: _compares(value_of(run, name), bound, compare) != (sign == "-")
    if name == "status":
        _check_states(wanted)
    options = _options(wanted.lower())
    negated = (sign == "-") != (operator == "!=")
    return lambda run: any(_equals(value_of(run, name), one) for one in options) != negated


def _options(wanted: str) -> list[str]:
    return [one for one in wanted.replace("|", " ").split() if one]


def _check_states(wanted: str) -> None:
    for state in _options(wanted):
        if not any(known.startswith(state.lower()) for known in STATES):
            raise BadQuery(f"no run can be {state!r}{did_you_mean(state, STATES)}")


def value_of(run: Overview, name: str) -> Any:
    """Return a column of the list, else a metric of the validation, else a setting."""
    if name in _FIELDS:
        return getattr(run, name)
    if name in run.measured:
        return run.measured[name]
    return run.config.get(name)


def _compares(value: Any, bound: float, compare: Callable[[float, float], bool]) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return False
    return compare(float(value), bound)


def _equals(value: Any, wanted: str) -> bool:
    if isinstance(value, float | int) and not isinstance(value, bool):
        try:
            return float(value) == float(wanted)
        except ValueError:
            return False
    text = "none" if value is None else str(value).lower()
    return text == wanted or (bool(wanted) and text.startswith(wanted))


SORTS: dict[str, Callable[[Overview], Any]] = {
    "last sign": lambda run: (-run.last_sign, run.name),
    "state": lambda run: (STATES.index(run.status) if run.status in STATES else 99, -run.last_sign),
    "best": lambda run: (run.best is None, (run.best or 0.0) * (1 - 2 * run.higher_is_better)),
    "loss": lambda run: (run.loss is None or math.isnan(run.loss), run.loss),
    "made": lambda run: (-run.created, run.name),
    "name": lambda run: run.name,
}
