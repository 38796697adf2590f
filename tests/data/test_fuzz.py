"""Whatever the bytes of a file of cells: a UserError or a result."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data import builders
from tests.support import PATIENCE, clean_environment
from vcell.errors import UserError

TABLE = builders.counts()
_FUZZ = """
import os, random, signal, sys, warnings
from pathlib import Path
import h5py
sys.path.insert(0, {root!r})
from tests.data.builders import use
from vcell.errors import UserError
warnings.simplefilter("ignore")
source, target, seed, rounds = Path({source!r}), Path({target!r}), {seed}, {rounds}

def plainly():
    "What h5py makes of the file: the control for crashes of HDF5 itself."
    def visit(name, node):
        list(node.attrs.items())
        if isinstance(node, h5py.Dataset):
            node[...]
    with h5py.File(target) as file:
        file.attrs.items()
        file.visititems(visit)

def alone(call, accepted):
    "Run a call in a process of its own; return how it ended."
    child = os.fork()
    if not child:
        signal.setitimer(signal.ITIMER_PROF, 4)  # seconds of CPU; kills even inside C
        try:
            call()
            os._exit(0)
        except accepted:
            os._exit(3)
        except BaseException as error:
            import traceback
            traceback.print_exc()
            os._exit(4)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

good = source.read_bytes()
chance = random.Random(seed)
refused = hdf5 = 0
for round in range(rounds):
    bad = bytearray(good)
    for _ in range(chance.choice([1, 1, 2, 8, 64])):
        bad[chance.randrange(len(bad))] = chance.choice([0, 1, 127, 255, chance.randrange(256)])
    if chance.random() < 0.1:
        del bad[chance.randrange(len(bad)):]
    target.write_bytes(bad)
    end = alone(lambda: use(target), (UserError, MemoryError))
    refused += end == 3
    if end < 0:
        assert alone(plainly, Exception) < 0, f"round {{round}}: signal {{-end}}, not so h5py"
        hdf5 += 1
    else:
        assert end in (0, 3), f"round {{round}} ended with {{end}}"
print("died in HDF5 itself", hdf5, "refused", refused)
"""


def _fuzz(source: Path, target: Path, seed: int, rounds: int) -> None:
    """Flip bytes and read, each time in a process of its own.

    Damaged bytes make the HDF5 library itself loop or crash now and then; such a round counts as
    passed only if plain h5py dies of the same file as well.
    """
    root = str(Path(__file__).resolve().parents[2])
    code = _FUZZ.format(root=root, source=str(source), target=str(target), seed=seed, rounds=rounds)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=PATIENCE,
        env=clean_environment(), cwd=root,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-200:]}\n{done.stderr[-3000:]}"
    assert int(done.stdout.split()[-1]) > 0


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", ["csr", "dense", "10x"])
def test_flipped_bytes_never_crash(form, seed, tmp_path):
    source = tmp_path / "good.h5ad"
    small = TABLE[:9, :7]
    if form == "10x":
        builders.write_tenx_h5(source, small)
    else:
        adata = builders.annotated(small, sp.csr_matrix if form == "csr" else np.asarray)
        adata.obs = adata.obs[["target_gene", "plain", "maybe"]]
        adata.write_h5ad(source, compression="gzip")
    _fuzz(source, tmp_path / "bad.h5ad", seed, 400 if seed else 25)


@given(st.binary(max_size=300), st.sampled_from(["matrix.mtx", "barcodes.tsv", "features.tsv"]))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_in_a_10x_folder_never_crash(tmp_path_factory, content, name):
    folder = tmp_path_factory.mktemp("mtx") / "out"
    builders.write_mtx(folder, TABLE[:4, :5], zipped=False)
    (folder / name).write_bytes(content)
    with suppress(UserError):
        builders.use(folder)


@pytest.mark.parametrize("version", [2, 3])
def test_flipped_bytes_in_zarr_never_crash(version, tmp_path):
    good, bad = tmp_path / "good.zarr", tmp_path / "bad.zarr"
    with warnings.catch_warnings(), anndata.settings.override(zarr_write_format=version):
        warnings.simplefilter("ignore")
        adata = builders.annotated(TABLE[:9, :7])
        adata.obs = adata.obs[["target_gene", "maybe"]]
        adata.write_zarr(good)
    files = sorted(p for p in good.rglob("*") if p.is_file() and p.stat().st_size)
    rng, refused = np.random.default_rng(version), 0
    shutil.copytree(good, bad)
    for _ in range(60):
        victim = bad / files[rng.integers(len(files))].relative_to(good)
        whole = victim.read_bytes()
        content = bytearray(whole)
        content[rng.integers(len(content))] = rng.integers(256)
        victim.write_bytes(content)
        try:
            builders.use(bad)
        except (UserError, MemoryError):
            refused += 1
        victim.write_bytes(whole)
    assert refused
