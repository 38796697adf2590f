"""Build wheels that carry compiled kernels, so that nobody who installs one waits for a compiler.

A wheel is built with hatchling; this adds the object code of all listed kernels for every level of
processors (`vcell.kernels.targets`). The wheel stays one for all machines: code that does not fit
the Python, numba or processor that it meets is not used, and compiled there when needed. What
``vcell doctor --compile`` has compiled in a checkout is taken over. ``VCELL_WHEEL_TARGETS`` names
other levels; with an empty one the wheel carries none. Editable installations carry none either,
and need no compiler to be built: `make` runs ``vcell doctor --compile``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import hatchling.build as hatchling
from hatchling.build import (  # noqa: F401 - this is the backend; pip calls these
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
)
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_KERNELS = "vcell/kernels"


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    """Ask for numba, which compiles the kernels."""
    return [*hatchling.get_requires_for_build_wheel(config_settings), "numba>=0.61"]


class Kernels(BuildHookInterface):  # type: ignore[type-arg]
    """hatchling's hook: adds files to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and list the files."""
        self._temporary = tempfile.TemporaryDirectory(prefix="vcell-kernels-")
        self._folder = Path(self._temporary.name)
        if version == "editable" or sys.platform != "linux":  # files are read as ELF
            return
        try:
            names = self._targets()
            for name in names:
                self._compile(name)
        except subprocess.CalledProcessError as error:
            self.app.display_warning(
                "kernels could not be compiled, and will be when they are first used: "
                f"{error.stderr[-2000:]}"
            )
            return
        for file in sorted(self._folder.glob("*.kernel")):
            build_data["force_include"][str(file)] = f"{_KERNELS}/compiled/{file.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what is in the wheel now."""
        self._temporary.cleanup()

    def _targets(self) -> list[str]:
        if (named := os.environ.get("VCELL_WHEEL_TARGETS")) is not None:
            return named.split()
        return self._python(
            "-c", "from vcell.kernels import targets; print(*targets.shipped())"
        ).split()

    def _compile(self, target: str) -> None:
        """Compile all listed kernels for a level that are not in the checkout's cache."""
        held = self._folder / "vcell"  # where it is with this NUMBA_CACHE_DIR
        held.mkdir(exist_ok=True)
        for file in Path(self.root, _KERNELS, "__pycache__").glob(f"*.{target}.*.kernel"):
            shutil.copy2(file, held)
        for name in self._python("-m", "vcell.kernels.ahead", "--target", target).split():
            if (held / name).exists():  # not if it needs more of numba
                shutil.move(held / name, self._folder / name)

    def _python(self, *words: str) -> str:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
        environment["NUMBA_CACHE_DIR"] = str(self._folder)
        done = subprocess.run(
            [sys.executable, *words], cwd=self.root, env=environment, check=True,
            capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout
