"""Write the settings: a commented vcell.toml for users, a JSON Schema for editors."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from typing import Any

from vcell.config.data import DataOptions
from vcell.config.fields import Setting, settings_of
from vcell.config.ranges import Ranges

_HEAD = """\
# The project file of vcell. Every line that is commented out shows a default;
# take the '#' away to change it. Paths are relative to this file.
# Order: command line > environment (VCELL_TRAIN_VCC_LR) > this file > default.
# `vcell config check` looks for mistakes, `vcell config show` says what holds and why.
"""
_JSON_TYPES = {bool: "boolean", int: "integer", float: "number"}


def toml_value(value: Any) -> str:
    """Format one value in TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, Mapping):
        inner = (f"{key.replace('_', '-')} = {toml_value(item)}" for key, item in value.items())
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def template(configs: dict[str, type], set_values: dict[str, dict[str, Any]] | None = None) -> str:
    """Return a commented project file; `set_values` are not commented out."""
    tables: dict[str, tuple[Setting, ...]] = {"data": settings_of(DataOptions)}
    shared = {setting.name for setting in settings_of(DataOptions)}
    for command, config in configs.items():
        tables[command] = tuple(s for s in settings_of(config) if s.name not in shared)
    parts = [_HEAD]
    for table, settings in tables.items():
        given = (set_values or {}).get(table, {})
        for inner in dict.fromkeys(["", *(setting.table for setting in settings)]):
            own = [_line(setting, given) for setting in settings if setting.table == inner]
            parts.append("\n".join([f"[{table}.{inner}]" if inner else f"[{table}]", *own]) + "\n")
    return "\n".join(parts)


def _line(setting: Setting, given: dict[str, Any]) -> str:
    comment = textwrap.fill(setting.help, 96, initial_indent="# ", subsequent_indent="# ")
    if setting.name in given:
        return f"{comment}\n{setting.key} = {toml_value(given[setting.name])}"
    shown = "" if setting.default is None else f" {toml_value(setting.default)}"
    return f"{comment}\n# {setting.key} ={shown}"


def schema(configs: dict[str, type]) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of vcell.toml."""
    tables = {"data": _table(DataOptions)}
    tables |= {command: _table(config) for command, config in configs.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "vcell.toml",
        "type": "object",
        "additionalProperties": False,
        "properties": tables,
    }


def _table(config: type) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for setting in settings_of(config):
        one = _scalar(setting)
        entry = {"type": "array", "items": one} if setting.many else one
        entry = {"description": setting.help, **entry}
        if setting.default is not None:
            default = setting.default
            entry["default"] = list(default) if isinstance(default, tuple) else _json(default)
        properties[setting.key] = entry
        if setting.table:
            nested.setdefault(setting.table, {})[setting.key] = entry
    for table, own in nested.items():
        properties[table] = {"type": "object", "additionalProperties": False, "properties": own}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _scalar(setting: Setting) -> dict[str, Any]:
    if setting.base is Ranges:
        properties = {one.key: _range(one) for one in setting.among}
        return {"type": "object", "additionalProperties": False, "properties": properties}
    entry: dict[str, Any] = {"type": _JSON_TYPES.get(setting.base, "string")}
    if setting.choices:
        entry["enum"] = list(setting.choices)
    if setting.minimum is not None:
        entry["minimum"] = setting.minimum
    if setting.maximum is not None:
        entry["maximum"] = setting.maximum
    return entry


def _range(setting: Setting) -> dict[str, Any]:
    """Return the schema of a range of the setting: a list, or low, high and log."""
    one = _scalar(setting)
    several = {"type": "array", "items": one, "minItems": 1, "uniqueItems": True}
    if setting.base not in (int, float):
        return several
    between = {
        "type": "object",
        "additionalProperties": False,
        "required": ["low", "high"],
        "properties": {"low": one, "high": one, "log": {"type": "boolean"}},
    }
    return {"anyOf": [between, several]}


def _json(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)
