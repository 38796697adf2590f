"""The outputs of commands: users' files are never replaced, and no partial files are left.

>>> outputs.check(target, inputs=[cells], overwrite=config.overwrite)  # before anything is read
>>> with outputs.whole(target) as aside:  # written under a temporary name, then renamed
...     aside.write_text(page)

`check` holds the one rule for every command:

* an output that exists is an error without ``--overwrite``;
* an input is never an output, under any name or link, nor is anything inside an input folder;
* files that vcell did not make (see `vcell.outputs.marks`) are never replaced.

`whole`, `folder` and `together` are the only ways to write: to a temporary name, then renamed, so
that a kill at any moment leaves the old output or the new one. Standard library only.
"""

from vcell.outputs.aside import (
    ASIDE,
    cannot_write,
    folder,
    sweep,
    together,
    whole,
    write_json,
    write_text,
)
from vcell.outputs.marks import MADE_BY, made_by, made_here
from vcell.outputs.rules import check, check_folder

__all__ = [
    "ASIDE",
    "MADE_BY",
    "cannot_write",
    "check",
    "check_folder",
    "folder",
    "made_by",
    "made_here",
    "sweep",
    "together",
    "whole",
    "write_json",
    "write_text",
]
