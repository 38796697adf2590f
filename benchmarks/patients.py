"""Simulate patients for `vcell pipeline bulk`.

    python benchmarks/patients.py made FOLDER --patients 60 --shift 0.5 --state 0.8 --talk 0.8

Simulated patients (vcell.patients.simulate) show whether a known signal is found. They show nothing
about a disease.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from vcell.patients.simulate import PatientDesign, write

PROJECT = """\
[data]
cells = "cells.h5ad"
cell-type-column = "cell_type"

[pipeline]
pairs = "pairs.csv"
min-genes = 20
samples = 5
sample-cells = 100

[train-gmvae]
max-steps = 300
encoder = [64]
"""


def main() -> None:
    """Write cells.h5ad, pairs.csv and vcell.toml into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["made"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    for name in ("shift", "state", "talk"):
        parser.add_argument(f"--{name}", type=float, default=getattr(PatientDesign, name))
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    wanted = PatientDesign(
        patients=given.patients, shift=given.shift, state=given.state, talk=given.talk,
        seed=given.seed,
    )  # fmt: skip
    write(wanted, given.folder / "cells.h5ad", given.folder / "pairs.csv")
    (given.folder / "vcell.toml").write_text(PROJECT)


if __name__ == "__main__":
    main()
