"""What tests need that is no fixture."""

from __future__ import annotations

import os


def clean_environment() -> dict[str, str]:
    """The environment without anybody's vcell settings, colours or completion."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("VCELL", "_VCELL"))}
    return environment | {"NO_COLOR": "1", "COLUMNS": "100"}
