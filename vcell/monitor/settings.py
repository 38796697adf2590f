"""Settings of runs, and differences between them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vcell.monitor import words


class SettingRow(NamedTuple):
    """One setting of one run or of several."""

    name: str
    values: list[str]
    origin: str  # source of the first run's value
    differs: bool


def settings(
    metas: Sequence[Mapping[str, Any]], *, only_different: bool = False
) -> list[SettingRow]:
    """Return the settings of runs side by side, from their run.json.

    Other facts that affect a result are included: seed, git commit, fingerprints of the data,
    versions of vcell and torch, devices.
    """
    tables = [_all(meta) for meta in metas]
    names = dict.fromkeys(name for table in tables for name in table)
    found = []
    for name in names:
        values = [table.get(name) for table in tables]
        differs = len({json.dumps(value, sort_keys=True, default=str) for value in values}) > 1
        if only_different and not differs:
            continue
        origin = str(metas[0].get("provenance", {}).get(name, "")) if metas else ""
        found.append(SettingRow(name, [brief(value) for value in values], origin, differs))
    return found


def _all(meta: Mapping[str, Any]) -> dict[str, Any]:
    git = meta.get("git")
    git = git if isinstance(git, Mapping) else {}
    versions = meta.get("versions", {})
    data = meta.get("data")
    return {
        **meta.get("config", {}),
        "seed": meta.get("seed", meta.get("config", {}).get("seed")),
        "git": f"{str(git.get('commit', ''))[:7]}{'+' if git.get('dirty') else ''}"
        if git
        else None,
        "data": [_fingerprint(one) for one in data] if isinstance(data, list) else None,
        "vcell": versions.get("vcell"),
        "torch": versions.get("torch"),
        "devices": _devices(meta.get("devices")) or meta.get("device"),
        "processes": meta.get("world_size"),
        "parameters": meta.get("parameters"),
    }


def _devices(names: Any) -> list[str]:
    names = names if isinstance(names, list) else []
    return [str(name).removeprefix("NVIDIA ") for name in names]


def _fingerprint(item: Any) -> str:
    if not isinstance(item, Mapping):
        return str(item)
    mark = next((str(v) for k, v in item.items() if "sha" in k or "print" in k or "hash" in k), "")
    return f"{item.get('name') or item.get('path') or 'data'} {mark[:8]}".strip()


def brief(value: Any) -> str:
    """Format a setting as a short text."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        if len(value) > 1 and len(set(map(str, value))) == 1:
            return f"{len(value)} × {brief(value[0])}"
        return ",".join(brief(item) for item in value) or "none"
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:,}"
    return words.clean(str(value))
