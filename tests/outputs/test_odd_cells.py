"""Files of cells as people have them: read as what they are, or refused in one clear sentence."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

if TYPE_CHECKING:
    from tests.support import Ran

NAMES = ["control", "G1", "G2"]


def screen() -> anndata.AnnData:
    rng = np.random.default_rng(0)
    cells = anndata.AnnData(sp.csr_matrix(rng.poisson(3, (90, 12)).astype(np.float32)))
    cells.obs["perturbation"] = pd.Categorical(np.repeat(NAMES, 30))
    cells.var_names = [f"G{i}" for i in range(12)]
    return cells


@pytest.fixture
def told(typed, tmp_path) -> Callable[..., Ran]:
    """Run a command on some cells; {} is their file."""

    def run(cells: anndata.AnnData | bytes | Callable[[Any], None], *words: str) -> Ran:
        path = tmp_path / "cells.h5ad"
        if isinstance(cells, bytes):
            path.write_bytes(cells)
        elif isinstance(cells, anndata.AnnData):
            cells.write_h5ad(path)
        else:
            screen().write_h5ad(path)
            with h5py.File(path, "a") as file:
                cells(file)
        ran = typed(*(word.replace("{}", path.name) for word in words))
        assert ran.code in (0, 2), ran.err
        assert "Traceback" not in ran.err
        return ran

    return run


@pytest.mark.parametrize("form", [sp.csr_matrix, np.asarray])
@pytest.mark.parametrize("command", ["prepare", "csc", "de", "inspect"])
def test_half_floats_are_numbers_like_others(told, tmp_path, form, command):
    """numba has no such type, and scipy no sparse matrix of it."""

    def halved(file: h5py.File) -> None:
        if form is sp.csr_matrix:
            values = file["X/data"][...].astype(np.float16)
            del file["X/data"]
            file["X/data"] = values
        else:
            table = screen().X.toarray().astype(np.float16)
            del file["X"]
            file["X"] = table

    words = {
        "prepare": ("prepare", "{}", "-o", "store", "--min-genes", "1"),
        "csc": ("convert", "{}", "by-gene.h5ad", "--to", "csc"),
        "de": ("de", "{}", "-o", "de.csv"),
        "inspect": ("inspect", "{}", "--full"),
    }[command]
    assert told(halved, *words).code == 0
    if command == "csc":
        found = anndata.read_h5ad(tmp_path / "by-gene.h5ad").X
        assert found.dtype == np.float32
        assert (found.toarray() == screen().X.toarray()).all()


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (gzip.compress(b"\x89HDF", mtime=0), "gunzip"),
        (b"PK\x03\x04 and more", "zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html>\n<title>404", "web page"),
    ],
    ids=["gzip", "zip", "git-lfs", "html"],
)
def test_what_was_downloaded_instead_is_named(told, content, hint):
    ran = told(content, "inspect", "{}")
    assert "is not a file with cells" in ran.err
    assert hint in ran.err


def test_values_that_are_only_in_raw_are_pointed_to(told, typed):
    cells = screen()
    cells.layers["counts"] = cells.X.copy()
    cells.raw = cells.copy()
    cells.X = None
    assert "--layer what it has instead: raw, counts" in told(cells, "inspect", "{}").err
    assert typed("inspect", "cells.h5ad", "--layer", "raw").code == 0


@pytest.mark.parametrize("version", [2, 3])
def test_a_raw_that_is_none_is_none(typed, tmp_path, version):
    """anndata writes None as an array of its own kind."""
    import zarr

    with warnings.catch_warnings(), anndata.settings.override(zarr_write_format=version):
        warnings.simplefilter("ignore")
        screen().write_zarr(tmp_path / "cells.zarr")
        root = zarr.open_group(tmp_path / "cells.zarr", mode="r+")
        if "raw" not in root:  # anndata before 0.12
            root.create_array("raw", shape=(), dtype=bool)
            root["raw"].attrs.update({"encoding-type": "null", "encoding-version": "0.1.0"})
            zarr.consolidate_metadata(root.store)
    ran = typed("convert", "cells.zarr", "copy.h5ad")
    assert ran.code == 0, ran.err
    assert typed("inspect", "cells.zarr", "--json").json["problems"] == []
    assert "has no raw" in typed("inspect", "cells.zarr", "--layer", "raw").err


def test_a_broken_link_inside_a_file_is_named(told):
    def linked(file: h5py.File) -> None:
        del file["obs/perturbation"]
        file["obs/perturbation"] = h5py.SoftLink("/nowhere")

    ran = told(linked, "de", "{}", "-o", "de.csv")
    assert "cells.h5ad/obs/perturbation cannot be read: Unable" in ran.err
    assert "a link inside the file leads to something that is not there" in ran.err


def labelled(*labels: object) -> anndata.AnnData:
    cells = screen()
    cells.obs["perturbation"] = pd.Categorical((list(labels) * 90)[:90])
    return cells


@pytest.mark.parametrize(
    ("labels", "words", "said"),
    [
        ((None,), ("de", "{}", "-o", "o.csv"), "has no label for any cell"),
        ((None,), ("de", "{}", "--against", "rest", "-o", "o.csv"), "has no label for any cell"),
        (("control",), ("de", "{}", "-o", "o.csv"), "there is nothing to compare them with"),
        (
            ("control",),
            ("de", "{}", "--against", "rest", "-o", "o.csv"),
            "there is nothing to compare them with",
        ),
        (("control",), ("evaluate", "{}", "{}"), "all their labelled cells are 'control'"),
    ],
)
def test_a_screen_that_compares_nothing_is_refused(told, labels, words, said):
    ran = told(labelled(*labels), *words)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


def test_groups_without_a_control_are_compared_with_the_rest(told):
    ran = told(labelled("A", "B"), "de", "{}", "--against", "rest", "-o", "o.csv")
    assert ran.code == 0, ran.err
    assert "groups in 'perturbation' (2), each against the rest" in ran.err


def test_inspect_reports_labels_that_are_hardly_meant(told):
    said = told(labelled("control", "G1", "", "nan"), "inspect", "{}", "--json").json["problems"]
    assert sum("which is taken as a perturbation" in problem for problem in said) == 2
    (said,) = told(labelled("control"), "inspect", "{}", "--json").json["problems"]
    assert said == "no cell is perturbed: all that 'perturbation' labels are 'control'"


def test_values_near_zero_are_no_logarithms_of_counts(told):
    """exp(x) - 1 of them all is 0 to four digits."""
    cells = screen()
    cells.X = cells.X * np.float32(1e-30)
    found = told(cells, "inspect", "{}", "--json").json["values"]
    assert "gives whole numbers" not in found["evidence"]


def test_an_address_is_no_file(typed):
    ran = typed("inspect", "https://example.org/cells.h5ad")
    assert ran.code == 2
    assert "is an address, not a file" in ran.err
    assert "hint: download it first" in ran.err


def test_a_missing_column_of_strata_is_reported_before_the_values_are_read(told):
    ran = told(screen(), "de", "{}", "--stratify", "nope", "-o", "o.csv")
    assert "obs has no column 'nope'" in ran.err
    assert "raw counts" not in ran.err


def test_a_member_without_a_value_gives_no_overall_score(told):
    """Real cells that are all alike: no gene differs, and no error can be set in relation."""
    cells = screen()
    cells.X = sp.csr_matrix(np.tile(np.arange(12, dtype=np.float32), (90, 1)))
    ran = told(cells, "evaluate", "{}", "{}", "--rules", "vcc2026")
    assert ran.code == 0, ran.err
    assert "nan" not in ran.out
    assert "overall" not in ran.out
    assert "no overall score, as a member has no value" in ran.err


def test_one_cell_is_one_cell(told):
    ran = told(screen()[:1].copy(), "select-genes", "{}")
    assert ran.code == 2
    assert "of 1 cell)" in ran.err
    assert "error: only one cell is left: there is no variance to rank genes by" in ran.err


def test_a_score_of_one_gene_comes_with_a_warning(told):
    ran = told(screen()[:, :1].copy(), "evaluate", "{}", "{}")
    assert "only the gene G0 is scored" in ran.err


def test_values_that_are_no_logarithms_are_described_once(told):
    cells = screen()
    cells.X = cells.X.toarray() - np.float32(2.5)
    ran = told(cells, "de", "{}", "-o", "o.csv")
    (error,) = (line for line in ran.err.splitlines() if line.startswith("error: "))
    assert error.count("neither counts nor log1p") == 1
