"""Profiles: settings chosen by find-optimal for a kind of card, in gpu-profiles/NAME.json."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcell import outputs
from vcell.errors import UserError
from vcell.gpu.settings import CardSettings
from vcell.text_files import read_text

if TYPE_CHECKING:
    from vcell.gpu.settings import Control

FOLDER = Path("gpu-profiles")
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


def path_of(name: str) -> Path:
    """Return the path of a profile."""
    if not _NAME.match(name):
        raise UserError(f"{name!r} cannot be the name of a profile", hint="use letters and digits")
    return FOLDER / f"{name}.json"


def read(name: str, card: Control) -> CardSettings:
    """Return a profile's settings; raise if it is of another kind of card."""
    path = path_of(name)
    if not path.exists():
        raise UserError(
            f"there is no profile {path}", hint="vcell gpu-tune find-optimal writes one"
        )
    try:
        found = json.loads(read_text(path))
        stored = dict(found["settings"])
        if not all(_is_sound(key, value) for key, value in stored.items()):
            raise ValueError("not settings of a card")
        settings, of = CardSettings.of(stored), str(found["card"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{path} is damaged", hint="write it again with find-optimal") from None
    if of != card.name:
        raise UserError(
            f"{path} was measured on {of}, this is {card.name}", hint="measure it again"
        )
    return settings


def _is_sound(key: str, value: Any) -> bool:
    """Whether a value is a lock of two clocks, or else a number."""
    if key.endswith("clocks"):
        return isinstance(value, list) and [type(one) for one in value] == [int, int]
    return type(value) in (int, float) and math.isfinite(value)


def write(name: str, card: str, settings: CardSettings, measured: dict[str, Any]) -> Path:
    """Write a profile, atomically."""
    path = path_of(name)
    path.parent.mkdir(exist_ok=True)
    content = {"card": card, "settings": settings.plain(), "measured": measured}
    outputs.write_json(path, {outputs.MADE_BY: outputs.made_by(), **content})
    return path


@contextmanager
def applied(name: str | None) -> Iterator[None]:
    """Apply a profile to the GPUs that this process may use, and restore them afterwards.

    Without a name, do nothing.
    """
    if name is None:
        yield
        return
    from vcell import console
    from vcell.gpu import hold, nvml

    found = nvml.devices()
    uuids = [device.uuid for device in found.devices if not device.parent]
    if not uuids:
        why = found.reason or "they are MIG instances"
        raise UserError(f"--gpu-profile {name} needs GPUs that can be set: {why}")
    with hold.controls(uuids) as cards:
        wanted = {card.uuid: read(name, card) for card in cards}
    with hold.holding(wanted):
        console.say(f"GPU profile {name}: {', '.join(next(iter(wanted.values())).words())}")
        yield
