"""Declaration of settings in a frozen dataclass: type, bounds, help and default.

A command declares its settings once, as a dataclass whose fields are made by `option`. From this
declaration come the ``--flags``, the ``VCELL_...`` variables, the table in ``vcell.toml``, the
checks on all three, the JSON Schema and the commented template. Allowed types are ``bool``,
``int``, ``float``, ``str``, ``Path``, ``Literal[...]``, ``X | None``, ``tuple[X, ...]``, and
`Ranges`, a table of ranges of the command's other settings.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from pathlib import Path
from typing import Any, Literal

from vcell.config import ranges
from vcell.config.ranges import Ranges
from vcell.suggest import did_you_mean

#: How a command writes to a path.
Made = Literal["", "whole", "into"]
_SCALARS = (bool, int, float, str, Path, Ranges)
_TYPE_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
    Path: "a path in quotes",
    Ranges: "a table of ranges",
}
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


def option(  # noqa: PLR0913 - a keyword for each property of a setting
    default: Any,
    *,
    help: str,
    minimum: float | None = None,
    maximum: float | None = None,
    short: str | None = None,
    apart: tuple[str, ...] = (),
    former: tuple[str, ...] = (),
    table: str = "",
    read: bool = False,
    made: Made = "",
) -> Any:
    """Declare one setting of a command.

    Parameters
    ----------
    default
        The value if not set. ``None`` needs a type of the form ``X | None``.
    help
        One sentence; shown by ``--help``, ``vcell config init`` and editors.
    minimum, maximum
        Inclusive bounds of a number (of each number, for a tuple).
    short
        A one-letter flag such as ``"-o"``.
    apart
        For a setting of the type `Ranges`: the settings that are never searched.
    former
        Former names that are still accepted, such as ``("cells",)``.
    table
        The table within the command's own that has it in the project file, such as
        ``[train-vcc.losses]``. The command's own table may have it as well.
    read
        Whether it names input files: missing ones are reported before any work.
    made
        Whether it names an output: "whole", a file or folder that is replaced as a whole, or
        "into", a folder that files are added to. No input can be named there.
    """
    extra = {
        "help": help,
        "minimum": minimum,
        "maximum": maximum,
        "short": short,
        "apart": apart,
        "former": former,
        "table": table,
        "read": read,
        "made": made,
    }
    return dataclasses.field(default=default, metadata={"vcell": extra})


@dataclasses.dataclass(frozen=True)
class Setting:
    """One field of a command's dataclass, as needed by files, flags and editors."""

    name: str  # Python name, batch_size
    base: type
    default: Any
    help: str
    many: bool = False
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    short: str | None = None
    apart: tuple[str, ...] = ()
    former: tuple[str, ...] = ()
    table: str = ""
    read: bool = False
    made: Made = ""
    owner: str = ""  # name of the dataclass that declared it, e.g. DataOptions
    heading: str = ""  # that dataclass's, for --help-all
    among: tuple[Setting, ...] = ()  # of Ranges: the settings that can be searched

    @property
    def key(self) -> str:
        """Name in the file and on the command line: batch-size; for a field `as_`: as."""
        return self.name.rstrip("_").replace("_", "-")

    @property
    def variable(self) -> str:
        """Name in the environment, after the command: BATCH_SIZE."""
        return self.name.rstrip("_").upper()

    @property
    def type_words(self) -> str:
        """The expected kind of value, for messages."""
        if self.choices:
            words = "one of " + ", ".join(f'"{choice}"' for choice in self.choices)
        else:
            words = _TYPE_WORDS[self.base]
        return f"a list, each {words}" if self.many else words

    def check(self, value: object) -> Any:
        """Convert `value` from TOML to its Python type, or raise ValueError."""
        if not self.many:
            return self._check_one(value)
        if not isinstance(value, list | tuple):
            raise ValueError(f"must be {self.type_words}, not {_shown(value)}")
        return tuple(self._check_one(item) for item in value)

    def parse(self, text: str) -> Any:
        """Convert a command-line word or an environment variable."""
        if self.many:
            items = [item.strip() for item in text.split(",")] if text.strip() else []
            return tuple(self._parse_one(item) for item in items)
        return self._parse_one(text)

    def _parse_one(self, text: str) -> Any:
        if self.base is bool:
            word = text.strip().lower()
            if word in _TRUE or word in _FALSE:
                return word in _TRUE
            raise ValueError(f"must be true or false, not {_shown(text)}")
        if self.base is Ranges:
            return self._check_one(ranges.parsed(text))
        if self.base in (int, float):
            try:
                return self._check_one(self.base(text))
            except ValueError as error:
                if "must be" in str(error):
                    raise
                raise ValueError(f"must be {self.type_words}, not {_shown(text)}") from None
        return self._check_one(text)

    def _check_one(self, value: object) -> Any:
        if self.base is Ranges:
            return ranges.checked(value, self.among)
        wanted = {float: (int, float), Path: (str, Path)}.get(self.base, self.base)
        is_wrong_bool = isinstance(value, bool) and self.base is not bool
        if is_wrong_bool or not isinstance(value, wanted):
            raise ValueError(f"must be {self.type_words}, not {_shown(value)}")
        if self.choices:
            self._check_choice(str(value))
        if self.base is Path:
            if not str(value) or "\0" in str(value):
                raise ValueError("must be a path, not an empty text or one with a zero byte")
            return Path(str(value))
        if self.base in (int, float):
            return self._check_number(value)
        return value

    def _check_choice(self, value: str) -> None:
        if value not in self.choices:
            words = self.type_words.removeprefix("a list, each ")
            hint = did_you_mean(value, self.choices)
            raise ValueError(f"must be {words}, not {_shown(value)}{hint}")

    def _check_number(self, value: Any) -> Any:
        try:
            number = self.base(value)
            finite = math.isfinite(number)
        except OverflowError:
            raise ValueError("is too large a number") from None
        if not finite:
            raise ValueError(f"must be a finite number, not {number}")
        if self.minimum is not None and number < self.minimum:
            raise ValueError(f"must be at least {self.minimum:.10g}, not {_shown(value)}")
        if self.maximum is not None and number > self.maximum:
            raise ValueError(f"must be at most {self.maximum:.10g}, not {_shown(value)}")
        return number


