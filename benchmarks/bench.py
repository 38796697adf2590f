"""Every table of docs/benchmarks.md that is judged, and the exit code 1 if one does not hold.

    make bench                                       # two to three hours, quiet
    python benchmarks/bench.py --install             # the peers' environments, once
    python benchmarks/bench.py --only startup,loader

Each table is a script of its own, which judges itself against peers.py and runs alone too. What is
left out because a peer is not installed is told first and last.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import peers

HERE = Path(__file__).resolve().parent
TABLES = {
    "startup": ["startup.py"],
    "whole": ["whole.py"],
    "loader": ["loader.py", "--rounds", "3"],
    "pseudobulk": ["pseudobulk.py", "speed"],
}


def main() -> None:
    """Run the tables, and fail if one of them failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(TABLES), help="tables, with commas between them")
    parser.add_argument("--install", action="store_true", help="make the peers' environments")
    options = parser.parse_args()
    if options.install:
        peers.install()
        return
    names = options.only.split(",")
    if unknown := [name for name in names if name not in TABLES]:
        parser.error(f"no table {unknown[0]}: {', '.join(TABLES)}")
    load = os.getloadavg()[0]
    print(f"{datetime.now():%Y-%m-%d %H:%M}, {platform.machine()}, {os.cpu_count()} cores, "
          f"load {load:.1f}{' (NOT QUIET)' if load > 0.7 else ''}")  # fmt: skip
    print("\n".join(peers.missing()), flush=True)
    failed = []
    for name in names:
        print(f"\n== {name}", flush=True)
        script, *words = TABLES[name]
        if subprocess.run([sys.executable, HERE / script, *words], check=False).returncode:
            failed.append(name)
    print("", *peers.missing(), sep="\n")
    if failed:
        sys.exit(f"These tables do not hold, see MISSED above: {', '.join(failed)}")
    print("Every table that was run holds.")


if __name__ == "__main__":
    main()
