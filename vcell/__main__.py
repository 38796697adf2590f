"""Run vcell as ``python -m vcell``; also the target of the ``vcell`` script."""

from __future__ import annotations

import sys


def main() -> None:
    """Run vcell; Ctrl-C during loading also gives a message and exit code 130."""
    try:
        from vcell import cli

        cli.main()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        sys.exit(130)  # INTERRUPTED of vcell.cli, which may not be loaded yet


if __name__ == "__main__":
    main()
