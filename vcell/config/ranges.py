"""Ranges of settings, for commands that search them: a table in ``vcell.toml``.

    [train-vcc.sweep-over] lr = {low = 1e-4, high = 1e-2, log = true}   # a number from low to high,
    on a log scale batch-size = [4, 8, 16]                      # one of these

A command that searches settings declares one of the type `Ranges`, whose keys are other settings of
the command. On the command line and in the environment, the same table is written on one line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcell.suggest import did_you_mean

if TYPE_CHECKING:
    from vcell.config.fields import Setting

_ENDS = ("low", "high")


class Ranges(dict[str, Any]):
    """Settings by Python name, each with a list of values or a table of low, high and log."""


@dataclass(frozen=True)
class Range:
    """The range of one setting: one of `choices`, or a number from `low` to `high`."""

    name: str
    whole: bool = False
    choices: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False

    @classmethod
    def read(cls, setting: Setting, value: object) -> Range:
        """Read a range from TOML, or raise ValueError with an example."""
        if isinstance(value, list | tuple):
            return cls(setting.name, setting.base is int, choices=_choices(setting, value))
        if not isinstance(value, Mapping):
            raise ValueError(f"must be a range: write {example(setting)}")
        if setting.base not in (int, float):
            raise ValueError(f"is not a number: list its values, as {example(setting)}")
        unknown = [key for key in value if key not in (*_ENDS, "log")]
        if unknown:
            hint = did_you_mean(unknown[0], [*_ENDS, "log"])
            raise ValueError(f"has no {unknown[0]}{hint}: write {example(setting)}")
        missing = [key for key in _ENDS if key not in value]
        if missing:
            raise ValueError(f"lacks {' and '.join(missing)}: write {example(setting)}")
        return cls._between(setting, value)

    @classmethod
    def _between(cls, setting: Setting, value: Mapping[str, Any]) -> Range:
        low, high = (_within(setting, value[key], f"{key} ") for key in _ENDS)
        log = value.get("log", False)
        if not isinstance(log, bool):
            raise ValueError("log must be true or false")
        if not low < high:
            raise ValueError(f"low ({low:g}) must be below high ({high:g})")
        if log and low <= 0:
            raise ValueError(f"low ({low:g}) must be above 0 to search by the logarithm")
        return cls(setting.name, setting.base is int, low=low, high=high, log=log)

    @property
    def plain(self) -> list[Any] | dict[str, Any]:
        """Return the range as in TOML and JSON."""
        if self.choices:
            return list(self.choices)
        return {"low": self.low, "high": self.high} | ({"log": True} if self.log else {})


class WrongRanges(ValueError):
    """Errors of several ranges, by key."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        super().__init__("; ".join(f"{key} {what}" for key, what in problems.items()))


def checked(value: object, settings: Iterable[Setting]) -> Ranges:
    """Check a table of ranges of `settings`, or raise ValueError with all errors."""
    if not isinstance(value, Mapping):
        raise ValueError("must be a table of ranges, as lr = {low = 0.0001, high = 0.01}")
    by_key = {setting.key: setting for setting in settings}
    ranges, problems = Ranges(), {}
    for key, given in value.items():
        setting = by_key.get(key.replace("_", "-"))
        if setting is None:
            hint = did_you_mean(key, by_key)
            problems[key] = f"is not an option that can be searched{hint}"
        elif setting.name in ranges:
            problems[key] = "is given twice"
        else:
            try:
                ranges[setting.name] = Range.read(setting, given).plain
            except ValueError as error:
                problems[key] = str(error)
    if problems:
        raise WrongRanges(problems)
    return ranges


def parsed(text: str) -> dict[str, Any]:
    """Read ranges from one line: ``lr = {low = 1e-4, high = 1e-2}, preset = ["tiny", "small"]``."""
    import tomllib  # 10 ms, for whoever searches

    try:
        return dict(tomllib.loads(f"ranges = {{{text}}}")["ranges"])
    except (ValueError, RecursionError):
        raise ValueError(
            f'must be written as lr = {{low = 1e-4, high = 1e-2}}, dropout = [0, 0.1], not "{text}"'
        ) from None


def searchable(settings: Iterable[Setting], apart: Iterable[str]) -> tuple[Setting, ...]:
    """Return the settings that can be searched: single values, without those in `apart`."""
    out = set(apart)
    return tuple(
        one for one in settings
        if not one.many and one.base not in (Path, Ranges) and one.name not in out
    )  # fmt: skip


def example(setting: Setting) -> str:
    """Return an example range of this setting, in TOML."""
    if setting.choices:
        values = ", ".join(f'"{choice}"' for choice in setting.choices[:2])
    elif setting.base is bool:
        values = "true, false"
    elif setting.base is str:
        values = '"one", "another"'
    else:
        low, high = _example_ends(setting)
        return f"{setting.key} = {{low = {low:g}, high = {high:g}}}"
    return f"{setting.key} = [{values}]"


def _example_ends(setting: Setting) -> tuple[float, float]:
    """Return two values around the default."""
    middle = setting.default or setting.minimum or 1
    low, high = middle / 2, middle * 2
    if setting.base is int:
        low, high = max(1, int(low)), max(2, int(high))
    if setting.minimum is not None:
        low = max(low, setting.minimum)
    return (low, high if setting.maximum is None else min(high, setting.maximum))


def _choices(setting: Setting, values: Iterable[object]) -> tuple[Any, ...]:
    found = tuple(_within(setting, value, "each value ") for value in values)
    if not found:
        raise ValueError(f"lists no values: write {example(setting)}")
    if len(set(found)) < len(found):
        raise ValueError("lists a value twice")
    return found


def _within(setting: Setting, value: object, what: str) -> Any:
    """Check one value of the setting; errors say which end of the range it is."""
    try:
        return setting.check(value)
    except ValueError as error:
        raise ValueError(f"{what}{error}") from None
