"""Check the tables of a project file against what commands declare, collecting every problem."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcell.config.fields import Setting, settings_of
from vcell.config.ranges import WrongRanges
from vcell.errors import UserError
from vcell.suggest import did_you_mean

if TYPE_CHECKING:
    from vcell.config.toml import ProjectFile

DATA_TABLE = "data"


@dataclass(frozen=True)
class Problem:
    """One error in the project file."""

    where: str  # vcell.toml:12
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def check_table_names(file: ProjectFile, known: Iterable[str]) -> list[Problem]:
    """Report top-level names of no command, and values in place of tables."""
    names = sorted({*known, DATA_TABLE})
    problems = []
    for name, value in file.tables.items():
        if name not in names:
            hint = did_you_mean(name, names)
            what = (
                f"[{name}] is not a table of vcell{hint}"
                if isinstance(value, dict)
                else f"{name} stands outside any table{hint}"
            )
            problems.append(Problem(file.at(name), what))
        elif not isinstance(value, dict):
            problems.append(
                Problem(
                    file.at(name), f"{name} must be a table: write [{name}] on a line of its own"
                )
            )
    return problems


def read_table(
    file: ProjectFile, table: str, settings: Iterable[Setting]
) -> tuple[dict[str, Any], list[Problem]]:
    """Return the valid values of one table by Python name, and the problems with the others.

    Paths are made absolute against the folder of the file. Both spellings of a key, ``batch-size``
    and ``batch_size``, are accepted; giving both is a problem.
    """
    content = file.tables.get(table, {})
    if not isinstance(content, Mapping):
        return {}, []  # reported by check_table_names
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    by_table: dict[str, dict[str, Setting]] = {"": {}}
    for setting in settings:
        by_table[""] |= dict.fromkeys((setting.key, *setting.former), setting)
        if setting.table:
            by_table.setdefault(setting.table, {})[setting.key] = setting
    for inner, settings_there in by_table.items():
        found = content.get(inner, {}) if inner else content
        if isinstance(found, Mapping):
            own = {key: raw for key, raw in found.items() if inner or key not in by_table}
            where = (table, inner) if inner else (table,)
            problems += _read(file, where, own, settings_there, values)
        else:
            what = f"[{table}] {inner} is a table: write [{table}.{inner}] on a line of its own"
            problems.append(Problem(file.at(table, inner), what))
    return values, problems


def _read(
    file: ProjectFile,
    where: tuple[str, ...],
    content: Mapping[str, Any],
    by_key: Mapping[str, Setting],
    values: dict[str, Any],
) -> list[Problem]:
    """Add the valid values of one table to `values`, and return the problems with the others."""
    problems: list[Problem] = []
    name = ".".join(where)
    for key, raw in content.items():
        setting = by_key.get(key.replace("_", "-"))
        if setting is None:
            what = f"[{name}] {key} is not an option{did_you_mean(key, by_key)}"
            problems.append(Problem(file.at(*where, key), what))
        elif setting.name in values:
            twice = (setting.key, setting.name) if len(where) == 1 else (key, f"[{where[0]}] {key}")
            what = f"[{name}] {key} is given twice, as {' and '.join(twice)}"
            problems.append(Problem(file.at(*where, key), what))
        else:
            try:
                values[setting.name] = _rooted(setting.check(raw), file.path.parent)
            except WrongRanges as error:
                problems += [
                    Problem(file.at(*where, key, inner), f"[{name}.{key}] {inner} {what}")
                    for inner, what in error.problems.items()
                ]
            except ValueError as error:
                problems.append(Problem(file.at(*where, key), f"[{name}] {key} {error}"))
    return problems


def values_for(
    file: ProjectFile, command: str, config: type
) -> tuple[dict[str, Any], list[Problem]]:
    """Return the values of one command: its own table overrides the shared [data] table."""
    from vcell.config.data import SHARED, DataOptions

    own, problems = read_table(file, command, settings_of(config))
    shared, shared_problems = read_table(file, DATA_TABLE, settings_of(DataOptions))
    names = {setting.name for setting in settings_of(config) if setting.owner in SHARED}
    merged = {name: value for name, value in shared.items() if name in names} | own
    if "runs" not in merged and any(s.name == "runs" for s in settings_of(config)):
        merged |= runs_folder(file)
    problems = shared_problems + problems
    if not problems:
        problems = _check_whole(file, command, config, merged)
    return merged, problems


def runs_folder(file: ProjectFile) -> dict[str, Path]:
    """Return the runs folder that some command's table sets, for commands that set none.

    So predict and `vcell runs` find runs where the project's trainer writes them.
    """
    for table in file.tables.values():
        folder_text = table.get("runs") if isinstance(table, Mapping) else None
        if isinstance(folder_text, str) and folder_text:
            return {"runs": file.path.parent / Path(folder_text).expanduser()}
    return {}


def _check_whole(
    file: ProjectFile, command: str, config: type, values: dict[str, Any]
) -> list[Problem]:
    """Let the dataclass check combinations of values."""
    try:
        config(**values)
    except ValueError as error:
        return [Problem(file.at(command), f"[{command}] {error}")]
    return []


def raise_if_any(problems: list[Problem]) -> None:
    """Raise all problems as one UserError, one per line."""
    if problems:
        raise UserError("\n".join(str(problem) for problem in problems))


def _rooted(value: Any, folder: Path) -> Any:
    if isinstance(value, Path):
        return folder / value.expanduser()
    if isinstance(value, tuple):
        return tuple(_rooted(item, folder) for item in value)
    return value
