"""Settings of `gp`, chosen once and saved in the run, so that loading does not choose again.

The file has one entry for each screen on which settings were chosen: the run's own screen, and the
same with the validation perturbations (see `vcell.models.Model.load`). Its key is a hash of
everything that the choice depends on. A run without a readable file chooses again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from vcell import __version__, outputs
from vcell.errors import VcellError
from vcell.screen.split import TRAIN
from vcell_train_vcc.closed.kernel import KernelSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vcell.models import Screen
    from vcell.runs import Run

FILE = "gp_settings.json"


def kept(
    run: Run | None, screen: Screen, choose: Callable[[], list[KernelSettings]]
) -> list[KernelSettings]:
    """Return the settings saved in the run for this screen; otherwise choose and save them.

    A run that cannot be written to is left unchanged.
    """
    if run is None:
        return choose()
    path, key = run.path / FILE, _key(screen)
    entries = _entries(path)
    try:
        return [_setting(stored) for stored in entries[key]]
    except (KeyError, TypeError, ValueError):
        pass
    chosen = choose()
    entries[key] = [list(dataclasses.astuple(setting)) for setting in chosen]
    with suppress(OSError, VcellError):
        outputs.write_text(path, json.dumps(entries), sync=False)
    return chosen


def _entries(path: Path) -> dict[str, list[list[object]]]:
    try:
        entries = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _setting(stored: object) -> KernelSettings:
    """Parse a saved setting; raise ValueError or TypeError if it is not valid."""
    if not isinstance(stored, list):
        raise TypeError("a setting is a list")
    width, constant, size, own, features, noise, centred, mix = stored
    weights = tuple(float(weight) for weight in mix)
    return KernelSettings(width, constant, size, own, features, noise, centred, weights)


def _key(screen: Screen) -> str:
    """Hash what the choice depends on: training data, features, and the version of the rules."""
    learned = screen.rows(TRAIN)
    digest = hashlib.sha256(__version__.encode())
    parts = (
        screen.perturbations[learned], screen.context[learned], screen.delta[learned], screen.genes,
        screen.feature_genes, screen.features, screen.blocks, screen.widths, screen.prior_sources,
        screen.prior_source, screen.prior_names, screen.prior_effects, screen.control_noise,
    )  # fmt: skip
    for part in parts:
        array = np.ascontiguousarray(part)
        digest.update(f"{array.shape} {array.dtype}\0".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:32]
