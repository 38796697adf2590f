"""Settings of commands: declared once as a dataclass, read from flags, environment and vcell.toml.

Order of precedence: command line > environment (``VCELL_TRAIN_VCC_BATCH_SIZE``) > file > default.
Plugins need `option`, `configured` and `DataOptions` from here, and nothing else.
"""

from vcell.config.data import ColumnOptions, DataOptions, ManyFiles
from vcell.config.fields import Setting, option, settings_of
from vcell.config.options import CellsPath, OutputPath, configured, project_folder, provenance
from vcell.config.ranges import Range, Ranges

__all__ = [
    "CellsPath",
    "ColumnOptions",
    "DataOptions",
    "ManyFiles",
    "OutputPath",
    "Range",
    "Ranges",
    "Setting",
    "configured",
    "option",
    "project_folder",
    "provenance",
    "settings_of",
]
