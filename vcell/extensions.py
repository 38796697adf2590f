"""Load compiled modules of a package without the rest of it.

The modules are loaded below an empty package. A later import of the package gets the whole one,
with these same modules as its attributes. Load them at the top of a module, not in a function that
threads run: in between, another thread would see the empty package.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_ours: dict[str, dict[str, ModuleType]] = {}  # package: modules that were loaded without it


def load(package: str, needed: dict[str, tuple[str, ...]]) -> list[Any]:
    """Return modules of a package; import all of it if it is imported, or has changed.

    Parameters
    ----------
    package
        Its full name.
    needed
        Names of modules, and of what each must have.
    """
    names = [f"{package}.{name}" for name in needed]
    spec = None if package in sys.modules else find_spec(package)
    if spec is not None and spec.submodule_search_locations is not None:
        empty = ModuleType(package)
        empty.__path__ = list(spec.submodule_search_locations)
        sys.modules[package] = empty
        try:
            found: list[Any] = [import_module(name) for name in names]
            _ = [getattr(m, n) for m, own in zip(found, needed.values(), strict=True) for n in own]
        except (ImportError, AttributeError):
            pass
        else:
            modules = {k: v for k, v in vars(empty).items() if isinstance(v, ModuleType)}
            _ours.setdefault(package, {}).update(modules)
            return found
        finally:
            del sys.modules[package]
    import_module(package)
    return [import_module(name) for name in names]


class _Whole:
    """Finds such a package as Python does, and gives it the modules that are loaded already."""

    @staticmethod
    def find_spec(name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """Be asked before Python's own finders."""
        spec = PathFinder.find_spec(name, path, target) if name in _ours else None
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            execute = loader.exec_module

            def filled(module: ModuleType) -> None:
                vars(module).update(_ours[name])
                execute(module)

            loader.exec_module = filled
        return spec


sys.meta_path.insert(0, _Whole)
