"""vcell: from raw single-cell counts to a scored virtual-cell result.

At the command line, ``vcell --help``. In Python every command is a function of the same name, which
`dir(vcell)` lists and docs/python.md shows; nothing is imported before it is used::

    import vcell

    run = vcell.train("screen.h5ad")
    cells = vcell.predict(run, ["TP53", "MYC"])
"""

from __future__ import annotations

__version__ = "0.1.0"
TYPE_CHECKING = False  # mypy understands this; importing typing would slow down import vcell

if not TYPE_CHECKING:  # otherwise mypy would accept any misspelt import

    def __getattr__(name: str) -> object:
        """Import a module of vcell, or the function of a command, when it is first used."""
        if name.startswith("_"):
            raise AttributeError(f"module 'vcell' has no attribute {name!r}")
        from importlib import import_module
        from os.path import exists

        place = f"{__path__[0]}/{name}"
        if exists(f"{place}.py") or exists(place):  # noqa: PTH110 - pathlib is a slow import
            return import_module(f"vcell.{name}")
        from vcell import library

        try:
            found = library.function(name)
        except KeyError:
            raise AttributeError(
                f"module 'vcell' has no attribute {name!r}; dir(vcell) lists its functions"
            ) from None
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        """List imported modules and all functions."""
        from vcell import library

        return sorted({*globals(), *library.names(), "train"})
