"""vcell from Python: light to import, silent, the commands' results and sentences."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import anndata as ad
import pytest

import vcell
from tests.support import PATIENCE, clean_environment
from vcell.data import open_cells
from vcell.errors import UserError, VcellWarning
from vcell.plugin import discover
from vcell.runs import Run

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "python.md"


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder, env=clean_environment() | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


def test_the_page_is_a_notebook_that_runs(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 4
    done = python("\n".join(blocks), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "train-vcc has no setting 'modle' (did you mean model?)\n"
    assert done.stderr == ""


def test_importing_vcell_costs_nothing(tmp_path):
    code = "import sys; before = set(sys.modules); import vcell; print(set(sys.modules) - before)"
    assert set(eval(python(code, tmp_path).stdout)) <= {"vcell", "__future__"}
    heavy = "print([name for name in ('numpy', 'torch', 'pandas') if name in sys.modules])"
    assert python(f"import sys, vcell; dir(vcell); {heavy}", tmp_path).stdout == "[]\n"


def test_every_command_is_a_function():
    for name in discover().plugins:
        assert name.replace("-", "_") in dir(vcell)
    assert "select_genes" in dir(vcell)
    with pytest.raises(AttributeError, match="no attribute 'selct_genes'"):
        vcell.selct_genes  # noqa: B018


def test_the_api_reference_is_current(tmp_path):
    written = (REPOSITORY / "docs" / "api.md").read_text()
    script = REPOSITORY / "docs" / "make_api_reference.py"
    subprocess.run(
        [sys.executable, script, tmp_path / "api.md"], env=clean_environment(), check=True
    )
    assert written == (tmp_path / "api.md").read_text(), "run make docs"
    named = set(re.findall(r"^### (.+)$", written, re.MULTILINE))
    assert {"vcell.train", "vcell.predict", "vcell.data.open_cells", "vcell.runs.Run"} <= named


def test_functions_explain_themselves():
    for name in ("select_genes", "predict", "score", "de", "prepare"):
        assert len(getattr(vcell, name).__doc__) > 100, name


@pytest.fixture(scope="module")
def adata():
    return vcell.simulate(cells=600, genes=80, perturbations=6, seed=2)


def test_verbose_speaks_and_silence_is_the_default(adata, capfd):
    table = vcell.select_genes(adata, n_genes=40, phases=(40,))
    assert capfd.readouterr() == ("", "")
    again = vcell.select_genes(adata, n_genes=40, phases=(40,), verbose=True)
    spoken = capfd.readouterr()
    assert spoken.out == ""
    assert "counts" in spoken.err
    assert again.equals(table)


def test_what_a_path_gives_an_open_source_gives(adata, tmp_path):
    from vcell.data import open_cells

    adata.write_h5ad(tmp_path / "cells.h5ad")
    settings = {"n_genes": 40, "phases": (40,)}
    wanted = vcell.select_genes(tmp_path / "cells.h5ad", **settings)
    with open_cells(tmp_path / "cells.h5ad") as source:
        assert vcell.select_genes(source, **settings).equals(wanted)
        assert next(source.chunks()).nnz  # and it is open still
    assert vcell.select_genes(str(tmp_path / "cells.h5ad"), **settings).equals(wanted)


def test_results_are_those_of_the_command_line(vcell, adata, tmp_path):
    import vcell as library

    adata.write_h5ad(tmp_path / "cells.h5ad")
    ran = vcell("inspect", tmp_path / "cells.h5ad", "--json")
    assert library.inspect(tmp_path / "cells.h5ad") == ran.json


def test_mistakes_are_errors_with_the_sentence_and_the_hint(tmp_path):
    with pytest.raises(UserError, match="does not exist") as caught:
        vcell.inspect(tmp_path / "cels.h5ad")
    assert "Traceback" not in str(caught.value)
    with pytest.raises(UserError, match="n_genes must be a whole number"):
        vcell.select_genes("x.h5ad", n_genes="many")
    with pytest.raises(UserError, match="no cells to train on") as caught:
        vcell.train()
    assert caught.value.__notes__ == [f"hint: {caught.value.hint}"]


def test_warnings_are_pythons(adata, tmp_path):
    from vcell import console, library

    def tell(text):
        console.warn(text)

    with pytest.warns(VcellWarning, match="slower"):
        library._quiet(tell)("this is the slower way")
    assert console.settings.warned is None


def test_commands_that_take_files_take_cells_in_memory(adata, tmp_path):
    vcell.prepare(adata, output=tmp_path / "some.zarr")
    vcell.convert(adata, tmp_path / "some.h5ad")
    for path, read in (("some.zarr", ad.read_zarr), ("some.h5ad", ad.read_h5ad)):
        found = read(tmp_path / path)
        assert found[adata.obs_names].X.toarray().tolist() == adata.X.toarray().tolist()
    with open_cells(tmp_path / "some.h5ad") as source:
        vcell.convert(source, tmp_path / "again.h5ad")
    assert ad.read_h5ad(tmp_path / "again.h5ad").shape == adata.shape
    made = vcell.train_gmvae(adata, labels="batch", max_steps=2, runs=tmp_path / "runs")
    (cells,) = (tmp_path / "runs").glob("cells-*.h5ad")  # a run is resumed from there
    assert Run.open(made["run"]).meta["config"]["cells"] == str(cells)


def test_training_keeps_the_cells_of_memory_once(adata, tmp_path):
    runs = [vcell.train(adata, model="mean", runs=tmp_path) for _ in range(2)]
    assert [run.status() for run in runs] == ["done", "done"]
    assert len(list(tmp_path.glob("cells-*.h5ad"))) == 1
    assert repr(runs[0]) == f"Run({str(runs[0].path)!r}, done)"
    cells = vcell.predict(runs, ["GENE00002"], n_cells=4, controls=0)
    assert cells.obs["target_gene"].tolist() == ["GENE00002"] * 4
