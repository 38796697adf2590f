"""The page of every command in a real browser: phone and desktop, awkward names, little data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from tests.browser import Browser, chromium
from tests.gmvae.conftest import planted
from tests.isp.made_up import run_of, shifts_of
from vcell.patients.simulate import PatientDesign, write

HARD = ("<script>alert(1)</script> & \"q\" 'r'", "häßliches Gen 遺伝子", "n" * 80)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as one:
        yield one


def screen(path: Path, targets: tuple[str, ...], *, genes: int = 60, seed: int = 0) -> Path:
    """Write 40 control cells and 30 of each target, which halves its own gene."""
    rng = np.random.default_rng(seed)
    names = [*targets, *(f"GENE{i}" for i in range(genes - len(targets)))][:genes]
    labels = np.repeat(["non-targeting", *targets], [40, *(30 for _ in targets)])
    counts = rng.poisson(rng.gamma(2.0, 2.0, genes), (len(labels), genes))
    for i, target in enumerate(targets[:genes]):
        counts[labels == target, i] //= 4
    obs = pd.DataFrame({"target_gene": labels, "cell_type": HARD[1]})
    obs.index = obs.index.map("cell{}".format)
    cells = anndata.AnnData(
        sparse.csr_matrix(counts.astype(np.float32)), obs=obs, var=pd.DataFrame(index=names)
    )
    cells.write_h5ad(path)
    return path


def inspect(vcell, folder: Path) -> list[Path]:
    """Three awkward names; one perturbation of one gene; types without perturbations."""
    pages = []
    typed = planted(40, 1)
    typed.obs["cell_type"] = [HARD[i % 3] for i in range(40)]
    typed.obsm["X_umap"] = np.random.default_rng(0).normal(size=(40, 2))
    typed.write_h5ad(folder / "types.h5ad")
    for name, cells in (
        ("hard", screen(folder / "hard.h5ad", HARD)),
        ("one", screen(folder / "one.h5ad", ("A",), genes=1)),
        ("types", folder / "types.h5ad"),
    ):
        pages.append(folder / f"{name}.html")
        ran = vcell("inspect", cells, "--html", pages[-1])
        assert ran.code == 0, ran.err
    return pages


def isp(vcell, folder: Path) -> list[Path]:
    """Both operations, and one gene without nulls."""
    rng = np.random.default_rng(5)
    both = []
    for how, sign in (("delete", 1), ("overexpress", -1)):
        frame = shifts_of(rng, 30, 12, effect={10: sign * 5e-3, 11: 5e-3})
        symbols = dict(zip(["G10", "G11", "G12"], HARD, strict=True))
        frame["symbol"] = frame["symbol"].replace(symbols)
        both.append(run_of(folder, frame, operation=how, missing={HARD[0]: "no token"}))
    pages = []
    for name, runs in (("both", both), ("one", [run_of(folder, shifts_of(rng, 1, 12))])):
        ran = vcell("isp", "stats", *(run.path for run in runs), "-o", f"{name}.csv")
        assert ran.code == 0, ran.err
        pages.append(folder / f"{name}.html")
    return pages


def evaluate(vcell, folder: Path) -> list[Path]:
    """Three perturbations with awkward names, and a single one, which has no PDS."""
    pages = []
    for name, targets in (("hard", HARD), ("one", HARD[:1])):
        real = screen(folder / f"{name}.h5ad", targets)
        said = screen(folder / f"{name}-said.h5ad", targets, seed=1)
        ran = vcell("evaluate", said, real, "-o", folder / name)
        assert ran.code == 0, ran.err
        pages.append(folder / name / "index.html")
    return pages


def select_genes(vcell, folder: Path) -> list[Path]:
    """Genes of a small screen."""
    cells = screen(folder / "hard.h5ad", HARD)
    ran = vcell("select-genes", cells, "--n-genes", "20", "-o", folder / "genes")
    assert ran.code == 0, ran.err
    return [folder / "genes" / "coverage.html"]


def graph_profile(vcell, folder: Path) -> list[Path]:
    """Synthetic graphs, all strategies and references."""
    ran = vcell(
        "graph-profile", "--scale", "0.05", "--batch-size", "2", "--steps", "1", "--seconds", "0",
        "--strategy", "all", "-o", folder / "page.html",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    return [folder / "page.html"]


def train_bulk(vcell, folder: Path) -> list[Path]:
    """PatientDesign, an ablation, the figures, and the run's report."""
    few = PatientDesign(patients=18, cells=30, types=3, genes=90, pairs=4, library=300.0)
    write(few, folder / "cells.h5ad", folder / "pairs.csv")
    for words in (
        ("train-bulk", "cells.h5ad", "--pairs", "pairs.csv", "--cell-type-column", "cell_type",
         "--steps", "10", "--axes", "4", "--members", "1", "--folds", "3", "--inner-folds", "2"),
        ("ablate", "latest"), ("figures", "all", "latest", "-o", "figures"),
        ("report", "latest", "-o", "report.html"),
    ):  # fmt: skip
        ran = vcell(*words)
        assert ran.code == 0, ran.err
    drawn = sorted((folder / "figures").glob("*.svg"))
    assert {"roc", "ablation"} <= {path.stem for path in drawn}
    return [*(folder / "runs").glob("*/index.html"), folder / "report.html", *drawn]


def train_gmvae(vcell, folder: Path) -> list[Path]:
    """A few steps on labels with awkward names, with the run's report."""
    cells = planted(240, 1)
    cells.obs["kind"] = [(*HARD, "type")[int(k[-1])] for k in cells.obs["kind"]]
    cells.write_h5ad(folder / "cells.h5ad")
    for words in (
        ("train-gmvae", "cells.h5ad", "--labels", "kind", "--max-steps", "20"),
        ("report", "latest", "-o", "report.html"),
    ):
        ran = vcell(*words)
        assert ran.code == 0, ran.err
    return [*(folder / "runs").glob("*/index.html"), folder / "report.html"]


@pytest.mark.parametrize(
    "made",
    [inspect, isp]
    + [
        pytest.param(one, marks=pytest.mark.slow)
        for one in (evaluate, select_genes, graph_profile, train_bulk, train_gmvae)
    ],
)
def test_pages_have_no_layout_problems(typed, tmp_path, browser: Browser, made) -> None:
    pages = made(typed, tmp_path)
    assert pages
    for page in pages:
        for width in (390, 1200):
            browser.open(page, width)
            assert browser.objections() == [], (page, width)
