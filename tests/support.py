"""What tests need that is no fixture."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest

#: Seconds until what hangs is ended. On a quiet machine nothing takes a tenth of this; a machine
#: where twenty processes share two cores must pass as well.
PATIENCE = 1200.0


@dataclass(frozen=True)
class Ran:
    """What running vcell left: its exit code and both streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def clean_environment() -> dict[str, str]:
    """The environment without anybody's vcell settings, colours or completion."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("VCELL", "_VCELL"))}
    return environment | {"NO_COLOR": "1", "COLUMNS": "100"}


def shortly(names: Iterable[str], *by_default: str) -> list[Any]:
    """Return parameters of a test: a few run by default, and all of them with the slow tests."""
    return [n if n in by_default else pytest.param(n, marks=pytest.mark.slow) for n in names]
