"""The errors that vcell raises deliberately, and their exit codes.

Raise `UserError` for anything the user can fix (a wrong file, a misspelt gene, an impossible
option): one sentence saying what is wrong and where, plus a `hint` saying how to fix it. The
command line prints both without a traceback and exits with 2. Raise `RunFailed` when the work
itself failed (a rank died, the loss became NaN): exit code 1. `assert` is for programming errors
only.
"""

from __future__ import annotations


class VcellError(Exception):
    """Base class of errors that are shown as a sentence instead of a traceback.

    Parameters
    ----------
    message
        One sentence: what is wrong, and where.
    hint
        How to fix it.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class VcellWarning(UserWarning):
    """A warning of vcell, in calls from Python."""


class UserError(VcellError):
    """The input, the project file or the command line is wrong; the user can fix it."""

    exit_code = 2


class DiskFull(UserError):
    """An output exceeds the disk, a quota or a limit on file sizes."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None, why: str = "") -> None:
        super().__init__(message, hint=hint)
        self.why = why  # in words: which of the three


class RunFailed(VcellError):
    """A run was started and failed."""

    exit_code = 1