@functools.cache
def settings_of(config: type) -> tuple[Setting, ...]:
    """List the settings of a command's dataclass, in order of declaration."""
    if not (dataclasses.is_dataclass(config) and config.__dataclass_params__.frozen):  # type: ignore[attr-defined]
        raise TypeError(f"{config.__name__} must be a frozen dataclass")
    hints = typing.get_type_hints(config)
    found = [_setting(config, field, hints[field.name]) for field in dataclasses.fields(config)]
    return tuple(
        dataclasses.replace(one, among=ranges.searchable(found, one.apart))
        if one.base is Ranges
        else one
        for one in found
    )


def _setting(config: type, field: dataclasses.Field[Any], hint: Any) -> Setting:
    where = f"{config.__name__}.{field.name}"
    extra = field.metadata.get("vcell")
    if extra is None:
        raise TypeError(f"{where}: declare it with vcell.config.option(default, help=...)")
    many = False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inner = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        hint = inner[0] if len(inner) == 1 else hint
    if typing.get_origin(hint) is tuple:
        arguments = typing.get_args(hint)
        many = len(arguments) == 2 and arguments[1] is Ellipsis
        hint = arguments[0] if many else hint
    choices: tuple[str, ...] = ()
    if typing.get_origin(hint) is Literal:
        choices, hint = typing.get_args(hint), str
    if hint not in _SCALARS:
        raise TypeError(f"{where}: {hint!r} is not a type that a setting can have")
    owner = next(
        base
        for base in reversed(config.__mro__)
        if field.name in getattr(base, "__annotations__", {})
    )
    return Setting(
        name=field.name,
        base=hint,
        default=field.default,
        many=many,
        choices=choices,
        owner=owner.__name__,
        # a command's own settings have no heading, even if it inherits some that have one
        heading=extra["table"].capitalize()
        or ("" if owner is config else getattr(owner, "heading", "")),
        **extra,
    )


def _shown(value: object) -> str:
    """Show a wrong value briefly, in TOML rather than Python syntax."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    text = repr(str(value)) if isinstance(value, str | Path) else _number_text(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _number_text(value: object) -> str:
    try:
        return str(value)
    except ValueError:  # int longer than sys.get_int_max_str_digits()
        return "a very long number"
