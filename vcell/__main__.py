"""Run vcell as ``python -m vcell``; also the target of the ``vcell`` script."""

from __future__ import annotations

import sys


def main() -> None:
    """Run vcell; a signal during loading also gives a message and exit code 130."""
    try:
        from vcell.signals import ended_by_signals

        with ended_by_signals():  # as early as possible
            from vcell import cli

            cli.main()
    except KeyboardInterrupt as signal:
        from vcell.signals import forget_interrupt

        by = f" by {signal}" if str(signal) else ""
        sys.stderr.write(f"error: interrupted{by}\n")
        forget_interrupt()
        sys.exit(130)  # INTERRUPTED of vcell.cli, which may not be loaded yet


if __name__ == "__main__":
    main()
